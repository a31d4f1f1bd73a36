"""Claims about the store: what is acknowledged is there, whole, after every restart."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.engine.storage.conftest import QUIET, Directory
from tests.engine.storage.samples import (
    CONFIGURATION,
    FLICKERING,
    MOVING,
    STATIC,
    SampleWorld,
    assert_history_is_whole,
    new_world,
    run,
    world_row,
)
from tickwire_engine.errors import (
    CorruptRecordError,
    DataDirectoryLockedError,
    DuplicateCommandError,
    StorageError,
    TickNotKeptError,
    WorldDestroyedError,
    WorldExistsError,
)
from tickwire_engine.storage.store import Store

if TYPE_CHECKING:
    from pathlib import Path


async def test_a_world_comes_back_as_it_was_made(directory: Directory) -> None:
    store = directory.open()
    row = await store.create_world(world_row("alpha"))
    (recovered,) = directory.open().recover()
    assert recovered.row == row
    assert (recovered.next_tick, recovered.next_seq, recovered.next_entity_id) == (0, 1, 1)
    assert (recovered.streams, recovered.configuration, recovered.pending) == ((), None, ())


async def test_the_same_request_answers_the_same_world(store: Store) -> None:
    row = world_row("alpha")
    first = await store.create_world(row)
    assert await store.create_world(row) == first
    with pytest.raises(WorldExistsError):
        await store.create_world(replace(row, request_hash=b"another"))
    with pytest.raises(WorldExistsError):
        await store.create_world(world_row("alpha"))


async def test_a_destroyed_world_frees_its_name_and_takes_no_more(directory: Directory) -> None:
    store = directory.open()
    world = await new_world(store, "alpha")
    await run(store, world, 2, commands=1)
    await store.accept(world.key, world.commands(1))
    await store.destroy_world(world.key, 7)
    with pytest.raises(WorldDestroyedError):
        await store.commit_tick(world.next_commit())
    with pytest.raises(WorldDestroyedError):
        await store.accept(world.key, world.commands(1))
    await new_world(store, "alpha")
    old, new = directory.open().recover()
    assert (old.row.destroyed_at_us, old.pending) == (7, ())
    assert new.row.destroyed_at_us == 0


async def test_a_world_and_its_first_commands_are_made_together_or_not_at_all(directory: Directory) -> None:
    store = directory.open()
    made = SampleWorld(0)
    row = await store.create_world(world_row("alpha"), made.commands(3, table_bytes=1 << 17, spawns=4))
    (row_of_beta,) = made.commands(1)
    twice = [row_of_beta, row_of_beta._replace(seq=row_of_beta.seq + 1)]
    with pytest.raises(DuplicateCommandError):
        await store.create_world(world_row("beta"), twice)
    (recovered,) = directory.open().recover()
    assert recovered.row == row
    assert list(recovered.pending) == made.pending[:3]
    assert (recovered.next_seq, recovered.next_entity_id) == (4, 13)


async def test_a_restarted_world_continues_at_its_last_durable_tick(directory: Directory) -> None:
    store = directory.open()
    world = await new_world(store)
    await run(store, world, 6, commands=3)
    await store.accept(world.key, world.commands(4, spawns=5))
    store = directory.open()
    (recovered,) = store.recover()
    assert recovered.next_tick == 6
    assert recovered.next_seq == world.seq
    assert recovered.next_entity_id == world.next_entity_id
    assert recovered.next_issued_id == world.commits[-1].next_issued_id
    assert recovered.run_id == b"r" * 16
    assert [stream.number for stream in recovered.streams] == [MOVING, STATIC, FLICKERING]
    assert recovered.live_streams == (MOVING, STATIC, FLICKERING)
    assert recovered.configuration == CONFIGURATION
    assert recovered.snapshots == {"dice": b"d3"}
    assert list(recovered.pending) == world.pending
    assert [(row.id, tick, outcome) for row, tick, outcome in recovered.settled] == [
        (command_id, tick, outcome) for command_id, (_, tick, outcome) in world.applied.items()
    ]
    assert_history_is_whole(store, world)
    await run(store, world, 2, commands=1)
    assert_history_is_whole(store, world)


async def test_records_of_every_size_come_back_byte_for_byte(directory: Directory) -> None:
    store = directory.open(replace(QUIET, segment_bytes=1 << 20))
    worlds = [await new_world(store, f"w{rows}", rows=rows) for rows in (1, 500, 20_000)]
    for world in worlds:
        await run(store, world, 4)
    segments = list((directory.path / "log").glob("*.seg"))
    assert len(segments) > 1
    store = directory.open()
    for world in worlds:
        assert_history_is_whole(store, world)


async def test_large_command_tables_come_back_byte_for_byte(directory: Directory) -> None:
    store = directory.open()
    world = await new_world(store)
    await store.accept(world.key, world.commands(2, table_bytes=1 << 20))
    await store.accept(world.key, world.commands(1, table_bytes=1 << 10))
    store = directory.open()
    assert list(store.recover()[0].pending) == world.pending
    await run(store, world, 1)
    assert_history_is_whole(store, world)


async def test_commands_that_a_tick_issues_are_pending_with_it(directory: Directory) -> None:
    store = directory.open()
    world = await new_world(store)
    issued = world.commands(1)[0]._replace(first_entity_id=(1 << 52) + 9, entity_count=4)
    world.pending.clear()
    await store.commit_tick(world.next_commit(issued=(issued,)))
    (recovered,) = directory.open().recover()
    assert recovered.pending == (issued,)
    assert recovered.next_seq == issued.seq + 1
    assert recovered.next_entity_id == world.next_entity_id


async def test_entity_ids_and_seqs_never_go_back(directory: Directory) -> None:
    store = directory.open()
    world = await new_world(store)
    await store.accept(world.key, world.commands(1, spawns=100))
    stale = replace(world.next_commit(), next_entity_id=1)
    await store.commit_tick(stale)
    await store.archiver.archive_now(world.key)
    (recovered,) = directory.open().recover()
    assert recovered.next_entity_id == 101
    assert recovered.next_seq == world.seq


async def test_an_id_is_accepted_once_pending_applied_or_archived(store: Store) -> None:
    world = await new_world(store)
    (row,) = world.commands(1)
    await store.accept(world.key, [row])
    for _ in range(3):
        again = [row._replace(seq=world.seq), *world.commands(1)]
        world.pending = world.pending[:1] if world.tick == 0 else []
        with pytest.raises(DuplicateCommandError) as refused:
            await store.accept(world.key, again)
        assert refused.value.metadata["ids"] == row.id.hex()
        assert set(store.find_commands(world.key, [again[0].id, again[1].id])) == {row.id}
        if world.tick == 0:
            await run(store, world, 1)
        else:
            await store.archiver.archive_now(world.key)


async def test_one_id_twice_in_a_request_is_refused(store: Store) -> None:
    world = await new_world(store)
    (row,) = world.commands(1)
    with pytest.raises(DuplicateCommandError):
        await store.accept(world.key, [row, row._replace(seq=row.seq + 1)])
    assert store.find_commands(world.key, [row.id]) == {}


async def test_a_known_command_is_found_with_its_outcome(store: Store) -> None:
    world = await new_world(store)
    await run(store, world, 3, commands=4)
    await store.accept(world.key, world.commands(2))
    found = store.find_commands(world.key, [*world.applied, *(row.id for row in world.pending), b"?" * 16])
    assert len(found) == 14
    for command_id, (row, tick, outcome) in world.applied.items():
        content_hash, known, known_outcome, known_tick = found[command_id][:4]
        assert (content_hash, known_outcome, known_tick) == (row.content_hash, outcome, tick)
        assert known == row._replace(payload=b"", table=b"")
    assert all(found[row.id].outcome is None for row in world.pending)


async def test_a_request_that_fails_takes_nobody_along(store: Store) -> None:
    world = await new_world(store)
    good, bad, last = world.commands(3)
    results = await asyncio.gather(
        store.accept(world.key, [good]),
        store.accept(world.key, [bad, good._replace(seq=99)]),
        store.accept(world.key, [last]),
        return_exceptions=True,
    )
    assert [type(result) for result in results] == [type(None), DuplicateCommandError, type(None)]
    assert set(store.find_commands(world.key, [good.id, bad.id, last.id])) == {good.id, last.id}


async def test_requests_of_many_waiters_resolve_in_the_order_handed_in(store: Store) -> None:
    world = await new_world(store)
    order: list[int] = []
    futures = []
    for number, row in enumerate(world.commands(3000)):
        future = store.accept(world.key, [row])
        future.add_done_callback(lambda _, number=number: order.append(number))
        futures.append(future)
    await asyncio.gather(*futures)
    assert order == list(range(3000))


async def test_a_cancelled_waiter_neither_stops_nor_loses_the_write(store: Store) -> None:
    world = await new_world(store)
    (row,) = world.commands(1)
    future = store.accept(world.key, [row])
    future.cancel()
    await store.accept(world.key, world.commands(1))
    assert row.id in store.find_commands(world.key, [row.id])


async def test_ticks_are_committed_without_gaps(store: Store) -> None:
    world = await new_world(store)
    world.next_commit()
    late = world.next_commit()
    with pytest.raises(StorageError, match="next tick is 0"):
        await store.commit_tick(late)
    results = await asyncio.gather(
        *(store.commit_tick(commit) for commit in world.commits),
        store.commit_tick(late),
        return_exceptions=True,
    )
    assert [isinstance(result, StorageError) for result in results] == [False, False, True]
    assert_history_is_whole(store, world)


async def test_ticks_that_are_not_there_are_refused_or_left_out(store: Store) -> None:
    world = await new_world(store)
    assert list(store.history.ticks(world.key, 0, 9)) == []
    assert store.history.earliest_tick(world.key) == 0
    assert store.history.frames_at(world.key, -1) == {}
    with pytest.raises(TickNotKeptError) as refused:
        list(store.history.ticks(world.key, -1, 9))
    assert refused.value.metadata == {"tick": "-1", "earliest": "0"}


async def test_components_come_back(directory: Directory) -> None:
    store = directory.open()
    await store.register_component("Position", b"schema", b'{"x":0}', "RPC")
    await store.register_component("Position", b"schema2", b'{"x":1}', "RPC")
    assert directory.open().components() == [("Position", b"schema2", b'{"x":1}', "RPC")]


async def test_a_directory_is_served_by_one_process(directory: Directory, tmp_path: Path) -> None:
    directory.open()
    with pytest.raises(DataDirectoryLockedError) as refused:
        Store.open(directory.path)
    assert refused.value.metadata["pid"] == str(os.getpid())
    directory.close()
    Store.open(directory.path).close()


async def test_a_later_format_is_refused_and_the_directory_let_go(directory: Directory) -> None:
    import apsw

    directory.open()
    directory.close()
    connection = apsw.Connection(str(directory.path / "journal.db"))
    connection.execute("UPDATE meta SET value = '99'")
    connection.close()
    for _ in range(2):
        with pytest.raises(StorageError, match="format 99"):
            directory.open()


async def test_each_start_notes_what_it_runs_on(directory: Directory) -> None:
    import apsw

    directory.open()
    directory.open()
    directory.close()
    connection = apsw.Connection(str(directory.path / "journal.db"))
    starts = [json.loads(text) for (text,) in connection.execute("SELECT fingerprint FROM starts")]
    connection.close()
    assert len(starts) == 2
    assert {"python", "pyarrow", "daft", "numpy", "simd"} <= set(starts[0])


@pytest.mark.parametrize("rows", [400, 20_000], ids=["inline", "in the log"])
async def test_a_flipped_bit_is_noticed_and_named(directory: Directory, rows: int) -> None:
    store = directory.open()
    world = await new_world(store, rows=rows)
    await run(store, world, 2)
    directory.close()
    name = world.commits[1].frames[0].messages[0][-600:-500]
    for file in [directory.path / "journal.db", *(directory.path / "log").glob("*.seg")]:
        content = bytearray(file.read_bytes())
        position = content.find(name)
        if position >= 0:
            content[position] ^= 1
            file.write_bytes(content)
    store = directory.open()
    if rows == 20_000:
        # SQLite's pages are shared by the records of several ticks, the log's records are not.
        assert store.history.frames_at(world.key, 0)
    with pytest.raises(CorruptRecordError) as refused:
        store.history.frames_at(world.key, 1)
    assert refused.value.metadata["tick"] == "1"


async def test_a_missing_segment_is_noticed_and_named(directory: Directory) -> None:
    store = directory.open()
    world = await new_world(store, rows=20_000)
    await run(store, world, 1)
    directory.close()
    (segment,) = (directory.path / "log").glob("*.seg")
    os.truncate(segment, 1000)
    store = directory.open()
    with pytest.raises(CorruptRecordError, match="cut short"):
        store.history.frames_at(world.key, 0)
    directory.close()
    segment.unlink()
    with pytest.raises(CorruptRecordError, match="missing"):
        directory.open().history.frames_at(world.key, 0)


_KILLED = """
import asyncio, os, pickle, sys
from pathlib import Path
from tests.engine.storage.samples import new_world
from tickwire_engine.storage.store import Store, StoreOptions
from tickwire_engine.storage.archiver import ArchiveOptions

