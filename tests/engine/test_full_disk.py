"""What goes on when the disk is full: cancelling, destroying, trimming, reading; and what does not, and waits."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.engine.parts import Drift, Place, Speed, setup
from tests.system.small_disk import SmallDisk, small_disk
from tickwire_engine import Engine, RunConfig, WorldConfig
from tickwire_engine.command import CommandType
from tickwire_engine.errors import StorageFullError, WorldDestroyedError
from tickwire_engine.ids import uuid7
from tickwire_engine.storage._archiving import Trim
from tickwire_engine.storage.archiver import ArchiveOptions
from tickwire_engine.storage.store import StoreOptions
from tickwire_engine.submission import Submission

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tickwire_engine import AsyncWorld

MB = 1 << 20
OPTIONS = StoreOptions(min_free_bytes=8 * MB, ballast_bytes=2 * MB, archive=ArchiveOptions(idle_s=3600.0))


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk(tmp_path / "disk", 64) as made:
        yield made


async def _until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not holds():  # noqa: ASYNC110  (another thread's work)
            await asyncio.sleep(0.01)


async def _write_on(engine: Engine, world: AsyncWorld, holds: Callable[[], bool]) -> None:
    """Write small things that are tried to the last byte; the journal's log has some room of its own."""
    with contextlib.suppress(StorageFullError):
        while holds():
            await engine.store.pin(world.row.key, 0, uuid7().bytes)


async def test_the_ballast_keeps_room_for_cancels_ends_and_trims(disk: SmallDisk) -> None:
    engine = await Engine.open(disk.path / "data", setup(), options=OPTIONS)
    try:
        kept = await engine.create_world(WorldConfig(name="kept"))
        ended = await engine.create_world(WorldConfig(name="ended"))
        for world in (kept, ended):
            await world.add_processor(Drift())
            await world.create_entities([[Place(), Speed()]])
            await world.run(RunConfig(num_steps=20))
        await engine.store.archiver.archive_now(kept.row.key)
        await kept.run(RunConfig(num_steps=20))
        submission = Submission(
            CommandType.SPAWN, {"components": {"Place": {}}}, id=uuid7().bytes, tick=1 << 40
        )
        (receipt,) = await kept.submit([submission])
        assert receipt.command is not None
        ballast = disk.path / "data" / "BALLAST"
        assert ballast.stat().st_size == 2 * MB

        disk.fill()
        # Somebody must have written to see it.
        with pytest.raises(StorageFullError):
            await kept.create_entities([[Place()]])
        assert engine.store.lacks_room
        with pytest.raises(StorageFullError):
            await kept.step()
        assert kept.fault is None
        again = await kept.submit([submission])
        assert again[0].duplicate, "a known command is answered"
        assert kept.read([Place]).num_rows == 1
        assert len(list(engine.store.history.ticks(kept.row.key, 0, 39))) == 40

        await _write_on(engine, kept, ballast.exists)
        assert not ballast.exists()
        outcome = await engine.store.cancel(kept.row.key, receipt.command.seq)
        assert outcome.cancelled
        await engine.destroy_world("ended")
        while await asyncio.to_thread(engine.store._journal.call, Trim(kept.row.key, 5, MB)):
            pass
        assert engine.store.failed is None

        disk.free()
        await _until(lambda: not engine.store.lacks_room)
        assert ballast.stat().st_size == 2 * MB
        await kept.step()
        await kept.create_entities([[Place()]])
    finally:
        await engine.close()
    assert not ballast.exists()
    engine = await Engine.open(disk.path / "data", setup(), options=OPTIONS)
    try:
        assert [world.name for world in engine.worlds] == ["kept"]
        assert engine.world("kept").tick == 41
    finally:
        await engine.close()


async def test_ticks_in_flight_wait_for_room_and_a_world_ends_all_the_same(disk: SmallDisk) -> None:
    options = replace(OPTIONS, ballast_bytes=0)
    engine = await Engine.open(disk.path / "data", setup(), options=options)
    try:
        kept = await engine.create_world(WorldConfig(name="kept"))
        ended = await engine.create_world(WorldConfig(name="ended"))
        for world in (kept, ended):
            # Ticks that go to the log's segments, where nothing is reserved on so small a disk.
            await world.add_processor(Drift())
            await world.create_entities([[Place(), Speed()]] * 5_000)
            await world.step()
        disk.fill()
        waiting = [await kept.advance(), await ended.advance()]
        await _until(lambda: engine.store.lacks_room)
        await _write_on(engine, kept, lambda: True)
        with pytest.raises(StorageFullError):
            await kept.step()
        with pytest.raises(StorageFullError):
            await engine.destroy_world("ended")
        disk.give_back(256 << 10)
        await engine.destroy_world("ended")
        with pytest.raises(WorldDestroyedError):
            await waiting[1]
        assert not waiting[0].done()
        disk.free()
        await waiting[0]
        await kept.step()
        assert kept.tick == 3
    finally:
        await engine.close()


async def test_a_start_on_a_full_disk_says_so_and_keeps_what_there_was(disk: SmallDisk) -> None:
    engine = await Engine.open(disk.path / "data", setup(), options=OPTIONS)
    world = await engine.create_world(WorldConfig(name="w"))
    await world.step()
    await engine.close()
    disk.fill()
    with pytest.raises(StorageFullError, match="no room on the disk"):
        await Engine.open(disk.path / "data", setup(), options=OPTIONS)
    disk.free()
    engine = await Engine.open(disk.path / "data", setup(), options=OPTIONS)
    try:
        assert engine.world("w").tick == 1
    finally:
        await engine.close()
