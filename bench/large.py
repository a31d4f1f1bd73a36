"""A world of a million entities: the memory it takes while it plays, and how soon it serves again after a restart."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from bench.report import Figure, Stopwatch, figure
from bench.serving import WORLD, connected, create, server
from bench.submits import BATCH, batch
from bench.worlds import movers
from tickwire.v1 import command_service_pb2, simulation_service_pb2

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from bench.serving import Served
    from tickwire_server.cli.server_process import ServerProcess

PENDING = 10_000
_PLAYED_S = 10.0
_RESTARTS = 3


async def large(*, quick: bool) -> AsyncIterator[Figure]:
    """Memory of the server process, and the time from its start to SERVING."""
    count = 100_000 if quick else 1_000_000
    table = movers(count)
    with tempfile.TemporaryDirectory() as folder:
        with server(Path(folder) / "empty") as process:
            nothing = _restarted(process)
        with server(Path(folder) / "data") as process:
            async with connected(process) as served:
                before = served.memory("VmRSS")
                await create(served, table)
                playing = await _memory_while_playing(served)
                for number in range(PENDING // BATCH):
                    request = command_service_pb2.SubmitRequest(world=WORLD, commands=batch(number).commands)
                    await served.commands.Submit(request)
            restarts = [_restarted(process) for _ in range(_RESTARTS)]
            async with connected(process) as served:
                assert (await served.step()).commands_applied == PENDING
    columns = count * (8 + 4 * 8) + count // 8
    note = f"columns {columns / 1e6:.0f} MB, the empty server {before / 1e6:.0f} MB"
    yield figure("large", f"memory at {count:,} entities, playing at 2 Hz", [playing / 1e6], "MB", note)
    what = f"restart to SERVING: {count:,} entities, {PENDING:,} pending commands"
    yield figure("large", "restart to SERVING: nothing", [nothing], "s", "the interpreter and its imports")
    yield figure("large", what, restarts, "s")


async def _memory_while_playing(served: Served) -> int:
    await served.simulation.Play(simulation_service_pb2.PlayRequest(world=WORLD, hz=2))
    most = 0
    watch = Stopwatch()
    while watch.seconds < _PLAYED_S:
        await asyncio.sleep(0.2)
        most = max(most, served.memory("VmRSS"))
    await served.simulation.Pause(simulation_service_pb2.PauseRequest(world=WORLD))
    return most


def _restarted(process: ServerProcess) -> float:
    process.terminate()
    watch = Stopwatch()
    process.start()
    return watch.seconds
