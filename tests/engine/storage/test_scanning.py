"""Claims about scans: many ticks at a time are what each tick is by itself, wherever its records lie."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import lancedb
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from tests.engine.storage.conftest import QUIET, Directory
from tests.engine.storage.samples import MOVING, SampleWorld, new_world, retain, rows_at, run
from tickwire_engine.errors import CorruptRecordError, TickNotKeptError
from tickwire_engine.storage import _entity_runs, archive, scanning
from tickwire_engine.storage._archiving import WriteDataset, datasets
from tickwire_engine.storage._upkeep import UpkeepLimits
from tickwire_engine.storage.archiver import ArchiveOptions
from tickwire_engine.storage.retention import Retention

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tickwire_engine.storage.archive import Dataset
    from tickwire_engine.storage.store import Store

SMALL = replace(
    QUIET,
    archive=ArchiveOptions(
        idle_s=3600.0, upkeep=UpkeepLimits(dataset_rows=150, unindexed_rows=60, idle_rows=10)
    ),
)
"""Datasets are sealed after some ticks."""


def scanned(
    store: Store,
    world: SampleWorld,
    ticks: Sequence[int],
    *,
    streams: Sequence[int] = (1, 2, 3),
    entity_ids: Sequence[int] | None = None,
    columns: Sequence[str] | None = None,
) -> dict[int, pa.Table]:
    """Return what a scan finds, by stream."""
    history = store.history
    chosen = [stream for stream in history.streams(world.key) if stream.number in streams]
    found: dict[int, list[pa.RecordBatch]] = {}
    pages = history.scan(world.key, ticks, streams=chosen, entity_ids=entity_ids, columns=columns)
    for page in pages:
        for entry in page:
            assert entry.rows.num_rows
            entry.rows.validate(full=True)
            found.setdefault(entry.stream.number, []).append(entry.rows)
    return {stream: pa.Table.from_batches(batches) for stream, batches in found.items()}


def expected(
    world: SampleWorld,
    ticks: Sequence[int],
    *,
    streams: Sequence[int] = (1, 2, 3),
    entity_ids: Sequence[int] | None = None,
    columns: Sequence[str] | None = None,
) -> dict[int, pa.Table]:
    """Return the same, tick by tick, from what was committed."""
    found: dict[int, list[pa.Table]] = {}
    for tick in ticks:
        for stream, (at, frame) in world.state_at(tick).items():
            if stream not in streams:
                continue
            rows = pa.Table.from_batches([rows_at(stream, at, frame.rows)])
            if entity_ids is not None:
                rows = rows.filter(pc.is_in(rows["entity_id"], pa.array(entity_ids, pa.int64())))
            if columns is not None:
                rows = rows.select(
                    [n for n in rows.column_names if n in {*columns, "entity_id", "is_active"}]
                )
            if rows.num_rows:
                stamp = pa.array([tick] * rows.num_rows, pa.int64())
                found.setdefault(stream, []).append(rows.add_column(0, "tick", stamp))
    return {stream: pa.concat_tables(tables) for stream, tables in found.items()}


def assert_same(found: dict[int, pa.Table], wanted: dict[int, pa.Table]) -> None:
    assert found.keys() == wanted.keys()
    for stream, table in wanted.items():
        assert found[stream].to_pylist() == table.to_pylist()


def assert_scans_agree(store: Store, world: SampleWorld, chance: random.Random) -> None:
    last = world.tick - 1
    everybody = [1_000_000 * stream + entity for stream in (1, 2, 3) for entity in range(1, 22)]
    ranges: list[Sequence[int]] = [range(world.tick), [last], [0], range(last // 2, last + 1)]
    ranges += [sorted(chance.sample(range(world.tick), min(5, world.tick))) for _ in range(3)]
    for ticks in ranges:
        for entity_ids in (None, [1_000_001], sorted(chance.sample(everybody, 7)), [77]):
            for columns in (None, ["position__x", "box__size"], []):
                asked = {"entity_ids": entity_ids, "columns": columns}
                (
                    assert_same(
                        scanned(store, world, ticks, entity_ids=entity_ids, columns=columns),
                        expected(world, ticks, entity_ids=entity_ids, columns=columns),
                    ),
                    (ticks, asked),
                )


async def test_a_scan_is_what_its_ticks_are_wherever_they_lie(
    directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Pages of a few ticks, so that records are carried from one to the next.
    monkeypatch.setattr(scanning, "PAGE_ROWS", 100)
    monkeypatch.setattr(scanning, "_FEW_IDS", 5)
    chance = random.Random(7)
    store = directory.open(SMALL)
    world = await new_world(store)
    await run(store, world, 6)
    assert_scans_agree(store, world, chance)
    await store.archiver.archive_now(world.key)
    assert_scans_agree(store, world, chance)
    await run(store, world, 9)
    await store.archiver.archive_now(world.key)
    await run(store, world, 3)
    assert_scans_agree(store, world, chance)
    await store.archiver.archive_now(world.key)
    assert_scans_agree(directory.open(SMALL), world, chance)


async def test_a_scan_reads_no_more_at_a_time_than_a_page_though_a_world_grows(
    directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scanning, "PAGE_ROWS", 50)
    store = directory.open()
    world = await new_world(store, rows=1)
    await run(store, world, 30)
    world.rows = 60
    await run(store, world, 10)
    for _ in range(2):
        pages = [
            sum(entry.rows.num_rows for entry in page)
            for page in store.history.scan(world.key, range(40), streams=store.history.streams(world.key))
        ]
        assert len(pages) < 30
        assert max(pages) <= 60 + 1 + 3 + 50
        await store.archiver.archive_now(world.key)


async def test_a_scan_leaves_out_what_retention_thinned_out(directory: Directory) -> None:
    store = directory.open(SMALL)
    world = await new_world(store)
    await run(store, world, 40)
    await store.archiver.archive_now(world.key)
    await retain(store, world.key, Retention(keep_ticks=10, keep_every=4))
    await run(store, world, 1)
    await store.archiver.archive_now(world.key)
    kept = store.history.kept_ticks(world.key, 0, 40)
    assert 0 < len(kept) < 30
    assert_same(scanned(store, world, kept), expected(world, kept))
    assert_same(
        scanned(store, world, kept, entity_ids=[1_000_002]), expected(world, kept, entity_ids=[1_000_002])
    )
    gone = next(tick for tick in range(40) if tick not in kept)
    with pytest.raises(TickNotKeptError):
        scanned(store, world, [gone, 40])


async def test_a_scan_is_told_of_ticks_that_went_since_it_was_begun(directory: Directory) -> None:
    store = directory.open(SMALL)
    world = await new_world(store)
    await retain(store, world.key, Retention(keep_ticks=10, keep_every=8))
    await run(store, world, 30)
    await store.archiver.archive_now(world.key)
    kept = store.history.kept_ticks(world.key, 0, 40)
    await run(store, world, 12)
    await store.archiver.archive_now(world.key)
    # The first of them is still there, spared by thinning; some of the page's others are not.
    with pytest.raises(TickNotKeptError) as refused:
        scanned(store, world, kept)
    assert (kept[0], refused.value.metadata["tick"]) == (0, "20")


async def test_rows_that_are_missing_in_the_archive_are_noticed(directory: Directory) -> None:
    store = directory.open()
    world = await new_world(store)
    await run(store, world, 5)
    await store.archiver.archive_now(world.key)
    with store._journal.read() as connection:
        moving = next(d for d in datasets(connection) if d.kind == "stream" and d.stream == MOVING)
    folder, name = moving.path.split("/")
    table = lancedb.connect(directory.path / "archive" / folder).open_table(name)
    table.delete("tick = 3")
    damaged = moving._replace(version=int(table.version))
    store._journal.call(WriteDataset(damaged))
    assert_same(scanned(store, world, [2], streams=[MOVING]), expected(world, [2], streams=[MOVING]))
    with pytest.raises(CorruptRecordError):
        scanned(store, world, [2, 3], streams=[MOVING])


async def test_a_few_entities_are_read_from_rows_sorted_by_entity_as_far_as_there_are_any(
    directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Everything is worth a run, and three ticks make one.
    for name, value in (("RUN_LEAST_ROWS", 1), ("RUN_ROWS", 60), ("LEAST_TICKS", 1)):
        monkeypatch.setattr(archive, name, value)
    monkeypatch.setattr(_entity_runs, "_BATCH_ROWS", 7)
    chance = random.Random(3)
    store = directory.open(SMALL)
    world = await new_world(store)
    for _ in range(3):
        await run(store, world, 5)
        await store.archiver.archive_now(world.key)
        await idle(store)
        assert_scans_agree(store, world, chance)
    files = sorted((directory.path / "archive").rglob("entities/*.arrow"))
    assert len(files) > 3
    entities = [1_000_002, 1_000_019]
    # What lies there is what is read.
    looked: list[str] = []
    reading = archive.LanceArchive.read

    def noted(self: archive.LanceArchive, dataset: Dataset, where: str, columns: Any = None) -> pa.Table:
        looked.append(where)
        return reading(self, dataset, where, columns)

    monkeypatch.setattr(archive.LanceArchive, "read", noted)
    covered = range(store.history.archived_tick(world.key) + 1)
    wanted = expected(world, covered, streams=[MOVING], entity_ids=entities)
    assert_same(scanned(store, world, covered, streams=[MOVING], entity_ids=entities), wanted)
    sought = len(looked)
    # A run that cannot be read, or is gone, is done without.
    for damage in (b"", b"ARROW1 and nothing else", files[0].read_bytes()[:-40]):
        files[0].write_bytes(damage)
        assert_same(scanned(store, world, covered, streams=[MOVING], entity_ids=entities), wanted)
    for file in files:
        file.unlink()
    looked.clear()
    assert_same(scanned(store, world, covered, streams=[MOVING], entity_ids=entities), wanted)
    assert len(looked) > sought


async def idle(store: Store) -> None:
    """Wait until the archiver has nothing to do."""
    while store.archiver._untidy:  # noqa: ASYNC110  (nobody tells)
        await asyncio.sleep(0.01)
