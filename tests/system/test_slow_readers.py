"""A hundred subscribers of whom twenty read nothing: the world goes on, memory stays bounded, the dead are found."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

import pyarrow as pa
import pytest
from grpc_channelz.v1 import channelz_pb2, channelz_pb2_grpc

from tickwire import AsyncClient

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.system.conftest import StartServer
    from tickwire_server.cli.server_process import ServerProcess

pytestmark = pytest.mark.system

ROOT = Path(__file__).parents[2]
READERS, STALLED, TICKS = 80, 20, 80
ENTITIES = 20_000
MESSAGES_MB = 500
"""A generous bound of what the server may grow by; unread ticks of all stalled subscribers would be 1,100 MB."""


def memory_mb(pid: int, what: str) -> int:
    """Read VmRSS, or VmHWM, the most there ever was."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(what):
            return int(line.split()[1]) // 1024
    raise AssertionError(what)


@contextmanager
def readers(server: ServerProcess, readers: int, stalled: int) -> Iterator[subprocess.Popen[str]]:
    """Run subscribers in a process of their own."""
    command = [sys.executable, "-m", "tests.system.slow_readers", server.address, "w"]
    process = subprocess.Popen(
        [*command, str(readers), str(stalled), str(TICKS)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    try:
        assert line(process.stdout) == ["connected"]
        yield process
    finally:
        process.kill()
        process.communicate()


def line(pipe: IO[str] | None) -> list[str]:
    assert pipe is not None
    return pipe.readline().split()


async def large_world(client: AsyncClient) -> None:
    world = await client.create_world("w", template="crowd")
    await world.spawn(table=pa.table({"agent__name": [f"agent number {n}" for n in range(ENTITIES)]}))
    await world.step()


async def test_subscribers_who_read_nothing_cost_neither_the_world_nor_the_others(
    start_server: StartServer,
) -> None:
    settings = {"TICKWIRE_RING_BYTES": str(8 << 20), "TICKWIRE_STALLED_WRITE_S": "1"}
    server = await asyncio.to_thread(start_server, app="tests.system.app:app", root=ROOT, variables=settings)
    async with AsyncClient(server.address) as client:
        await large_world(client)
        world = await client.world("w")
        before = memory_mb(server.pid, "VmRSS")
        with readers(server, READERS, STALLED) as process:
            async for progress in world.run(TICKS):
                done = progress.ticks_done
            assert done == TICKS
            assert await asyncio.to_thread(line, process.stdout) == ["heard", str(TICKS + 1)]
            grown = memory_mb(server.pid, "VmHWM") - before
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
            ended = await asyncio.to_thread(line, process.stdout)
        # Every third of the stalled ones asked to be sent away.
        assert ended == ["ended"] + ["ABORTED"] * (STALLED // 3)
        assert grown < MESSAGES_MB
        assert (await world.info()).tick == TICKS + 1


async def sockets(channelz: channelz_pb2_grpc.ChannelzStub) -> int:
    servers = await channelz.GetServers(channelz_pb2.GetServersRequest())
    request = channelz_pb2.GetServerSocketsRequest(server_id=servers.server[0].ref.server_id)
    return len((await channelz.GetServerSockets(request)).socket_ref)


async def test_keepalive_finds_those_who_vanished(start_server: StartServer) -> None:
    settings = {"TICKWIRE_KEEPALIVE_S": "1", "TICKWIRE_KEEPALIVE_TIMEOUT_S": "1"}
    server = await asyncio.to_thread(start_server, app="tests.system.app:app", root=ROOT, variables=settings)
    async with AsyncClient(server.address) as client:
        await large_world(client)
        channelz = channelz_pb2_grpc.ChannelzStub(client._transport._channel)
        alone = await sockets(channelz)
        with readers(server, 4, 6) as process:
            assert await sockets(channelz) >= alone + 6
            # It is there, and answers nothing: as when its machine lost its network.
            os.kill(process.pid, signal.SIGSTOP)
            while await sockets(channelz) > alone:  # noqa: ASYNC110  (what the server sees sets no event here)
                await asyncio.sleep(0.1)
        world = await client.world("w")
        assert (await world.step(3)).last_tick == 3
