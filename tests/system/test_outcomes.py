"""Outcomes followed over servers that are killed: each command's once, without gaps, and none is taken back."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tickwire import AsyncClient, CommandNotPendingError, CommandState, RetryPolicy, commands
from tickwire_server.cli.server_process import ServerProcess

if TYPE_CHECKING:
    from tickwire import AsyncWorld, Outcome

pytestmark = pytest.mark.system

ROOT = Path(__file__).parents[2]
PATIENT = RetryPolicy(retry_for_s=60.0)
SENDERS, EACH = 3, 24


async def _follow(world: AsyncWorld, seen: list[Outcome], count: int) -> None:
    """Follow the outcomes from the first on, over any number of connections, until `count` commands were told."""
    async with world.outcomes(after=0) as stream:
        async for outcome in stream:
            seen.append(outcome)
            if len(seen) == count:
                return


async def _send(world: AsyncWorld, number: int, told: dict[str, CommandState | None]) -> None:
    """Send spawns, every third for later, which is then cancelled."""
    rng = random.Random(number)
    for step in range(EACH):
        later = step % 3 == 0
        command = commands.spawn(
            {"Agent": {"name": "sent", "number": 1000 * number + step}}, tick=1 << 40 if later else None
        )
        await world.submit([command])
        told[command.id] = None
        if later:
            outcome = await world.cancel(command.id)
            told[command.id] = outcome.state
        elif rng.random() < 0.3:
            # Whether it comes in time is the world's to say; what it says is true ever after.
            try:
                told[command.id] = (await world.cancel(command.id)).state
            except CommandNotPendingError:
                told[command.id] = CommandState.APPLIED


async def test_every_outcome_is_told_once_in_order_whatever_is_killed(tmp_path: Path) -> None:
    server = ServerProcess(
        tmp_path / "data", app="tests.system.app:app", root=ROOT, arguments=("--wait-for-data", "20")
    )
    await asyncio.to_thread(server.start)
    told: dict[str, CommandState | None] = {}
    seen: list[Outcome] = []
    try:
        async with AsyncClient(server.address, retry=PATIENT) as client:
            world = await client.create_world("w", template="crowd", seed=1)
            await world.step()
            born = len([record async for record in world.commands()])
            following = asyncio.create_task(_follow(world, seen, born + SENDERS * EACH))
            await world.play(hz=100)
            senders = [asyncio.create_task(_send(world, n, told)) for n in range(1, SENDERS + 1)]
            for wanted in (20, 45):
                while len(told) < wanted:
                    done, _ = await asyncio.wait(senders, timeout=0.01)
                    for task in done:
                        task.result()
                await asyncio.to_thread(server.restart)
            await asyncio.gather(*senders)
            # One tick more for what was sent last.
            await world.step()
            await following
            states = {outcome.command_id: outcome.state for outcome in seen}
            assert [outcome.outcome_seq for outcome in seen] == [*range(1, len(seen) + 1)]
            assert len(states) == len(seen)
            assert set(told) <= set(states)
            for command_id, state in told.items():
                assert state in (None, states[command_id])
            assert list(states.values()).count(CommandState.CANCELLED) >= SENDERS * (EACH // 3)
            listed = {record.id: record.outcome async for record in world.commands(page_size=50)}
            assert listed == {outcome.command_id: outcome for outcome in seen}
            rows = (await world.query(components=["Agent"])).to_pylist()
            applied = [outcome for outcome in seen if outcome.state is CommandState.APPLIED]
            sent = {row["entity_id"] for row in rows if row["agent__name"] == "sent"}
            assert sent == {outcome.first_entity_id for outcome in applied if outcome.command_id in told}
    finally:
        await asyncio.to_thread(server.terminate)
