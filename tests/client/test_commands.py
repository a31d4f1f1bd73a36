"""Commands looked up, listed, watched: how the client asks, pages, resumes and reads the answers."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import grpc
import pyarrow as pa
import pytest

from tests.client.peer import WORLD_ID, abort, serving
from tickwire import (
    AsyncClient,
    Client,
    CommandRecord,
    CommandState,
    Outcome,
    ProtocolError,
    RetryPolicy,
    TickNotKeptError,
    WorldDestroyedError,
    commands,
    new_id,
)
from tickwire._arrow import to_ipc
from tickwire.v1 import command_pb2, command_service_pb2, command_service_pb2_grpc

if TYPE_CHECKING:
    from tests.client.conftest import OneWorld

pb = command_service_pb2
TABLE = pa.table({"entity_id": [1, 2], "position__x": [0.5, 1.5]})


def outcome(number: int) -> command_pb2.CommandOutcome:
    return command_pb2.CommandOutcome(
        command_id=new_id(), seq=number, state=command_pb2.COMMAND_STATE_APPLIED, outcome_seq=number
    )


class Broker(command_service_pb2_grpc.CommandServiceServicer):
    """Has `last` outcomes, and breaks off every stream of them after `burst`; lists commands two a page."""

    def __init__(self, *, last: int = 0, burst: int = 100, begin: int = 0) -> None:
        self.last = last
        self.burst = burst
        self.begin = begin
        """Where a stream from now on begins: after this outcome."""
        self.watched: list[pb.WatchOutcomesRequest] = []
        self.listed: list[pb.ListCommandsRequest] = []
        self.reads = 0
        self.end: tuple[grpc.StatusCode, str] = (grpc.StatusCode.FAILED_PRECONDITION, "WORLD_DESTROYED")
        self.more = asyncio.Event()

    async def WatchOutcomes(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.watched.append(request)
        if len(self.watched) == 1 and self.burst == 0:
            await abort(context, grpc.StatusCode.UNAVAILABLE, "STARTING", retry_s=0.01)
        after = request.after_outcome_seq if request.HasField("after_outcome_seq") else self.begin
        await context.send_initial_metadata((("tickwire-after-outcome-seq", str(after)),))
        if len(self.watched) == 1 and not request.HasField("after_outcome_seq"):
            await abort(context, grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN", retry_s=0.01)
        for number in range(after + 1, self.last + 1):
            yield pb.WatchOutcomesResponse(outcome=outcome(number))
            if number - after == self.burst:
                return
        code, reason = self.end
        await abort(context, code, reason)

    async def GetCommand(self, request: Any, context: Any) -> Any:  # noqa: N802
        response = pb.GetCommandResponse(command=commands.despawn(7, command_id=request.command_id))
        response.accepted_at.FromDatetime(datetime(2026, 1, 2, tzinfo=UTC))
        response.outcome.CopyFrom(outcome(3))
        response.outcome.command_id = request.command_id
        response.outcome.table = to_ipc(TABLE)
        response.outcome.value.update({"ok": True})
        return response

    async def ListCommands(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.listed.append(request)
        first = int(request.page_token or 0)
        records = [
            pb.CommandRecord(command=commands.despawn(number), outcome=outcome(number))
            for number in range(first + 1, first + 3)
        ]
        return pb.ListCommandsResponse(commands=records, next_page_token="" if first else "2")

    async def ReadResult(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.reads += 1
        whole = to_ipc(TABLE)
        yield pb.ReadResultResponse(ipc=whole[:100], rows=1)
        if self.reads == 1:
            await abort(context, grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN", retry_s=0.01)
        yield pb.ReadResultResponse(ipc=whole[100:], rows=1)

    def register(self, server: Any) -> None:
        command_service_pb2_grpc.add_CommandServiceServicer_to_server(self, server)


async def watched(
    kind: str, broker: Broker, one_world: OneWorld, quick: RetryPolicy, **given: Any
) -> tuple[list[Outcome], BaseException]:
    """Follow outcomes to their end with one of the clients; answers them and how they ended."""
    seen: list[Outcome] = []

    def blocking(target: str) -> BaseException:
        with Client(target, retry=quick) as client, client.world("orbit").outcomes(**given) as stream:
            try:
                seen.extend(stream)
            except Exception as error:
                return error
        raise AssertionError("the stream ended")

    async with serving(one_world.register, broker.register) as target:
        if kind == "blocking":
            return seen, await asyncio.to_thread(blocking, target)
        async with AsyncClient(target, retry=quick) as client:
            try:
                async for each in (await client.world("orbit")).outcomes(**given):
                    seen.append(each)  # noqa: PERF401 (what came before an error counts)
            except Exception as error:
                return seen, error
    raise AssertionError("the stream ended")


@pytest.mark.parametrize("kind", ["blocking", "asyncio"])
async def test_outcomes_resume_after_the_last_that_came(
    kind: str, one_world: OneWorld, quick: RetryPolicy
) -> None:
    broker = Broker(last=7, burst=3)
    seen, end = await watched(kind, broker, one_world, quick, after=0, actor_id="somebody")
    assert [each.outcome_seq for each in seen] == [1, 2, 3, 4, 5, 6, 7]
    assert isinstance(end, WorldDestroyedError)
    assert [request.after_outcome_seq for request in broker.watched] == [0, 3, 6]
    assert {(request.world, request.actor_id) for request in broker.watched} == {(WORLD_ID, "somebody")}


@pytest.mark.parametrize("kind", ["blocking", "asyncio"])
async def test_outcomes_from_now_on_miss_none_when_the_first_connection_breaks_before_one(
    kind: str, one_world: OneWorld, quick: RetryPolicy
) -> None:
    broker = Broker(last=6, begin=4)
    seen, _ = await watched(kind, broker, one_world, quick)
    assert [request.HasField("after_outcome_seq") for request in broker.watched] == [False, True]
    assert [each.outcome_seq for each in seen] == [5, 6]


@pytest.mark.parametrize("kind", ["blocking", "asyncio"])
async def test_outcomes_wait_for_a_server_that_is_starting(
    kind: str, one_world: OneWorld, quick: RetryPolicy
) -> None:
    broker = Broker(last=2, burst=0)
    seen, _ = await watched(kind, broker, one_world, quick, after=1)
    assert [each.outcome_seq for each in seen] == [2]


@pytest.mark.parametrize("kind", ["blocking", "asyncio"])
async def test_outcomes_that_are_not_kept_are_an_error_and_no_reason_to_resume(
    kind: str, one_world: OneWorld, quick: RetryPolicy
) -> None:
    broker = Broker()
    broker.end = (grpc.StatusCode.OUT_OF_RANGE, "TICK_NOT_KEPT")
    seen, end = await watched(kind, broker, one_world, quick, after=5)
    assert (seen, len(broker.watched)) == ([], 1)
    assert isinstance(end, TickNotKeptError)


async def test_an_outcome_that_comes_again_is_the_servers_mistake(
    one_world: OneWorld, quick: RetryPolicy
) -> None:
    class Repeating(Broker):
        async def WatchOutcomes(self, request: Any, context: Any) -> Any:  # noqa: N802
            yield pb.WatchOutcomesResponse(outcome=outcome(2))
            yield pb.WatchOutcomesResponse(outcome=outcome(2))

    seen, end = await watched("asyncio", Repeating(), one_world, quick, after=0)
    assert len(seen) == 1
    assert isinstance(end, ProtocolError)


async def test_a_command_is_read_whole(one_world: OneWorld) -> None:
    broker = Broker()
    command_id = new_id()

    def get(target: str) -> CommandRecord:
        with Client(target) as client:
            return client.world("orbit").command(command_id)

    async with serving(one_world.register, broker.register) as target:
        record = await asyncio.to_thread(get, target)
        async with AsyncClient(target) as client:
            world = await client.world("orbit")
            assert await world.command(command_id) == record
            assert await world.outcome(command_id) == record.outcome
    assert (record.id, record.type) == (command_id, "despawn")
    assert record.accepted_at == datetime(2026, 1, 2, tzinfo=UTC)
    assert record.outcome.state is CommandState.APPLIED
    assert record.outcome.table == TABLE
    assert record.outcome.value == {"ok": True}


async def test_commands_come_page_by_page_with_the_same_conditions(one_world: OneWorld) -> None:
    broker = Broker()
    since = datetime(2026, 1, 2, tzinfo=UTC)
    conditions: dict[str, Any] = {
        "states": ["pending", CommandState.APPLIED],
        "types": ["spawn", "set_resource"],
        "actor_id": "a",
        "from_time": since,
        "tables": True,
    }

    def ls(target: str) -> list[CommandRecord]:
        with Client(target) as client:
            return list(client.world("orbit").commands(**conditions))

    async with serving(one_world.register, broker.register) as target:
        found = await asyncio.to_thread(ls, target)
        async with AsyncClient(target) as client:
            again = [record async for record in (await client.world("orbit")).commands(**conditions)]
    assert [record.outcome.seq for record in found] == [1, 2, 3, 4]
    assert [record.outcome.seq for record in again] == [1, 2, 3, 4]
    first, second = broker.listed[:2]
    assert (first.page_token, second.page_token) == ("", "2")
    second.page_token = ""
    assert first == second
    assert list(first.states) == [command_pb2.COMMAND_STATE_PENDING, command_pb2.COMMAND_STATE_APPLIED]
    assert list(first.types) == [command_pb2.COMMAND_TYPE_SPAWN, command_pb2.COMMAND_TYPE_SET_RESOURCE]
    assert first.from_time.ToDatetime(tzinfo=UTC) == since
    assert first.view == pb.COMMAND_VIEW_FULL


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"states": ["gone"]}, "'gone' is none of pending"),
        ({"types": ["jump"]}, "'jump' is none of spawn"),
        ({"from_time": datetime(2026, 1, 2)}, "no time zone"),
    ],
)
async def test_conditions_that_mean_nothing_are_not_sent(
    one_world: OneWorld, given: dict[str, Any], why: str
) -> None:
    async with serving(one_world.register) as target, AsyncClient(target) as client:
        world = await client.world("orbit")
        with pytest.raises(ValueError, match=why):
            [record async for record in world.commands(**given)]


async def test_a_result_that_breaks_off_is_read_again_from_the_beginning(
    one_world: OneWorld, quick: RetryPolicy
) -> None:

    def blocking(target: str) -> pa.Table:
        with Client(target, retry=quick) as client:
            return client.world("orbit").read_result(new_id())

    broker, other = Broker(), Broker()
    async with serving(one_world.register, broker.register) as target:
        assert await asyncio.to_thread(blocking, target) == TABLE
    async with (
        serving(one_world.register, other.register) as target,
        AsyncClient(target, retry=quick) as client,
    ):
        assert await (await client.world("orbit")).read_result(new_id()) == TABLE
    assert (broker.reads, other.reads) == (2, 2)
