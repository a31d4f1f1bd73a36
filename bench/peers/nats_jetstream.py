"""NATS JetStream with `sync_interval: always`: batches of acknowledged publishes; run by an interpreter that has nats-py.

Prints one JSON line. Usage: python nats_jetstream.py NATS_SERVER BATCHES BATCH
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import tempfile
import time
from pathlib import Path
from subprocess import DEVNULL

import nats
from peer import IN_FLIGHT, measure


def main(server: str, batches: int, batch: int) -> None:
    """Start a server, and measure it."""
    with tempfile.TemporaryDirectory() as folder:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        settings = Path(folder) / "nats.conf"
        settings.write_text(
            f'listen: "127.0.0.1:{port}"\njetstream {{ store_dir: "{folder}/store", sync_interval: always }}\n'
        )
        measure([server, "-c", str(settings)], measured(port, batches, batch), stderr=DEVNULL)


async def measured(port: int, batches: int, batch: int) -> float:
    """Warm up, and return commands a second."""
    client = await connected(port)
    stream = client.jetstream(timeout=120, publish_async_max_pending=IN_FLIGHT * batch)
    await stream.add_stream(name="commands", subjects=["commands"])
    await publish(stream, 1, batch)
    started = time.perf_counter()
    await publish(stream, batches, batch)
    rate = batches * batch / (time.perf_counter() - started)
    info = await stream.stream_info("commands")
    assert info.state.messages == (batches + 1) * batch
    await client.close()
    return rate


async def connected(port: int) -> nats.NATS:
    """Connect once the server is there."""
    for _ in range(200):
        try:
            return await nats.connect(f"nats://127.0.0.1:{port}", allow_reconnect=False, error_cb=_ignored)
        except OSError:
            await asyncio.sleep(0.05)
    raise SystemExit("nats-server does not answer")


async def _ignored(error: Exception) -> None:
    """Tries go on until the server is there."""


async def publish(stream: nats.js.JetStreamContext, batches: int, batch: int) -> None:
    """Publish batches of commands, `IN_FLIGHT` at once; each message is acknowledged once it is stored."""
    left = iter(range(batches))

    async def sender() -> None:
        for number in left:
            acks = []
            for entity in range(batch):
                payload = json.dumps(
                    {"components": {"Position": {"x": entity + 0.5, "y": number}}, "entity_ids": [entity]}
                )
                acks.append(await stream.publish_async("commands", payload.encode()))
            await asyncio.gather(*acks)

    await asyncio.gather(*(sender() for _ in range(IN_FLIGHT)))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
