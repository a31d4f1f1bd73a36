"""Claims about the archive: history stays what it was when it moves, whatever happens on the way."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lancedb
import pytest
from hypothesis import HealthCheck, given, settings
from structlog.testing import capture_logs

from tests.engine.storage.conftest import QUIET, Directory
from tests.engine.storage.samples import SampleWorld, assert_history_is_whole, new_world, run
from tests.engine.test_encoding import batches
from tickwire_engine import failpoints
from tickwire_engine.encoding import encode
from tickwire_engine.errors import CorruptRecordError, ShuttingDownError
from tickwire_engine.failpoints import Failpoints
from tickwire_engine.storage import archiver
from tickwire_engine.storage._archiving import datasets
from tickwire_engine.storage._columns import by_tick, with_ticks
from tickwire_engine.storage._upkeep import UpkeepLimits
from tickwire_engine.storage.archive import Dataset, LanceArchive
from tickwire_engine.storage.archiver import ArchiveOptions

if TYPE_CHECKING:
    import pyarrow as pa

    from tickwire_engine.storage.store import Store

SMALL = replace(
    QUIET,
    segment_bytes=1 << 20,
    archive=ArchiveOptions(
        idle_s=3600.0, upkeep=UpkeepLimits(dataset_rows=150, unindexed_rows=60, idle_rows=10)
    ),
)
"""Datasets are sealed after some ticks."""


def _known(store: Store, kind: str = "stream") -> list[Dataset]:
    with store._journal.read() as connection:
        return [dataset for dataset in datasets(connection) if dataset.kind == kind]


def _left(store: Store, table: str) -> int:
    with store._journal.read() as connection:
        return int(connection.execute(f"SELECT count(*) FROM {table}").get)


def _lance(directory: Directory, dataset: Dataset) -> Any:
    folder, name = dataset.path.split("/")
    return lancedb.connect(directory.path / "archive" / folder).open_table(name)


async def test_archived_history_is_what_was_committed(directory: Directory) -> None:
    store = directory.open()
    world = await new_world(store)
    await run(store, world, 9, commands=4)
    await store.archiver.archive_now(world.key)
    assert _left(store, "records") == _left(store, "ticks") == _left(store, "commands") == 0
    assert_history_is_whole(store, world)
    assert_history_is_whole(directory.open(), world)


async def test_history_is_one_across_archive_and_tail(directory: Directory) -> None:
    store = directory.open()
    world = await new_world(store)
    for _ in range(3):
        await run(store, world, 5, commands=2)
        await store.archiver.archive_now(world.key)
        await run(store, world, 3, commands=1)
        assert_history_is_whole(store, world)
    assert_history_is_whole(directory.open(), world)


async def test_recovery_does_not_need_the_archive(directory: Directory) -> None:
    store = directory.open()
    world = await new_world(store)
    await run(store, world, 8, commands=2)
    before = directory.open().recover()[0]
    assert directory.store is not None
    await directory.store.archiver.archive_now(world.key)
    after = directory.open().recover()[0]
    assert after == replace(before, settled=())
    await run(directory.store, world, 2, commands=1)
    assert_history_is_whole(directory.store, world)


async def test_an_archetype_that_emptied_stays_so_in_the_archive(store: Store) -> None:
    world = await new_world(store)
    await run(store, world, 4)
    assert store.recover()[0].live_streams == (1, 2)
    await store.archiver.archive_now(world.key)
    assert store.recover()[0].live_streams == (1, 2)
    assert set(store.history.frames_at(world.key, 2)) == {1, 2, 3}
    assert set(store.history.frames_at(world.key, 3)) == {1, 2}


async def test_large_records_and_tables_are_archived_and_their_segments_deleted(
    directory: Directory,
) -> None:
    store = directory.open(SMALL)
    world = await new_world(store, rows=20_000)
    await store.accept(world.key, world.commands(2, table_bytes=1 << 20))
    await run(store, world, 6)
    assert len(list((directory.path / "log").glob("*.seg"))) > 2
    await store.archiver.archive_now(world.key)
    assert len(list((directory.path / "log").glob("*.seg"))) <= 1
    assert_history_is_whole(store, world)
    await run(store, world, 2)
    assert_history_is_whole(directory.open(SMALL), world)
    assert directory.store is not None
    await directory.store.archiver.archive_now(world.key)
    assert_history_is_whole(directory.open(SMALL), world)
    assert not list((directory.path / "log").glob("*.seg"))


def _policies() -> dict[str, set[tuple[int, int]]]:
    """Return the policies and priorities of this process's threads, by their names."""
    found: dict[str, set[tuple[int, int]]] = {}
    for path in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):
            facts = (os.sched_getscheduler(int(path.name)), os.getpriority(os.PRIO_PROCESS, int(path.name)))
            found.setdefault((path / "comm").read_text().strip(), set()).add(facts)
    return found


@pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="THREADS' PRIORITIES WERE NOT TESTED: that needs Linux"
)
async def test_lancedbs_threads_give_way_and_no_others(store: Store) -> None:
    world = await new_world(store)
    for _ in range(2):
        await run(store, world, 4)
        await store.archiver.archive_now(world.key)
    policies = _policies()
    background = {name for name in policies if name.startswith("lance")}
    assert background
    mine = (os.sched_getscheduler(0), os.getpriority(os.PRIO_PROCESS, 0))
    for name in background:
        assert policies[name] == {(os.SCHED_BATCH, max(10, mine[1]))}, name
    assert mine[0] != os.SCHED_BATCH
    assert all(
        facts == {mine}
        for name, facts in policies.items()
        if name.startswith(("python", "pytest", "tickwire"))
    )


async def test_datasets_are_sealed_by_size_and_read_as_one(directory: Directory) -> None:
    store = directory.open(SMALL)
    world = await new_world(store)
    for _ in range(8):
        await run(store, world, 4, commands=6)
        await store.archiver.archive_now(world.key)
    sealed = [dataset for dataset in _known(store) if dataset.sealed]
    assert len(sealed) >= 3
    for dataset in sealed:
        table = _lance(directory, dataset)
        assert table.version == dataset.version
        assert {column for index in table.list_indices() for column in index.columns} == {
            "tick",
            "entity_id",
        }
        assert dataset.rows == table.count_rows()
    moving = [dataset for dataset in _known(store) if dataset.stream == 1]
    assert all(a.last_tick + 1 == b.first_tick for a, b in itertools.pairwise(moving))
    assert_history_is_whole(store, world)
    assert_history_is_whole(directory.open(SMALL), world)


async def test_old_versions_are_cleaned_up_once_nobody_reads_them(directory: Directory) -> None:
    store = directory.open(SMALL)
    world = await new_world(store)
    reading = store.history.ticks(world.key, 0, 99)
    await run(store, world, 2)
    assert next(reading).summary.tick == 0
    with store._leases.reading():
        for _ in range(4):
            await run(store, world, 4)
            await store.archiver.archive_now(world.key)
        versions = _lance(directory, _known(store)[0]).list_versions()
        assert len(versions) > 1
    await run(store, world, 1)
    await store.archiver.archive_now(world.key)
    store.close()
    directory.store = None
    store = directory.open(SMALL)
    first = next(dataset for dataset in _known(store) if dataset.sealed)
    assert len(_lance(directory, first).list_versions()) == 1
    assert_history_is_whole(store, world)


async def test_a_reader_goes_on_while_history_moves_under_it(store: Store) -> None:
    world = await new_world(store)
    await run(store, world, 10, commands=1)
    reading = store.history.ticks(world.key, 0, 99)
    seen = [next(reading) for _ in range(3)]
    await store.archiver.archive_now(world.key)
    await run(store, world, 10)
    await store.archiver.archive_now(world.key)
    await run(store, world, 5)
    seen += list(reading)
    assert [tick.summary.tick for tick in seen] == list(range(25))
    assert [tick.changed for tick in seen] == [commit.frames for commit in world.commits]


async def test_readers_on_threads_see_whole_ticks_while_ticks_are_committed_and_archived(
    store: Store,
) -> None:
    world = await new_world(store)
    await run(store, world, 3, commands=1)
    done = asyncio.Event()

    def read_all() -> int:
        ticks = list(store.history.ticks(world.key, 0, 10**6))
        for tick in ticks:
            assert tick.changed == world.commits[tick.summary.tick].frames
        at = ticks[-1].summary.tick // 2
        expected = {s: frame for s, (_, frame) in world.state_at(at).items()}
        assert store.history.frames_at(world.key, at) == expected
        return len(ticks)

    async def keep_reading() -> None:
        last = 0
        while not done.is_set():
            count = await asyncio.to_thread(read_all)
            assert count >= last
            last = count

    readers = [asyncio.create_task(keep_reading()) for _ in range(2)]
    for _ in range(12):
        await run(store, world, 5, commands=1)
        await store.archiver.archive_now(world.key)
    done.set()
    await asyncio.gather(*readers)
    assert_history_is_whole(store, world)


