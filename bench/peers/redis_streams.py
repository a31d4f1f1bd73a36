"""Redis Streams with `appendfsync always`: batches of XADD; run by an interpreter that has redis-py, prints one JSON line.

Usage: python redis_streams.py REDIS_SERVER BATCHES BATCH
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
from pathlib import Path
from subprocess import DEVNULL

from peer import IN_FLIGHT, measure
from redis.asyncio import Redis
from redis.exceptions import BusyLoadingError
from redis.exceptions import ConnectionError as NotThereError


def main(server: str, batches: int, batch: int) -> None:
    """Start a server, and measure it."""
    with tempfile.TemporaryDirectory() as folder:
        socket = str(Path(folder) / "redis.sock")
        options = {"port": "0", "unixsocket": socket, "dir": folder, "save": ""}
        options |= {"appendonly": "yes", "appendfsync": "always"}
        arguments = [part for name, value in options.items() for part in (f"--{name}", value)]
        measure([server, *arguments], measured(socket, batches, batch), stdout=DEVNULL)


async def measured(socket: str, batches: int, batch: int) -> float:
    """Warm up, and return commands a second."""
    clients = [Redis(unix_socket_path=socket) for _ in range(IN_FLIGHT)]
    await answering(clients[0])
    assert (await clients[0].config_get("appendfsync"))["appendfsync"] == "always"
    await add(clients, IN_FLIGHT, batch)
    started = time.perf_counter()
    await add(clients, batches, batch)
    rate = batches * batch / (time.perf_counter() - started)
    assert await clients[0].xlen("commands") == (batches + IN_FLIGHT) * batch
    for client in clients:
        await client.aclose()
    return rate


async def answering(client: Redis) -> None:
    """Wait until the server is there."""
    for _ in range(200):
        try:
            await client.ping()
        except (NotThereError, BusyLoadingError):
            await asyncio.sleep(0.05)
        else:
            return
    raise SystemExit("redis-server does not answer")


async def add(clients: list[Redis], batches: int, batch: int) -> None:
    """Append batches of commands, `IN_FLIGHT` at once, each over a connection of its own."""
    left = iter(range(batches))

    async def sender(client: Redis) -> None:
        for number in left:
            pipeline = client.pipeline(transaction=False)
            for entity in range(batch):
                payload = json.dumps(
                    {"components": {"Position": {"x": entity + 0.5, "y": number}}, "entity_ids": [entity]}
                )
                pipeline.xadd("commands", {"command": payload})
            assert len(await pipeline.execute()) == batch

    await asyncio.gather(*map(sender, clients))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
