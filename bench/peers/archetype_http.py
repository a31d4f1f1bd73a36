"""archetype-ecs 0.6.3 over HTTP: batches of updates; run by an interpreter that has it, prints one JSON line.

A batch is accepted once SQLite has synced it, and an audit log has it, a table of Iceberg: one append for 128 commands,
each of which takes longer than the one before.

Usage: python archetype_http.py BATCHES BATCH
"""

from __future__ import annotations

import asyncio
import math
import os
import sys
import tempfile
import time
from pathlib import Path
from subprocess import DEVNULL
from typing import TYPE_CHECKING, Any

import httpx
from archetype.api.app import create_app
from archetype.commands.policy import DEFAULT_MAX_COMMANDS_PER_TICK as QUOTA
from archetype_ecs import Position, Velocity
from peer import IN_FLIGHT, measure

if TYPE_CHECKING:
    from fastapi import FastAPI

SPAWNER = {"Authorization": "Bearer player"}
"""Quotas are each actor's, and without settings: entities are not taken from the 25,000 updates that the admin has a day."""


def served() -> FastAPI:
    """Return what `archetype serve` serves, in a process that knows the components."""
    return create_app()


def main(batches: int, batch: int) -> None:
    """Start a server, and measure it."""
    here = Path(__file__).absolute()
    with tempfile.TemporaryDirectory() as folder:
        socket = str(Path(folder) / "http.sock")
        app = ["--factory", f"{here.stem}:served", "--app-dir", str(here.parent)]
        measure(
            [sys.executable, "-m", "uvicorn", *app, "--uds", socket, "--log-level", "warning"],
            measured(socket, batches, batch),
            cwd=folder,
            env={**os.environ, "ARCHETYPE_BIND_HOST": "localhost", "ARCHETYPE_CATALOG_DIR": folder},
            stdout=DEVNULL,
        )


async def measured(socket: str, batches: int, batch: int) -> float:
    """Warm up, and return commands a second."""
    transport = httpx.AsyncHTTPTransport(uds=socket)
    async with httpx.AsyncClient(transport=transport, base_url="http://peer", timeout=120) as client:
        await answering(client)
        world = await with_entities(client, batch)
        await submit(client, world, range(1, 2), batch)
        started = time.perf_counter()
        await submit(client, world, range(2, 2 + batches), batch)
        return batches * batch / (time.perf_counter() - started)


async def answering(client: httpx.AsyncClient) -> None:
    """Wait until the server is there."""
    for _ in range(600):
        try:
            await client.get("/healthz")
        except httpx.TransportError:
            await asyncio.sleep(0.05)
        else:
            return
    raise SystemExit("archetype-ecs does not answer")


async def with_entities(client: httpx.AsyncClient, count: int) -> str:
    """Make a world of so many entities, at the tick that batch 1 begins with; returns its id."""
    world = (await posted(client, "/worlds", {"name": "bench", "storage_uri": "worlds"}))["world_id"]
    components = [{"type": kind.__name__} for kind in (Position, Velocity)]
    for first in range(0, count, QUOTA):
        for _ in range(first, min(first + QUOTA, count)):
            await posted(client, f"/worlds/{world}/entities", {"components": components}, SPAWNER)
        await posted(client, f"/worlds/{world}/step", {})
    return str(world)


async def submit(client: httpx.AsyncClient, world: str, numbers: range, batch: int) -> None:
    """Submit batches of commands, `IN_FLIGHT` at once; each is for as many ticks as the quota of one asks for."""
    left = iter(numbers)
    ticks = math.ceil(batch / QUOTA)

    async def sender() -> None:
        for number in left:
            commands = []
            for entity in range(batch):
                position = {"type": Position.__name__, "x": entity + 0.5, "y": number}
                payload = {"entity_id": entity + 1, "components": [position]}
                tick = number * ticks + entity // QUOTA
                commands.append({"type": "update", "tick": tick, "payload": payload})
            accepted = await posted(client, f"/worlds/{world}/commands/batch", {"commands": commands})
            assert len(accepted["command_ids"]) == batch

    await asyncio.gather(*(sender() for _ in range(IN_FLIGHT)))


async def posted(
    client: httpx.AsyncClient, path: str, body: dict[str, Any], headers: dict[str, str] | None = None
) -> Any:
    """Post JSON, and return the answer's."""
    answer = await client.post(path, json=body, headers=headers)
    answer.raise_for_status()
    return answer.json()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
