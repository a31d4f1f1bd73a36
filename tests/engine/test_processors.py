"""Processors in a world: their order, what they are shown, what they may return, and what happens when they fail."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from daft import col, lit

from tests.engine.parts import Drift, Place, Raise, Scale, Speed, Tag, setup
from tickwire_engine import (
    ArrowProcessor,
    AsyncProcessor,
    CommandType,
    Component,
    Submission,
    TickwireError,
)
from tickwire_engine.errors import (
    InvalidCommandError,
    ProcessorFailedError,
    ProcessorNotFoundError,
    UnknownProcessorTypeError,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    import daft

    from tests.engine.conftest import Opener
    from tickwire_engine import AsyncWorld


class Calls:
    """What processors of a test noted, in order."""

    def __init__(self) -> None:
        self.made: list[Any] = []


class Note(ArrowProcessor):
    """Notes that it ran, and on which entities."""

    components = (Place,)

    def __init__(self, label: str = "", priority: int = 10) -> None:
        self.label = label
        self.priority = priority

    def process_batch(self, batch: pa.RecordBatch, **input_kwargs: Any) -> pa.RecordBatch:
        ids = batch.column("entity_id").to_pylist()
        input_kwargs["resources"].require(Calls).made.append((self.label, ids))
        return batch


class OnArrow(ArrowProcessor):
    """Does to the batch what the test's resource says."""

    components = (Place,)

    def process_batch(self, batch: pa.RecordBatch, **input_kwargs: Any) -> pa.RecordBatch:
        change: Any = input_kwargs["resources"].require(Change)
        return change.fn(batch)


class OnDaft(AsyncProcessor):
    """Does to the frame what the test's resource says."""

    components = (Place,)

    async def process(self, df: daft.DataFrame, **input_kwargs: Any) -> daft.DataFrame:
        change: Any = input_kwargs["resources"].require(Change)
        return change.fn(df)


class Change:
    """What `OnArrow` or `OnDaft` do."""

    def __init__(self, fn: Callable[[Any], Any]) -> None:
        self.fn = fn


async def places(world: AsyncWorld, count: int = 4) -> list[int]:
    return await world.create_entities([[Place(x=float(i))] for i in range(count)])


def xs(world: AsyncWorld) -> list[float]:
    return world.read([Place]).column("place__x").to_pylist()


async def test_lower_priority_runs_first_then_by_name(world: AsyncWorld) -> None:
    world.resources.insert(Calls())
    await places(world, 1)
    for name, priority in (("zeta", 10), ("late", 20), ("alpha", 10), ("first", -5)):
        await world.add_processor(Note(name, priority=priority), name=name)
    await world.step()
    assert [entry.name for entry in world.processors] == ["first", "alpha", "zeta", "late"]
    assert [label for label, _ in world.resources.require(Calls).made] == ["first", "alpha", "zeta", "late"]


async def test_each_gets_what_the_one_before_left(world: AsyncWorld) -> None:
    await places(world, 2)
    await world.add_processor(Scale(3.0), name="a")
    await world.add_processor(Raise(1.0), name="b")
    await world.add_processor(Scale(10.0, offset=0.5), name="c")
    await world.step()
    assert xs(world) == [10.5, 40.5]


async def test_a_processor_runs_on_every_archetype_that_has_its_components(world: AsyncWorld) -> None:
    plain, moving, tagged = await world.create_entities(
        [[Place(x=1)], [Place(x=1), Speed()], [Tag(), Place(x=1)]]
    )
    speed_only = await world.create_entity([Speed(vx=3)])
    await world.add_processor(Scale(2.0))
    await world.add_processor(Drift(), name="zz")
    await world.step()
    assert [world.entity(i)["Place"]["x"] for i in (plain, moving, tagged)] == [2.0, 3.0, 2.0]
    assert world.entity(speed_only) == {"Speed": {"vx": 3.0, "vy": 0.0}}


async def test_the_path_taken_is_told(world: AsyncWorld) -> None:
    world.resources.insert(Change(lambda df: df.sort("place__x", desc=True)))
    await places(world)
    await world.add_processor(Scale())
    await world.add_processor(Raise())
    await world.add_processor(OnDaft())
    await world.step()
    assert {name: run.path for name, run in world.processor_runs.items()} == {
        "Scale": "FAST",
        "Raise": "ARROW",
        "OnDaft": "DAFT",
    }