def _break_append(directory: Directory, dataset: Dataset) -> None:
    """Rows that were appended, and whose journal transaction never was."""
    table = _lance(directory, dataset)
    rows = table.search().limit(3).to_arrow()
    table.add(rows)
    table.add(rows)


def _break_head(directory: Directory, dataset: Dataset) -> None:
    """What a power cut leaves: a newest manifest without content."""
    _break_append(directory, dataset)
    versions = directory.path / "archive" / f"{dataset.path}.lance" / "_versions"
    newest = min(path for path in versions.glob("*.manifest"))
    newest.write_bytes(b"")
    (versions / "latest_version_hint.json").write_bytes(b"{")


@pytest.mark.parametrize("break_", [_break_append, _break_head])
async def test_a_start_brings_datasets_back_to_their_journaled_versions(
    directory: Directory, break_: Any
) -> None:
    store = directory.open()
    world = await new_world(store)
    await run(store, world, 5, commands=2)
    await store.archiver.archive_now(world.key)
    known = [*_known(store), *_known(store, "ticks"), *_known(store, "commands")]
    assert len(known) == 5
    directory.close()
    for dataset in known:
        break_(directory, dataset)
    stray = directory.path / "archive" / known[0].path.split("/")[0] / "stream-1-77.lance"
    (stray / "data").mkdir(parents=True)
    store = directory.open()
    assert not stray.exists()
    assert_history_is_whole(store, world)
    await run(store, world, 5, commands=2)
    await store.archiver.archive_now(world.key)
    assert_history_is_whole(store, world)
    assert all(_lance(directory, d).count_rows() == d.rows for d in _known(store))


async def test_a_turn_that_failed_half_way_is_done_over(directory: Directory) -> None:
    store = directory.open()
    world = await new_world(store)
    await run(store, world, 5, commands=2)
    await store.archiver.archive_now(world.key)
    for dataset in [*_known(store), *_known(store, "ticks")]:
        _break_append(directory, dataset)
    await run(store, world, 5, commands=2)
    await store.archiver.archive_now(world.key)
    assert_history_is_whole(store, world)
    assert_history_is_whole(directory.open(), world)


async def test_a_wait_for_the_archive_ends_once_the_tick_is_in_lance(directory: Directory) -> None:
    store = directory.open()
    world = await new_world(store)
    await run(store, world, 3, commands=2)
    early = [store.archiver.wait_archived(world.key, tick) for tick in (0, 2)]
    later = store.archiver.wait_archived(world.key, 4)
    given_up = store.archiver.wait_archived(world.key, 1)
    given_up.cancel()
    await asyncio.gather(*early)
    assert store.history.archived_tick(world.key) == 2
    await run(store, world, 1)
    assert not later.done()
    await run(store, world, 1)
    await later
    assert store.history.archived_tick(world.key) == 4
    await store.archiver.wait_archived(world.key, 4)
    never = store.archiver.wait_archived(world.key, 5)
    directory.close()
    with pytest.raises(ShuttingDownError):
        await never


async def test_a_wait_for_the_archive_outlasts_a_turn_that_fails(
    directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archiver, "_RETRY_S", 0.01)
    store = directory.open()
    world = await new_world(store)
    await run(store, world, 3)
    points = Failpoints("archive.append.before=enospc")
    monkeypatch.setattr(failpoints, "armed", lambda: points)
    await store.archiver.wait_archived(world.key, 2)
    assert not points.reach("archive.append.before")  # it has failed, once
    assert_history_is_whole(store, world)


async def test_a_changed_row_in_the_archive_is_noticed(directory: Directory) -> None:
    store = directory.open()
    world = await new_world(store)
    await run(store, world, 3)
    await store.archiver.archive_now(world.key)
    dataset = next(dataset for dataset in _known(store) if dataset.stream == 1)
    table = _lance(directory, dataset)
    table.update(where="tick = 1 AND entity_id = 1000001", values={"position__x": 0.25})
    with store._journal._connection as connection:
        connection.execute("UPDATE datasets SET version = ? WHERE path = ?", (table.version, dataset.path))
    assert store.history.frames_at(world.key, 2)
    with pytest.raises(CorruptRecordError) as refused:
        store.history.frames_at(world.key, 1)
    assert refused.value.metadata.items() >= {("stream", "1"), ("tick", "1")}


