"""Worlds: names and ids, hooks, reads inside and outside of ticks, and what a restart brings back."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest

from tests.engine.parts import Drift, Place, Scale, Speed, Tag, setup
from tickwire_engine import (
    ArrowProcessor,
    AsyncProcessor,
    CommandType,
    EngineSetup,
    RunConfig,
    Submission,
    WorldConfig,
)
from tickwire_engine.errors import (
    EntityNotFoundError,
    InvalidNameError,
    InvalidRequestError,
    ProcessorFailedError,
    TemplateNotFoundError,
    TickMismatchError,
    WorldExistsError,
    WorldNotFoundError,
)
from tickwire_engine.ids import uuid7

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import daft
    import pyarrow as pa

    from tests.engine.conftest import Opener
    from tickwire_engine import AsyncWorld, CommittedTick, Engine


# Names and ids


@pytest.mark.parametrize(
    "name",
    ["W", "1w", "-w", "w w", "w" * 64, "wé", "w\n", "a" * 32, "a0000000-0000-7000-8000-000000000001"],
)
async def test_a_name_outside_the_pattern_is_refused(engine: Engine, name: str) -> None:
    with pytest.raises(InvalidNameError) as raised:
        await engine.create_world(WorldConfig(name=name))
    assert raised.value.field == "name"
    assert not engine.worlds


async def test_a_world_is_found_by_name_and_by_id(engine: Engine) -> None:
    world = await engine.create_world(WorldConfig(name="a-1_b"))
    for ref in ("a-1_b", world.world_id, str(world.world_id)):
        assert engine.world(ref) is world
    for ref in ("a", "", uuid7(), str(uuid7())):
        with pytest.raises(WorldNotFoundError):
            engine.world(ref)


async def test_a_world_without_a_name_is_given_one(engine: Engine) -> None:
    worlds = [await engine.create_world(WorldConfig()) for _ in range(2)]
    assert [engine.world(world.name) for world in worlds] == worlds


async def test_a_taken_name_is_refused_over_a_restart_too(opener: Opener) -> None:
    engine = await opener.open()
    await engine.create_world(WorldConfig(name="w"))
    for restarted in (False, True):
        if restarted:
            engine = await opener.open()
        with pytest.raises(WorldExistsError):
            await engine.create_world(WorldConfig(name="w"))
    assert len(engine.worlds) == 1


async def test_the_same_request_answers_the_world_that_there_is(opener: Opener) -> None:
    engine = await opener.open()
    asked = WorldConfig(world_id=uuid7(), name="w", labels={"a": "b"})
    made = await asyncio.gather(*(engine.create_world(asked) for _ in range(5)))
    assert len({id(world) for world in made}) == 1
    seed = made[0].row.seed
    engine = await opener.open()
    again = await engine.create_world(asked)
    assert (again.world_id, again.row.seed) == (asked.world_id, seed)
    with pytest.raises(WorldExistsError):
        await engine.create_world(asked.model_copy(update={"labels": {}}))


async def test_of_two_worlds_of_one_name_at_once_one_is_made(engine: Engine) -> None:
    made = await asyncio.gather(
        *(engine.create_world(WorldConfig(name="w")) for _ in range(4)), return_exceptions=True
    )
    assert sum(not isinstance(result, BaseException) for result in made) == 1
    assert all(isinstance(r, WorldExistsError) for r in made if isinstance(r, BaseException))
    assert len(engine.worlds) == 1


def with_template(name: str, template: Callable[[AsyncWorld], Awaitable[None]]) -> EngineSetup:
    return EngineSetup(setup().vocabulary, {name: template})


async def test_a_template_fills_a_world_durably(opener: Opener) -> None:
    async def fill(world: AsyncWorld) -> None:
        await world.add_processor(Scale(2.0))
        await world.create_entities([[Place(x=float(i))] for i in range(1, 4)])

    engine = await opener.open(with_template("three", fill))
    await engine.create_world(WorldConfig(name="w", template="three"))
    world = (await opener.open()).world("w")
    assert world.acceptance.pending == 4
    await world.step()
    assert world.read([Place]).column("place__x").to_pylist() == [2.0, 4.0, 6.0]
    assert await world.create_entity([Place()]) == 4


async def test_a_failing_template_leaves_nothing(opener: Opener) -> None:
    gates = [asyncio.Event()]

    async def fail(world: AsyncWorld) -> None:
        await world.create_entity([Place()])
        await gates[0].wait()
        raise RuntimeError("template")

    engine = await opener.open(with_template("bad", fail))
    asked = WorldConfig(world_id=uuid7(), name="w", template="bad")
    tries = [asyncio.ensure_future(engine.create_world(asked)) for _ in range(3)]
    gates[0].set()
    for attempt in tries:
        with pytest.raises(RuntimeError, match="template"):
            await attempt
    assert not engine.worlds
    with pytest.raises(TemplateNotFoundError) as raised:
        await engine.create_world(WorldConfig(name="w", template="none"))
    assert raised.value.field == "template"
    engine = await opener.open()
    assert not engine.worlds
    await engine.create_world(WorldConfig(name="w"))


# Hooks


async def test_hooks_fire_in_order_plain_and_async(world: AsyncWorld) -> None:
    fired: list[Any] = []

    def pre(world: AsyncWorld, tick: int) -> None:
        fired.append(("pre", tick, world.tick))

    async def post(world: AsyncWorld, tick: int, results: dict[str, pa.RecordBatch]) -> None:
        await asyncio.sleep(0)
        fired.append(("post", tick, world.tick, {name: b.num_rows for name, b in results.items()}))

    world.add_hook("pre_tick", pre)
    world.add_hook("post_tick", post)
    world.add_hook("on_spawn", lambda world, entity_id, components: fired.append((entity_id, components)))
    world.add_hook("on_despawn", lambda world, entity_id: fired.append(("gone", entity_id)))
    await world.create_entity([Speed(vx=2.0)])
    await world.step()
    await world.remove_entity(1)
    await world.step()
    assert fired == [
        ("pre", 0, 0),
        (1, {"Speed": {"vx": 2.0, "vy": 0.0}}),
        ("post", 0, 1, {"Speed": 1}),
        ("pre", 1, 1),
        ("gone", 1),
        ("post", 1, 2, {"Speed": 1}),
    ]


async def test_an_entity_spawned_and_despawned_in_one_tick_has_both_hooks(world: AsyncWorld) -> None:
    fired: list[Any] = []
    world.add_hook("on_spawn", lambda world, entity_id, components: fired.append((entity_id, components)))
    world.add_hook("on_despawn", lambda world, entity_id: fired.append(entity_id))
    await world.remove_entity(await world.create_entity([Speed()]))
    await world.step()
    assert fired == [(1, {"Speed": {"vx": 1.0, "vy": 0.0}}), 1]


async def test_a_failing_hook_is_counted_and_stops_nothing(world: AsyncWorld) -> None:
    fired: list[str] = []

    def plain(**_: Any) -> None:
        raise RuntimeError("plain")

    async def later(**_: Any) -> None:
        raise RuntimeError("async")

    for event in ("pre_tick", "post_tick"):
        world.add_hook(event, plain)  # type: ignore[arg-type]
        world.add_hook(event, later)  # type: ignore[arg-type]
        world.add_hook(event, lambda **_: fired.append("ran"))  # type: ignore[arg-type]
    await world.step()
    assert (fired, world.hooks.failures, world.tick) == (["ran", "ran"], 4, 1)
    assert world.fault is None


async def test_a_removed_hook_is_called_no_more(world: AsyncWorld) -> None:
    fired: list[int] = []

    def note(world: AsyncWorld, tick: int) -> None:
        fired.append(tick)

    world.add_hook("pre_tick", note)
    await world.step()
    world.remove_hook("pre_tick", note)
    world.remove_hook("pre_tick", note)
    await world.step()
    assert fired == [0]
    with pytest.raises(InvalidRequestError):
        world.add_hook("noon", note)  # type: ignore[arg-type]


async def test_hooks_of_pipelined_ticks_fire_in_order_and_all_before_the_engine_is_closed(
    opener: Opener,
) -> None:
    world = await (await opener.open()).create_world(WorldConfig(name="w"))
    fired: list[int] = []

    async def note(world: AsyncWorld, tick: int, results: Any) -> None:
        for _ in range(100):
            await asyncio.sleep(0)
        fired.append(tick)

    world.add_hook("post_tick", note)
    for _ in range(10):
        await world.advance()
    await opener.close()
    assert fired == list(range(10))


async def test_who_is_told_of_a_tick_sees_it(world: AsyncWorld) -> None:
    seen: list[tuple[int, int]] = []
    world.on_committed(lambda committed: seen.append((committed.summary.tick, world.tick)))
    await world.run(RunConfig(num_steps=5))
    assert seen == [(tick, tick + 1) for tick in range(5)]


async def test_a_listener_that_fails_holds_nothing_up(world: AsyncWorld) -> None:
    seen: list[int] = []

    def fail(committed: CommittedTick) -> None:
        raise RuntimeError("listener")

    world.on_committed(fail)
    world.on_committed(lambda committed: seen.append(committed.summary.tick))
    assert (await world.step()).summary.tick == 0
    assert seen == [0]


# Reads


async def test_reads_inside_a_tick_are_the_tick_before(world: AsyncWorld) -> None:
    seen: list[Any] = []

    class Look(AsyncProcessor):
        components = (Place,)
        priority = 20

        async def process(self, df: daft.DataFrame, **kwargs: Any) -> daft.DataFrame:
            world: AsyncWorld = kwargs["world"]
            others = await world.get_components([Place])
            seen.append((kwargs["tick"], world.tick, others.to_pydict()["place__x"]))
            return df

    class LookToo(ArrowProcessor):
        components = (Place,)

        def process_batch(self, batch: pa.RecordBatch, **kwargs: Any) -> pa.RecordBatch:
            seen.append(kwargs["world"].read([Place]).column("place__x").to_pylist())
            return batch

    entity = await world.create_entity([Place(x=1.0)])
    await world.step()
    await world.add_processor(Scale(3.0))
    await world.add_processor(Look())
    await world.add_processor(LookToo(), name="too")
    await world.update_entity(entity, [Place(x=5.0)])
    futures = [await world.advance() for _ in range(3)]
    await asyncio.gather(*futures)
    assert seen == [[1.0], (1, 1, [1.0]), [15.0], (2, 2, [15.0]), [45.0], (3, 3, [45.0])]


async def test_another_world_read_inside_a_tick_is_that_worlds_own(engine: Engine) -> None:
    one = await engine.create_world(WorldConfig(name="one"))
    other = await engine.create_world(WorldConfig(name="other"))
    await one.create_entity([Place(x=1.0)])
    await other.create_entity([Place(x=2.0)])
    await other.step()
    await one.step()
    seen: list[Any] = []

    class Peek(ArrowProcessor):
        components = (Place,)

        def process_batch(self, batch: pa.RecordBatch, **kwargs: Any) -> pa.RecordBatch:
            seen.append((other.tick, other.read([Place]).column("place__x").to_pylist()))
            return batch

    await one.add_processor(Peek())
    await one.step()
    assert seen == [(1, [2.0])]


async def test_reads_take_components_and_ids(world: AsyncWorld) -> None:
    ids = await world.create_entities([[Place(x=1)], [Place(x=2), Speed()], [Speed()], [Place(x=4)]])
    await world.step()
    await world.remove_entity(ids[3])
    await world.step()
    assert world.read([Place]).column("entity_id").to_pylist() == [ids[0], ids[1]]
    both = world.read([Speed, Place])
    assert both.schema.names[2:] == ["place__x", "place__y", "speed__vx", "speed__vy"]
    assert both.column("entity_id").to_pylist() == [ids[1]]
    assert world.read([Place], [ids[1], 99, ids[1]]).column("place__x").to_pylist() == [2.0]
    assert world.read([Place], []).num_rows == 0
    assert world.read([Tag]).num_rows == 0
    assert world.read([Tag]).schema.names == [
        "entity_id",
        "is_active",
        "tag__text",
        "tag__count",
        "tag__note",
    ]
    frame = await world.get_components([Place], [ids[0]])
    assert frame.to_pydict()["place__x"] == [1.0]
    with pytest.raises(EntityNotFoundError):
        world.entity(ids[3])


async def test_a_step_at_another_tick_than_expected_computes_nothing(world: AsyncWorld) -> None:
    with pytest.raises(TickMismatchError) as raised:
        await world.advance(expected_tick=3)
    assert raised.value.metadata == {"expected": "3", "actual": "0"}
    await (await world.advance(expected_tick=0))
    assert world.tick == 1


async def test_a_run_computes_its_steps_and_keeps_its_run_id(world: AsyncWorld) -> None:
    config = RunConfig(num_steps=7)
    committed = await world.run(config)
    assert committed is not None
    assert (committed.summary.tick, world.tick, world.run_id) == (6, 7, config.run_id)
    assert UUID(bytes=committed.summary.run_id) == config.run_id
    assert await world.run(RunConfig(num_steps=0)) is None


# Restarts


async def test_a_restarted_world_continues_at_its_last_durable_tick(opener: Opener) -> None:
    world = await (await opener.open()).create_world(WorldConfig(name="w", seed=5, labels={"k": "v"}))
    await world.create_entities([[Place(), Speed()], [Tag(text="t")]])
    await world.add_processor(Drift())
    await world.run(RunConfig(num_steps=3))
    before = world
    world = (await opener.open()).world("w")
    assert world is not before
    assert (world.tick, world.row.seed, world.row.labels) == (3, 5, {"k": "v"})
    assert world.world_id == before.world_id
    assert world.run_id == before.run_id
    assert world.state.state_hash() == before.state.state_hash()
    assert world.state.streams == before.state.streams
    for sig, table in before.state.tables.items():
        found = world.state.tables[sig]
        assert found.batch.equals(table.batch)
        assert found.schema.equals(table.schema, check_metadata=True)
        assert (found.frame, found.record_tick) == (table.frame, table.record_tick)
    committed = await world.step()
    assert committed.summary.tick == 3
    assert world.entity(1)["Place"]["x"] == 4.0
    assert [frame.stream for frame in committed.computed.frames] == [1]
    assert await world.create_entity([Speed()]) == 3
    new = await world.step()
    assert [stream.number for stream in new.computed.new_streams] == [3]


async def play_script(
    opener: Opener, name: str, restart_before: frozenset[int]
) -> list[tuple[int, bytes, int, int]]:
    """Play one script of commands; return what each tick came to."""
    world = await (await opener.open()).create_world(WorldConfig(name=name, seed=1))
    found: list[tuple[int, bytes, int, int]] = []
    for tick in range(8):
        if tick in restart_before:
            world = (await opener.open()).world(name)
        if tick == 0:
            await world.add_processor(Drift())
            await world.create_entities([[Place(), Speed()], [Place(x=3)]])
        if tick == 1:
            later = {"components": {"Place": {"x": 9}}}
            await world.submit([Submission(CommandType.SPAWN, later, tick=6)])
            await world.create_entity([Speed()])
            await world.submit([Submission(CommandType.SPAWN, later, tick=5)])
        if tick == 3:
            await world.remove_entity(2)
        if tick == 4:
            await world.add_processor(Scale(2.0))
            await world.create_entity([Tag(text="x")])
        committed: CommittedTick = await world.step()
        summary = committed.summary
        assert summary.state_hash == world.state.state_hash()
        found.append((summary.tick, summary.state_hash, summary.entities, summary.rows))
    return found


@pytest.mark.parametrize(
    "restarts",
    [{0}, {1}, {2}, {4}, {5}, {6}, {7}, {1, 2, 3, 4, 5, 6, 7}],
    ids=lambda r: "+".join(map(str, r)),
)
async def test_a_world_with_restarts_equals_one_without(opener: Opener, restarts: set[int]) -> None:
    plain = await play_script(opener, "plain", frozenset())
    assert await play_script(opener, "again", frozenset(restarts)) == plain


async def test_a_faulted_world_is_taken_up_again_after_a_restart(opener: Opener) -> None:
    class Broken(ArrowProcessor):
        components = (Place,)

        def process_batch(self, batch: pa.RecordBatch, **kwargs: Any) -> pa.RecordBatch:
            raise RuntimeError("broken")

    application = setup()
    application.vocabulary.processors.register(Broken)
    world = await (await opener.open(application)).create_world(WorldConfig(name="w"))
    await world.create_entity([Place()])
    await world.step()
    await world.add_processor(Broken())
    for _ in range(2):
        with pytest.raises(ProcessorFailedError):
            await world.step()
        world = (await opener.open(application)).world("w")
        assert (world.tick, world.acceptance.pending) == (1, 1)
    await world.submit([Submission(CommandType.REMOVE_PROCESSOR, {"name": "Broken"})])
    assert (await world.step()).summary.commands_applied == 2


async def test_a_directory_belongs_to_one_engine_at_a_time(opener: Opener) -> None:
    from tickwire_engine import Engine
    from tickwire_engine.errors import DataDirectoryLockedError

    await opener.open()
    with pytest.raises(DataDirectoryLockedError):
        await Engine.open(opener.path)


async def test_a_bootstrap_inserts_resources_before_the_first_tick(opener: Opener) -> None:
    class Clock:
        pass

    def bootstrap(world: AsyncWorld) -> None:
        world.resources.insert(Clock())

    application = EngineSetup(setup().vocabulary, bootstrap=bootstrap)
    world = await (await opener.open(application)).create_world(WorldConfig(name="w"))
    assert Clock in world.resources
    world = (await opener.open(application)).world("w")
    assert Clock in world.resources
