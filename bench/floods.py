"""What an actor notices of another that floods the server: the latency of its durable Submits, alone and beside it."""

from __future__ import annotations

import asyncio
import statistics
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc.aio

from bench.report import Figure, Stopwatch, figure
from bench.serving import OPTIONS, ROOT, WORLD, update, yardstick
from bench.submits import BATCH, IN_FLIGHT
from bench.worlds import movers
from tickwire.v1 import (
    auth_service_pb2,
    auth_service_pb2_grpc,
    command_service_pb2,
    command_service_pb2_grpc,
    simulation_service_pb2,
    simulation_service_pb2_grpc,
    world_service_pb2,
    world_service_pb2_grpc,
)
from tickwire_engine.storage.store import Store
from tickwire_engine.world import ipc_stream
from tickwire_server.auth.tokens import new_token
from tickwire_server.cli.server_process import ServerProcess

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_VARIABLES = {"TICKWIRE_AUTH": "true", "TICKWIRE_COST_UNITS_PER_DAY": "0", "TICKWIRE_COMMANDS_PER_TICK": "0"}
_FLOODS = (
    ("beside 64 Submits in flight", 1, IN_FLIGHT),
    (f"beside 8 Submits of {BATCH:,} in flight", BATCH, 8),
)


async def floods(*, quick: bool) -> AsyncIterator[Figure]:
    """Durable Submits of one actor, one after another, alone and beside another's floods."""
    calls = 60 if quick else 200
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        admin = await _first_token(data)
        process = ServerProcess(
            data,
            app="bench.worlds:app",
            root=ROOT,
            arguments=("--metrics", "", "--log-level", "WARNING"),
            variables=_VARIABLES,
        )
        with process:
            async with grpc.aio.insecure_channel(process.address, options=OPTIONS) as channel:
                mine, other = [await _prepared(channel, admin, name) for name in ("mine", "other")]
                alone = await _latencies(channel, mine, calls)
                yield _figure("alone", alone, alone)
                for what, commands, in_flight in _FLOODS:
                    arguments = (process.address, other, str(commands), str(in_flight))
                    with yardstick("flood", *arguments):
                        beside = await _latencies(channel, mine, calls)
                    yield _figure(what, beside, alone)
                    await _step(channel, admin)


def _figure(what: str, latencies: list[float], alone: list[float]) -> Figure:
    (p50, p99), (own50, own99) = _percentiles(latencies), _percentiles(alone)
    note = f"p99 {p99:.1f} ms; {p50 / own50:.1f}x and {p99 / own99:.1f}x of alone"
    return figure("floods", f"durable unary Submit, {what}", latencies, "ms", note)


def _percentiles(latencies: list[float]) -> tuple[float, float]:
    return statistics.median(latencies), statistics.quantiles(latencies, n=100)[98]


async def _latencies(channel: grpc.aio.Channel, token: str, count: int) -> list[float]:
    stub: Any = command_service_pb2_grpc.CommandServiceStub(channel)  # type: ignore[arg-type]
    request = command_service_pb2.SubmitRequest(world=WORLD, commands=[update(1)])
    found = []
    for number in range(count + 20):
        watch = Stopwatch()
        await stub.Submit(request, metadata=_metadata(token))
        if number >= 20:
            found.append(watch.seconds * 1e3)
        # A player, not a flood.
        await asyncio.sleep(0.002)
    return found


async def _prepared(channel: grpc.aio.Channel, admin: str, name: str) -> str:
    """Return the token of a player; the first makes the world too."""
    auth: Any = auth_service_pb2_grpc.AuthServiceStub(channel)  # type: ignore[arg-type]
    if name == "mine":
        worlds: Any = world_service_pb2_grpc.WorldServiceStub(channel)  # type: ignore[arg-type]
        commands: Any = command_service_pb2_grpc.CommandServiceStub(channel)  # type: ignore[arg-type]
        create = world_service_pb2.CreateWorldRequest(name=WORLD, template="moving")
        await worlds.CreateWorld(create, metadata=_metadata(admin))
        spawn = command_service_pb2.SubmitRequest(world=WORLD)
        spawn.commands.add().spawn.table = ipc_stream(movers(BATCH))
        await commands.Submit(spawn, metadata=_metadata(admin))
        await _step(channel, admin)
    request = auth_service_pb2.CreateTokenRequest(name=name, roles=["player"])
    return str((await auth.CreateToken(request, metadata=_metadata(admin))).secret)


async def _step(channel: grpc.aio.Channel, admin: str) -> None:
    stub: Any = simulation_service_pb2_grpc.SimulationServiceStub(channel)  # type: ignore[arg-type]
    await stub.Step(simulation_service_pb2.StepRequest(world=WORLD), metadata=_metadata(admin))


def _metadata(token: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {token}"),)


async def _first_token(data: Path) -> str:
    row, secret = new_token(
        "bench", roles=("admin",), worlds=("*",), allowed_commands=(), expires_at_us=0, created_by=""
    )
    store = Store.open(data)
    await store.identity.put_token(row)
    store.close()
    return secret
