"""SEED row "CommandBroker": the durable queue of a world, for code in the process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.engine.parts import Place
from tickwire_engine import ActorCtx, AsyncWorld, Command, CommandBroker, CommandType, WorldConfig
from tickwire_engine.errors import CommandNotPendingError, TickwireError
from tickwire_engine.ids import uuid7
from tickwire_engine.storage.command_history import CommandFilter

if TYPE_CHECKING:
    from tests.engine.conftest import Opener

ME = ActorCtx(id=uuid7())


def spawn(x: float, **given: Any) -> Command:
    return Command(type=CommandType.SPAWN, payload={"components": {"Place": {"x": x}}}, **given)


@pytest.fixture
async def world(opener: Opener) -> AsyncWorld:
    engine = await opener.open()
    return await engine.create_world(WorldConfig(name="w"))


def places(world: AsyncWorld) -> list[float]:
    return world.read([Place]).column("place__x").to_pylist()


async def test_enqueue_journals_and_enqueue_bulk_takes_all_or_nothing(world: AsyncWorld) -> None:
    broker = world.resources.require(CommandBroker)
    first = await broker.enqueue(world.world_id, spawn(1.0), ME)
    assert (first.tick, first.seq) == (0, 1)
    bad = Command(type=CommandType.SPAWN, payload={"components": {"Nobody": {}}})
    with pytest.raises(TickwireError):
        await broker.enqueue_bulk(world.world_id, [spawn(2.0), bad], ME)
    assert broker.get_pending_count(world.world_id) == 1
    await broker.enqueue_bulk(world.world_id, [spawn(2.0), spawn(3.0)], ME)
    assert [c.seq for c in broker.peek(world.world_id)] == [1, 2, 3]
    assert [c.seq for c in broker.peek(world.world_id, limit=2)] == [1, 2]


async def test_dequeue_due_takes_by_tick_priority_and_seq(world: AsyncWorld) -> None:
    broker = world.resources.require(CommandBroker)
    sent = [
        spawn(0.0),
        spawn(1.0, priority=-1),
        spawn(2.0, tick=5),
        spawn(3.0, tick=9),
        spawn(4.0, priority=-1),
    ]
    await broker.enqueue_bulk(world.world_id, sent)
    taken = broker.dequeue_due(world.world_id, 5, limit=3)
    assert [c.id for c in taken] == [sent[1].id, sent[4].id, sent[0].id]
    assert [c.id for c in broker.dequeue_due(world.world_id, 5)] == [sent[2].id]
    assert broker.dequeue_due(world.world_id, 5) == []
    assert [c.id for c in broker.peek(world.world_id)] == [sent[3].id]
    assert broker.get_pending_count(world.world_id) == 5


async def test_what_was_dequeued_is_no_ticks_and_acknowledged_for_good(
    opener: Opener, world: AsyncWorld
) -> None:
    broker = world.resources.require(CommandBroker)
    await broker.enqueue_bulk(world.world_id, [spawn(1.0), spawn(2.0)])
    taken = broker.dequeue(world.world_id)
    assert taken is not None
    await world.step()
    assert places(world) == [2.0]
    await broker.ack(world.world_id, taken)
    assert broker.get_pending_count(world.world_id) == 0
    assert broker.dequeue(world.world_id) is None
    await opener.open()
    world = opener.world("w")
    await world.step()
    assert places(world) == [2.0]
    assert opener.engine is not None
    assert opener.engine.broker.get_pending_count(world.world_id) == 0


async def test_what_was_not_acknowledged_is_due_again_after_a_restart(
    opener: Opener, world: AsyncWorld
) -> None:
    broker = world.resources.require(CommandBroker)
    await broker.enqueue(world.world_id, spawn(1.0))
    assert broker.dequeue(world.world_id) is not None
    await world.step()
    assert places(world) == []
    await opener.open()
    world = opener.world("w")
    await world.step()
    assert places(world) == [1.0]


async def test_what_is_given_back_is_applied_by_the_next_tick(world: AsyncWorld) -> None:
    broker = world.resources.require(CommandBroker)
    await broker.enqueue_bulk(world.world_id, [spawn(1.0), spawn(2.0)])
    first, second = broker.dequeue_due(world.world_id, world.tick)
    broker.give_back(world.world_id, second, uuid7())
    await world.step()
    assert places(world) == [2.0]
    broker.give_back(world.world_id, first)
    await world.step()
    assert places(world) == [1.0, 2.0]
    with pytest.raises(CommandNotPendingError):
        await broker.ack(world.world_id, first)


async def test_a_dequeued_command_that_is_sent_again_is_a_duplicate(world: AsyncWorld) -> None:
    broker = world.resources.require(CommandBroker)
    command = spawn(1.0)
    await broker.enqueue(world.world_id, command)
    (taken,) = broker.dequeue_due(world.world_id, world.tick)
    await broker.enqueue(world.world_id, command)
    assert broker.peek(world.world_id) == []
    await broker.ack(world.world_id, taken)
    await broker.enqueue(world.world_id, command)
    await world.step()
    assert places(world) == []


async def test_clear_cancels_what_waits(opener: Opener, world: AsyncWorld) -> None:
    broker = world.resources.require(CommandBroker)
    await broker.enqueue_bulk(world.world_id, [spawn(float(i), tick=i) for i in range(4)])
    await world.step()
    assert await broker.clear(world.world_id) == 3
    assert broker.get_pending_count(world.world_id) == 0
    await opener.open()
    world = opener.world("w")
    for _ in range(4):
        await world.step()
    assert places(world) == [0.0]


async def test_history_tells_what_became_of_commands_newest_first(world: AsyncWorld) -> None:
    broker = world.resources.require(CommandBroker)
    gone = Command(type=CommandType.DESPAWN, payload={"entity_ids": [77]})
    await broker.enqueue_bulk(world.world_id, [spawn(1.0), gone])
    await world.step()
    await broker.enqueue(world.world_id, spawn(2.0, tick=50))
    history = await broker.get_history(world.world_id)
    assert [entry.command.seq for entry in history] == [3, 2, 1]
    assert [entry.outcome and entry.outcome.applied for entry in history] == [None, False, True]
    assert history[1].outcome is not None
    assert history[1].outcome.reason == "ENTITY_NOT_FOUND"
    assert [entry.command.seq for entry in await broker.get_history(world.world_id, limit=1)] == [3]
    spawned = await broker.get_history(world.world_id, wanted=CommandFilter(states=("APPLIED",)))
    assert [entry.command.seq for entry in spawned] == [1]
