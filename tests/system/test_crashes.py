"""Servers killed at the worst moments: nothing acknowledged is lost or doubled, nothing seen is taken back."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tickwire import AsyncClient, RetryPolicy, UnavailableError, commands
from tickwire_server.cli.server_process import ServerProcess

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tickwire import AsyncWorld, Tick

pytestmark = pytest.mark.system

ROOT = Path(__file__).parents[2]
TICKS = 120
PATIENT = RetryPolicy(retry_for_s=60.0)


def _server(data: Path, app: str = "tests.system.app:app") -> ServerProcess:
    return ServerProcess(data, app=app, root=ROOT, arguments=("--wait-for-data", "20"))


async def _ticks(world: AsyncWorld, until: int) -> AsyncIterator[Tick]:
    async with world.ticks(from_tick=0, until_tick=until) as stream:
        async for tick in stream:
            yield tick


async def _history(world: AsyncWorld, until: int) -> list[bytes]:
    return [tick.summary.state_hash async for tick in _ticks(world, until)]


async def _run_to(client: AsyncClient, name: str, ticks: int) -> None:
    """Run until the world has computed `ticks` ticks, however often the server goes away meanwhile."""
    while True:
        try:
            world = await client.world(name)
            left = ticks - (await world.info()).tick
            if left <= 0:
                return
            async for _ in world.run(left):
                pass
        except UnavailableError:
            # The server is coming back; world() waits for it, as its retry policy says.
            continue


async def _uninterrupted(
    data: Path, *, app: str, template: str, ticks: int, labels: dict[str, str]
) -> list[bytes]:
    server = _server(data, app)
    await asyncio.to_thread(server.start)
    try:
        async with AsyncClient(server.address) as client:
            world = await client.create_world("w", template=template, seed=7, labels=labels)
            async for _ in world.run(ticks):
                pass
            return await _history(world, ticks - 1)
    finally:
        await asyncio.to_thread(server.terminate)


@pytest.mark.parametrize(
    ("app", "template", "labels", "ticks"),
    [
        ("tests.system.app:app", "crowd", {}, TICKS),
        ("examples.orrery.app:app", "solar-system", {"asteroids": "2000"}, 40),
    ],
    ids=["crowd", "orrery"],
)
async def test_a_run_that_is_killed_again_and_again_ends_bit_for_bit_where_an_uninterrupted_one_does(
    tmp_path: Path, app: str, template: str, labels: dict[str, str], ticks: int
) -> None:
    expected = await _uninterrupted(
        tmp_path / "whole", app=app, template=template, ticks=ticks, labels=labels
    )
    server = _server(tmp_path / "killed", app)
    await asyncio.to_thread(server.start)
    try:
        async with AsyncClient(server.address, retry=PATIENT) as client:
            await client.create_world("w", template=template, seed=7, labels=labels)
            running = asyncio.create_task(_run_to(client, "w", ticks))
            watched = await client.world("w")
            kill_at = set(random.Random(3).sample(range(2, ticks - 2), 3))
            seen: list[bytes] = []
            async for tick in _ticks(watched, ticks - 1):
                assert tick.tick == len(seen), "a subscriber gets every tick, once, in order"
                seen.append(tick.summary.state_hash)
                if tick.tick in kill_at:
                    await asyncio.to_thread(server.restart)
            await running
            assert seen == expected
            assert await _history(watched, ticks - 1) == expected
    finally:
        await asyncio.to_thread(server.terminate)


async def test_every_acknowledged_command_is_applied_exactly_once_whatever_is_killed(tmp_path: Path) -> None:
    server = _server(tmp_path / "data")
    await asyncio.to_thread(server.start)
    acknowledged: dict[int, int] = {}
    try:
        async with AsyncClient(server.address, retry=PATIENT) as client:
            world = await client.create_world("w", template="crowd", seed=1)
            await world.play(hz=200)

            async def send(first: int) -> None:
                for number in range(first, first + 40):
                    # One id for all its retries: made here, before the first attempt.
                    command = commands.spawn({"Agent": {"name": "sent", "number": number}})
                    (receipt,) = await world.submit([command])
                    acknowledged[number] = receipt.first_entity_id

            senders = [asyncio.create_task(send(1000 * n)) for n in range(1, 5)]
            for wanted in (20, 60, 100):
                while len(acknowledged) < wanted:
                    done, _ = await asyncio.wait(senders, timeout=0.01)
                    for task in done:
                        task.result()
                await asyncio.to_thread(server.restart)
            await asyncio.gather(*senders)
            await world.step(1)
            rows = (await world.query(components=["Agent"])).to_pylist()
            sent = {row["agent__number"]: row["entity_id"] for row in rows if row["agent__name"] == "sent"}
            assert len([row for row in rows if row["agent__name"] == "sent"]) == 160, "none lost, none twice"
            assert sent == acknowledged
            ids = [row["entity_id"] for row in rows]
            assert len(set(ids)) == len(ids)
    finally:
        await asyncio.to_thread(server.terminate)


async def test_a_second_server_on_the_same_data_is_refused_and_told_of_the_first(tmp_path: Path) -> None:
    first = _server(tmp_path / "data")
    await asyncio.to_thread(first.start)
    try:
        second = ServerProcess(tmp_path / "data", app="tests.system.app:app", root=ROOT)
        with pytest.raises(Exception, match=str(first.pid)):
            await asyncio.to_thread(second.start)
        async with AsyncClient(first.address) as client:
            assert (await client.server_info()).app == "system-tests"
    finally:
        await asyncio.to_thread(first.terminate)