@pytest.mark.parametrize(
    "change",
    [
        lambda df: df.sort("place__x", desc=True),
        lambda df: (
            df.join(df.groupby("place__y").agg(col("place__x").max().alias("m")), on="place__y")
            .with_column("place__x", col("m") - col("place__x"))
            .exclude("m")
        ),
        lambda df: df.collect().with_column("place__x", 3.0 - col("place__x")),
        lambda df: df.select(*reversed(df.column_names)).with_column("place__x", 3.0 - col("place__x")),
    ],
)
async def test_a_plan_gives_rows_back_in_entity_order(world: AsyncWorld, change: Any) -> None:
    world.resources.insert(Change(change))
    ids = await places(world)
    await world.add_processor(OnDaft())
    await world.step()
    batch = world.read([Place])
    assert batch.column("entity_id").to_pylist() == ids
    assert batch.column("place__x").to_pylist() in ([0.0, 1.0, 2.0, 3.0], [3.0, 2.0, 1.0, 0.0])


def with_x(batch: pa.RecordBatch, values: Any) -> pa.RecordBatch:
    index = batch.schema.get_field_index("place__x")
    return batch.set_column(index, "place__x", values)


FAILURES: dict[str, tuple[type[Any], Callable[[Any], Any], str]] = {
    "raises": (OnArrow, lambda batch: 1 / 0, "ZeroDivisionError"),
    "raises in Daft": (OnDaft, lambda df: df.where(col("nothing") > 1), "nothing"),
    "raises when evaluated": (OnDaft, lambda df: df.with_column("place__x", col("nothing")), "nothing"),
    "panics when evaluated": (
        OnDaft,
        lambda df: df.with_column(
            "place__x", (col("entity_id") % (col("entity_id") - col("entity_id"))).cast("double")
        ),
        "divisor of zero",
    ),
    "panics in Daft": (
        OnDaft,
        lambda df: df.sort("place__x").with_column("place__x", (col("entity_id") // 0).cast("double")),
        "divide by zero",
    ),
    "drops rows": (OnArrow, lambda batch: batch.slice(1), "3 rows for 4"),
    "drops rows in Daft": (OnDaft, lambda df: df.where(col("place__x") > 0), "3 rows for 4"),
    "adds rows": (
        OnArrow,
        lambda batch: pa.Table.from_batches([batch, batch]).combine_chunks().to_batches()[0],
        "8 rows for 4",
    ),
    "adds rows in Daft": (OnDaft, lambda df: df.concat(df), "8 rows for 4"),
    "exchanges entities": (
        OnArrow,
        lambda batch: batch.set_column(0, "entity_id", pc.add(batch.column(0), 1)),
        "other entities",
    ),
    "doubles an entity": (OnArrow, lambda batch: batch.take([0, 0, 1, 2]), "other entities"),
    "changes a type": (
        OnArrow,
        lambda batch: with_x(batch, batch.column("place__x").cast(pa.float32())),
        "place__x is float, not double",
    ),
    "changes a type in Daft": (OnDaft, lambda df: df.with_column("place__x", col("place__x") > 1), "bool"),
    "makes a null": (
        OnArrow,
        lambda batch: with_x(batch, pa.array([None, 1.0, 2.0, 3.0])),
        "place__x has 1 nulls",
    ),
    "makes nulls without a type": (OnArrow, lambda batch: with_x(batch, pa.nulls(4)), "nulls"),
    "returns None": (OnArrow, lambda batch: None, "NoneType"),
    "returns None from Daft": (OnDaft, lambda df: None, "NoneType"),
    "drops a column": (OnArrow, lambda batch: batch.drop_columns(["place__y"]), "lacks place__y"),
    "adds a column": (OnDaft, lambda df: df.with_column("mine", col("place__x")), "columns of its own: mine"),
    "doubles a column": (
        OnArrow,
        lambda batch: batch.append_column("place__y", batch.column("place__y")),
        "place__y",
    ),
    "nulls in is_active": (
        OnArrow,
        lambda batch: batch.set_column(1, "is_active", pa.nulls(4, pa.bool_())),
        "is_active has 4 nulls",
    ),
}


async def test_a_type_changed_and_changed_back_by_the_next_is_the_first_ones_fault(world: AsyncWorld) -> None:
    world.resources.insert(Change(lambda df: df.with_column("place__x", col("place__x").cast("float32"))))
    await places(world)
    await world.add_processor(OnDaft(), name="culprit")
    await world.add_processor(Scale(), name="later")
    with pytest.raises(ProcessorFailedError, match="place__x is float, not double") as raised:
        await world.step()
    assert raised.value.metadata["processor"] == "culprit"


async def test_what_a_processor_cost_and_how_is_told_over_all_archetypes(world: AsyncWorld) -> None:
    def plan_for_tagged(df: Any) -> Any:
        return df.sort("place__x") if "tag__text" in df.column_names else df

    world.resources.insert(Change(plan_for_tagged))
    await world.create_entities([[Place()], [Place(), Tag()], [Place(), Speed()]])
    await world.add_processor(OnDaft())
    await world.step()
    assert world.processor_runs["OnDaft"].path == "DAFT"


async def test_a_processor_that_returns_what_it_got_changes_nothing_and_writes_nothing(
    world: AsyncWorld,
) -> None:
    world.resources.insert(Change(lambda df: df))
    await places(world)
    await world.add_processor(OnDaft())
    await world.step()
    batches = [table.batch for table in world.state.tables.values()]
    committed = await world.step()
    assert not committed.computed.frames
    assert all(
        table.batch is batch for table, batch in zip(world.state.tables.values(), batches, strict=True)
    )


class Perhaps(Component):
    """An integer that may be absent."""

    n: int | None = None


class Forget(AsyncProcessor):
    """Adds to nothing, which the planner knows to be nothing, and the kernel refuses."""

    components = (Perhaps,)

    async def process(self, df: daft.DataFrame, **input_kwargs: Any) -> daft.DataFrame:
        return df.with_column("perhaps__n", lit(None) + col("perhaps__n"))


async def test_what_only_the_planner_can_evaluate_is_left_to_it(world: AsyncWorld) -> None:
    await world.create_entities([[Perhaps(n=3)], [Perhaps(n=4)]])
    await world.add_processor(Forget())
    await world.step()
    assert world.entity(1) == {"Perhaps": {"n": None}}
    assert world.processor_runs["Forget"].path == "DAFT"


async def test_a_frame_of_other_rows_is_not_taken_for_the_processors_own(world: AsyncWorld) -> None:
    class Elsewhere(AsyncProcessor):
        components = (Place,)

        async def process(self, df: daft.DataFrame, **input_kwargs: Any) -> daft.DataFrame:
            return await input_kwargs["world"].get_components([Place])

    await places(world)
    await world.step()
    await world.submit([Submission(CommandType.DESPAWN, {"entity_ids": [2]})])
    await world.add_processor(Elsewhere())
    with pytest.raises(ProcessorFailedError, match="4 rows for 3 entities"):
        await world.step()


@pytest.mark.parametrize("name", FAILURES)
async def test_a_tick_with_a_failing_processor_is_aborted_whole(world: AsyncWorld, name: str) -> None:
    kind, change, why = FAILURES[name]
    world.resources.insert(Change(lambda rows: rows))
    await places(world)
    await world.add_processor(Raise(0.0), name="before")
    await world.add_processor(kind(), name="culprit")
    await world.step()
    world.resources.insert(Change(change))
    state, hash_, runs = world.state, world.state.state_hash(), dict(world.processor_runs)
    entity = await world.create_entity([Speed()])
    for _ in range(2):
        with pytest.raises(ProcessorFailedError) as raised:
            await world.step()
        assert raised.value.metadata["processor"] == "culprit"
        assert raised.value.metadata["tick"] == "1"
        assert why in raised.value.message
        assert world.fault is raised.value
        assert (world.tick, world.acceptance.pending) == (1, 1)
        assert world.state is state
        assert world.state.state_hash() == hash_
        assert world.processor_runs == runs
    await world.submit([Submission(CommandType.REMOVE_PROCESSOR, {"name": "culprit"})])
    committed = await world.step()
    assert committed.summary.commands_applied == 2
    assert world.fault is None
    assert world.entity(entity)["Speed"]["vx"] == 1.0
    assert [entry.name for entry in world.processors] == ["before"]


async def test_a_failing_archetype_aborts_the_others_too(world: AsyncWorld) -> None:
    def fail_on_tagged(batch: pa.RecordBatch) -> pa.RecordBatch:
        if "tag__text" in batch.schema.names:
            raise RuntimeError("tagged")
        return with_x(batch, pc.add(batch.column("place__x"), 1.0))

    world.resources.insert(Change(fail_on_tagged))
    await world.create_entities([[Place()], [Place(), Tag()], [Place(), Speed()]])
    await world.step()
    await world.add_processor(OnArrow())
    with pytest.raises(ProcessorFailedError, match=r"Place\+Tag"):
        await world.step()
    assert xs(world) == [0.0, 0.0, 0.0]


async def test_setting_is_active_despawns(world: AsyncWorld) -> None:
    gone: list[int] = []
    world.add_hook("on_despawn", lambda world, entity_id: gone.append(entity_id))
    world.resources.insert(Change(lambda df: df.with_column("is_active", col("place__x") != 2.0)))
    ids = await places(world)
    await world.add_processor(OnDaft())
    committed = await world.step()
    assert committed.computed.despawned == (ids[2],)
    assert (committed.summary.entities, committed.summary.rows) == (3, 4)
    assert gone == [ids[2]]
    assert (await world.step()).summary.rows == 3


async def test_inactive_rows_are_not_shown_to_processors(world: AsyncWorld) -> None:
    world.resources.insert(Calls())
    world.resources.insert(Change(lambda df: df.with_column("is_active", col("place__x") != 2.0)))
    ids = await places(world)
    await world.add_processor(OnDaft())
    await world.add_processor(Note("after", priority=11))
    await world.remove_entity(ids[0])
    committed = await world.step()
    assert committed.computed.despawned == (ids[0], ids[2])
    assert world.resources.require(Calls).made == [("after", [ids[1], ids[3]])]
    despawned = {row["entity_id"] for row in _rows(world) if not row["is_active"]}
    assert despawned == {ids[0], ids[2]}
    await world.step()
    assert world.resources.require(Calls).made[1:] == [("after", [ids[1], ids[3]])]


def _rows(world: AsyncWorld) -> list[dict[str, Any]]:
    return [row for table in world.state.tables.values() for row in table.batch.to_pylist()]


async def test_an_archetype_of_departed_rows_only_calls_nobody(world: AsyncWorld) -> None:
    world.resources.insert(Calls())
    ids = await places(world, 1)
    await world.add_processor(Note("n"))
    await world.remove_entity(ids[0])
    await world.step()
    assert not world.resources.require(Calls).made


class Every(Component):
    """A field of every kind that goes on the wire."""

    flag: bool = True
    number: int = 1
    real: float = 0.5
    text: str = "t"
    raw: bytes = b"\x00\xff"
    day: dt.date = dt.date(2026, 1, 31)
    at: dt.datetime = dt.datetime(2026, 1, 31, 12, tzinfo=dt.UTC)
    maybe: float | None = None
    words: list[str] = ["a", "b"]
    numbers: list[float] = [1.0, 2.0]


class Touch(AsyncProcessor):
    """Changes one column and carries the rest along, by the path the test asks for."""

    components = (Every,)

    def __init__(self, plan: bool = False) -> None:
        self.plan = plan

    async def process(self, df: daft.DataFrame, **input_kwargs: Any) -> daft.DataFrame:
        df = df.with_column("every__number", col("every__number") + 1)
        return df.sort("every__number") if self.plan else df


@pytest.mark.parametrize("plan", [False, True])
async def test_every_type_passes_both_paths_unharmed(world: AsyncWorld, plan: bool) -> None:
    entity = await world.create_entity([Every()])
    await world.create_entity([Every(maybe=1.5, words=[], raw=b"")])
    await world.step()
    schema = world.read([Every]).schema
    before = world.entity(entity)["Every"]
    assert before == Every().model_dump()
    await world.add_processor(Touch(plan))
    await world.step()
    assert world.processor_runs["Touch"].path == ("DAFT" if plan else "FAST")
    assert world.read([Every]).schema == schema
    assert world.entity(entity)["Every"] == {**before, "number": 2}


async def test_params_are_kept_and_rehydrated_after_a_restart(opener: Opener) -> None:
    from tickwire_engine import WorldConfig

    world = await (await opener.open()).create_world(WorldConfig(name="w"))
    await places(world, 2)
    await world.add_processor(Scale(3.0, offset=0.25))
    await world.add_processor(Raise(by=2.0), name="up")
    await world.step()
    assert xs(world) == [2.25, 5.25]
    world = (await opener.open()).world("w")
    assert [(e.name, e.type, e.params) for e in world.processors] == [
        ("Scale", "Scale", {"factor": 3.0, "offset": 0.25}),
        ("up", "Raise", {"by": 2.0}),
    ]
    await world.step()
    assert xs(world) == [9.0, 18.0]


class Odd(ArrowProcessor):
    """Takes params that JSON has no numbers for, and keywords of any name."""

    components = (Place,)

    def __init__(self, limit: float, big: int = 0, **named: float) -> None:
        if limit < 0:
            raise ValueError("limit must not be negative")
        self.limit = limit
        self.big = big
        self.named = named

    def process_batch(self, batch: pa.RecordBatch, **input_kwargs: Any) -> pa.RecordBatch:
        return batch


async def test_a_processor_is_built_again_with_the_very_params_it_had(opener: Opener) -> None:
    from tickwire_engine import WorldConfig

    application = setup()
    application.vocabulary.processors.register(Odd)
    world = await (await opener.open(application)).create_world(WorldConfig(name="w"))
    await world.add_processor(Odd(float("inf"), big=1 << 60, mass=2.5))
    await world.step()
    for _ in range(2):
        (entry,) = world.processors
        instance: Any = entry.instance
        assert (instance.limit, instance.big, instance.named) == (float("inf"), 1 << 60, {"mass": 2.5})
        world = (await opener.open(application)).world("w")


async def test_params_that_a_processor_does_not_take_are_refused(world: AsyncWorld, engine: Any) -> None:
    engine.setup.vocabulary.processors.register(Odd)
    for params in ({"factor": 1}, {"limit": -1}):
        payload = {"name": "odd", "type": "Odd", "params": params}
        with pytest.raises(InvalidCommandError) as raised:
            await world.submit([Submission(CommandType.ADD_PROCESSOR, payload)])
        assert raised.value.field == "commands[0].add_processor.params"
    with pytest.raises(UnknownProcessorTypeError) as raised:
        await world.submit([Submission(CommandType.ADD_PROCESSOR, {"name": "nobody"})])
    assert raised.value.field == "commands[0].add_processor.type"
    assert world.acceptance.pending == 0


async def test_adding_twice_or_removing_what_is_not_there_is_rejected(world: AsyncWorld) -> None:
    await world.add_processor(Scale())
    await world.add_processor(Scale())
    await world.submit([Submission(CommandType.REMOVE_PROCESSOR, {"name": "nobody"})])
    committed = await world.step()
    assert [o.reason for o in committed.computed.outcomes] == ["", "PROCESSOR_EXISTS", "PROCESSOR_NOT_FOUND"]
    await world.remove_processor(Scale)
    await world.add_processor(Scale(5.0))
    await world.step()
    assert [entry.params for entry in world.processors] == [{"factor": 5.0}]
    with pytest.raises(ProcessorNotFoundError):
        await world.remove_processor(Drift)


async def test_a_processor_is_passed_the_ticks_keywords(world: AsyncWorld) -> None:
    seen: dict[str, Any] = {}

    class Look(ArrowProcessor):
        components = (Place,)

        def process_batch(self, batch: pa.RecordBatch, **input_kwargs: Any) -> pa.RecordBatch:
            seen.update(input_kwargs)
            return batch

    await places(world, 1)
    await world.add_processor(Look())
    await world.step(gravity=9.81)
    assert seen["tick"] == 0
    assert seen["world"] is world
    assert seen["resources"] is world.resources
    assert seen["inputs"] == {"gravity": 9.81}
    assert seen["gravity"] == 9.81
    assert seen["run_config"].run_id == world.run_id


async def test_a_processor_that_calls_itself_cancelled_fails_like_any_other(world: AsyncWorld) -> None:
    import asyncio

    class Cancelled(AsyncProcessor):
        components = (Place,)

        async def process(self, df: daft.DataFrame, **input_kwargs: Any) -> daft.DataFrame:
            raise asyncio.CancelledError

    await places(world, 1)
    await world.add_processor(Cancelled())
    with pytest.raises(TickwireError):
        await world.step()
    assert world.fault is not None


async def test_decimals_and_durations_pass_a_processor() -> None:
    from tickwire_engine.recorded import RecordedDataFrame
    from tickwire_engine.tick.processing import conform

    batch = pa.RecordBatch.from_pydict(
        {
            "entity_id": pa.array([1, 2]),
            "is_active": pa.array([True, True]),
            "a__price": pa.array([Decimal("1.50"), None], pa.decimal128(10, 2)),
            "a__span": pa.array([dt.timedelta(seconds=1), None], pa.duration("us")),
            "a__point": pa.array(
                [{"x": 1.0, "n": None}, None], pa.struct({"x": pa.float64(), "n": pa.string()})
            ),
            "a__pair": pa.array([[1.0, 2.0], None], pa.list_(pa.float64(), 2)),
        }
    )
    recorded: Any = RecordedDataFrame.over(batch).with_column("is_active", col("is_active"))
    assert conform(recorded.evaluate(), batch, batch.schema).equals(batch)
    planned = RecordedDataFrame.over(batch).sort("entity_id").to_arrow()
    assert conform(planned, batch, batch.schema).equals(batch)
