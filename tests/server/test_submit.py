"""Submit and SubmitStream over a socket."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf.duration_pb2 import Duration

from tests.engine.parts import stream
from tests.server.answers import despawn, raised, refusal_of, refused, spawn, until, update
from tickwire.v1 import command_pb2, command_service_pb2
from tickwire_engine.ids import uuid7

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.server.conftest import Served

Request = command_service_pb2.SubmitStreamRequest
APPLIED = command_service_pb2.WAIT_LEVEL_APPLIED


async def test_a_retried_submit_applies_once(served: Served) -> None:
    await served.create(template="")
    commands = [spawn(1.0, id=str(uuid7())), update(1, 2.0, id=str(uuid7()))]
    first = await served.submit(*commands)
    again = await served.submit(*commands)
    assert [r.duplicate for r in first.receipts] == [False, False]
    assert [r.duplicate for r in again.receipts] == [True, True]
    for one, other in zip(first.receipts, again.receipts, strict=True):
        other.duplicate = False
        assert one == other
    assert (await served.step()).commands_applied == 2
    settled = await served.submit(*commands)
    assert [r.outcome.state for r in settled.receipts] == [command_pb2.COMMAND_STATE_APPLIED] * 2
    assert (await served.step()).commands_applied == 0


async def test_a_table_spawns_its_rows_and_the_receipt_tells_their_ids(served: Served) -> None:
    await served.create(template="")
    table = stream({"spot__x": [1.0, 2.0, 3.0]})
    command = command_pb2.Command(spawn=command_pb2.Spawn(table=table))
    (receipt,) = (await served.submit(command)).receipts
    assert (receipt.first_entity_id, receipt.entity_count, receipt.due_tick) == (1, 3, 0)
    assert (await served.step()).commands_applied == 1


async def test_a_struct_carries_numbers_text_and_null(served: Served) -> None:
    await served.create(template="")
    command = command_pb2.Command()
    command.spawn.components.update({"Mark": {"name": "é", "seen": "9007199254740993"}, "Spot": {"x": "NaN"}})
    null = command_pb2.Command()
    null.spawn.components.update({"Mark": {"seen": None}})
    await served.submit(command, null)
    await served.step()
    world = served.server.container.engine.world("w")
    assert world.entity(1)["Mark"] == {"name": "é", "seen": (1 << 53) + 1}
    assert world.entity(2)["Mark"] == {"name": "", "seen": None}
    assert str(world.entity(1)["Spot"]["x"]) == "nan"


async def test_submit_waits_until_its_tick_is_durable(served: Served) -> None:
    await served.create(template="")
    await served.play(hz=200.0)
    answer = await served.submit(spawn(), despawn(99), wait=APPLIED)
    await served.pause()
    applied, rejected = (receipt.outcome for receipt in answer.receipts)
    assert applied.state == command_pb2.COMMAND_STATE_APPLIED
    assert rejected.state == command_pb2.COMMAND_STATE_REJECTED
    assert applied.tick == rejected.tick
    assert (applied.outcome_seq, rejected.outcome_seq) == (1, 2)
    assert (applied.first_entity_id, applied.entity_count) == (1, 1)


async def test_past_max_wait_the_receipt_comes_without_outcome_and_the_command_stays(served: Served) -> None:
    await served.create(template="")
    answer = await served.submit(spawn(), wait=APPLIED, max_wait=Duration(nanos=1_000_000))
    assert not answer.receipts[0].HasField("outcome")
    assert (await served.step()).commands_applied == 1


async def test_a_waiting_submit_is_answered_when_the_server_stops(served: Served) -> None:
    await served.create(template="")
    command = spawn(id=str(uuid7()))
    waiting = asyncio.ensure_future(_call(served.submit(command, wait=APPLIED)))
    await until(lambda: served.server.container.engine.world("w").acceptance.pending)
    stopping = asyncio.ensure_future(served.server.stop())
    answer = await waiting
    if isinstance(answer, grpc.aio.AioRpcError):
        assert raised(answer).reason == "SHUTTING_DOWN"
    else:
        assert not answer.receipts[0].HasField("outcome")
    await stopping
    await served.stop()
    await served.start()
    (receipt,) = (await served.submit(command)).receipts
    assert receipt.duplicate


async def _call(call: Any) -> Any:
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        return error


async def test_a_stream_is_answered_in_order(served: Served) -> None:
    await served.create(template="")
    await served.create("other", template="")
    count = 300

    async def requests() -> AsyncIterator[Request]:
        for i in range(count):
            world = {0: "w", 200: "other"}.get(i, "")
            yield Request(world=world, commands=[spawn(float(i))])

    seqs = [r.receipts[0].seq async for r in served.commands.SubmitStream(requests())]
    assert seqs == [*range(1, 201), *range(1, 101)]
    assert (await served.step()).commands_applied == 200
    assert (await served.step(world="other")).commands_applied == 100


async def test_a_request_of_a_stream_that_fails_is_answered_in_its_place(served: Served) -> None:
    await served.create(template="")

    async def requests() -> AsyncIterator[Request]:
        yield Request(world="w", commands=[spawn()])
        yield Request(commands=[spawn(), command_pb2.Command()])
        yield Request(world="nothing", commands=[spawn()])
        yield Request(world="w", commands=[command_pb2.Command(), spawn()], allow_partial=True)
        yield Request(commands=[spawn()])

    answers = [answer async for answer in served.commands.SubmitStream(requests())]
    assert [refusal_of(a.error).reason if a.HasField("error") else "" for a in answers] == [
        "",
        "INVALID_COMMAND",
        "WORLD_NOT_FOUND",
        "",
        "",
    ]
    assert [r.seq for a in answers for r in a.receipts] == [1, 0, 2, 3]
    assert (await served.step()).commands_applied == 3


async def test_a_stream_whose_sender_waits_for_answers_goes_on(served: Served) -> None:
    await served.create(template="")
    call = served.commands.SubmitStream()
    for i in range(5):
        await call.write(Request(world="w" if i == 0 else "", commands=[spawn()]))
        assert (await call.read()).receipts[0].seq == i + 1
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF
    assert await call.code() is grpc.StatusCode.OK


async def test_an_idle_stream_ends_when_the_server_stops(served: Served) -> None:
    await served.create(template="")
    call = served.commands.SubmitStream()
    await call.write(Request(world="w", commands=[spawn()]))
    assert (await call.read()).receipts[0].seq == 1
    stopping = asyncio.ensure_future(served.server.stop())
    refusal = await refused(call.read())
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN")
    await stopping


async def test_a_stream_of_no_requests_ends_well(served: Served) -> None:
    async def nothing() -> AsyncIterator[Request]:
        return
        yield

    assert [answer async for answer in served.commands.SubmitStream(nothing())] == []
    assert (await served.commands.SubmitStream(nothing()).code()) is grpc.StatusCode.OK
