"""Claims about the journal and its failures: nothing is acknowledged that a later start would not find."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from tests.engine.storage.samples import assert_history_is_whole, new_world, run
from tests.system.small_disk import small_disk
from tickwire_engine.errors import CorruptRecordError, StorageError, StorageFullError
from tickwire_engine.storage._leases import Leases
from tickwire_engine.storage._writes import Plain
from tickwire_engine.storage.tick_log import SPARES, Location, RecordKind, SegmentedTickLog

if TYPE_CHECKING:
    from pathlib import Path

    import apsw

    from tests.engine.storage.conftest import Directory
    from tickwire_engine.storage.store import Store


async def test_the_file_is_opened_so_that_a_commit_is_durable(store: Store) -> None:
    connection = store._journal._connection
    settings = ("journal_mode", "synchronous", "wal_autocheckpoint", "mmap_size", "cell_size_check")
    assert [connection.pragma(name) for name in settings] == ["wal", 2, 0, 0, 1]


async def test_a_full_disk_loses_nothing_and_room_lets_it_go_on(store: Store) -> None:
    world = await new_world(store)
    await run(store, world, 2, commands=1)
    connection = store._journal._connection
    connection.pragma("max_page_count", connection.pragma("page_count") + 4)
    commits = [store.commit_tick(world.next_commit()) for _ in range(40)]
    async with asyncio.timeout(30):
        while not store.lacks_room:  # noqa: ASYNC110  (another thread's work)
            await asyncio.sleep(0.01)
    refused = world.commands(1)
    world.pending.remove(refused[0])
    with pytest.raises(StorageFullError):
        await store.accept(world.key, refused)
    assert store.failed is None
    assert not commits[-1].done()
    connection.pragma("max_page_count", 2**30)
    await asyncio.gather(*commits)
    async with asyncio.timeout(30):
        while store.lacks_room:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    await store.accept(world.key, world.commands(1))
    assert_history_is_whole(store, world)


async def test_writes_after_close_are_refused(store: Store) -> None:
    world = await new_world(store)
    await asyncio.to_thread(store.close)
    with pytest.raises(StorageError, match="closed"):
        store.accept(world.key, world.commands(1))


async def test_the_write_ahead_log_does_not_grow_with_the_commits(directory: Directory) -> None:
    store = directory.open()
    world = await new_world(store, rows=1000)
    for _ in range(6):
        commits = [world.next_commit() for _ in range(80)]
        await asyncio.gather(*map(store.commit_tick, commits))
    assert (directory.path / "journal.db-wal").stat().st_size < 30 << 20


async def test_a_reader_holds_one_view_and_does_not_hold_up_the_writer(store: Store) -> None:
    world = await new_world(store)
    await run(store, world, 1)
    with store._journal.read() as connection:
        count = "SELECT count(*) FROM ticks"
        assert connection.execute(count).get == 1
        await run(store, world, 3)
        assert connection.execute(count).get == 1
    with store._journal.read() as connection:
        assert connection.execute(count).get == 4


_FAILING = """
import asyncio, os, pickle, sys
from dataclasses import replace
from pathlib import Path
from tests.engine.storage.conftest import QUIET
from tests.engine.storage.samples import new_world
from tickwire_engine.errors import StorageFailedError
from tickwire_engine.storage.store import Store

async def main():
    path, failures = Path(sys.argv[1]), []
    store = Store.open(path, options=replace(QUIET, on_failure=failures.append))
    world = await new_world(store, rows=int(sys.argv[2]))
    done = 0
    try:
        while done < 1000:
            await store.commit_tick(world.next_commit())
            done += 1
    except StorageFailedError:
        pass
    # The failpoint acts once: a failed store stays failed.
    refused = await asyncio.gather(
        store.commit_tick(world.commits[-1]), store.accept(world.key, world.commands(1)), return_exceptions=True
    )
    assert [type(error) for error in refused] == [StorageFailedError] * 2, refused
    assert failures == [store.failed]
    with open(path / "done", "wb") as file:
        pickle.dump((done, world), file)
    os._exit(7)

asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("rows", "place"),
    [
        (100, "tick_commit.before"),
        (100, "journal.commit.before"),
        (20_000, "segment.fsync"),
        (20_000, "segment.folder_fsync"),
    ],
)
async def test_an_io_error_ends_all_writing_and_a_restart_has_what_was_acknowledged(
    directory: Directory, rows: int, place: str
) -> None:
    import pickle

    directory.path.mkdir()
    hits = 2 if place == "segment.folder_fsync" else 9
    assert await _python(_FAILING, directory.path, rows, FAILPOINTS=f"{place}=eio:{hits}") == 7
    done, world = pickle.loads((directory.path / "done").read_bytes())
    assert 0 < done < 1000
    store = directory.open()
    next_tick = store.recover()[0].next_tick
    assert next_tick in (done, done + 1)
    world.tick = next_tick
    del world.commits[next_tick:], world.live[next_tick:]
    world.pending.clear()
    assert_history_is_whole(store, world)
    await run(store, world, 2)
    assert_history_is_whole(store, world)


_LIMITED = """
import asyncio, os, resource, sys
from pathlib import Path
from tests.engine.storage.conftest import QUIET
from tests.engine.storage.samples import assert_history_is_whole, new_world
from tickwire_engine.storage.store import Store

async def main():
    store = Store.open(Path(sys.argv[1]), options=QUIET)
    world = await new_world(store, rows=int(sys.argv[2]))
    resource.setrlimit(resource.RLIMIT_FSIZE, (2 << 20, resource.RLIM_INFINITY))
    commits = []
    while not store.lacks_room:
        commits.append(store.commit_tick(world.next_commit()))
        await asyncio.wait([commits[-1]], timeout=0.2)
    assert not commits[-1].done() and commits[0].done()
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    await asyncio.gather(*commits)
    assert store.failed is None
    assert_history_is_whole(store, world)
    os._exit(7)

asyncio.run(main())
"""


@pytest.mark.parametrize("rows", [100, 20_000], ids=["in the journal", "in the log"])
async def test_ticks_wait_where_a_file_may_grow_no_more_and_go_on_when_it_may(
    directory: Directory, rows: int
) -> None:
    directory.path.mkdir()
    assert await _python(_LIMITED, directory.path, rows) == 7


