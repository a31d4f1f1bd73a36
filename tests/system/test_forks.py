"""Forks over restarts of a real server process, and after their parent's end."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.system.test_backup import tickwire
from tickwire import AsyncClient, Branch, RolloutOptions, commands

if TYPE_CHECKING:
    from tests.system.conftest import StartServer
    from tickwire import AsyncWorld

pytestmark = pytest.mark.system

ROOT = Path(__file__).parents[2]
APP = "tests.system.app:app"


async def hashes(world: AsyncWorld, until: int) -> list[bytes]:
    async with world.ticks(from_tick=0, until_tick=until) as stream:
        return [tick.summary.state_hash async for tick in stream]


async def test_forks_are_found_again_after_kills_and_verify(start_server: StartServer) -> None:
    server = await asyncio.to_thread(start_server, app=APP, root=ROOT)
    async with AsyncClient(server.address) as client:
        parent = await client.create_world("parent", template="crowd")
        await parent.step(20)
        seed = (await parent.info()).seed
        fork = await parent.fork("fork", at_tick=9, seed=seed)
        await fork.step(5)
        inner = await fork.fork("inner", at_tick=12, seed=seed)
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(server.restart)
        expected = await hashes(parent, 19)
        assert await hashes(fork, 14) == expected[:15]
        await inner.step(7)
        assert await hashes(inner, 19) == expected
        assert [info.name async for info in client.worlds()] == ["parent", "fork", "inner"]
    await asyncio.to_thread(server.terminate)
    assert "ticks 13 to 19 come out as recorded" in await tickwire(
        "verify", "inner", "--data", server.data, "--app", APP
    )


def listing(data: Path) -> dict[str, int]:
    """Return every file and its size, but for SQLite's shared memory, which holds nothing of its own."""
    return {
        str(path.relative_to(data)): path.stat().st_size
        for path in data.rglob("*")
        if path.is_file() and not path.name.endswith("-shm")
    }


async def test_a_rollout_leaves_nothing_in_the_data_directory_and_answers_the_same_after_a_restart(
    start_server: StartServer,
) -> None:
    server = await asyncio.to_thread(start_server, app=APP, root=ROOT)
    async with AsyncClient(server.address) as client:
        world = await client.create_world("w", template="crowd")
        await world.step(10)
        faster = Branch(name="b", commands=[commands.update([1], {"Agent": {"age": 1000}})])
        asked: RolloutOptions = {
            "branches": [Branch(name="a"), faster],
            "copies": 2,
            "result_sql": "SELECT max(agent__age) AS oldest FROM agent",
            "at_tick": 9,
        }
        before = listing(server.data)
        first = sorted([result async for result in world.rollout(20, **asked)], key=lambda r: r.branch)
        # Calls that change something leave a line in the audit trail, and rollouts could.
        changed = {name for name, size in listing(server.data).items() if before.get(name) != size}
        assert changed <= {"journal.db-wal"}
        assert [result.table.to_pylist()[0]["oldest"] for result in first if result.table] == [
            *([30] * 2),
            *([1020] * 2),
        ]
        assert [info.name async for info in client.worlds()] == ["w"]
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(server.restart)
        again = sorted([result async for result in world.rollout(20, **asked)], key=lambda r: r.branch)
        assert [result.table for result in again] == [result.table for result in first]
        scores = [
            result.score
            async for result in world.episode(5, score_sql="SELECT sum(energy__level) FROM energy")
        ]
        assert len(scores) == 1
