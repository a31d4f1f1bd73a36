"""Worlds that worlds make and end: decided before a tick, stored with it, never done again by replay."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from tests.engine.parts import Place, Tag, setup
from tickwire_engine import (
    ArrowProcessor,
    CommandBroker,
    CommandResults,
    CommandType,
    Engine,
    EngineSetup,
    Submission,
    WorldConfig,
)
from tickwire_engine.commands import Applied, Decision, Effect, EffectScope
from tickwire_engine.errors import (
    InvalidCommandError,
    ProcessorFailedError,
    WorldDestroyedError,
    WorldExistsError,
    WorldNotFoundError,
)
from tickwire_engine.ids import uuid7
from tickwire_engine.replay import Replayed, replay
from tickwire_engine.storage.reader import StoreReader
from tickwire_engine.storage.rows import CommandRow
from tickwire_engine.tick.compute import DueCommand
from tickwire_engine.tick.effects import Effects

if TYPE_CHECKING:
    from pathlib import Path

    from tests.engine.conftest import Opener
    from tickwire_engine import AsyncWorld
    from tickwire_engine.storage.rows import Outcome
    from tickwire_engine.submission import Accepted


class Founder(ArrowProcessor):
    """Sends for a world in tick 1, and writes down what comes of commands that answer."""

    components = (Tag,)

    def process_batch(self, batch: pa.RecordBatch, **kwargs: Any) -> pa.RecordBatch:
        if kwargs["tick"] == 1:
            broker = kwargs["resources"].require(CommandBroker)
            broker.issue(CommandType.CREATE_WORLD, {"name": "colony", "template": "one"})
            broker.issue(CommandType.CREATE_WORLD, {"name": "w"})
        results = kwargs["resources"].require(CommandResults).results(actor_id="processor:Founder")
        heard = "; ".join(f"{r.world_id or r.reason}" for r in results)
        if not heard:
            return batch
        index = batch.schema.get_field_index("tag__text")
        column = pa.array([heard] * batch.num_rows, pa.utf8())
        return batch.set_column(index, batch.schema.field(index), column)


class Breaking(ArrowProcessor):
    """Fails while it is told to."""

    components = (Place,)
    broken = True

    def process_batch(self, batch: pa.RecordBatch, **kwargs: Any) -> pa.RecordBatch:
        if Breaking.broken:
            raise ValueError("on purpose")
        return batch


def _setup() -> EngineSetup:
    made = setup()
    for kind in (Founder, Breaking):
        made.vocabulary.processors.register(kind)

    async def one(world: AsyncWorld) -> None:
        await world.create_entity([Place(x=1.0)])

    async def failing(world: AsyncWorld) -> None:
        await world.create_entity([Place()])
        raise RuntimeError("/a/secret/path")

    return EngineSetup(made.vocabulary, {"one": one, "failing": failing})


@pytest.fixture
async def engine(opener: Opener) -> Engine:
    return await opener.open(_setup())


async def _send(world: AsyncWorld, kind: CommandType, /, **payload: Any) -> Accepted:
    (receipt,) = await world.submit([Submission(kind, payload)])
    assert receipt.command is not None
    return receipt.command


def _outcome(command: Accepted) -> Outcome:
    assert command.settled is not None
    return command.settled.outcome


async def _replay(path: Path, name: str) -> Replayed:
    store = StoreReader(path)
    try:
        (row,) = (world for world in store.worlds() if world.name == name)
        return await replay(Engine.over(store, _setup()), row)  # type: ignore[arg-type]
    finally:
        store.close()


async def test_a_world_makes_a_world_and_the_outcome_has_its_id(engine: Engine, world: AsyncWorld) -> None:
    sent = await _send(world, CommandType.CREATE_WORLD, name="child", template="one", labels={"of": "w"})
    assert [w.name for w in engine.worlds] == ["w"]
    await world.step()
    child = engine.world("child")
    outcome = _outcome(sent)
    assert (outcome.applied, outcome.world_id) == (True, str(child.world_id))
    assert child.row.labels == {"of": "w"}
    assert child.acceptance.pending == 1
    await child.step()
    assert child.entity(1) == {"Place": {"x": 1.0, "y": 0.0}}


async def test_a_world_that_a_world_made_is_there_after_a_restart(opener: Opener) -> None:
    engine = await opener.open(_setup())
    world = await engine.create_world(WorldConfig(name="w"))
    await _send(world, CommandType.CREATE_WORLD, name="child", template="one", seed=11)
    await world.step()
    child_id = engine.world("child").world_id
    await opener.open(_setup())
    assert opener.world("child").world_id == child_id
    assert opener.world("child").row.seed == 11
    await opener.world("child").step()
    assert opener.world("child").entity(1)["Place"]["x"] == 1.0


async def test_a_name_that_is_taken_rejects_the_command_alone(engine: Engine, world: AsyncWorld) -> None:
    commands = [
        await _send(world, CommandType.CREATE_WORLD, name=name) for name in ("w", "twin", "twin", "other")
    ]
    committed = await world.step()
    assert [_outcome(c).reason for c in commands] == ["WORLD_EXISTS", "", "WORLD_EXISTS", ""]
    assert (committed.summary.commands_applied, committed.summary.commands_rejected) == (2, 2)
    assert [w.name for w in engine.worlds] == ["w", "twin", "other"]


async def test_the_same_id_and_request_answers_the_world_there_is(engine: Engine, world: AsyncWorld) -> None:
    given = {"name": "child", "world_id": str(uuid7()), "seed": 3}
    first = await _send(world, CommandType.CREATE_WORLD, **given)
    await world.step()
    again = await _send(world, CommandType.CREATE_WORLD, **given)
    differing = await _send(world, CommandType.CREATE_WORLD, **{**given, "seed": 4})
    await world.step()
    assert _outcome(first).world_id == _outcome(again).world_id == given["world_id"]
    assert _outcome(differing).reason == "WORLD_EXISTS"
    await engine.destroy_world("child")
    late = await _send(world, CommandType.CREATE_WORLD, **given)
    await world.step()
    assert _outcome(late).reason == "WORLD_EXISTS"
    assert world.fault is None


async def test_an_aborted_tick_makes_no_world_and_the_next_try_makes_it_once(
    opener: Opener, engine: Engine, world: AsyncWorld
) -> None:
    Breaking.broken = True
    await world.add_processor(Breaking())
    await world.create_entity([Place()])
    sent = await _send(world, CommandType.CREATE_WORLD, name="child")
    with pytest.raises(ProcessorFailedError):
        await world.step()
    assert [w.name for w in engine.worlds] == ["w"]
    # Nothing holds the name, and nothing waits: somebody else may take it.
    other = await engine.create_world(WorldConfig(name="child"))
    await engine.destroy_world(other.world_id)
    Breaking.broken = False
    await world.step()
    assert _outcome(sent).world_id == str(engine.world("child").world_id)
    await opener.open(_setup())
    assert opener.world("child").tick == 0


async def test_a_template_that_fails_rejects_the_command_and_tells_nothing_of_the_application(
    engine: Engine, world: AsyncWorld
) -> None:
    sent = await _send(world, CommandType.CREATE_WORLD, name="child", template="failing")
    unknown = await _send(world, CommandType.CREATE_WORLD, name="other", template="nowhere")
    await world.step()
    outcome = _outcome(sent)
    assert outcome.reason == "INTERNAL"
    assert "secret" not in outcome.message
    assert dict(outcome.metadata)["error_id"] in outcome.message
    assert _outcome(unknown).reason == "TEMPLATE_NOT_FOUND"
    assert [w.name for w in engine.worlds] == ["w"]
    # The name is free again.
    await engine.create_world(WorldConfig(name="child"))


@pytest.mark.parametrize(
    ("payload", "field"),
    [
        ({"name": "a", "colour": 1}, "create_world.colour"),
        ({"seed": -1}, "create_world.seed"),
        ({"seed": 1.5}, "create_world.seed"),
        ({"world_id": "nonsense"}, "create_world.world_id"),
        ({"world_id": "6ba7b810-9dad-11d1-80b4-00c04fd430c8"}, "create_world.world_id"),
        ({"retention": {"keep_ticks": -1}}, "create_world.retention.keep_ticks"),
        ({"labels": {"a": 1}}, "create_world.labels.a"),
        ({"name": 7}, "create_world.name"),
    ],
)
async def test_what_could_never_be_made_is_refused_at_the_door(
    world: AsyncWorld, payload: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidCommandError) as refused:
        await _send(world, CommandType.CREATE_WORLD, **payload)
    assert refused.value.field == f"commands[0].{field}"


async def test_a_world_ends_another_with_its_tick(opener: Opener, engine: Engine, world: AsyncWorld) -> None:
    victim = await engine.create_world(WorldConfig(name="victim", template="one"))
    waiting = asyncio.ensure_future(
        (await _send(victim, CommandType.SPAWN, components={"Tag": {}})).wait_settled()
    )
    await asyncio.sleep(0)
    sent = await _send(world, CommandType.DESTROY_WORLD, world="victim")
    missing = await _send(world, CommandType.DESTROY_WORLD, world=str(uuid7()))
    assert not victim.destroyed
    await world.step()
    assert (_outcome(sent).applied, _outcome(missing).reason) == (True, "WORLD_NOT_FOUND")
    assert victim.destroyed
    assert (await waiting).outcome.cancelled
    with pytest.raises(WorldDestroyedError):
        await victim.step()
    with pytest.raises(WorldNotFoundError):
        engine.world("victim")
    # The name is free, at once and after a restart.
    await _send(world, CommandType.CREATE_WORLD, name="victim")
    await world.step()
    await opener.open(_setup())
    assert opener.world("victim").world_id != victim.world_id


async def test_a_world_ends_itself_and_its_last_tick_is_the_one_that_says_so(opener: Opener) -> None:
    engine = await opener.open(_setup())
    world = await engine.create_world(WorldConfig(name="w"))
    ends: list[str] = []
    world.on_committed(lambda committed: ends.append(f"tick {committed.summary.tick}"))
    world.on_ended(lambda error: ends.append(error.reason))
    sent = await _send(world, CommandType.DESTROY_WORLD, world="w")
    first = await world.advance()
    # Computed while the first is on its way to the disk; it never becomes history.
    second = await world.advance()
    assert (await first).summary.tick == 0
    with pytest.raises(WorldDestroyedError):
        await second
    assert _outcome(sent).applied
    assert ends == ["tick 0", "WORLD_DESTROYED"]
    await opener.open(_setup())
    with pytest.raises(WorldNotFoundError):
        opener.world("w")


async def test_two_worlds_that_end_each_other_do_not_wait_for_each_other(engine: Engine) -> None:
    one = await engine.create_world(WorldConfig(name="one"))
    two = await engine.create_world(WorldConfig(name="two"))
    await _send(one, CommandType.DESTROY_WORLD, world="two")
    await _send(two, CommandType.DESTROY_WORLD, world="one")
    ends = await asyncio.gather(one.step(), two.step(), return_exceptions=True)
    assert [type(end) for end in ends].count(WorldDestroyedError) == 1
    assert one.destroyed != two.destroyed


async def test_a_processor_reads_what_came_of_the_worlds_it_sent_for_and_replay_makes_none(
    opener: Opener,
) -> None:
    engine = await opener.open(_setup())
    world = await engine.create_world(WorldConfig(name="w"))
    await world.add_processor(Founder())
    await world.create_entity([Tag()])
    for _ in range(4):
        await world.step()
    colony = engine.world("colony")
    (text,) = pc.unique(world.read([Tag]).column("tag__text")).to_pylist()
    assert text == f"{colony.world_id}; WORLD_EXISTS"
    await engine.destroy_world("colony")
    await opener.close()
    assert await _replay(opener.path, "w") == Replayed(0, 3)
    reopened = await opener.open(_setup())
    assert [w.name for w in reopened.worlds] == ["w"]


async def test_an_id_in_the_making_belongs_to_its_first_request(engine: Engine, world: AsyncWorld) -> None:
    config = WorldConfig(name="slow")
    made = await engine.making.prepare(config)
    with pytest.raises(WorldExistsError):
        await engine.making.prepare(WorldConfig(name="slow"))
    with pytest.raises(WorldExistsError):
        await engine.making.prepare(WorldConfig(name="other", world_id=config.world_id))
    engine.making.give_up(made)
    assert (await engine.create_world(config)).name == "slow"


@dataclass(frozen=True)
class Slow(Effect):
    """An effect that takes as long as a test wants."""

    detached = True
    done: asyncio.Event
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    told: list[str] = field(default_factory=list)

    async def decide(self, row: CommandRow, scope: EffectScope) -> Decision:
        self.told.append(f"decided at {scope.state.tick}")
        self.begun.set()
        await self.done.wait()
        return Decision(Applied(value=b'{"answer":42}'), dropped=lambda: self.told.append("dropped"))


def _due(effect: Effect, seq: int = 1) -> DueCommand:
    row = CommandRow(seq, uuid7().bytes, 0, 0, CommandType.RUN_ROLLOUT.value, "", b"{}")
    return DueCommand(row, effect)


async def test_ticks_with_a_beat_go_on_while_an_effect_takes_its_time(
    engine: Engine, world: AsyncWorld
) -> None:
    effects, slow = Effects(engine, world), Slow(asyncio.Event())
    due = _due(slow)
    for _ in range(3):
        assert await effects.decide([due], world.state, patient=False) == ({}, [due])
        await asyncio.sleep(0)
    slow.done.set()
    # Woken, and then done: the task ends within two turns of the loop.
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    decided, _ = await effects.decide([due], world.state, patient=False)
    decision = decided[1]
    assert isinstance(decision, Decision)
    assert decision.applied.value == b'{"answer":42}'
    assert slow.told == ["decided at 0"]


async def test_a_tick_without_a_beat_waits_for_its_effects(engine: Engine, world: AsyncWorld) -> None:
    effects, slow = Effects(engine, world), Slow(asyncio.Event())
    deciding = asyncio.ensure_future(effects.decide([_due(slow)], world.state, patient=True))
    await slow.begun.wait()
    assert not deciding.done()
    slow.done.set()
    assert set((await deciding)[0]) == {1}


async def test_what_took_long_is_kept_for_the_tick_after_an_abort_and_let_go_with_its_command(
    engine: Engine, world: AsyncWorld
) -> None:
    effects, slow = Effects(engine, world), Slow(asyncio.Event())
    slow.done.set()
    due = _due(slow)
    decided, _ = await effects.decide([due], world.state, patient=True)
    effects.dropped(decided)
    again, _ = await effects.decide([due], world.state, patient=False)
    assert again == decided
    effects.dropped(again)
    # Cancelled meanwhile: it is due no longer.
    assert await effects.decide([], world.state, patient=False) == ({}, [])
    assert slow.told == ["decided at 0", "dropped"]
