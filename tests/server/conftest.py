"""A real server on the test's own loop, and raw stubs on a real socket."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import pytest

from tests.server.application import Gate, application
from tickwire.v1 import (
    command_pb2,
    command_service_pb2,
    command_service_pb2_grpc,
    query_service_pb2_grpc,
    server_service_pb2_grpc,
    simulation_service_pb2,
    simulation_service_pb2_grpc,
    tick_service_pb2,
    tick_service_pb2_grpc,
    world_pb2,
    world_service_pb2,
    world_service_pb2_grpc,
)
from tickwire_server.config import ServerConfig
from tickwire_server.grpc.server import GrpcServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


class Served:
    """A server that tests start, stop and start again, and the stubs to call it."""

    server: GrpcServer
    channel: grpc.aio.Channel

    def __init__(self, path: Path) -> None:
        self.path = path
        self.running = False

    async def start(self, **settings: Any) -> None:
        given = {"listen": "127.0.0.1:0", "data": self.path, "grace_s": 5.0} | settings
        config = ServerConfig(**given)
        self.server = await GrpcServer.start(config, application())
        self.running = True
        self.channel = grpc.aio.insecure_channel(f"127.0.0.1:{self.server.port}")
        # grpcio makes stubs for channels of either kind; its stubs' types know the blocking one only.
        channel: Any = self.channel
        self.commands: Any = command_service_pb2_grpc.CommandServiceStub(channel)
        self.queries: Any = query_service_pb2_grpc.QueryServiceStub(channel)
        self.info: Any = server_service_pb2_grpc.ServerServiceStub(channel)
        self.simulation: Any = simulation_service_pb2_grpc.SimulationServiceStub(channel)
        self.ticks: Any = tick_service_pb2_grpc.TickServiceStub(channel)
        self.worlds: Any = world_service_pb2_grpc.WorldServiceStub(channel)

    async def stop(self) -> None:
        if self.running:
            self.running = False
            await self.server.stop()
            await self.channel.close()

    async def create(self, name: str = "w", template: str = "line", **given: Any) -> world_pb2.World:
        request = world_service_pb2.CreateWorldRequest(name=name, template=template, **given)
        return (await self.worlds.CreateWorld(request)).world

    async def step(
        self, ticks: int = 1, world: str = "w", **given: Any
    ) -> simulation_service_pb2.StepResponse:
        return await self.simulation.Step(
            simulation_service_pb2.StepRequest(world=world, ticks=ticks, **given)
        )

    async def submit(
        self, *commands: command_pb2.Command, world: str = "w", **given: Any
    ) -> command_service_pb2.SubmitResponse:
        return await self.commands.Submit(
            command_service_pb2.SubmitRequest(world=world, commands=commands, **given)
        )

    def subscribe(self, world: str = "w", **given: Any) -> Any:
        return self.ticks.Subscribe(tick_service_pb2.SubscribeRequest(world=world, **given))

    async def play(self, hz: float = 0.0, world: str = "w", **given: Any) -> world_pb2.World:
        request = simulation_service_pb2.PlayRequest(world=world, hz=hz, **given)
        return (await self.simulation.Play(request)).world

    async def pause(self, world: str = "w") -> world_pb2.World:
        return (await self.simulation.Pause(simulation_service_pb2.PauseRequest(world=world))).world

    def gate(self, world: str = "w") -> Gate:
        """Return the gate of a world: the server runs in this process."""
        return self.server.container.engine.world(world).resources.require(Gate)

    def mover(self, world: str = "w") -> Any:
        return self.server.container.mover(self.server.container.engine.world(world))


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    made = Served(tmp_path / "data")
    await made.start()
    yield made
    await made.stop()
