"""Rollouts and episodes: futures tried on branches, which leave the world, and the disk, as they were."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest

from tests.engine.parts import Drift, Place, Speed, Tag, setup, stream
from tickwire_engine import (
    ArrowProcessor,
    AsyncProcessor,
    AsyncWorld,
    Command,
    CommandBroker,
    CommandType,
    Engine,
    RunConfig,
    SqlProcessor,
    TickRandom,
    WorldConfig,
)
from tickwire_engine.errors import (
    InvalidCommandError,
    InvalidSqlError,
    ResultTooLargeError,
    TickInTheFutureError,
    TickwireError,
)
from tickwire_engine.rollouts import BranchResult, RolloutLimits, parse_episode, parse_rollout
from tickwire_engine.rollouts.runner import Rollouts

if TYPE_CHECKING:
    from pathlib import Path
    from uuid import UUID

    import daft

    from tests.engine.conftest import Opener


class Jitter(ArrowProcessor):
    """Moves places by chance."""

    components = (Place,)

    def process_batch(self, batch: pa.RecordBatch, **kwargs: Any) -> pa.RecordBatch:
        generator = kwargs["resources"].require(TickRandom).generator()
        index = batch.schema.get_field_index("place__x")
        moved = batch.column(index).to_numpy() + generator.normal(size=batch.num_rows)
        return batch.set_column(index, batch.schema.field(index), pa.array(moved))


class Multiply(ArrowProcessor):
    """Every tag issues a command that spawns another place, up to a count; fails where it is told."""

    components = (Tag,)

    def process_batch(self, batch: pa.RecordBatch, **kwargs: Any) -> pa.RecordBatch:
        if kwargs["inputs"].get("fail_at") == kwargs["tick"]:
            raise RuntimeError("told to")
        if kwargs["inputs"].get("flood"):
            broker = kwargs["resources"].require(CommandBroker)
            broker.issue(CommandType.SPAWN, {"table": stream({"place__x": [1.0] * 2_000})})
        if kwargs["inputs"].get("multiply"):
            kwargs["resources"].require(CommandBroker).issue(
                CommandType.SPAWN, {"components": {"Place": {"x": 1.0}}}
            )
        return batch


def application() -> Any:
    made = setup()
    made.vocabulary.processors.register(Jitter)
    made.vocabulary.processors.register(Multiply)
    return made


@pytest.fixture
async def engine(opener: Opener) -> Engine:
    return await opener.open(application())


async def moving(engine: Engine, *, ticks: int = 5, jitter: bool = False) -> AsyncWorld:
    world = await engine.create_world(WorldConfig(name="w", seed=7))
    await world.add_processor(Drift())
    await world.add_processor(Multiply())
    if jitter:
        await world.add_processor(Jitter())
    await world.create_entities(
        [[Place(x=0.0), Speed(vx=1.0)], [Place(x=100.0), Speed(vx=2.0)], [Tag(text="t", count=3)]]
    )
    await world.run(RunConfig(num_steps=ticks))
    return world


async def run(world: AsyncWorld, engine: Engine, **given: Any) -> list[BranchResult]:
    plan = parse_rollout(given, engine.setup.vocabulary)
    return await collect(engine, world, plan)


async def play(world: AsyncWorld, engine: Engine, **given: Any) -> list[BranchResult]:
    plan = parse_episode(given, engine.setup.vocabulary)
    return await collect(engine, world, plan)


async def collect(engine: Engine, world: AsyncWorld, plan: Any) -> list[BranchResult]:
    results = [result async for result in engine.rollouts.run(world, plan)]
    return sorted(results, key=lambda result: result.number)


def rows(result: BranchResult) -> list[dict[str, Any]]:
    assert result.error is None
    return pa.ipc.open_stream(result.table).read_all().to_pylist()


def xs(result: BranchResult) -> list[float]:
    return [row["place__x"] for row in rows(result)]


def speed(entity: int, vx: float, **given: Any) -> dict[str, Any]:
    return {"update": {"entity_ids": [entity], "components": {"Speed": {"vx": vx}}}, **given}


def listing(path: Path) -> dict[str, int]:
    return {str(p.relative_to(path)): p.stat().st_size for p in path.rglob("*") if p.is_file()}


async def test_branches_go_their_own_ways_and_the_world_stays(engine: Engine) -> None:
    world = await moving(engine)
    before = world.state
    results = await run(
        world,
        engine,
        ticks=3,
        components=["Place"],
        branches=[
            {"name": "as it is"},
            {"name": "faster", "commands": [speed(1, 10.0)]},
            {"commands": [speed(1, 10.0, tick=7)]},
        ],
    )
    assert [(r.number, r.name, r.last_tick) for r in results] == [
        (0, "as it is", 7),
        (1, "faster", 7),
        (2, "2", 7),
    ]
    assert [xs(r) for r in results] == [[8.0, 116.0], [35.0, 116.0], [17.0, 116.0]]
    assert world.state is before


async def test_a_branch_comes_out_as_the_world_does(engine: Engine) -> None:
    world = await moving(engine, jitter=True)
    (branch,) = await run(
        world, engine, ticks=4, components=["Place"], branches=[{"commands": [speed(1, 5.0)]}], keep=True
    )
    kept = engine.world(branch.world_id)
    assert kept.parent_id == world.world_id
    assert kept.tick == 9
    (memory,) = await run(
        world, engine, ticks=4, components=["Place"], branches=[{"commands": [speed(1, 5.0)]}]
    )
    assert memory.table == branch.table


@pytest.mark.parametrize("at_tick", [None, 2])
async def test_the_same_request_gives_the_same_bytes(opener: Opener, at_tick: int | None) -> None:
    engine = await opener.open(application())
    world = await moving(engine, jitter=True)
    given = {
        "ticks": 5,
        "components": ["Place", "Speed"],
        "copies": 3,
        "branches": [{}, {"commands": [speed(1, 5.0)]}],
    } | ({} if at_tick is None else {"at_tick": at_tick})
    first = await run(world, engine, **given)
    assert len({r.table for r in first}) == 6
    second = await run(world, engine, **given)
    engine = await opener.open(application())
    third = await run(engine.world("w"), engine, **given)
    assert [r.table for r in first] == [r.table for r in second] == [r.table for r in third]
    other = await run(engine.world("w"), engine, **given, seed=1)
    assert {r.table for r in other}.isdisjoint(r.table for r in first)


async def test_copies_draw_the_same_in_every_branch_unless_it_has_a_seed(engine: Engine) -> None:
    world = await moving(engine, jitter=True)
    results = await run(
        world, engine, ticks=2, components=["Place"], copies=2, branches=[{}, {"name": "again"}, {"seed": 5}]
    )
    tables = [r.table for r in results]
    assert tables[0:2] == tables[2:4]
    assert len(set(tables)) == 4


async def test_a_rollout_leaves_nothing_on_the_disk(opener: Opener) -> None:
    engine = await opener.open(application())
    world = await moving(engine, jitter=True)
    await world.create_entity([Tag()])
    before = listing(opener.path)
    names = [w.name for w in engine.worlds]
    results = await run(
        world, engine, ticks=20, components=["Place"], copies=8, branches=[{"inputs": {"multiply": True}}]
    )
    assert {len(xs(r)) for r in results} == {21}
    assert listing(opener.path) == before
    assert [w.name for w in engine.worlds] == names
    assert world.acceptance.pending == 1
    await world.step()
    assert (await world.get_components([Tag])).count_rows() == 2


async def test_a_failing_branch_has_its_error_and_the_others_their_results(engine: Engine) -> None:
    world = await moving(engine)
    results = await run(
        world,
        engine,
        ticks=4,
        components=["Place"],
        branches=[{}, {"inputs": {"fail_at": 7}}, {"commands": [{"despawn": {"entity_ids": [99]}}]}],
    )
    assert [r.last_tick for r in results] == [8, 6, 8]
    assert results[1].error is not None
    assert (results[1].error.reason, results[1].table) == ("PROCESSOR_FAILED", b"")
    assert [o.reason for o in results[2].rejected] == ["ENTITY_NOT_FOUND"]
    assert xs(results[2]) == xs(results[0])
    assert world.fault is None


async def test_results_are_made_by_sql_at_the_end_or_of_every_tick(engine: Engine) -> None:
    world = await moving(engine)
    sql = "SELECT tick, sum(place__x) AS total FROM place GROUP BY tick"
    (end,) = await run(world, engine, ticks=2, result_sql=sql)
    assert rows(end) == [{"tick": 6, "total": 121.0}]
    (each,) = await run(world, engine, ticks=2, tick_sql="SELECT max(place__x) AS x FROM entities")
    assert rows(each) == [{"tick": 5, "x": 112.0}, {"tick": 6, "x": 114.0}]
    (bad,) = await run(world, engine, ticks=1, result_sql="SELECT nothing FROM place")
    assert isinstance(bad.error, InvalidSqlError)
    (none,) = await run(world, engine, ticks=1)
    assert (none.table, none.error) == (b"", None)


async def test_closing_a_rollout_stops_its_branches(engine: Engine) -> None:
    world = await moving(engine)
    plan = parse_rollout({"ticks": 100_000, "copies": 8}, engine.setup.vocabulary)
    branches = engine.rollouts.run(world, plan)
    pending = asyncio.ensure_future(anext(branches))
    while not engine.rollouts._pool:  # noqa: ASYNC110  (what is awaited here sets no event)
        await asyncio.sleep(0)
    pending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await pending
    await branches.aclose()
    (again,) = await run(world, engine, ticks=1, components=["Place"])
    assert xs(again) == [6.0, 112.0]


async def test_an_engine_that_closes_stops_the_branches_under_way(engine: Engine, opener: Opener) -> None:
    world = await moving(engine)
    plan = parse_rollout({"ticks": 200_000, "copies": 4}, engine.setup.vocabulary)
    reading = asyncio.ensure_future(anext(engine.rollouts.run(world, plan)))
    while not engine.rollouts._under_way:  # noqa: ASYNC110  (what is awaited here sets no event)
        await asyncio.sleep(0)
    await opener.close()
    assert (await reading).error is not None


async def test_rollouts_are_limited(engine: Engine) -> None:
    world = await moving(engine)
    engine.rollouts = Rollouts(engine, RolloutLimits(branches=4, entity_ticks=200_000, table_bytes=2_000))
    for given in ({"copies": 5, "ticks": 1}, {"ticks": 400}):
        with pytest.raises(ResultTooLargeError):
            await run(world, engine, **given)
    (grown,) = await run(world, engine, ticks=100, branches=[{"inputs": {"flood": True}}])
    assert isinstance(grown.error, ResultTooLargeError)
    assert grown.last_tick < 100
    (big,) = await run(world, engine, ticks=1, result_sql="SELECT * FROM range(1000)")
    assert isinstance(big.error, ResultTooLargeError)


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({}, "rollout.ticks"),
        ({"ticks": -1}, "rollout.ticks"),
        ({"ticks": 1, "nothing": 1}, "rollout.nothing"),
        ({"ticks": 1, "components": ["No"]}, "rollout.components[0]"),
        ({"ticks": 1, "components": ["Place"], "result_sql": "SELECT 1"}, "rollout.result_sql"),
        ({"ticks": 1, "branches": [{"commands": [{}]}]}, "rollout.branches[0].commands[0]"),
        ({"ticks": 1, "branches": [{"inputs": {"tick": 1}}]}, "rollout.branches[0].inputs.tick"),
        (
            {"ticks": 1, "branches": [{}, {"commands": [{"spawn": {"components": {"No": {}}}}]}]},
            "rollout.branches[1].commands[0].spawn.components.No",
        ),
    ],
)
def test_a_rollout_that_could_never_be_run_says_where(given: dict[str, Any], field: str) -> None:
    with pytest.raises(TickwireError) as caught:
        parse_rollout(given, application().vocabulary)
    assert caught.value.field == field


async def test_a_rollout_starts_after_a_tick_that_is_there(engine: Engine) -> None:
    world = await moving(engine)
    (early,) = await run(world, engine, ticks=2, at_tick=1, components=["Place"])
    assert (early.last_tick, xs(early)) == (3, [4.0, 108.0])
    with pytest.raises(TickInTheFutureError):
        await run(world, engine, ticks=1, at_tick=5)


async def test_an_episode_draws_its_beginnings_and_stops_when_it_is_over(engine: Engine) -> None:
    world = await moving(engine)
    results = await play(
        world,
        engine,
        rollout={"copies": 4, "components": ["Place", "Speed"]},
        initial={
            "place__x": {"uniform": {"low": 0, "high": 10}},
            "speed__vx": {"table": {"values": [1, 2, 3]}},
        },
        stop_sql="SELECT max(place__x) > 20 FROM place",
        max_ticks=15,
        score_sql="SELECT avg(speed__vx) FROM speed",
    )
    assert [r.score for r in results] == [1.0, 2.0, 3.0, 1.0]
    beginnings = []
    for result in results:
        ticks = result.last_tick - 4
        values = xs(result)
        assert result.stopped == (max(values) > 20.0)
        assert ticks <= 15
        beginnings += [x - ticks * result.score for x in values]
    assert all(0.0 <= x < 10.0 for x in np.round(beginnings, 9))
    assert len(set(np.round(beginnings, 9))) == 8
    assert any(r.stopped for r in results)


async def test_distributions_draw_what_they_say(engine: Engine) -> None:
    world = await engine.create_world(WorldConfig(name="many", seed=1))
    await world.create_entities([[Place(), Tag()] for _ in range(400)])
    await world.step()
    initial = {
        "place__x": {"normal": {"mean": 5, "std": 2}},
        "place__y": {"normal": {"mean": 5, "std": 2}, "per": "copy"},
        "tag__text": {"choice": {"values": ["a", "b"], "weights": [1, 3]}},
        "tag__count": {"uniform": {"low": 1, "high": 3}},
    }
    (result,) = await play(
        world, engine, rollout={"components": ["Place", "Tag"]}, initial=initial, max_ticks=1
    )
    found = pa.ipc.open_stream(result.table).read_all().to_pydict()
    assert abs(np.mean(found["place__x"]) - 5) < 0.5
    assert abs(np.std(found["place__x"]) - 2) < 0.5
    assert len(set(found["place__y"])) == 1
    assert set(found["tag__count"]) == {1, 2, 3}
    assert 0.65 < found["tag__text"].count("b") / 400 < 0.85


@pytest.mark.parametrize(
    ("column", "given", "field"),
    [
        ("nothing", {"uniform": {}}, ""),
        ("place__x", {}, ""),
        ("place__x", {"uniform": {"low": 2, "high": 1}}, ".uniform.low"),
        ("place__x", {"normal": {"std": -1}}, ".normal.std"),
        ("place__x", {"choice": {"values": []}}, ".choice.values"),
        ("place__x", {"choice": {"values": [1], "weights": [1, 2]}}, ".choice.weights"),
        ("tag__count", {"table": {"values": [1.5]}}, ".table.values"),
        ("tag__text", {"normal": {}}, ""),
        ("place__x", {"uniform": {}, "per": "tick"}, ".per"),
    ],
)
def test_a_distribution_that_does_not_fit_says_why(column: str, given: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidCommandError) as caught:
        parse_episode({"initial": {column: given}, "max_ticks": 1}, application().vocabulary)
    assert caught.value.field == f"episode.initial.{column}{field}"


async def test_stop_and_score_must_be_what_they_are_for(engine: Engine) -> None:
    world = await moving(engine)
    for given in ({"stop_sql": "SELECT 1"}, {"score_sql": "SELECT 'x'"}, {"score_sql": "SELECT 1, 2"}):
        (result,) = await play(world, engine, max_ticks=1, **given)
        assert isinstance(result.error, InvalidSqlError)
    (never,) = await play(world, engine, max_ticks=2, stop_sql="SELECT NULL::BOOLEAN", score_sql="SELECT 1.5")
    assert (never.stopped, never.score, never.last_tick) == (False, 1.5, 6)


class Crowding(AsyncProcessor):
    """Knows how many there are, by a plan over all rows or by the world: more than its own rows."""

    components = (Place,)

    def __init__(self, by: str = "rows") -> None:
        self.by = by

    async def process(self, df: daft.DataFrame, **kwargs: Any) -> daft.DataFrame:
        if self.by == "rows":
            count = df.count_rows()
        elif self.by == "world":
            count = kwargs["world"].read([Place]).num_rows
        elif self.by == "chance":
            count = int(kwargs["resources"].require(TickRandom).generator().integers(100))
        else:
            try:
                count = kwargs["world"].read([Place]).num_rows
            except Exception:
                count = 1_000
        return df.with_column("place__y", df["place__y"] + float(count))


@pytest.mark.parametrize("by", ["nothing", "rows", "world", "chance", "hidden"])
async def test_branches_in_step_come_out_as_each_by_itself(engine: Engine, by: str) -> None:
    world = await moving(engine)
    if by != "nothing":
        engine.setup.vocabulary.processors.register(Crowding)
        await world.add_processor(Crowding(by))
        await world.step()
    branches: list[dict[str, Any]] = [{"commands": [speed(1, float(v))]} for v in range(5)]
    branches[3]["commands"].append({"despawn": {"entity_ids": [2]}})
    branches[4]["commands"].append({"spawn": {"components": {"Place": {"x": -1.0}}}})
    given = {"ticks": 6, "components": ["Place"], "branches": branches}
    together = await run(world, engine, **given)
    engine.rollouts = Rollouts(engine, RolloutLimits(cores=5))
    apart = await run(world, engine, **given)
    assert [r.error for r in together + apart] == [None] * 10
    assert [r.table for r in together] == [r.table for r in apart]
    assert [len(xs(r)) for r in together] == [2, 2, 2, 1, 3]


async def test_a_failure_in_step_is_that_of_its_branch(engine: Engine) -> None:
    world = await engine.create_world(WorldConfig(name="w", seed=1))
    sql = SqlProcessor([Tag], {"tag__count": "10 // tag__count"})
    await world.add_processor(sql, name="divide")
    await world.create_entity([Tag(count=3)])
    await world.run(RunConfig(num_steps=1))
    branches = [
        {"commands": [{"update": {"entity_ids": [1], "components": {"Tag": {"count": c}}}}]}
        for c in (5, 3, 9, 0)
    ]
    given = {"ticks": 5, "components": ["Tag"], "branches": branches}
    together = await run(world, engine, **given)
    engine.rollouts = Rollouts(engine, RolloutLimits(cores=99))
    apart = await run(world, engine, **given)
    told = [(r.last_tick, r.table, None if r.error is None else r.error.message) for r in together]
    assert told == [(r.last_tick, r.table, None if r.error is None else r.error.message) for r in apart]


class Meddler(AsyncProcessor):
    """Sends commands to its own world and to another one, from inside a tick."""

    components = (Tag,)
    other: UUID | None = None

    async def process(self, df: daft.DataFrame, **kwargs: Any) -> daft.DataFrame:
        broker = kwargs["resources"].require(CommandBroker)
        spawn = Command(type=CommandType.SPAWN, payload={"components": {"Place": {"x": 7.0}}})
        await broker.enqueue(kwargs["world"].world_id, spawn)
        if Meddler.other is not None:
            await broker.enqueue(Meddler.other, spawn)
        return df


async def test_a_branch_reaches_no_other_world(engine: Engine) -> None:
    world = await moving(engine)
    other = await engine.create_world(WorldConfig(name="other"))
    engine.setup.vocabulary.processors.register(Meddler)
    Meddler.other = None
    await world.add_processor(Meddler())
    await world.step()
    pending = world.acceptance.pending
    (alone,) = await run(world, engine, ticks=3, components=["Place"])
    assert len(xs(alone)) == 4
    Meddler.other = other.world_id
    (reaching,) = await run(world, engine, ticks=3, components=["Place"])
    # What it sends to another world never leaves it.
    assert reaching.table == alone.table
    assert (world.acceptance.pending, other.acceptance.pending) == (pending, 0)


def test_branches_run_on_the_cores_there_are() -> None:
    assert RolloutLimits().cores == os.cpu_count()
