"""SEED row "AsyncWorld": hooks, ticks, entities, processors and reads, as a user of the Archetype API knows them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest

from tests.engine.parts import Drift, Place, Scale, Speed, Tag, setup
from tickwire_engine import ArrowProcessor, AsyncProcessor, AsyncWorld, Resources, RunConfig, WorldConfig
from tickwire_engine.errors import (
    InvalidRequestError,
    TickInTheFutureError,
    UnknownComponentError,
)

if TYPE_CHECKING:
    import daft

    from tests.engine.conftest import Opener
    from tickwire_engine import Engine


async def rows(frame: daft.DataFrame) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await asyncio.to_thread(frame.to_arrow)).to_pylist()
    return found


# Hooks


async def test_hooks_get_the_keywords_of_the_seed_and_post_tick_sees_the_next_tick(world: AsyncWorld) -> None:
    calls: list[tuple[str, dict[str, Any]]] = []
    seen_ticks: list[int] = []

    def pre_tick(world: AsyncWorld, tick: int) -> None:
        calls.append(("pre_tick", {"tick": tick, "at": world.tick}))

    async def post_tick(world: AsyncWorld, tick: int, results: dict[str, Any]) -> None:
        await asyncio.sleep(0)
        seen_ticks.append(world.tick)
        calls.append(("post_tick", {"tick": tick, "results": {k: v.num_rows for k, v in results.items()}}))

    def on_spawn(world: AsyncWorld, entity_id: int, components: dict[str, Any]) -> None:
        calls.append(("on_spawn", {"entity_id": entity_id, "components": components}))

    async def on_despawn(world: AsyncWorld, entity_id: int) -> None:
        calls.append(("on_despawn", {"entity_id": entity_id}))

    world.add_hook("pre_tick", pre_tick)
    world.add_hook("post_tick", post_tick)
    world.add_hook("on_spawn", on_spawn)
    world.add_hook("on_despawn", on_despawn)
    entity = await world.create_entity([Place(x=1.0)])
    await world.step()
    await world.remove_entity(entity)
    await world.step()
    place = {"Place": {"x": 1.0, "y": 0.0}}
    assert calls == [
        ("pre_tick", {"tick": 0, "at": 0}),
        ("on_spawn", {"entity_id": entity, "components": place}),
        ("post_tick", {"tick": 0, "results": {"Place": 1}}),
        ("pre_tick", {"tick": 1, "at": 1}),
        ("on_despawn", {"entity_id": entity}),
        ("post_tick", {"tick": 1, "results": {"Place": 1}}),
    ]
    assert seen_ticks == [1, 2]
    world.remove_hook("pre_tick", pre_tick)
    world.remove_hook("post_tick", post_tick)
    await world.step()
    assert len(calls) == 6


async def test_a_hook_that_fails_is_counted_and_stops_nothing(world: AsyncWorld) -> None:
    after: list[int] = []

    def broken(**_: Any) -> None:
        raise ValueError("on purpose")

    async def broken_later(**_: Any) -> None:
        await asyncio.sleep(0)
        raise ValueError("on purpose")

    for event in ("pre_tick", "post_tick", "on_spawn"):
        world.add_hook(event, broken)
    world.add_hook("post_tick", broken_later)
    world.add_hook("post_tick", lambda world, tick, results: after.append(tick))
    await world.create_entity([Place()])
    await world.step()
    await world.step()
    assert (world.tick, after, world.hooks.failures) == (2, [0, 1], 7)
    with pytest.raises(InvalidRequestError, match="pre_tick"):
        world.add_hook("before_tick", broken)  # type: ignore[arg-type]


async def test_what_a_pre_tick_hook_sends_is_applied_in_that_tick(world: AsyncWorld) -> None:
    async def spawn(world: AsyncWorld, tick: int) -> None:
        await world.create_entity([Place(x=float(tick))])

    world.add_hook("pre_tick", spawn)
    await world.step()
    await world.step()
    assert world.read([Place]).column("place__x").to_pylist() == [0.0, 1.0]


# step, run


async def test_step_gives_processors_its_keywords_and_persists_before_it_returns(opener: Opener) -> None:
    seen: list[dict[str, Any]] = []

    class See(AsyncProcessor):
        components = (Place,)

        async def process(self, df: daft.DataFrame, **input_kwargs: Any) -> daft.DataFrame:
            seen.append(input_kwargs)
            return df.with_column("place__x", df["place__x"] + input_kwargs["push"])

    application = setup()
    application.vocabulary.processors.register(See)
    world = await (await opener.open(application)).create_world(WorldConfig(name="w"))
    await world.add_processor(See())
    await world.create_entity([Place()])
    config = RunConfig()
    await world.step(config, push=2.5)
    (given,) = seen
    assert (given["tick"], given["world"], given["resources"]) == (0, world, world.resources)
    assert (given["run_config"], given["inputs"], given["push"]) == (config, {"push": 2.5}, 2.5)
    assert world.run_id == config.run_id
    await opener.open(application)
    assert opener.world("w").entity(1)["Place"]["x"] == 2.5


async def test_run_computes_num_steps_ticks(world: AsyncWorld) -> None:
    await world.run(RunConfig(num_steps=4))
    assert world.tick == 4


async def test_archetypes_are_processed_side_by_side(opener: Opener) -> None:
    meeting = asyncio.Barrier(2)

    class Meet(AsyncProcessor):
        components = (Place,)

        async def process(self, df: daft.DataFrame, **input_kwargs: Any) -> daft.DataFrame:
            await asyncio.wait_for(meeting.wait(), 30)
            return df

    application = setup()
    application.vocabulary.processors.register(Meet)
    world = await (await opener.open(application)).create_world(WorldConfig(name="w"))
    await world.add_processor(Meet())
    await world.create_entities([[Place()], [Place(), Speed()]])
    await world.step()


async def test_processors_run_in_priority_order_then_by_name(world: AsyncWorld) -> None:
    early, late = Scale(2.0, offset=1.0), Scale(3.0)
    early.priority, late.priority = 1, 20
    await world.add_processor(late, name="a")
    await world.add_processor(early, name="b")
    await world.create_entity([Place(x=1.0)])
    await world.step()
    assert world.entity(1)["Place"]["x"] == 9.0


# Entities


async def test_entities_are_made_changed_and_removed(world: AsyncWorld) -> None:
    first = await world.create_entity([Place(x=1.0)])
    ids = await world.create_entities([[Place(x=2.0)], [Place(x=3.0), Speed()]])
    table = pa.table({"place__x": [4.0, 5.0], "place__y": [0.0, 0.0]})
    from_arrow = await world.create_entities_from_arrow(table)
    assert [first, *ids, *from_arrow] == [1, 2, 3, 4, 5]
    await world.step()
    await world.update_entity(first, [Place(x=10.0, y=1.0)])
    await world.add_components(first, [Tag(text="t")])
    await world.remove_components(3, [Speed])
    await world.remove_entity(2)
    await world.step()
    assert world.entity(1) == {
        "Place": {"x": 10.0, "y": 1.0},
        "Tag": {"text": "t", "count": 0, "note": None},
    }
    assert world.entity(3) == {"Place": {"x": 3.0, "y": 0.0}}
    assert world.state.entities == 4


async def test_processors_are_added_and_removed_by_their_class(world: AsyncWorld) -> None:
    await world.add_processor(Drift())
    await world.create_entity([Place(), Speed()])
    await world.step()
    await world.remove_processor(Drift)
    await world.step()
    assert world.entity(1)["Place"]["x"] == 1.0
    assert isinstance(world.resources, Resources)


# Reads


async def moving(opener: Opener, ticks: int = 12) -> tuple[Engine, AsyncWorld]:
    """Return a world with a moving archetype, one that stands still, and one that comes and goes."""
    engine = await opener.open()
    world = await engine.create_world(WorldConfig(name="w"))
    await world.add_processor(Drift())
    await world.create_entities([[Place(), Speed(vx=float(i))] for i in range(3)])
    await world.create_entity([Tag(text="still")])
    for tick in range(ticks):
        if tick == 4:
            await world.remove_entity(2)
        if tick == 6:
            await world.create_entity([Place(x=100.0), Speed()])
        await world.step()
    return engine, world


async def test_get_components_returns_every_entity_that_has_them(opener: Opener) -> None:
    _, world = await moving(opener, 2)
    found = await rows(await world.get_components([Place]))
    assert [(row["entity_id"], row["place__x"]) for row in found] == [(1, 0.0), (2, 2.0), (3, 4.0)]
    assert await rows(await world.get_components([Place, Speed], [3])) == [
        {
            "entity_id": 3,
            "is_active": True,
            "place__x": 4.0,
            "place__y": 0.0,
            "speed__vx": 2.0,
            "speed__vy": 0.0,
        }
    ]
    assert await rows(await world.get_components([Tag, Place])) == []


@pytest.mark.parametrize("archived", ["tail", "archive", "both"])
async def test_reads_at_any_kept_tick_are_the_same_from_tail_and_archive(
    opener: Opener, archived: str
) -> None:
    engine, world = await moving(opener, 12 if archived != "both" else 7)
    if archived != "tail":
        await engine.store.archiver.archive_now(world.row.key)
    if archived == "both":
        for _ in range(5):
            await world.step()
    for tick in range(12):
        found = await rows(await world.get_components([Place], at_tick=tick))
        expected = [(1, 0.0), (2, tick + 1.0), (3, 2.0 * (tick + 1))]
        expected = [row for row in expected if row[0] != 2 or tick < 4]
        if tick >= 6:
            expected.append((5, 95.0 + tick))
        assert [(row["entity_id"], row["place__x"]) for row in found] == expected
        still = await rows(await world.query_archetype([Tag], ticks=[tick]))
        assert [(row["tick"], row["tag__text"]) for row in still] == [(tick, "still")]
    whole = await rows(await world.query_archetype((Speed, Place)))
    assert [row["tick"] for row in whole if row["entity_id"] == 2] == [0, 1, 2, 3]
    assert [row["place__x"] for row in whole if row["entity_id"] == 1] == [0.0] * 12
    assert whole == sorted(whole, key=lambda row: (row["tick"], row["entity_id"]))


async def test_query_archetype_reads_few_ticks_and_many_alike(opener: Opener) -> None:
    _, world = await moving(opener, 40)
    whole = await rows(await world.query_archetype([Place, Speed]))
    one_by_one: list[dict[str, Any]] = []
    for tick in range(40):
        one_by_one += await rows(await world.query_archetype([Place, Speed], ticks=tick))
    assert whole == one_by_one


async def test_query_archetype_filters_by_tick_entity_component_and_run(opener: Opener) -> None:
    _, world = await moving(opener, 3)
    config = RunConfig(num_steps=2)
    await world.run(config)
    found = await rows(
        await world.query_archetype(
            [Place, "Speed"], ticks=range(1, 5), entity_ids=[3, 1], components=[Place], run_id=config.run_id
        )
    )
    assert [(row["tick"], row["entity_id"], row["place__x"]) for row in found] == [
        (3, 1, 0.0),
        (3, 3, 8.0),
        (4, 1, 0.0),
        (4, 3, 10.0),
    ]
    assert list(found[0]) == ["tick", "entity_id", "is_active", "place__x", "place__y"]


async def test_query_archetype_is_about_exactly_that_archetype(opener: Opener) -> None:
    _, world = await moving(opener, 2)
    empty = await world.query_archetype([Place])
    assert await rows(empty) == []
    assert empty.column_names == ["tick", "entity_id", "is_active", "place__x", "place__y"]
    with pytest.raises(InvalidRequestError):
        await world.query_archetype([Place, Speed], components=[Tag])
    with pytest.raises(UnknownComponentError):
        await world.query_archetype(["Nothing"])
    with pytest.raises(TickInTheFutureError):
        await world.query_archetype([Place], ticks=[2])
    with pytest.raises(TickInTheFutureError):
        await world.get_components([Place], at_tick=2)
    with pytest.raises(InvalidRequestError):
        await world.get_components([Place], at_tick=-1)


async def test_every_read_inside_a_tick_is_exactly_the_tick_before(opener: Opener) -> None:
    seen: list[tuple[int, int, list[float], list[float], list[int], list[float]]] = []

    class Look(AsyncProcessor):
        components = (Speed,)

        async def process(self, df: daft.DataFrame, **input_kwargs: Any) -> daft.DataFrame:
            world: AsyncWorld = input_kwargs["world"]
            now = await rows(await world.get_components([Place]))
            history = await rows(await world.query_archetype([Place, Speed]))
            one_back = (
                await rows(await world.get_components([Place], at_tick=world.tick - 2))
                if world.tick > 1
                else []
            )
            seen.append(
                (
                    input_kwargs["tick"],
                    world.tick,
                    [row["place__x"] for row in now],
                    [row["place__x"] for row in world.read([Place]).to_pylist()],
                    [row["tick"] for row in history],
                    [row["place__x"] for row in one_back],
                )
            )
            return df

    class Later(ArrowProcessor):
        """Reads from a worker's thread, after others of the same tick have written."""

        components = (Place,)
        priority = 99

        def process_batch(self, batch: pa.RecordBatch, **input_kwargs: Any) -> pa.RecordBatch:
            before = input_kwargs["world"].read([Place]).column("place__x").to_pylist()
            assert before == [] or batch.column("place__x").to_pylist() == [x + 1.0 for x in before]
            return batch

    application = setup()
    for kind in (Look, Later):
        application.vocabulary.processors.register(kind)
    world = await (await opener.open(application)).create_world(WorldConfig(name="w"))
    for processor in (Drift(), Look(), Later()):
        await world.add_processor(processor)
    await world.create_entity([Place(), Speed()])
    # Pipelined: some of the ticks before are not durable yet when they are read.
    await world.run(RunConfig(num_steps=6))
    assert seen == [
        (
            tick,
            tick,
            [float(tick)] if tick else [],
            [float(tick)] if tick else [],
            list(range(tick)),
            [tick - 1.0] if tick > 1 else [],
        )
        for tick in range(6)
    ]
