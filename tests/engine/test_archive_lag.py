"""Claims about an archive that falls behind: ticks wait for it, the journal stays bounded, and all goes on by itself."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.engine.parts import Drift, Place, Speed, setup
from tickwire_engine import Engine, WorldConfig, failpoints
from tickwire_engine.config import RunConfig
from tickwire_engine.errors import WorldDestroyedError
from tickwire_engine.failpoints import Failpoints
from tickwire_engine.storage import archiver
from tickwire_engine.storage.archiver import ArchiveOptions
from tickwire_engine.storage.store import StoreOptions

if TYPE_CHECKING:
    from pathlib import Path

    from tickwire_engine import AsyncWorld

LIMIT = 200_000
OPTIONS = StoreOptions(archive=ArchiveOptions(max_bytes=50_000, idle_s=0.05, max_lag_bytes=LIMIT))
TICKS = 400


async def crowd(engine: Engine, name: str) -> AsyncWorld:
    world = await engine.create_world(WorldConfig(name=name))
    await world.add_processor(Drift())
    await world.create_entities([[Place(), Speed()]] * 100)
    await world.step()
    return world


async def held_up(engine: Engine, world: AsyncWorld) -> None:
    async with asyncio.timeout(60):
        while not engine.store.archiver.lag.is_over(world.row.key):  # noqa: ASYNC110  (told to nobody else)
            await asyncio.sleep(0.01)


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """The archive's next append finds no room, once; it is tried again a while later."""
    points = Failpoints("archive.append.before=enospc")
    monkeypatch.setattr(failpoints, "armed", lambda: points)


@pytest.mark.usefixtures("full_disk")
async def test_ticks_wait_for_an_archive_that_is_behind_and_go_on_by_themselves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archiver, "_RETRY_S", 1.0)
    async with await Engine.open(tmp_path, setup(), options=OPTIONS) as engine:
        world = await crowd(engine, "w")
        running = asyncio.create_task(world.run(RunConfig(num_steps=TICKS)))
        await held_up(engine, world)
        stopped = world.tick
        # Commands are taken all the while.
        await world.create_entity([Place()])
        assert not running.done()
        with engine.store._journal.read() as connection:
            assert connection.execute("SELECT sum(bytes) FROM ticks").get < 2 * LIMIT
        async with asyncio.timeout(60):
            await running
        assert stopped < world.tick == TICKS + 1
        await engine.store.archiver.archive_now(world.row.key)
        assert not engine.store.archiver.lag.is_over(world.row.key)
        assert len(list(engine.store.history.ticks(world.row.key, 0, TICKS))) == TICKS + 1


@pytest.mark.usefixtures("full_disk")
async def test_a_world_that_waits_for_the_archive_holds_up_no_other_and_can_be_destroyed(
    tmp_path: Path,
) -> None:
    async with await Engine.open(tmp_path, setup(), options=OPTIONS) as engine:
        world = await crowd(engine, "w")
        running = asyncio.create_task(world.run(RunConfig(num_steps=TICKS)))
        await held_up(engine, world)
        other = await crowd(engine, "other")
        await other.step()
        await engine.destroy_world("w")
        with pytest.raises(WorldDestroyedError):
            await running


@pytest.mark.usefixtures("full_disk")
async def test_a_world_that_waited_for_the_archive_when_it_was_closed_goes_on_at_the_next_start(
    tmp_path: Path,
) -> None:
    engine = await Engine.open(tmp_path, setup(), options=OPTIONS)
    world = await crowd(engine, "w")
    running = asyncio.create_task(world.run(RunConfig(num_steps=TICKS)))
    await held_up(engine, world)
    await engine.close()
    assert (await asyncio.gather(running, return_exceptions=True))[0] is not None
    async with await Engine.open(tmp_path, setup(), options=OPTIONS) as engine:
        world = engine.world("w")
        async with asyncio.timeout(60):
            await world.run(RunConfig(num_steps=TICKS - world.tick))
        assert world.tick == TICKS