async def _python(code: str, *arguments: object, **variables: str) -> int:
    """Run a program in a process of its own; return its exit code."""
    environment = {
        **os.environ,
        **{f"TICKWIRE_{name}": value for name, value in variables.items()},
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    command = [sys.executable, "-c", code, *map(str, arguments)]
    finished = await asyncio.to_thread(subprocess.run, command, env=environment, check=False, timeout=60)
    return finished.returncode


def test_the_log_starts_a_new_segment_and_never_writes_over_an_old_one(tmp_path: Path) -> None:
    world = b"w" * 16
    log = SegmentedTickLog(tmp_path / "log", segment_bytes=1000)
    places = [log.append(RecordKind.FRAME, world, tick, (b"a" * 400, b"b" * tick)) for tick in range(6)]
    log.sync()
    assert len({place.segment for place in places}) == 2
    log.close()
    log = SegmentedTickLog(tmp_path / "log", segment_bytes=1000)
    assert log.append(RecordKind.FRAME, world, 6, (b"",)).segment == 3
    for tick, place in enumerate(places):
        assert log.read(place, RecordKind.FRAME, world, tick, (400, tick)) == (b"a" * 400, b"b" * tick)
    log.close()


def test_a_record_of_more_parts_than_one_system_call_takes_comes_back(tmp_path: Path) -> None:
    log = SegmentedTickLog(tmp_path / "log")
    parts = tuple(os.urandom(number % 50) for number in range(3000))
    place = log.append(RecordKind.COMMAND, b"w" * 16, 1, parts)
    assert log.read(place, RecordKind.COMMAND, b"w" * 16, 1, [len(part) for part in parts]) == parts
    log.close()


def test_a_deleted_segments_blocks_are_written_over_by_a_later_one(tmp_path: Path) -> None:
    world, folder = b"w" * 16, tmp_path / "log"
    log = SegmentedTickLog(folder, segment_bytes=1000)

    def append(tick: int) -> Location:
        place = log.append(RecordKind.FRAME, world, tick, (bytes([tick]) * 600,))
        log.sync()
        return place

    places = [append(tick) for tick in range(6)]
    inodes = {path.name: path.stat().st_ino for path in folder.iterdir()}
    assert sorted(inodes) == ["00000001.seg", "00000002.seg", "00000003.seg"]
    for segment in (1, 2):
        log.delete(segment)
    assert log.segments() == [3]
    with pytest.raises(CorruptRecordError, match="missing"):
        log.read(places[0], RecordKind.FRAME, world, 0, (600,))
    places += [append(tick) for tick in range(6, 10)]
    assert log.segments() == [3, 4, 5]
    names = {path.name: path.stat().st_ino for path in folder.iterdir()}
    assert {names["00000004.seg"], names["00000005.seg"]} == {
        inodes["00000001.seg"],
        inodes["00000002.seg"],
    }
    for tick, place in enumerate(places[4:], 4):
        assert log.read(place, RecordKind.FRAME, world, tick, (600,)) == (bytes([tick]) * 600,)
    place = append(10)
    log.close()
    assert sorted(path.name for path in folder.iterdir()) == [
        f"0000000{number}.seg" for number in (3, 4, 5, 6)
    ]
    assert (folder / "00000006.seg").stat().st_size == place.offset + 648


def test_no_more_blocks_are_kept_than_are_of_use_and_they_are_given_up_for_room(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    log = SegmentedTickLog(folder, segment_bytes=1000)
    for tick in range(8):
        log.append(RecordKind.FRAME, b"w" * 16, tick, (bytes(1200),))
    for segment in log.segments()[:-1]:
        log.delete(segment)
    assert len(list(folder.glob("*.spare"))) == SPARES
    assert log.release()
    assert not log.release()
    assert [path.name for path in folder.iterdir()] == ["00000008.seg"]
    # What a killed process kept is deleted by the next start.
    (folder / "00000007.spare").write_bytes(bytes(1000))
    again = SegmentedTickLog(folder, segment_bytes=1000)
    again.delete_except([8])
    assert [path.name for path in folder.iterdir()] == ["00000008.seg"]
    again.close()
    log.close()


def test_a_disk_that_is_nearly_full_keeps_no_blocks_back(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 16) as disk:
        log = SegmentedTickLog(disk.path / "log", segment_bytes=1 << 20)

        def append(tick: int) -> None:
            log.append(RecordKind.FRAME, b"w" * 16, tick, (bytes(1 << 20),))
            log.sync()

        append(0)
        append(1)
        log.delete(1)
        assert len(list((disk.path / "log").glob("*.spare"))) == 1
        append(2)
        disk.fill(leave_bytes=3 << 20)
        append(3)
        log.delete(2)
        assert not list((disk.path / "log").glob("*.spare"))
        disk.fill(leave_bytes=100_000)
        log.append(RecordKind.FRAME, b"w" * 16, 4, (bytes(50_000),))
        assert (disk.path / "log" / f"{log.current:08}.seg").stat().st_size < 1 << 20
        log.close()


def test_nothing_is_deleted_under_a_reader_that_may_know_of_it() -> None:
    leases = Leases()
    deleted: list[str] = []
    entered, leave = threading.Event(), threading.Event()

    def read() -> None:
        with leases.reading():
            entered.set()
            leave.wait(10)

    reader = threading.Thread(target=read)
    reader.start()
    entered.wait(10)
    leases.defer(lambda: deleted.append("old"))
    with leases.reading():
        # This one began after the journal had stopped naming it.
        leases.collect()
        assert deleted == []
        leave.set()
        reader.join()
        leases.collect()
        assert deleted == ["old"]
    assert not leases.waiting


async def test_records_that_share_a_sync_lie_in_the_log_and_one_alone_in_its_commit(
    directory: Directory,
) -> None:
    store = directory.open()
    world = await new_world(store, rows=500)
    await run(store, world, 4)
    entered, leave = threading.Event(), threading.Event()

    class Stalled(Plain):
        def apply(self, _connection: apsw.Connection) -> None:
            entered.set()
            assert leave.wait(60)

    stalled = store._journal.submit(Stalled())
    await asyncio.to_thread(entered.wait, 60)
    commits = [store.commit_tick(world.next_commit()) for _ in range(4)]
    leave.set()
    await asyncio.gather(stalled, *commits)
    with store._journal.read() as connection:
        rows = connection.execute(
            "SELECT tick, segment IS NOT NULL FROM records WHERE stream = 1 ORDER BY tick"
        ).fetchall()
    assert rows == [(tick, int(tick >= 4)) for tick in range(8)]
    assert_history_is_whole(store, world)
    assert_history_is_whole(directory.open(), world)
