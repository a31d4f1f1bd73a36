"""Same journal, same world: what a run did, replay does again; and where it does not, it says where and who."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from tests.engine.parts import Drift, Place, Raise, Scale, Speed, Tag, setup
from tests.engine.test_inside_ticks import Budding, Wander
from tests.engine.test_inside_ticks import Count as CountMessages
from tests.engine.test_resources import Blow, Counter, Counting, Wind
from tickwire_engine import ArrowProcessor, Engine, EngineSetup, RunConfig, WorldConfig
from tickwire_engine.replay import Replayed, environment_changes, replay
from tickwire_engine.storage.reader import Start, StoreReader

if TYPE_CHECKING:
    from pathlib import Path

    from tests.engine.conftest import Opener
    from tickwire_engine import AsyncWorld


class Gust(ArrowProcessor):
    """Moves by the input `gust`."""

    components = (Speed,)

    def process_batch(self, batch: pa.RecordBatch, **kwargs: Any) -> pa.RecordBatch:
        index = batch.schema.get_field_index("speed__vx")
        column = pc.add(batch.column(index), float(kwargs["inputs"].get("gust", 0.0)))
        return batch.set_column(index, batch.schema.field(index), column)


class Clock(ArrowProcessor):
    """Writes the wall clock into rows: what no processor may do."""

    components = (Tag,)

    def process_batch(self, batch: pa.RecordBatch, **kwargs: Any) -> pa.RecordBatch:
        index = batch.schema.get_field_index("tag__count")
        column = pa.array([time.time_ns()] * batch.num_rows, pa.int64())
        return batch.set_column(index, batch.schema.field(index), column)


class Remembering(ArrowProcessor):
    """Keeps a state on itself, which no replay from the middle can have."""

    components = (Place,)

    def __init__(self) -> None:
        self.calls = 0

    def process_batch(self, batch: pa.RecordBatch, **kwargs: Any) -> pa.RecordBatch:
        self.calls += 1
        index = batch.schema.get_field_index("place__y")
        column = pa.array([float(self.calls)] * batch.num_rows, pa.float64())
        return batch.set_column(index, batch.schema.field(index), column)


PROCESSORS = (Budding, Wander, CountMessages, Blow, Counting, Gust, Clock, Remembering)


def _setup() -> EngineSetup:
    def bootstrap(world: AsyncWorld) -> None:
        world.resources.insert(Counter())

    made = setup()
    for kind in PROCESSORS:
        made.vocabulary.processors.register(kind)
    made.vocabulary.resources.register(Wind)
    return EngineSetup(made.vocabulary, made.templates, bootstrap)


async def _replay(path: Path, name: str, **options: Any) -> Replayed:
    store = StoreReader(path)
    try:
        row = next(row for row in store.worlds() if row.name == name)
        return await replay(Engine.over(store, _setup()), row, **options)
    finally:
        store.close()


async def _eventful(world: AsyncWorld) -> None:
    """A run with everything that changes worlds."""
    for processor in (Drift(), Budding(), Wander(), CountMessages(), Counting()):
        await world.add_processor(processor)
    ids = await world.create_entities([[Place(), Speed(vx=0.5)], [Place(x=3.0)], [Tag(text="a", note=None)]])
    await world.run(RunConfig(num_steps=6))
    await world.add_processor(Scale(1.25, offset=0.5))
    await world.set_resource(Wind(speed=3, gusts=[0.5]))
    await world.add_processor(Blow())
    await world.step(gust=1.5, note="with inputs")
    await world.add_processor(Gust())
    await world.remove_entity(ids[1])
    await world.step(gust=2.5)
    await world.remove_processor(Scale)
    await world.add_components(ids[2], [Place(x=7.0)])
    await world.remove_components(ids[0], [Speed])
    await world.update_entity(ids[0], [Place(x=-1.0)])
    # Rejected: there is none.
    await world.remove_entity(1 << 40)
    await world.run(RunConfig(num_steps=4))
    await world.remove_resource(Wind)
    await world.step()


async def test_everything_that_changes_a_world_replays(opener: Opener) -> None:
    engine = await opener.open(_setup())
    world = await engine.create_world(WorldConfig(name="w", seed=5))
    await _eventful(world)
    last = world.tick - 1
    assert await _replay(opener.path, "w") == Replayed(0, last), "beside the engine that has it open"
    await engine.store.archiver.archive_now(world.row.key)
    assert await _replay(opener.path, "w") == Replayed(0, last), "out of the archive"
    await _eventful_again(world)
    last = world.tick - 1
    await opener.close()
    assert await _replay(opener.path, "w") == Replayed(0, last), "half archived, nobody there"


async def _eventful_again(world: AsyncWorld) -> None:
    await world.add_processor(Raise(0.5))
    await world.create_entities([[Place(), Speed()]])
    await world.run(RunConfig(num_steps=3), gust=0.125)


@pytest.mark.parametrize("archived", [False, True])
async def test_replay_begins_at_any_tick(opener: Opener, archived: bool) -> None:
    engine = await opener.open(_setup())
    world = await engine.create_world(WorldConfig(name="w", seed=5))
    await _eventful(world)
    if archived:
        await engine.store.archiver.archive_now(world.row.key)
    last = world.tick - 1
    for first in range(last + 1):
        assert await _replay(opener.path, "w", from_tick=first) == Replayed(first, last)
    assert await _replay(opener.path, "w", from_tick=2, to_tick=4) == Replayed(2, 4)


async def test_a_processor_that_is_not_deterministic_is_caught_and_named(opener: Opener) -> None:
    engine = await opener.open(_setup())
    world = await engine.create_world(WorldConfig(name="w", seed=5))
    await world.add_processor(Drift())
    await world.create_entities([[Place(), Speed()], [Tag()]])
    await world.run(RunConfig(num_steps=3))
    await world.add_processor(Raise())
    await world.add_processor(Clock())
    await world.run(RunConfig(num_steps=2))
    found = await _replay(opener.path, "w")
    assert (found.first_tick, found.last_tick) == (0, 2)
    assert found.difference is not None
    assert found.difference.tick == 3
    assert found.difference.archetypes == ("Tag",)
    assert (found.difference.processors, found.difference.certain) == (("Clock",), True)
    assert "processor Clock gives two results" in str(found.difference)


async def test_a_processor_with_a_state_of_its_own_is_found_by_a_replay_from_the_middle(
    opener: Opener,
) -> None:
    engine = await opener.open(_setup())
    world = await engine.create_world(WorldConfig(name="w", seed=5))
    await world.add_processor(Remembering())
    await world.create_entities([[Place()]])
    await world.run(RunConfig(num_steps=4))
    found = await _replay(opener.path, "w", from_tick=2)
    assert found.difference is not None
    assert (found.difference.tick, found.difference.processors) == (2, ("Remembering",))


async def test_a_start_on_other_libraries_is_named_with_its_tick(opener: Opener) -> None:
    engine = await opener.open(_setup())
    world = await engine.create_world(WorldConfig(name="w", seed=5))
    await world.run(RunConfig(num_steps=3))
    times = [s.committed_at_us for s in engine.store.history.summaries(world.row.key, 0, 2)]
    starts = [
        Start(0, {"daft": "1", "simd": "avx2"}),
        Start(times[1], {"daft": "2", "simd": "avx2"}),
        Start(times[2] + 1, {"daft": "2", "simd": "avx512"}),
    ]
    found = list(environment_changes(engine, world.row, starts, 0))
    assert [(change.tick, change.changed) for change in found] == [
        (1, {"daft": ("1", "2")}),
        (3, {"simd": ("avx2", "avx512")}),
    ]
