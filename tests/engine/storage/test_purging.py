"""Claims about destroyed worlds: nothing is left of them, but what others share and that they were."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.engine.storage.conftest import QUIET
from tests.engine.storage.samples import SampleWorld, assert_history_is_whole, new_world, run, world_row
from tickwire_engine.errors import TickNotKeptError, WorldDestroyedError, WorldExistsError
from tickwire_engine.storage._purging import leftovers
from tickwire_engine.storage.archiver import ArchiveOptions
from tickwire_engine.storage.reader import StoreReader

if TYPE_CHECKING:
    from tests.engine.storage.conftest import Directory
    from tickwire_engine.storage.store import Store, StoreOptions

AT_ONCE = replace(QUIET, segment_bytes=1 << 20, archive=ArchiveOptions(idle_s=3_600.0, ended_s=0.0))
LATER = replace(QUIET, segment_bytes=1 << 20, archive=ArchiveOptions(idle_s=3_600.0, ended_s=3_600.0))
HISTORY = ("applied", "commands", "results", "ticks", "records", "spans", "snapshots", "streams", "datasets")


def rows_of(store: Store, world: int) -> int:
    with store._journal.read() as connection:
        return sum(
            connection.execute(f"SELECT count(*) FROM {table} WHERE world = ?", (world,)).get
            for table in HISTORY
        )


async def purged(store: Store, world: int) -> None:
    async with asyncio.timeout(30):
        while True:
            with store._journal.read() as connection:
                if world not in leftovers(connection):
                    return
            await asyncio.sleep(0.01)


async def lived(store: Store, name: str) -> SampleWorld:
    """A world with history in the archive, in the tick log and in the journal, and with commands that wait."""
    world = await new_world(store, name, rows=3_000)
    await run(store, world, 6, commands=2)
    await store.archiver.archive_now(world.key)
    await run(store, world, 4, commands=2)
    await store.accept(world.key, world.commands(3, table_bytes=200_000))
    return world


@pytest.mark.parametrize("options", [AT_ONCE, LATER], ids=["running", "at the next start"])
async def test_nothing_is_left_of_a_destroyed_world(directory: Directory, options: StoreOptions) -> None:
    store = directory.open(options)
    gone = await lived(store, "gone")
    stays = await lived(store, "stays")
    await store.destroy_world(gone.key, 1)
    # The name is free at once, the id never again.
    again = await new_world(store, "gone")
    if options is LATER:
        with pytest.raises(TickNotKeptError):
            next(store.history.ticks(gone.key, -1, 9))
        assert len(list(store.history.ticks(gone.key, 0, 99))) == 10
        store = directory.open(AT_ONCE)
    await purged(store, gone.key)
    assert rows_of(store, gone.key) == 0
    store = directory.open(AT_ONCE)
    archive = directory.path / "archive"
    living = {store._ids[world.key].hex() for world in (stays, again)}
    assert {path.parent.name.replace("-", "") for path in archive.glob("*/*.lance")} <= living
    with pytest.raises(TickNotKeptError):
        next(store.history.ticks(gone.key, 0, 9))
    with pytest.raises(WorldDestroyedError):
        await store.accept(gone.key, gone.commands(1))
    with pytest.raises(WorldExistsError):
        await store.create_world(replace(world_row("gone-too"), id=store._ids[gone.key]))
    assert [row.row.key for row in store.recover()] == [gone.key, stays.key, again.key]
    assert_history_is_whole(store, stays)
    await run(store, stays, 2)
    await store.archiver.archive_now(stays.key)
    assert_history_is_whole(store, stays)


async def test_the_segments_that_only_a_destroyed_world_needed_go_too(directory: Directory) -> None:
    store = directory.open(AT_ONCE)
    world = await lived(store, "gone")
    assert list((directory.path / "log").glob("*.seg"))
    await store.destroy_world(world.key, 1)
    await purged(store, world.key)
    directory.open(AT_ONCE)
    assert not list((directory.path / "log").glob("*.seg"))


async def test_what_others_pinned_of_a_destroyed_world_stays_until_they_go(directory: Directory) -> None:
    store = directory.open(AT_ONCE)
    shared = await lived(store, "shared")
    holder = await new_world(store, "holder")
    await store.pin(shared.key, 8, store._ids[holder.key])
    await store.destroy_world(shared.key, 1)
    async with asyncio.timeout(30):
        while store.history.kept_ticks(shared.key, 0, 99) != [8]:  # noqa: ASYNC110  (another thread's work)
            await asyncio.sleep(0.01)
    for _ in range(2):
        expected = {stream: frame for stream, (_, frame) in shared.state_at(8).items()}
        assert store.history.frames_at(shared.key, 8) == expected
        assert store.history.tick(shared.key, 8).summary == shared.commits[8].summary
        store = directory.open(AT_ONCE)
    await store.destroy_world(holder.key, 1)
    await purged(store, shared.key)
    assert rows_of(store, shared.key) == 0


async def test_readers_in_other_processes_put_off_what_is_deleted(directory: Directory) -> None:
    store = directory.open(AT_ONCE)
    world = await lived(store, "gone")
    reader = StoreReader(directory.path)
    await store.destroy_world(world.key, 1)
    other = await new_world(store, "other")
    await run(store, other, 2)
    await store.archiver.archive_now(other.key)
    assert_history_is_whole(reader, world)
    reader.close()
    store = directory.open(AT_ONCE)
    await purged(store, world.key)


async def test_who_waits_for_the_archive_of_a_destroyed_world_is_told(directory: Directory) -> None:
    store = directory.open(AT_ONCE)
    world = await lived(store, "gone")
    waiting = store.archiver.wait_archived(world.key, 99)
    await store.destroy_world(world.key, 1)
    with pytest.raises(WorldDestroyedError):
        await asyncio.wait_for(waiting, 30)
