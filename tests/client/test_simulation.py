"""Steps, runs and reads: what is retried, and what never is."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc
import pyarrow as pa
import pytest

import tickwire
from tests.client.peer import WORLD, abort, serving
from tickwire import AsyncClient, RetryPolicy
from tickwire.v1 import (
    query_service_pb2,
    query_service_pb2_grpc,
    simulation_service_pb2,
    simulation_service_pb2_grpc,
)

if TYPE_CHECKING:
    from tests.client.conftest import OneWorld


class Clockwork(simulation_service_pb2_grpc.SimulationServiceServicer):
    """Answers every call from the second on; the first finds it unavailable."""

    def __init__(self) -> None:
        self.requests: list[Any] = []
        self.stopped = asyncio.Event()

    async def Step(self, request: Any, context: Any) -> Any:  # noqa: N802
        await self._note(request, context)
        return simulation_service_pb2.StepResponse(first_tick=7, last_tick=6 + request.ticks, run_id="r")

    async def Play(self, request: Any, context: Any) -> Any:  # noqa: N802
        await self._note(request, context)
        return simulation_service_pb2.PlayResponse(world=WORLD)

    async def Run(self, request: Any, context: Any) -> Any:  # noqa: N802
        await self._note(request, context)
        try:
            for done in range(1, request.ticks + 1):
                yield simulation_service_pb2.RunResponse(
                    tick=6 + done, ticks_done=done, ticks_total=request.ticks
                )
            if request.ticks == 2:
                await asyncio.Event().wait()
        finally:
            self.stopped.set()

    async def _note(self, request: Any, context: Any) -> None:
        self.requests.append(request)
        if len(self.requests) == 1:
            await abort(context, grpc.StatusCode.UNAVAILABLE, "STARTING", retry_s=0.01)

    def register(self, server: Any) -> None:
        simulation_service_pb2_grpc.add_SimulationServiceServicer_to_server(self, server)


async def test_a_step_without_an_expected_tick_is_never_sent_twice(
    one_world: OneWorld, quick: RetryPolicy
) -> None:
    clockwork = Clockwork()
    async with (
        serving(one_world.register, clockwork.register) as target,
        AsyncClient(target, retry=quick) as client,
    ):
        world = await client.world("orbit")
        with pytest.raises(tickwire.UnavailableError):
            await world.step(3)
    assert len(clockwork.requests) == 1


async def test_a_step_with_an_expected_tick_is_retried(one_world: OneWorld, quick: RetryPolicy) -> None:
    clockwork = Clockwork()
    async with (
        serving(one_world.register, clockwork.register) as target,
        AsyncClient(target, retry=quick) as client,
    ):
        world = await client.world("orbit")
        result = await world.step(3, expected_tick=7)
    assert (result.first_tick, result.last_tick) == (7, 9)
    assert [request.expected_tick for request in clockwork.requests] == [7, 7]


async def test_play_without_an_expected_tick_is_never_sent_twice(
    one_world: OneWorld, quick: RetryPolicy
) -> None:
    clockwork = Clockwork()
    async with (
        serving(one_world.register, clockwork.register) as target,
        AsyncClient(target, retry=quick) as client,
    ):
        world = await client.world("orbit")
        with pytest.raises(tickwire.UnavailableError):
            await world.play(hz=5)
    assert len(clockwork.requests) == 1


async def test_run_without_an_expected_tick_is_never_sent_twice(
    one_world: OneWorld, quick: RetryPolicy
) -> None:
    clockwork = Clockwork()
    async with (
        serving(one_world.register, clockwork.register) as target,
        AsyncClient(target, retry=quick) as client,
    ):
        world = await client.world("orbit")
        with pytest.raises(tickwire.UnavailableError):
            await anext(world.run(4))
    assert len(clockwork.requests) == 1


async def test_a_run_yields_its_progress(one_world: OneWorld, quick: RetryPolicy) -> None:
    clockwork = Clockwork()
    async with (
        serving(one_world.register, clockwork.register) as target,
        AsyncClient(target, retry=quick) as client,
    ):
        world = await client.world("orbit")
        progress = [(p.ticks_done, p.ticks_total) async for p in world.run(4, expected_tick=7)]
    assert progress == [(1, 4), (2, 4), (3, 4), (4, 4)]


async def test_closing_the_progress_of_a_run_cancels_it(one_world: OneWorld, quick: RetryPolicy) -> None:
    clockwork = Clockwork()
    async with (
        serving(one_world.register, clockwork.register) as target,
        AsyncClient(target, retry=quick) as client,
    ):
        world = await client.world("orbit")
        progress = world.run(2, expected_tick=7)
        await anext(progress)
        await progress.aclose()
        async with asyncio.timeout(10):
            await clockwork.stopped.wait()


class Library(query_service_pb2_grpc.QueryServiceServicer):
    """Streams a table in small pieces, breaking off half-way at the first time."""

    def __init__(self, table: pa.Table) -> None:
        self.requests: list[Any] = []
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        self._ipc = sink.getvalue().to_pybytes()

    async def Query(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.requests.append(request)
        for at in range(0, len(self._ipc), 100):
            if at and len(self.requests) == 1:
                await abort(context, grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN")
            yield query_service_pb2.QueryResponse(ipc=self._ipc[at : at + 100], tick=6)

    def register(self, server: Any) -> None:
        query_service_pb2_grpc.add_QueryServiceServicer_to_server(self, server)


async def test_a_query_that_breaks_off_begins_again_and_joins_its_pieces(
    one_world: OneWorld, quick: RetryPolicy
) -> None:
    table = pa.table({"tick": [6, 6], "entity_id": [1, 2], "position__x": [0.5, 1.5]})
    library = Library(table)
    async with (
        serving(one_world.register, library.register) as target,
        AsyncClient(target, retry=quick) as client,
    ):
        world = await client.world("orbit")
        assert (await world.query(components=["Position"], entity_ids=table["entity_id"])).equals(table)
    assert len(library.requests) == 2
    assert list(library.requests[0].entity_ids) == [1, 2]


async def test_a_selection_of_no_entities_is_not_taken_for_all_of_them(one_world: OneWorld) -> None:
    async with serving(one_world.register) as target, AsyncClient(target) as client:
        world = await client.world("orbit")
        with pytest.raises(ValueError, match="entity_ids is empty"):
            await world.query(entity_ids=[])
        with pytest.raises(ValueError, match="entity_ids is empty"):
            await world.despawn([], where="position__x > 0")
