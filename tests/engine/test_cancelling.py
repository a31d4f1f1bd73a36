"""Withdrawing commands: what is pending, what is not, and what a restart remembers."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.engine.parts import Place
from tickwire_engine import AsyncProcessor, CommandType, Submission, WorldConfig
from tickwire_engine.errors import (
    CommandIdReusedError,
    CommandNotFoundError,
    CommandNotPendingError,
    ProcessorFailedError,
    WorldFullError,
)
from tickwire_engine.ids import uuid7

if TYPE_CHECKING:
    from uuid import UUID

    import daft

    from tests.engine.conftest import Opener
    from tickwire_engine import AsyncWorld, Engine

FEW = settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def spawn(x: float = 0.0, *, id: UUID | None = None, tick: int | None = None) -> Submission:  # noqa: A002
    payload = {"components": {"Place": {"x": x}}}
    return Submission(CommandType.SPAWN, payload, None if id is None else id.bytes, tick)


class Gate:
    """What a processor waits for, and whether it then fails."""

    def __init__(self) -> None:
        self.entered = asyncio.Event()
        self.release = asyncio.Event()
        self.fails = False


class Wait(AsyncProcessor):
    """Holds its tick until the test lets it go."""

    components = (Place,)

    async def process(self, df: daft.DataFrame, **input_kwargs: Any) -> daft.DataFrame:
        gate = input_kwargs["resources"].require(Gate)
        gate.entered.set()
        await gate.release.wait()
        if gate.fails:
            raise RuntimeError("it fails")
        return df


async def gated(engine: Engine) -> tuple[AsyncWorld, Gate]:
    """Return a world with an entity whose ticks wait at a gate."""
    world = await engine.create_world(WorldConfig(name="gated"))
    gate = Gate()
    world.resources.insert(gate)
    await world.create_entity([Place()])
    await world.step()
    await world.add_processor(Wait())
    return world, gate


async def test_a_cancelled_command_is_never_applied(world: AsyncWorld) -> None:
    kept, gone = uuid7(), uuid7()
    await world.submit([spawn(1.0, id=kept), spawn(2.0, id=gone)])
    settled = await world.cancel(gone)
    assert settled.outcome.cancelled
    assert (settled.tick, settled.outcome_seq) == (-1, 1)
    assert world.acceptance.pending == 1
    committed = await world.step()
    assert committed.summary.commands_applied == 1
    assert world.entity(1)["Place"]["x"] == 1.0
    assert committed.first_outcome_seq == 2


async def test_cancelling_again_answers_the_same_over_restarts(opener: Opener) -> None:
    world = await (await opener.open()).create_world(WorldConfig(name="w"))
    command_id = uuid7()
    await world.submit([spawn(id=command_id, tick=5)])
    first, at_once = await asyncio.gather(world.cancel(command_id), world.cancel(command_id))
    again = await world.cancel(command_id)
    world = (await opener.open()).world("w")
    assert world.acceptance.pending == 0
    restarted = await world.cancel(command_id)
    assert first == at_once == again == restarted
    for _ in range(6):
        assert (await world.step()).summary.commands_applied == 0


async def test_a_decided_command_cannot_be_cancelled(opener: Opener) -> None:
    world = await (await opener.open()).create_world(WorldConfig(name="w"))
    applied, rejected = uuid7(), uuid7()
    await world.submit(
        [spawn(id=applied), Submission(CommandType.DESPAWN, {"entity_ids": [9]}, rejected.bytes)]
    )
    await world.step()
    for attempt in range(2):
        for command_id in (applied, rejected):
            with pytest.raises(CommandNotPendingError) as raised:
                await world.cancel(command_id)
            state = "REJECTED" if command_id == rejected else "APPLIED"
            assert raised.value.metadata == {
                "command_id": str(command_id),
                "tick": "0",
                "state": f"COMMAND_STATE_{state}",
            }
        if not attempt:
            world = (await opener.open()).world("w")


async def test_an_unknown_command_cannot_be_cancelled(world: AsyncWorld) -> None:
    with pytest.raises(CommandNotFoundError):
        await world.cancel(uuid7())


async def test_a_drained_command_is_not_pending_its_cancel_waits_for_the_tick(engine: Engine) -> None:
    world, gate = await gated(engine)
    command_id = uuid7()
    await world.submit([spawn(id=command_id)])
    step = asyncio.ensure_future(world.step())
    await gate.entered.wait()
    cancel = asyncio.ensure_future(world.cancel(command_id))
    await asyncio.sleep(0)
    assert not cancel.done()
    gate.release.set()
    assert (await step).summary.commands_applied == 2
    with pytest.raises(CommandNotPendingError):
        await cancel
    assert world.state.entities == 2


async def test_a_drained_command_whose_tick_fails_is_pending_again_and_cancelled(engine: Engine) -> None:
    world, gate = await gated(engine)
    command_id = uuid7()
    await world.submit([spawn(id=command_id)])
    gate.fails = True
    step = asyncio.ensure_future(world.step())
    await gate.entered.wait()
    cancel = asyncio.ensure_future(world.cancel(command_id))
    await asyncio.sleep(0)
    gate.release.set()
    with pytest.raises(ProcessorFailedError):
        await step
    assert (await cancel).outcome.cancelled
    gate.fails = False
    assert (await world.step()).summary.spawned == 0


async def test_a_command_for_later_is_cancelled_while_a_tick_computes(engine: Engine) -> None:
    world, gate = await gated(engine)
    step = asyncio.ensure_future(world.step())
    await gate.entered.wait()
    next_one, later = uuid7(), uuid7()
    await world.submit([spawn(id=next_one), spawn(id=later, tick=7)])
    assert (await world.cancel(next_one)).outcome.cancelled
    assert (await world.cancel(later)).outcome.cancelled
    gate.release.set()
    await step
    assert (await world.step()).summary.commands_applied == 0
    assert world.acceptance.pending == 0


async def test_the_waiters_of_a_cancelled_command_are_told(world: AsyncWorld) -> None:
    command_id = uuid7()
    (receipt,) = await world.submit([spawn(id=command_id)])
    assert receipt.command is not None
    waiting = asyncio.ensure_future(receipt.command.wait_settled())
    await world.cancel(command_id)
    assert (await waiting).outcome.cancelled


@pytest.mark.parametrize("restarted", [False, True])
async def test_the_id_of_a_cancelled_command_is_a_duplicate(opener: Opener, restarted: bool) -> None:
    world = await (await opener.open()).create_world(WorldConfig(name="w"))
    command_id = uuid7()
    (first,) = await world.submit([spawn(1.0, id=command_id)])
    await world.cancel(command_id)
    if restarted:
        world = (await opener.open()).world("w")
    (again,) = await world.submit([spawn(1.0, id=command_id)])
    assert again.duplicate
    assert first.command is not None
    assert again.command is not None
    assert again.command.settled is not None
    assert again.command.settled.outcome.cancelled
    assert again.command.seq == first.command.seq
    with pytest.raises(CommandIdReusedError):
        await world.submit([spawn(2.0, id=command_id)])
    assert (await world.step()).summary.spawned == 0


async def test_a_cancelled_spawn_gives_its_room_back_and_never_its_ids(opener: Opener) -> None:
    world = await (await opener.open()).create_world(WorldConfig(name="w", max_entities=1))
    command_id = uuid7()
    (first,) = await world.submit([spawn(id=command_id)])
    with pytest.raises(WorldFullError):
        await world.submit([spawn()])
    await world.cancel(command_id)
    (second,) = await world.submit([spawn()])
    assert first.command is not None
    assert second.command is not None
    assert second.command.first_entity_id == first.command.first_entity_id + 1
    world = (await opener.open()).world("w")
    await world.step()
    assert world.state.entities == 1


@given(
    ticks=st.lists(st.integers(0, 3), min_size=1, max_size=12),
    cancels=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 11)), max_size=12),
)
@FEW
async def test_every_command_is_either_applied_or_cancelled_and_outcomes_are_dense(
    shared_engine: Engine, ticks: list[int], cancels: list[tuple[int, int]]
) -> None:
    world = await shared_engine.create_world(WorldConfig())
    ids = [uuid7() for _ in ticks]
    await world.submit([spawn(float(i), id=ids[i], tick=tick) for i, tick in enumerate(ticks)])
    cancelled: set[int] = set()
    for now in range(4):
        for when, which in cancels:
            if when != now or which >= len(ids):
                continue
            if which in cancelled or ticks[which] >= now:
                await world.cancel(ids[which])
                cancelled.add(which)
            else:
                with pytest.raises(CommandNotPendingError):
                    await world.cancel(ids[which])
        await world.step()
    assert world.acceptance.pending == 0
    assert world.state.entities == len(ids) - len(cancelled)
    outcomes = world.command_history.outcomes(world.row.key, 0, 1000)
    assert [each.outcome_seq for each in outcomes] == [*range(1, len(ids) + 1)]
    assert {each.command_id for each in outcomes if each.outcome.cancelled} == {
        ids[which].bytes for which in cancelled
    }
