"""Resources as part of a world: set and removed by command, and those that keep a state of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from pydantic import BaseModel, Field, SecretStr

from tests.engine.parts import Place, setup
from tickwire_engine import ArrowProcessor, CommandType, EngineSetup, Submission, WorldConfig
from tickwire_engine.errors import (
    InvalidCommandError,
    ProcessorFailedError,
    ResourceNotFoundError,
    WorldFaultedError,
)

if TYPE_CHECKING:
    from tests.engine.conftest import Opener
    from tickwire_engine import AsyncWorld


class Wind(BaseModel):
    """What commands set."""

    speed: int = 1
    gusts: list[float] = Field(default_factory=list)


class Counter:
    """A resource with a state: how often it was asked, over the world's whole life."""

    def __init__(self) -> None:
        self.count = 0

    def next(self) -> int:
        self.count += 1
        return self.count

    def snapshot(self) -> bytes:
        return str(self.count).encode()

    def restore(self, state: bytes) -> None:
        self.count = int(state)


class Blow(ArrowProcessor):
    """Moves by the wind; without any, by a hundred."""

    components = (Place,)

    def process_batch(self, batch: pa.RecordBatch, **kwargs: Any) -> pa.RecordBatch:
        wind = kwargs["resources"].get(Wind)
        assert kwargs["world"].resources.get(Wind) is wind
        index = batch.schema.get_field_index("place__x")
        moved = pc.add(batch.column(index), 100.0 if wind is None else float(wind.speed))
        return batch.set_column(index, batch.schema.field(index), moved)


class Counting(ArrowProcessor):
    """Writes the counter into y; fails at a count that it was told."""

    components = (Place,)
    fails_at: int | None = None

    def process_batch(self, batch: pa.RecordBatch, **kwargs: Any) -> pa.RecordBatch:
        count = kwargs["resources"].require(Counter).next()
        if count == type(self).fails_at:
            raise ValueError("counted too far")
        index = batch.schema.get_field_index("place__y")
        column = pa.array([float(count)] * batch.num_rows)
        return batch.set_column(index, batch.schema.field(index), column)


def application(*, with_counter: bool = True) -> EngineSetup:
    def bootstrap(world: AsyncWorld) -> None:
        world.resources.insert(Wind())
        if with_counter:
            world.resources.insert(Counter())

    vocabulary = setup().vocabulary
    for kind in (Blow, Counting):
        vocabulary.processors.register(kind)
    vocabulary.resources.register(Wind)
    return EngineSetup(vocabulary, bootstrap=bootstrap)


async def windy(opener: Opener, *processors: ArrowProcessor) -> AsyncWorld:
    world = await (await opener.open(application())).create_world(WorldConfig(name="w", seed=1))
    for processor in processors:
        await world.add_processor(processor)
    await world.create_entity([Place()])
    return world


def set_wind(tick: int | None = None, **value: Any) -> Submission:
    return Submission(CommandType.SET_RESOURCE, {"name": "Wind", "value": value}, tick=tick)


def remove_wind() -> Submission:
    return Submission(CommandType.REMOVE_RESOURCE, {"name": "Wind"})


async def xs(world: AsyncWorld, ticks: int) -> list[float]:
    """Step and return by how much x moved in each tick."""
    moved, at = [], world.entity(1)["Place"]["x"] if world.tick else 0.0
    for _ in range(ticks):
        await world.step()
        moved.append(world.entity(1)["Place"]["x"] - at)
        at += moved[-1]
    return moved


# Set by command


async def test_a_resource_is_in_force_from_the_very_tick_that_applies_its_command(opener: Opener) -> None:
    world = await windy(opener, Blow())
    await world.submit([set_wind(tick=2, speed=5), set_wind(tick=4, speed=7.0)])
    assert await xs(world, 5) == [1.0, 1.0, 5.0, 5.0, 7.0]


async def test_a_removed_resource_is_gone_even_where_the_app_brings_one(opener: Opener) -> None:
    world = await windy(opener, Blow())
    await world.submit([remove_wind()])
    assert await xs(world, 2) == [100.0, 100.0]
    await world.submit([remove_wind(), set_wind(speed=3)])
    committed = await world.step()
    assert [outcome.reason for outcome in committed.computed.outcomes] == ["RESOURCE_NOT_FOUND", ""]
    world = (await opener.open(application())).world("w")
    assert await xs(world, 1) == [3.0]
    await world.remove_resource(Wind)
    assert await xs(world, 1) == [100.0]
    world = (await opener.open(application())).world("w")
    assert await xs(world, 1) == [100.0]


async def test_set_resources_survive_a_restart_and_are_covered_by_the_state_hash(opener: Opener) -> None:
    world = await windy(opener, Blow())
    await world.step()
    plain = world.state
    await world.submit([set_wind(speed=4, gusts=[1.5])])
    await world.step()
    assert world.state.configuration.interned.id != plain.configuration.interned.id
    (entry,) = world.state.configuration.resources
    assert entry.value == {"speed": 4, "gusts": [1.5]}
    before = world.state.state_hash()
    world = (await opener.open(application())).world("w")
    assert world.state.state_hash() == before
    assert world.resources.require(Wind) == Wind(speed=4, gusts=[1.5])
    assert await xs(world, 1) == [4.0]


