"""Claims about retention: what is kept can be read as it was, what is not is refused, and pins hold what they hold."""

from __future__ import annotations

import os
import random
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.engine.storage.conftest import QUIET
from tests.engine.storage.samples import STATIC, SampleWorld, assert_history_is_whole, new_world, retain, run
from tickwire_engine.errors import TickInTheFutureError, TickNotKeptError
from tickwire_engine.storage._archiving import datasets
from tickwire_engine.storage._upkeep import UpkeepLimits
from tickwire_engine.storage.archiver import ArchiveOptions
from tickwire_engine.storage.retention import Kept, Retention, Thinned

if TYPE_CHECKING:
    from tests.engine.storage.conftest import Directory
    from tickwire_engine.storage.archive import Dataset
    from tickwire_engine.storage.store import Store

TIGHT = replace(
    QUIET, archive=ArchiveOptions(idle_s=3600.0, upkeep=UpkeepLimits(dataset_ticks=3, kept_records=5))
)
"""Datasets are sealed, and what is left of them too, after a few ticks."""


def datasets_of(store: Store) -> list[Dataset]:
    with store._journal.read() as connection:
        return datasets(connection)


def folders(directory: Directory) -> set[str]:
    """The datasets that there are on disk."""
    archive = directory.path / "archive"
    return {str(path.relative_to(archive).with_suffix("")) for path in archive.glob("*/*.lance")}


