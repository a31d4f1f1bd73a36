"""Tables that commands answer: inline where they are small, as a stream whatever their size."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any
from uuid import UUID

import grpc
import pyarrow as pa

from tests.engine.parts import stream
from tests.server.answers import despawn, refused, spawn, until
from tickwire.v1 import command_pb2, command_service_pb2, tick_service_pb2
from tickwire_engine.ids import uuid7

if TYPE_CHECKING:
    from tests.server.conftest import Served

pb = command_service_pb2
APPLIED = pb.WAIT_LEVEL_APPLIED
MIB = 1 << 20


def query(**given: Any) -> command_pb2.Command:
    """Return a command that answers all spots."""
    return command_pb2.Command(
        id=str(uuid7()), query_world=command_pb2.QueryWorld(components=["Spot"]), **given
    )


async def spots(served: Served, count: int) -> None:
    """Make a world of so many spots."""
    await served.create(template="")
    table = stream({"spot__x": [float(i) for i in range(count)]})
    await served.submit(command_pb2.Command(spawn=command_pb2.Spawn(table=table)))
    await served.step()


async def decided(served: Served, *commands: command_pb2.Command) -> pb.SubmitResponse:
    """Submit commands, and compute ticks until they are decided: what they ask for may take some."""
    waiting = asyncio.ensure_future(served.submit(*commands, wait=APPLIED))
    acceptance = served.server.container.engine.world("w").acceptance
    await until(lambda: acceptance.pending == len(commands))
    while acceptance.pending:
        await served.step()
    return await waiting


async def read(served: Served, command_id: str) -> list[pb.ReadResultResponse]:
    request = pb.ReadResultRequest(world="w", command_id=command_id)
    return [piece async for piece in served.commands.ReadResult(request)]


async def get(served: Served, command_id: str) -> command_pb2.CommandOutcome:
    request = pb.GetCommandRequest(world="w", command_id=command_id)
    return (await served.commands.GetCommand(request)).outcome


def table_of(ipc: bytes) -> pa.Table:
    with pa.ipc.open_stream(ipc) as reader:
        return reader.read_all()


async def test_a_small_table_is_inline_in_submit_and_get_and_nowhere_else(served: Served) -> None:
    await spots(served, 1_000)
    command = query()
    (receipt,) = (await decided(served, command)).receipts
    outcome = receipt.outcome
    assert outcome.table_bytes == len(outcome.table) > 0
    table = table_of(outcome.table)
    assert table["spot__x"].to_pylist() == [float(i) for i in range(1_000)]
    assert await get(served, command.id) == outcome
    (retried,) = (await served.submit(command)).receipts
    assert retried.outcome == outcome
    bare = command_pb2.CommandOutcome()
    bare.CopyFrom(outcome)
    bare.ClearField("table")
    listed = await served.commands.ListCommands(
        pb.ListCommandsRequest(world="w", page_size=1, view=pb.COMMAND_VIEW_FULL)
    )
    assert listed.commands[0].outcome == bare
    watch = served.commands.WatchOutcomes(pb.WatchOutcomesRequest(world="w", after_outcome_seq=1))
    assert (await watch.read()).outcome == bare
    watch.cancel()
    ticks = served.subscribe(
        from_tick=outcome.tick,
        until_tick=outcome.tick,
        with_outcomes=True,
        outcome_scope=tick_service_pb2.OUTCOME_SCOPE_ALL,
    )
    told = [outcome async for message in ticks for chunk in message.chunks for outcome in chunk.outcomes]
    assert told == [bare]


async def test_a_table_is_read_as_one_ipc_stream_whose_pieces_are_whole_messages(served: Served) -> None:
    await spots(served, 150_000)
    command = query()
    (receipt,) = (await decided(served, command)).receipts
    assert receipt.outcome.table == b""
    assert receipt.outcome.table_bytes > MIB
    assert (await get(served, command.id)).table == b""
    pieces = await read(served, command.id)
    assert len(pieces) > 2
    assert all(len(piece.ipc) <= MIB + 8192 for piece in pieces)
    whole = table_of(b"".join(piece.ipc for piece in pieces))
    assert sum(piece.rows for piece in pieces) == whole.num_rows == 150_000
    assert whole["spot__x"].to_pylist() == [float(i) for i in range(150_000)]
    schema, batches = pieces[0], pieces[1:-1]
    reader = pa.ipc.MessageReader.open_stream(schema.ipc)
    assert [message.type for message in reader] == ["schema", "record batch"]
    for piece in batches:
        assert [m.type for m in pa.ipc.MessageReader.open_stream(piece.ipc)] == ["record batch"]


async def test_a_result_is_there_after_a_restart_and_in_the_archive(served: Served) -> None:
    await spots(served, 10)
    command = query()
    before = (await decided(served, command)).receipts[0].outcome
    await served.stop()
    await served.start()
    engine = served.server.container.engine
    for archived in (False, True):
        if archived:
            await engine.store.archiver.archive_now(engine.world("w").row.key)
        assert await get(served, command.id) == before
        assert table_of(b"".join(p.ipc for p in await read(served, command.id))) == table_of(before.table)


async def test_a_command_without_a_table_is_a_stream_without_messages(served: Served) -> None:
    await spots(served, 3)
    commands = [spawn(id=str(uuid7())), despawn(99, id=str(uuid7()))]
    await decided(served, *commands)
    cancelled = spawn(id=str(uuid7()), tick=99)
    await served.submit(cancelled)
    await served.commands.CancelCommand(pb.CancelCommandRequest(world="w", command_id=cancelled.id))
    for command in (*commands, cancelled):
        assert await read(served, command.id) == []


async def test_a_query_that_finds_nothing_answers_its_schema(served: Served) -> None:
    await spots(served, 1)
    command = query()
    command.query_world.where = "spot__x > 100"
    await decided(served, command)
    pieces = await read(served, command.id)
    whole = table_of(b"".join(piece.ipc for piece in pieces))
    assert whole.num_rows == 0
    assert "spot__x" in whole.schema.names


async def test_reading_the_result_of_a_pending_command_waits_for_it(served: Served) -> None:
    await spots(served, 5)
    command = query(tick=3)
    await served.submit(command)
    reading = asyncio.ensure_future(read(served, command.id))
    await served.step()
    assert not reading.done()
    while not reading.done():
        await served.step()
    whole = table_of(b"".join(piece.ipc for piece in await reading))
    assert whole.num_rows == 5


async def test_reading_the_result_of_a_pending_command_ends_when_the_server_stops(served: Served) -> None:
    await spots(served, 5)
    command = query(tick=9)
    await served.submit(command)
    reading = served.commands.ReadResult(pb.ReadResultRequest(world="w", command_id=command.id))
    failing = asyncio.ensure_future(refused(reading))
    entry = served.server.container.engine.world("w").acceptance.find(UUID(command.id))
    assert entry is not None
    await until(lambda: entry.waiters)
    stopping = asyncio.ensure_future(served.server.stop())
    refusal = await failing
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN")
    await stopping


async def test_one_answer_holds_no_more_tables_than_clients_take(served: Served) -> None:
    await spots(served, 30_000)
    answer = await decided(served, *(query() for _ in range(6)))
    sizes = [len(receipt.outcome.table) for receipt in answer.receipts]
    assert {receipt.outcome.table_bytes for receipt in answer.receipts} == {sizes[0]}
    assert MIB // 2 < sizes[0] <= MIB
    inline = [size > 0 for size in sizes]
    assert inline == sorted(inline, reverse=True)
    assert 2 <= sum(inline) < 6
    assert answer.ByteSize() < 4 * MIB
    for receipt in answer.receipts:
        assert (await get(served, receipt.command_id)).table_bytes == len(
            (await get(served, receipt.command_id)).table
        )