async def main():
    path, stop, archive_s = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    store = Store.open(path, options=StoreOptions(archive=ArchiveOptions(idle_s=archive_s, max_rows=400)))
    world = await new_world(store, rows=1500)
    if archive_s == 0:
        # Loads Lance, so that the kill comes while it works.
        import lancedb
    acknowledged = 0
    def count(future):
        nonlocal acknowledged
        future.result()
        acknowledged += 1
        if acknowledged == stop:
            with open(path / "acknowledged", "wb") as file:
                pickle.dump((acknowledged, world), file)
            os._exit(9)
    while True:
        accepted = store.accept(world.key, world.commands(3, spawns=1, table_bytes=8))
        accepted.add_done_callback(count)
        future = store.commit_tick(world.next_commit())
        future.add_done_callback(count)
        if world.tick % 5 == 0:
            await future

asyncio.run(main())
"""


@pytest.mark.parametrize(("stop", "archive_s"), [(1, 60.0), (38, 60.0), (120, 0.0), (241, 0.0)])
async def test_what_was_acknowledged_before_a_kill_is_there_after_it(
    directory: Directory, stop: int, archive_s: float
) -> None:
    import pickle

    directory.path.mkdir()
    command = [sys.executable, "-c", _KILLED, str(directory.path), str(stop), str(archive_s)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    finished = await asyncio.to_thread(subprocess.run, command, env=environment, check=False)
    assert finished.returncode == 9
    acknowledged, world = pickle.loads((directory.path / "acknowledged").read_bytes())
    store = directory.open()
    (recovered,) = store.recover()
    # Writes are durable in the order handed in: accept, commit, accept, commit, ...
    assert recovered.next_tick >= acknowledged // 2
    assert recovered.next_tick <= world.tick
    survived = _cut_to(world, recovered.next_tick, {row.id for row in recovered.pending})
    assert len(recovered.pending) in ({0, 3} if acknowledged % 2 == 0 else {3, 0})
    assert_history_is_whole(store, survived)
    await store.archiver.archive_now(world.key)
    assert_history_is_whole(store, survived)
    survived.pending.clear()
    await store.accept(world.key, survived.commands(2))
    await store.commit_tick(survived.next_commit())


def _cut_to(world: SampleWorld, tick: int, pending: set[bytes]) -> SampleWorld:
    everything = [row for row, _, _ in world.applied.values()]
    return replace(
        world,
        tick=tick,
        commits=world.commits[:tick],
        live=world.live[:tick],
        applied={i: settled for i, settled in world.applied.items() if settled[1] < tick},
        pending=[row for row in everything if row.id in pending],
        outcome_seq=1 + sum(len(commit.outcomes) for commit in world.commits[:tick]),
    )
