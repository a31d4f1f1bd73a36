"""Large requests are prepared a part at a time: others get turns in between, and nothing else is different."""

from __future__ import annotations

import asyncio

import pytest

from tests.engine.test_acceptance import spawn, update
from tickwire_engine import AsyncWorld, Submission
from tickwire_engine.commands import Operation
from tickwire_engine.errors import SchemaMismatchError, TickwireError
from tickwire_engine.ids import uuid7
from tickwire_engine.preparing import PART, prepare


class Pauses:
    """Gives the loop a turn, and counts how often."""

    def __init__(self) -> None:
        self.count = 0

    async def __call__(self) -> None:
        self.count += 1
        await asyncio.sleep(0)


async def test_a_large_request_pauses_between_its_parts_and_a_small_one_does_not_wait(
    world: AsyncWorld,
) -> None:
    pauses = Pauses()
    large = asyncio.ensure_future(world.submit([spawn(float(x)) for x in range(5 * PART)], pause=pauses))
    await asyncio.sleep(0)
    (small,) = await world.submit([spawn(-1.0)], pause=pauses)
    receipts = await large
    assert pauses.count == 4
    assert small.command is not None
    # It came in between, and is before what was still being prepared.
    assert small.command.seq == 1
    assert [r.command.seq for r in receipts if r.command] == list(range(2, 2 + 5 * PART))
    assert (await world.step()).summary.spawned == 1 + 5 * PART


@pytest.mark.parametrize("paused", [False, True])
async def test_what_is_wrong_in_a_large_request_is_told_with_its_place(
    world: AsyncWorld, paused: bool
) -> None:
    sent = [spawn(float(x)) for x in range(3 * PART)]
    bad = Submission(sent[0].type, {"components": {"Place": {"x": "far"}}})
    sent[PART + 3] = sent[2 * PART + 1] = bad
    pause = Pauses() if paused else None
    with pytest.raises(TickwireError) as raised:
        await world.submit(sent, pause=pause)
    told = [raised.value, *raised.value.also]
    assert [error.field for error in told] == [
        f"commands[{at}].spawn.components.Place.x" for at in (PART + 3, 2 * PART + 1)
    ]
    assert world.acceptance.pending == 0
    receipts = await world.submit(sent, partial=True, pause=pause)
    errors = [(i, r.error) for i, r in enumerate(receipts) if r.error is not None]
    assert [i for i, _ in errors] == [PART + 3, 2 * PART + 1]
    assert all(isinstance(error, SchemaMismatchError) for _, error in errors)
    assert errors[1][1].field == f"commands[{2 * PART + 1}].spawn.components.Place.x"
    assert world.acceptance.pending == 3 * PART - 2


async def test_a_large_request_again_is_the_same_commands(world: AsyncWorld) -> None:
    sent = [spawn(float(x), id=uuid7().bytes) for x in range(2 * PART)]
    first = await world.submit(sent, pause=Pauses())
    again = await world.submit([*sent, update(1, 2.0)], pause=Pauses())
    assert [r.duplicate for r in again] == [True] * (2 * PART) + [False]
    assert [r.command for r in again[:-1]] == [r.command for r in first]


async def test_what_was_parsed_before_a_component_grew_is_parsed_again(world: AsyncWorld) -> None:
    vocabulary = world.acceptance._vocabulary
    sent = [spawn(float(x)) for x in range(3 * PART)]

    async def grows() -> None:
        vocabulary.components.generation += 1

    async def stays() -> None:
        pass

    parsed = await prepare(sent, vocabulary, (), stays)
    assert all(isinstance(one.outcome, Operation) for one in parsed)
    unparsed = await prepare(sent, vocabulary, (), grows)
    assert all(one.outcome is None for one in unparsed)
    assert [one.encoded for one in unparsed] == [one.encoded for one in parsed]
