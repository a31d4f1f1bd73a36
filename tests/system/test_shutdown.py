"""A server that is told to stop: streams end with a status that says where to go on, and the process ends."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from tickwire.v1 import (
    command_pb2,
    command_service_pb2,
    command_service_pb2_grpc,
    simulation_service_pb2,
    simulation_service_pb2_grpc,
    tick_service_pb2,
    tick_service_pb2_grpc,
    world_service_pb2,
    world_service_pb2_grpc,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.system.conftest import StartServer

pytestmark = pytest.mark.system

ROOT = Path(__file__).parents[2]
APP = "tests.system.app:app"
SECONDS_TO_END = 10.0


def _reason(error: grpc.aio.AioRpcError) -> tuple[grpc.StatusCode, str, dict[str, str]]:
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            for detail in status_pb2.Status.FromString(value).details:  # type: ignore[arg-type]
                info = error_details_pb2.ErrorInfo()
                if detail.Unpack(info):
                    return error.code(), info.reason, dict(info.metadata)
    return error.code(), "", {}


async def _last_words(call: Any, heard: Callable[[Any], None] = lambda _: None) -> grpc.aio.AioRpcError:
    """Read a stream to its bad end."""
    try:
        while True:
            heard(await call.read())
    except grpc.aio.AioRpcError as error:
        return error


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
async def test_a_signal_ends_every_open_stream_with_where_to_go_on(
    start_server: StartServer, number: signal.Signals
) -> None:
    server = await asyncio.to_thread(start_server, app=APP, root=ROOT)
    async with grpc.aio.insecure_channel(server.address) as given:
        channel: Any = given
        worlds: Any = world_service_pb2_grpc.WorldServiceStub(channel)
        simulation: Any = simulation_service_pb2_grpc.SimulationServiceStub(channel)
        for name in ("played", "resting"):
            await worlds.CreateWorld(world_service_pb2.CreateWorldRequest(name=name, template="crowd"))
        await simulation.Step(simulation_service_pb2.StepRequest(world="resting", ticks=3))
        ticks: Any = tick_service_pb2_grpc.TickServiceStub(channel)
        subscribe = tick_service_pb2.SubscribeRequest
        following = ticks.Subscribe(subscribe(world="played", from_tick=0))
        resting = ticks.Subscribe(subscribe(world="resting", from_tick=0))
        await simulation.Play(simulation_service_pb2.PlayRequest(world="played"))
        submitting: Any = command_service_pb2_grpc.CommandServiceStub(channel).SubmitStream()
        command = command_pb2.Command()
        command.spawn.components.update({"Agent": {"name": "late"}})
        request = command_service_pb2.SubmitStreamRequest(world="resting", commands=[command])
        await submitting.write(request)
        assert (await submitting.read()).receipts[0].seq

        seen = -1
        while seen < 10:
            for chunk in (await following.read()).chunks:
                seen = chunk.tick if chunk.last else seen
        at_rest = -1
        while at_rest < 2:
            for chunk in (await resting.read()).chunks:
                at_rest = chunk.tick
        started = time.monotonic()
        os.kill(server.pid, number)

        rest: list[int] = [seen]
        end = await _last_words(following, lambda m: rest.extend(c.tick for c in m.chunks if c.last))
        assert _reason(end) == (
            grpc.StatusCode.UNAVAILABLE,
            "SHUTTING_DOWN",
            {"next_tick": str(rest[-1] + 1)},
        )
        assert _reason(await _last_words(resting)) == (
            grpc.StatusCode.UNAVAILABLE,
            "SHUTTING_DOWN",
            {"next_tick": "3"},
        )
        code, reason, _ = _reason(await _last_words(submitting))
        assert (code, reason) == (grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN")
    assert await asyncio.to_thread(server.wait, SECONDS_TO_END) == 0
    assert time.monotonic() - started < SECONDS_TO_END


async def test_what_a_stopped_server_promised_is_there_when_it_is_back(start_server: StartServer) -> None:
    server = await asyncio.to_thread(start_server, app=APP, root=ROOT)
    subscribe = tick_service_pb2.SubscribeRequest
    async with grpc.aio.insecure_channel(server.address) as given:
        channel: Any = given
        worlds: Any = world_service_pb2_grpc.WorldServiceStub(channel)
        simulation: Any = simulation_service_pb2_grpc.SimulationServiceStub(channel)
        ticks: Any = tick_service_pb2_grpc.TickServiceStub(channel)
        await worlds.CreateWorld(world_service_pb2.CreateWorldRequest(name="w", template="crowd"))
        following = ticks.Subscribe(subscribe(world="w", from_tick=0))
        await simulation.Play(simulation_service_pb2.PlayRequest(world="w"))
        hashes: dict[int, bytes] = {}

        def heard(message: Any) -> None:
            hashes.update((c.tick, c.summary.state_hash) for c in message.chunks if c.last)

        while len(hashes) < 10:
            heard(await following.read())
        os.kill(server.pid, signal.SIGTERM)
        next_tick = int(_reason(await _last_words(following, heard))[2]["next_tick"])
    assert sorted(hashes) == list(range(next_tick))
    assert await asyncio.to_thread(server.wait, SECONDS_TO_END) == 0

    await asyncio.to_thread(server.start)
    async with grpc.aio.insecure_channel(server.address) as given:
        channel = given
        ticks = tick_service_pb2_grpc.TickServiceStub(channel)
        again = {
            chunk.tick: chunk.summary.state_hash
            async for message in ticks.Subscribe(subscribe(world="w", from_tick=0, until_tick=next_tick - 1))
            for chunk in message.chunks
            if chunk.last
        }
    assert again == hashes
    assert await asyncio.to_thread(server.terminate) == 0