@pytest.mark.parametrize(
    ("payload", "error", "field"),
    [
        ({"name": "Wind", "value": {"speed": 1.5}}, InvalidCommandError, "set_resource.value.speed"),
        ({"name": "Wind", "value": {"gusts": [0, "x"]}}, InvalidCommandError, "set_resource.value.gusts[1]"),
        ({"name": "Sun", "value": {}}, ResourceNotFoundError, "set_resource.name"),
        ({"value": {}}, InvalidCommandError, "set_resource.name"),
        ({"name": "Wind", "speed": 1}, InvalidCommandError, "set_resource.speed"),
    ],
)
async def test_a_value_that_the_model_does_not_take_is_refused_at_submit(
    opener: Opener, payload: dict[str, Any], error: type[Exception], field: str
) -> None:
    world = await windy(opener)
    pending = world.acceptance.pending
    with pytest.raises(error) as raised:
        await world.submit([Submission(CommandType.SET_RESOURCE, payload)])
    assert getattr(raised.value, "field", "") == f"commands[0].{field}"
    assert world.acceptance.pending == pending


async def test_an_aborted_tick_leaves_the_resources_of_the_tick_before(opener: Opener) -> None:
    class Refuse(ArrowProcessor):
        components = (Place,)

        def process_batch(self, batch: pa.RecordBatch, **kwargs: Any) -> pa.RecordBatch:
            assert kwargs["resources"].require(Wind).speed < 9
            return batch

    world = await windy(opener, Refuse())
    await world.submit([set_wind(speed=8)])
    await world.step()
    await world.submit([set_wind(speed=9)])
    with pytest.raises(ProcessorFailedError):
        await world.step()
    assert world.resources.require(Wind).speed == 8
    await world.submit([set_wind(speed=2)])
    await world.step()
    assert world.resources.require(Wind).speed == 2


async def test_a_resource_that_would_lose_a_secret_in_the_journal_is_refused(opener: Opener) -> None:
    class Key(BaseModel):
        key: SecretStr = SecretStr("")

    world = await windy(opener)
    assert opener.engine is not None
    opener.engine.setup.vocabulary.resources.register(Key)
    payload = {"name": "Key", "value": {"key": "k"}}
    with pytest.raises(InvalidCommandError, match="secret"):
        await world.submit([Submission(CommandType.SET_RESOURCE, payload)])


# With a state of their own


async def test_a_snapshot_is_rolled_back_with_an_aborted_tick(opener: Opener) -> None:
    world = await windy(opener, Counting())
    Counting.fails_at = 1
    try:
        for _ in range(3):
            # Each try counts to one: the state before the first tick is come back to as well.
            with pytest.raises(ProcessorFailedError, match="counted too far"):
                await world.step()
        Counting.fails_at = None
        await world.step()
        await world.step()
        Counting.fails_at = 3
        with pytest.raises(ProcessorFailedError):
            await world.step()
    finally:
        Counting.fails_at = None
    assert world.resources.require(Counter).count == 2
    await world.step()
    assert world.entity(1)["Place"]["y"] == 3.0


async def test_a_snapshot_is_restored_at_start_up_and_covered_by_the_state_hash(opener: Opener) -> None:
    world = await windy(opener, Counting())
    for _ in range(3):
        await world.step()
    before = world.state
    assert before.snapshots == {"Counter": b"3"}
    world = (await opener.open(application())).world("w")
    assert world.resources.require(Counter).count == 3
    assert world.state.state_hash() == before.state_hash()
    await world.step()
    assert world.entity(1)["Place"]["y"] == 4.0
    # What changed outside of ticks is part of the state from the next tick on.
    world.resources.require(Counter).count = 10
    await world.step()
    assert world.entity(1)["Place"]["y"] == 11.0
    assert world.state.snapshots == {"Counter": b"11"}


async def test_an_unchanged_snapshot_is_not_written_again(opener: Opener) -> None:
    world = await windy(opener)
    for _ in range(5):
        await world.step()
    store = opener.engine.store if opener.engine is not None else None
    assert store is not None
    with store._journal.read() as connection:
        rows = connection.execute("SELECT name, tick, body FROM snapshots").fetchall()
    assert rows == [("Counter", 0, b"0")]


async def test_a_world_whose_snapshot_has_no_resource_waits_for_it(opener: Opener) -> None:
    world = await windy(opener, Counting())
    await world.step()
    world = (await opener.open(application(with_counter=False))).world("w")
    with pytest.raises(WorldFaultedError, match="Counter"):
        await world.step()
    # One that is inserted late becomes what the world knows of it.
    world.resources.insert(Counter())
    assert world.resources.require(Counter).count == 1
    await world.step()
    assert world.entity(1)["Place"]["y"] == 2.0