def assert_kept(store: Store, world: SampleWorld, kept: list[int]) -> None:
    """Exactly these ticks can be read, whole; those from the floor on in one go too."""
    history, key, last = store.history, world.key, world.tick - 1
    floor = history.earliest_tick(key)
    assert history.kept_ticks(key, 0, last) == kept
    assert {type(tick) for tick in history.kept_ticks(key, 0, last)} <= {int}
    for tick in range(world.tick):
        if tick in kept:
            expected = world.state_at(tick)
            assert history.frames_at(key, tick) == {s: frame for s, (_, frame) in expected.items()}
            assert {s: at for s, (at, _) in history.state_at(key, tick).items()} == {
                s: at for s, (at, _) in expected.items()
            }
            assert history.tick(key, tick).summary == world.commits[tick].summary
            assert history.snapshots_at(key, tick) == {"dice": b"d%d" % (tick // 3 * 3)}
        else:
            for read in (history.frames_at, history.state_at, history.tick, history.snapshots_at):
                with pytest.raises(TickNotKeptError) as refused:
                    read(key, tick)
                assert refused.value.metadata == {"tick": str(tick), "earliest": str(floor)}
    assert [t.changed for t in history.ticks(key, floor, last)] == [
        commit.frames for commit in world.commits[floor:]
    ]
    assert [s.tick for s in history.summaries(key, 0, last)] == list(range(floor, world.tick))
    if floor:
        with pytest.raises(TickNotKeptError):
            next(history.ticks(key, floor - 1, last))


async def test_a_world_keeps_its_newest_ticks_and_of_older_ones_each_nth(directory: Directory) -> None:
    store = directory.open()
    world = await new_world(store)
    await retain(store, world.key, Retention(keep_ticks=10, keep_every=6))
    for _ in range(4):
        await run(store, world, 8, commands=1)
        await store.archiver.archive_now(world.key)
    kept = [0, 6, 12, 18, *range(22, 32)]
    assert_kept(store, world, kept)
    assert_kept(directory.open(), world, kept)


async def test_what_is_not_kept_is_deleted_and_what_kept_ticks_need_is_not(directory: Directory) -> None:
    """A stream that changes in every tick, one that never does, one that comes and goes; snapshots; all kept by turns."""
    store = directory.open(TIGHT)
    world = await new_world(store)
    rng = random.Random(5)
    kept = Kept(0)
    pins: dict[bytes, int] = {}
    retention = Retention(keep_ticks=6)
    await retain(store, world.key, retention)
    for number in range(14):
        await run(store, world, rng.randint(1, 7), commands=1)
        if number in (3, 5, 8):
            tick = rng.choice(store.history.kept_ticks(world.key, 0, world.tick))
            holder = os.urandom(16)
            await store.pin(world.key, tick, holder)
            pins[holder] = tick
        if number in (4, 7, 11):
            retention = Retention(keep_ticks=rng.randint(1, 12), keep_every=rng.choice([0, 2, 3, 4]))
            await retain(store, world.key, retention)
        if number in (9, 12):
            holder = rng.choice(sorted(pins))
            await store.unpin(holder)
            del pins[holder]
        if number in (6, 10):
            store = directory.open(TIGHT)
        await store.archiver.archive_now(world.key)
        last = world.tick - 1
        kept = replace(kept, pins=tuple(Thinned(tick, tick, 1) for tick in sorted(pins.values())))
        kept = kept.moved(retention, committed=last, archived=last)
        assert_kept(store, world, [tick for tick in range(world.tick) if tick in kept])
    await retain(store, world.key, Retention(keep_ticks=4))
    for holder in pins:
        await store.unpin(holder)
    await run(store, world, 12)
    await store.archiver.archive_now(world.key)
    await run(store, world, 12)
    await store.archiver.archive_now(world.key)
    assert_kept(store, world, [*range(world.tick - 4, world.tick)])
    left = datasets_of(store)
    assert all(dataset.last_tick >= world.tick - 4 or dataset.kept for dataset in left)
    assert {(d.kind, d.stream, d.rows) for d in left if d.kept} >= {("stream", STATIC, world.rows)}
    # What is left of tick 0: the rows that never changed, and the hash that they are checked by; some more until
    # it is worth while to write the rest anew.
    assert sum(d.rows for d in left if d.kind == "ticks" and d.kept) <= 9
    assert folders(directory) == {dataset.path for dataset in left}


async def test_history_is_bounded_in_bytes_and_its_oldest_goes_first(directory: Directory) -> None:
    store = directory.open(TIGHT)
    world = await new_world(store, rows=100)
    bound = 160_000
    await retain(store, world.key, Retention(keep_ticks=8, keep_every=2, keep_bytes=bound))
    first = []
    for _ in range(10):
        await run(store, world, 8)
        await store.archiver.archive_now(world.key)
        assert sum(dataset.nbytes for dataset in datasets_of(store)) <= bound
        first.append(store.history.kept_ticks(world.key, 0, world.tick)[0])
    assert first == sorted(first)
    assert first[0] == first[2] == 0 < first[-1] < world.tick - 16
    assert_kept(store, world, [*range(first[-1], world.tick - 8, 2), *range(world.tick - 8, world.tick)])
    assert folders(directory) == {dataset.path for dataset in datasets_of(store)}
    # Not even the ticks that are to be kept densely fit in now.
    await retain(store, world.key, Retention(keep_ticks=40, keep_bytes=bound // 4))
    for _ in range(5):
        await run(store, world, 4)
        await store.archiver.archive_now(world.key)
    assert sum(dataset.nbytes for dataset in datasets_of(store)) <= bound // 4
    assert_kept(store, world, [*range(store.history.earliest_tick(world.key), world.tick)])


async def test_journal_and_archive_stay_as_small_as_they_are_over_a_long_run(directory: Directory) -> None:
    store = directory.open(TIGHT)
    world = await new_world(store, rows=3)
    await retain(store, world.key, Retention(keep_ticks=20))
    sizes = []
    for _ in range(6):
        for _ in range(3):
            await run(store, world, 20)
            await store.archiver.archive_now(world.key)
        with store._journal.read() as connection:
            spans = connection.execute("SELECT count(*) FROM spans").get
        archive = [path for path in (directory.path / "archive").rglob("*") if path.is_file()]
        manifests = [path for path in archive if path.suffix == ".manifest"]
        sizes.append((spans, len(datasets_of(store)), len(manifests), len(archive)))
    for now in sizes[2:]:
        assert all(size <= before for size, before in zip(now, sizes[1], strict=True)), sizes


async def test_a_world_that_keeps_all_keeps_all(store: Store) -> None:
    world = await new_world(store)
    await retain(store, world.key, Retention(keep_ticks=0))
    await run(store, world, 30)
    await store.archiver.archive_now(world.key)
    assert_history_is_whole(store, world)


async def test_a_floor_never_goes_back(store: Store) -> None:
    world = await new_world(store)
    await retain(store, world.key, Retention(keep_ticks=5))
    await run(store, world, 20)
    await store.archiver.archive_now(world.key)
    await retain(store, world.key, Retention(keep_ticks=0, keep_every=2))
    await run(store, world, 1)
    await store.archiver.archive_now(world.key)
    assert_kept(store, world, [*range(15, 21)])


async def test_a_pinned_tick_is_kept_until_its_holder_lets_go(directory: Directory) -> None:
    store = directory.open()
    world = await new_world(store)
    await retain(store, world.key, Retention(keep_ticks=5))
    await run(store, world, 10)
    holder = os.urandom(16)
    await store.pin(world.key, 3, holder)
    await store.pin(world.key, 3, holder)
    await store.pin(world.key, 7, os.urandom(16))
    await run(store, world, 10)
    await store.archiver.archive_now(world.key)
    assert_kept(store, world, [3, 7, *range(15, 20)])
    store = directory.open()
    assert_kept(store, world, [3, 7, *range(15, 20)])
    await store.unpin(holder)
    assert_kept(store, world, [7, *range(15, 20)])


async def test_only_kept_ticks_can_be_pinned(store: Store) -> None:
    world = await new_world(store)
    await retain(store, world.key, Retention(keep_ticks=5))
    await run(store, world, 10)
    await store.archiver.archive_now(world.key)
    with pytest.raises(TickNotKeptError):
        await store.pin(world.key, 4, b"f" * 16)
    with pytest.raises(TickInTheFutureError):
        await store.pin(world.key, 10, b"f" * 16)
    await store.pin(world.key, 9, b"f" * 16)


async def test_a_reader_that_the_floor_overtakes_is_told(store: Store) -> None:
    world = await new_world(store, rows=20_000)
    await retain(store, world.key, Retention(keep_ticks=5))
    await run(store, world, 30)
    reading = store.history.ticks(world.key, 0, 99)
    assert next(reading).summary.tick == 0
    await store.archiver.archive_now(world.key)
    with pytest.raises(TickNotKeptError) as refused:
        list(reading)
    assert refused.value.metadata["earliest"] == "25"
