"""The stream of ticks: whole, in order, once, without gaps, whatever happens to connections."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

import grpc
import pytest

import tickwire
from tests.client.peer import TickWriter, abort, message, positions, serving, started
from tickwire import AsyncClient, Client, RetryPolicy
from tickwire.v1 import tick_service_pb2, tick_service_pb2_grpc

if TYPE_CHECKING:
    from tests.client.conftest import OneWorld

Script = Callable[[Any, Any, TickWriter], AsyncIterator[Any]]


class Ticker(tick_service_pb2_grpc.TickServiceServicer):
    """Plays one script per connection."""

    def __init__(self, *scripts: Script) -> None:
        self.scripts = list(scripts)
        self.requests: list[tick_service_pb2.SubscribeRequest] = []

    async def Subscribe(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.requests.append(request)
        script = self.scripts[min(len(self.requests), len(self.scripts)) - 1]
        async for response in script(request, context, TickWriter()):
            yield response

    def register(self, server: Any) -> None:
        tick_service_pb2_grpc.add_TickServiceServicer_to_server(self, server)


async def breaks_off_inside_a_tick(request: Any, context: Any, writer: TickWriter) -> AsyncIterator[Any]:
    yield started(5)
    yield message(*writer.chunks(5, ("Position", positions(1, 2))))
    yield message(*writer.chunks(6, ("Position", positions(1, 2))))
    unfinished = writer.chunks(7, ("Position", positions(1, 2)), ("Position", positions(3, first_id=3)))
    yield message(unfinished[0])
    await abort(context, grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN", retry_s=0.01)


async def goes_on_as_asked(request: Any, context: Any, writer: TickWriter) -> AsyncIterator[Any]:
    yield started(request.from_tick)
    for tick in range(request.from_tick, request.until_tick + 1):
        yield message(*writer.chunks(tick, ("Position", positions(tick, 2 * tick))))


async def is_reset(request: Any, context: Any, writer: TickWriter) -> AsyncIterator[Any]:
    yield started(request.from_tick)
    yield message(*writer.chunks(request.from_tick, ("Position", positions(1))))
    await context.abort(grpc.StatusCode.INTERNAL, "Received RST_STREAM with error code 2")


async def falls_silent(request: Any, context: Any, writer: TickWriter) -> AsyncIterator[Any]:
    yield started(request.from_tick)
    await asyncio.Event().wait()


async def test_a_stream_resumes_after_the_last_whole_tick(one_world: OneWorld, quick: RetryPolicy) -> None:
    ticker = Ticker(breaks_off_inside_a_tick, is_reset, goes_on_as_asked)
    async with (
        serving(one_world.register, ticker.register) as target,
        AsyncClient(target, retry=quick) as client,
    ):
        world = await client.world("orbit")
        ticks = [tick async for tick in world.ticks(until_tick=10)]
    assert [tick.tick for tick in ticks] == [5, 6, 7, 8, 9, 10]
    assert ticks[-1].table("Position")["position__x"].to_pylist() == [10, 20]
    first, *later = ticker.requests
    assert first.at == tick_service_pb2.START_AT_LATEST
    assert [request.from_tick for request in later] == [7, 8]
    assert {request.world for request in ticker.requests} == {world.id}


async def test_the_blocking_stream_resumes_after_the_last_whole_tick(
    one_world: OneWorld, quick: RetryPolicy
) -> None:
    ticker = Ticker(breaks_off_inside_a_tick, is_reset, goes_on_as_asked)

    def read(target: str) -> list[int]:
        with Client(target, retry=quick) as client, client.world("orbit").ticks(until_tick=10) as stream:
            return [tick.tick for tick in stream]

    async with serving(one_world.register, ticker.register) as target:
        assert await asyncio.to_thread(read, target) == [5, 6, 7, 8, 9, 10]
    assert [request.from_tick for request in ticker.requests[1:]] == [7, 8]


async def test_a_stream_survives_a_restart_of_the_server(one_world: OneWorld, quick: RetryPolicy) -> None:
    async def stops_there(request: Any, context: Any, writer: TickWriter) -> AsyncIterator[Any]:
        yield started(5)
        yield message(*writer.chunks(5))
        await asyncio.Event().wait()

    ticker = Ticker(stops_there, goes_on_as_asked)
    async with serving(one_world.register, ticker.register) as target:
        client = AsyncClient(target, retry=quick)
        stream = (await client.world("orbit")).ticks(until_tick=8)
        assert (await anext(stream)).tick == 5
    async with serving(one_world.register, ticker.register, target=target):
        assert [tick.tick async for tick in stream] == [6, 7, 8]
    await client.aclose()


@pytest.mark.parametrize("blocking", [False, True])
async def test_missed_heartbeats_mean_another_connection(
    blocking: bool, one_world: OneWorld, quick: RetryPolicy
) -> None:
    ticker = Ticker(falls_silent, goes_on_as_asked)

    def read(target: str) -> list[int]:
        with Client(target, retry=quick) as client:
            return [t.tick for t in client.world("orbit").ticks(from_tick=3, until_tick=4, heartbeat_s=1)]

    async with (
        serving(one_world.register, ticker.register) as target,
        AsyncClient(target, retry=quick) as client,
    ):
        if blocking:
            ticks = await asyncio.to_thread(read, target)
        else:
            world = await client.world("orbit")
            ticks = [t.tick async for t in world.ticks(from_tick=3, until_tick=4, heartbeat_s=1)]
    assert ticks == [3, 4]
    assert len(ticker.requests) == 2


async def test_giving_up_a_wait_does_not_lose_the_place(one_world: OneWorld, quick: RetryPolicy) -> None:
    ticker = Ticker(falls_silent, goes_on_as_asked)
    async with (
        serving(one_world.register, ticker.register) as target,
        AsyncClient(target, retry=quick) as client,
    ):
        stream = (await client.world("orbit")).ticks(from_tick=3, until_tick=4)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await anext(stream)
        assert [tick.tick async for tick in stream] == [3, 4]


async def test_closing_a_stream_ends_a_read_that_waits(one_world: OneWorld) -> None:
    connected = asyncio.Event()

    async def says_nothing(request: Any, context: Any, writer: TickWriter) -> AsyncIterator[Any]:
        yield started(3)
        connected.set()
        await asyncio.Event().wait()

    ticker = Ticker(says_nothing)
    async with serving(one_world.register, ticker.register) as target, AsyncClient(target) as client:
        stream = (await client.world("orbit")).ticks(from_tick=3)
        reader = asyncio.create_task(collect(stream))
        await connected.wait()
        await stream.aclose()
        assert await reader == []


@pytest.mark.parametrize(
    ("code", "reason", "error"),
    [
        (grpc.StatusCode.NOT_FOUND, "WORLD_NOT_FOUND", tickwire.WorldNotFoundError),
        (grpc.StatusCode.OUT_OF_RANGE, "TICK_NOT_KEPT", tickwire.TickNotKeptError),
        (grpc.StatusCode.FAILED_PRECONDITION, "WORLD_DESTROYED", tickwire.WorldDestroyedError),
        (grpc.StatusCode.PERMISSION_DENIED, "ROLE_FORBIDS", tickwire.RoleForbidsError),
        (grpc.StatusCode.INTERNAL, "INTERNAL", tickwire.ServerInternalError),
    ],
)
async def test_an_error_of_the_server_ends_the_stream(
    code: grpc.StatusCode, reason: str, error: type[Exception], one_world: OneWorld, quick: RetryPolicy
) -> None:
    async def refuses(request: Any, context: Any, writer: TickWriter) -> AsyncIterator[Any]:
        yield started(5)
        yield message(*writer.chunks(5))
        await abort(context, code, reason, metadata={"earliest": "40"})

    ticker = Ticker(refuses)
    async with (
        serving(one_world.register, ticker.register) as target,
        AsyncClient(target, retry=quick) as client,
    ):
        stream = (await client.world("orbit")).ticks()
        assert (await anext(stream)).tick == 5
        with pytest.raises(error):
            await anext(stream)
        with pytest.raises(StopAsyncIteration):
            await anext(stream)
    assert len(ticker.requests) == 1


async def test_a_gap_is_never_passed_on(one_world: OneWorld) -> None:
    async def leaves_one_out(request: Any, context: Any, writer: TickWriter) -> AsyncIterator[Any]:
        yield started(5)
        yield message(*writer.chunks(5), *writer.chunks(7))

    ticker = Ticker(leaves_one_out)
    async with serving(one_world.register, ticker.register) as target, AsyncClient(target) as client:
        with pytest.raises(tickwire.ProtocolError):
            await collect((await client.world("orbit")).ticks())


async def test_skipped_ticks_are_counted_not_mistaken_for_a_gap(one_world: OneWorld) -> None:
    async def skips(request: Any, context: Any, writer: TickWriter) -> AsyncIterator[Any]:
        yield started(5)
        yield message(*writer.chunks(5), *writer.chunks(9, skipped=3))

    ticker = Ticker(skips)
    async with serving(one_world.register, ticker.register) as target, AsyncClient(target) as client:
        stream = (await client.world("orbit")).ticks(lag="skip_to_latest", until_tick=9)
        assert [(tick.tick, tick.skipped) async for tick in stream] == [(5, 0), (9, 3)]


async def collect(stream: tickwire.AsyncTickStream) -> list[tickwire.Tick]:
    return [tick async for tick in stream]