async def test_an_append_to_a_dataset_that_cannot_be_opened_names_it_and_is_told(
    directory: Directory,
) -> None:
    store = directory.open()
    world = await new_world(store)
    await run(store, world, 3, commands=2)
    await store.archiver.archive_now(world.key)
    dataset = _known(store, "commands")[0]
    for manifest in (directory.path / "archive" / f"{dataset.path}.lance" / "_versions").glob("*.manifest"):
        manifest.write_bytes(b"")
    await run(store, world, 3, commands=2)
    with capture_logs() as logs, pytest.raises(CorruptRecordError) as refused:
        await store.archiver.archive_now(world.key)
    assert refused.value.metadata["dataset"] == dataset.path
    told = [entry for entry in logs if entry["event"] == "archiving failed"]
    assert told
    assert dataset.path in told[0]["error"]
    assert store.history.frames_at(world.key, 5) == {
        stream: frame for stream, (_, frame) in world.state_at(5).items()
    }


async def test_a_missing_dataset_is_noticed_and_named(directory: Directory) -> None:
    store = directory.open()
    world = await new_world(store)
    await run(store, world, 3)
    await store.archiver.archive_now(world.key)
    dataset = _known(store)[0]
    directory.close()
    (directory.path / "archive" / f"{dataset.path}.lance").rename(directory.path / "gone")
    with pytest.raises(CorruptRecordError) as refused:
        directory.open().history.frames_at(world.key, 1)
    assert refused.value.metadata["dataset"] == dataset.path


async def test_what_an_earlier_process_left_is_archived_by_itself(directory: Directory) -> None:
    store = directory.open()
    world = await new_world(store)
    await run(store, world, 5, commands=2)
    store = directory.open(replace(QUIET, archive=ArchiveOptions(idle_s=0.0)))
    async with asyncio.timeout(60):
        while _left(store, "ticks"):  # noqa: ASYNC110  (another thread's work, seen in the file)
            await asyncio.sleep(0.01)
    assert store.archiver.backlog == (0, 0)
    assert_history_is_whole(store, world)


async def test_commands_are_archived_in_their_canonical_columns(directory: Directory) -> None:
    store = directory.open()
    world = await new_world(store)
    await run(store, world, 1, commands=3)
    await store.archiver.archive_now(world.key)
    rows = _lance(directory, _known(store, "commands")[0]).to_arrow()
    assert rows.schema.names[:8] == [
        "id",
        "tick",
        "actor_id",
        "type",
        "payload",
        "priority",
        "version",
        "seq",
    ]
    row = rows.to_pylist()[1]
    (command, _, _) = world.applied[row["id"]]
    assert row["actor_id"].hex() == command.actor.replace("-", "")
    assert (row["state"], row["reason"]) == ("REJECTED", "ENTITY_NOT_FOUND")
    assert row["payload"] == command.payload.decode()


@given(batches())
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_type_comes_back_from_lance_with_its_bytes_and_hash(
    tmp_path: Path, batch: pa.RecordBatch
) -> None:
    archive = LanceArchive(tmp_path)
    path = f"{os.urandom(4).hex()}/stream-1-0"
    dataset = Dataset(1, "stream", 1, 0, 9, 0, path, 0, 0, 0, 0)
    if batch.num_rows == 0:
        return
    first = with_ticks([(1, batch), (2, batch)])
    dataset = dataset._replace(version=archive.append(dataset, first))
    dataset = dataset._replace(version=archive.append(dataset, with_ticks([(3, batch)])))
    before = by_tick(archive.read(dataset, "tick >= 1"), batch.schema)
    dataset = dataset._replace(version=archive.optimise(dataset, ("tick",)))
    archive.sync(dataset.path)
    archive.clean(dataset)
    after = by_tick(archive.read(dataset, "tick >= 1"), batch.schema)
    frame = encode(batch, stream=1)
    assert [encode(rows, stream=1) for rows in before.values()] == [frame] * 3
    assert [encode(rows, stream=1) for rows in after.values()] == [frame] * 3


def test_the_world_of_these_tests_has_every_kind_of_record() -> None:
    world = SampleWorld(1)
    commits = [world.next_commit() for _ in range(4)]
    assert {(frame.stream, frame.rows > 0) for commit in commits for frame in commit.frames} == {
        (1, True),
        (2, True),
        (3, True),
        (3, False),
    }
