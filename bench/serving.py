"""A server in a process of its own, as users run it, with a world of moving entities, and this process as its client."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc.aio

from bench.worlds import movers
from tickwire.v1 import (
    command_pb2,
    command_service_pb2,
    command_service_pb2_grpc,
    simulation_service_pb2,
    simulation_service_pb2_grpc,
    tick_service_pb2_grpc,
    world_service_pb2,
    world_service_pb2_grpc,
)
from tickwire_engine.world import ipc_stream
from tickwire_server.cli.server_process import ServerProcess

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    import pyarrow as pa

ROOT = Path(__file__).parent.parent
WORLD = "bench"
OPTIONS = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))
_ARGUMENTS = ("--metrics", "", "--log-level", "WARNING")
_VARIABLES = {"TICKWIRE_MAX_RECEIVE_BYTES": str(256 << 20)}
"""A million entities come in one table."""


@dataclass(frozen=True, slots=True)
class Served:
    """A running server, and stubs to call it by."""

    process: ServerProcess
    channel: grpc.aio.Channel
    commands: command_service_pb2_grpc.CommandServiceAsyncStub
    simulation: simulation_service_pb2_grpc.SimulationServiceAsyncStub
    ticks: tick_service_pb2_grpc.TickServiceAsyncStub

    async def step(self) -> simulation_service_pb2.StepResponse:
        """Compute a tick; it is durable once this returns."""
        return await self.simulation.Step(simulation_service_pb2.StepRequest(world=WORLD))

    async def run(self, ticks: int) -> None:
        """Compute ticks, pipelined; the last one is durable once this returns."""
        async for _ in self.simulation.Run(simulation_service_pb2.RunRequest(world=WORLD, ticks=ticks)):
            pass

    async def archived(self) -> None:
        """Compute ticks until what was before them is archived: the archiver has nothing to do then."""
        request = command_service_pb2.SubmitRequest(
            world=WORLD, commands=[update(1)], wait=command_service_pb2.WAIT_LEVEL_ARCHIVED
        )
        call: Any = self.commands.Submit(request)
        while not call.done():
            await self.step()
            await asyncio.sleep(0.1)
        await call

    def memory(self, what: str) -> int:
        """Return a line of the server's /proc status, as VmRSS, in bytes."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith(what)) * 1024

    def cpu_s(self) -> float:
        """Return the CPU time that the server has taken, in seconds: it says more than the clock on a busy machine."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def update(entity_id: int, y: float = 2.0, **given: str) -> command_pb2.Command:
    """Return a command that moves an entity."""
    command = command_pb2.Command(**given)  # type: ignore[arg-type]
    command.update.entity_ids.append(entity_id)
    command.update.components.update({"Position": {"x": entity_id + 0.5, "y": y}})
    return command


@contextmanager
def server(data: Path) -> Iterator[ServerProcess]:
    """Serve a data directory for as long as the context lasts."""
    with ServerProcess(
        data, app="bench.worlds:app", root=ROOT, arguments=_ARGUMENTS, variables=_VARIABLES
    ) as running:
        yield running


@asynccontextmanager
async def serving(entities: int) -> AsyncIterator[Served]:
    """Serve a new world of `entities` moving ones, after their first tick."""
    with tempfile.TemporaryDirectory() as folder, server(Path(folder) / "data") as process:
        async with connected(process) as served:
            await create(served, movers(entities))
            yield served


async def create(served: Served, table: pa.Table) -> None:
    """Make the world, with an entity for each row of `table`, and compute its first tick."""
    worlds: Any = world_service_pb2_grpc.WorldServiceStub(served.channel)
    await worlds.CreateWorld(world_service_pb2.CreateWorldRequest(name=WORLD, template="moving"))
    request = command_service_pb2.SubmitRequest(world=WORLD)
    request.commands.add().spawn.table = ipc_stream(table)
    await served.commands.Submit(request)
    await served.step()


@asynccontextmanager
async def connected(process: ServerProcess) -> AsyncIterator[Served]:
    """Connect to a server."""
    async with grpc.aio.insecure_channel(process.address, options=OPTIONS) as channel:
        stubs: Any = (
            command_service_pb2_grpc.CommandServiceStub(channel),
            simulation_service_pb2_grpc.SimulationServiceStub(channel),
            tick_service_pb2_grpc.TickServiceStub(channel),
        )
        yield Served(process, channel, *stubs)


@contextmanager
def yardstick(module: str, *arguments: str) -> Iterator[dict[str, Any]]:
    """Run a module of this package that others are measured by, in its own process; yields the JSON that it prints."""
    process = subprocess.Popen(
        [sys.executable, "-m", f"bench.{module}", *arguments],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "GRPC_VERBOSITY": "NONE"},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield json.loads(process.stdout.readline())
    finally:
        # It reads its standard input to the end, and goes.
        process.stdin.close()
        process.wait()
        process.stdout.close()
