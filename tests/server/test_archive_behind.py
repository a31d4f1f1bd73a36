"""Claims about an archive that falls behind while a server moves a world: ticks wait, and whoever asks gets an answer."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.server.answers import until
from tests.server.application import application
from tickwire_engine import WorldConfig, failpoints
from tickwire_engine.errors import StorageFullError
from tickwire_engine.failpoints import Failpoints
from tickwire_engine.storage import archiver
from tickwire_engine.storage.archiver import ArchiveOptions
from tickwire_engine.storage.store import StoreOptions
from tickwire_server.container import ServiceContainer

if TYPE_CHECKING:
    from pathlib import Path

OPTIONS = StoreOptions(archive=ArchiveOptions(max_bytes=10_000, idle_s=0.05, max_lag_bytes=50_000))


async def test_ticks_that_wait_for_the_archive_can_be_paused_and_go_on_once_it_has_caught_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = Failpoints("archive.append.before=enospc")
    monkeypatch.setattr(failpoints, "armed", lambda: points)
    monkeypatch.setattr(archiver, "_RETRY_S", 3_600.0)
    container = ServiceContainer(tmp_path / "data", app=application(), options=OPTIONS)
    try:
        world = await container.world_service.create_world(WorldConfig(name="w", template="line"))
        mover = container.mover(world)
        await mover.play(0.0, 0, {}, expected_tick=None)
        await until(lambda: mover.waiting)
        assert world.archive_is_behind
        await mover.pause()
        stopped = world.tick
        with pytest.raises(StorageFullError, match="archive") as told:
            await mover.step(1, {}, max_wait_s=0.0)
        assert told.value.metadata["ticks_done"] == "0"
        assert world.tick == stopped
        await container.engine.store.archiver.archive_now(world.row.key)
        async with asyncio.timeout(60):
            result = await mover.step(5, {})
        assert (result.first_tick, result.last_tick) == (stopped, stopped + 4)
    finally:
        await container.shutdown()
