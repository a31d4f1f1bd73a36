"""Processors of SQL: what they compute, what is refused when they are submitted, and that they survive a restart."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest

from tests.engine.parts import Place, Raise, Speed, Tag, setup
from tickwire_engine import (
    CommandType,
    Component,
    ComponentType,
    RunConfig,
    SqlProcessor,
    Submission,
    WorldConfig,
)
from tickwire_engine.errors import (
    InvalidCommandError,
    InvalidSqlError,
    ProcessorFailedError,
    SchemaMismatchError,
    TickwireError,
    UnknownComponentError,
)

if TYPE_CHECKING:
    from tests.engine.conftest import Opener
    from tickwire_engine import AsyncWorld, Engine


def sql(
    name: str, assignments: dict[str, str], *, where: str = "", components: tuple[str, ...] = ()
) -> Submission:
    definition = {"assignments": assignments, "where": where, "components": list(components)}
    return Submission(CommandType.ADD_PROCESSOR, {"name": name, "sql": definition})


async def test_all_right_sides_read_the_old_row(world: AsyncWorld) -> None:
    await world.create_entity([Place(x=1.0, y=2.0), Speed(vx=10.0)])
    await world.submit(
        [sql("swap", {"place__x": "place__y + speed__vx", "place__y": "place__x", "speed__vx": "0"})]
    )
    await world.step()
    assert world.entity(1) == {"Place": {"x": 12.0, "y": 1.0}, "Speed": {"vx": 0.0, "vy": 0.0}}
    assert world.processor_runs["swap"].path == "SQL"


async def test_a_row_where_the_condition_is_false_or_null_stays_as_it_is(world: AsyncWorld) -> None:
    await world.create_entities(
        [[Tag(count=1)], [Tag(count=2, note="n")], [Tag(count=3, note="m")], [Tag(count=4, note="n")]]
    )
    await world.submit(
        [sql("raise", {"tag__count": "tag__count * 10", "tag__text": "'t'"}, where="tag__note = 'n'")]
    )
    await world.step()
    found = [world.entity(i)["Tag"] for i in range(1, 5)]
    assert [(tag["count"], tag["text"]) for tag in found] == [(1, ""), (20, "t"), (3, ""), (40, "t")]
    await world.submit([sql("none", {"tag__count": "0"}, where="tag__count > 99999")])
    await world.step()
    assert [world.entity(i)["Tag"]["count"] for i in range(1, 5)] == [1, 200, 3, 400]


async def test_right_sides_are_computed_only_where_the_condition_holds(world: AsyncWorld) -> None:
    await world.create_entities([[Tag(count=-1)], [Tag(count=3)]])
    text = "(-9223372036854775808) % tag__count"
    await world.submit([sql("safe", {"tag__count": text}, where="tag__count > 0")])
    await world.step()
    assert [world.entity(i)["Tag"]["count"] for i in (1, 2)] == [-1, -2]


async def test_it_runs_on_the_archetypes_that_have_its_components(world: AsyncWorld) -> None:
    await world.create_entities([[Place()], [Place(), Speed(vx=3.0)], [Place(), Tag()]])
    await world.submit(
        [
            sql("named", {"place__x": "place__x + speed__vx"}),
            sql("given", {"place__y": "1"}, components=("Place", "Tag")),
        ]
    )
    await world.step()
    assert [entry.components for entry in world.processors] == [("Place", "Tag"), ("Place", "Speed")]
    assert [tuple(world.entity(i)["Place"].values()) for i in (1, 2, 3)] == [
        (0.0, 0.0),
        (3.0, 0.0),
        (0.0, 1.0),
    ]


async def test_setting_is_active_despawns(world: AsyncWorld) -> None:
    await world.create_entities([[Place(x=float(i))] for i in range(4)])
    await world.submit([sql("reap", {"is_active": "place__x < 2"}, components=("Place",))])
    assert (await world.step()).computed.despawned == (3, 4)
    assert (await world.step()).summary.entities == 2


class Small(Component):
    """Numbers of several widths."""

    number: int = 0
    real: float = 0.0
    flag: bool = False


async def test_numbers_go_into_number_columns_and_nothing_else_does(world: AsyncWorld) -> None:
    await world.create_entity([Small(number=7), Tag()])
    fine = {"small__real": "small__number", "small__number": "length('abc')", "tag__note": "NULL"}
    await world.submit([sql("fine", fine)])
    await world.step()
    assert world.entity(1)["Small"] == {"number": 3, "real": 7.0, "flag": False}
    for assignments, error, field in (
        ({"small__number": "small__real"}, SchemaMismatchError, "assignments.small__number"),
        ({"small__real": "'x'"}, SchemaMismatchError, "assignments.small__real"),
        ({"small__flag": "1"}, SchemaMismatchError, "assignments.small__flag"),
        ({"small__flag": "small__real +"}, InvalidSqlError, "assignments.small__flag"),
        ({"small__flag": "uuid() = 'x'"}, InvalidSqlError, "assignments.small__flag"),
        ({"small__none": "1"}, InvalidSqlError, "assignments.small__none"),
        ({"other__x": "1"}, UnknownComponentError, "assignments.other__x"),
        ({"entity_id": "1"}, InvalidSqlError, "assignments.entity_id"),
        ({}, InvalidCommandError, "assignments"),
        ({"small__flag": 1}, InvalidCommandError, "assignments"),
    ):
        with pytest.raises(error) as raised:
            await world.submit([sql("bad", assignments)])
        assert raised.value.field == f"commands[0].add_processor.sql.{field}"
    assert world.acceptance.pending == 0


@pytest.mark.parametrize(
    ("payload", "field"),
    [
        ({"name": "n", "sql": {"assignments": {"place__x": "1"}, "where": "place__x"}}, ".sql.where"),
        ({"name": "n", "sql": {"assignments": {"place__x": "1"}, "components": ["Tag"]}}, ".sql.components"),
        (
            {"name": "n", "sql": {"assignments": {"place__x": "1"}, "components": ["No"]}},
            ".sql.components[0]",
        ),
        ({"name": "n", "sql": {"assignments": {"place__x": "1"}, "more": 1}}, ".sql.more"),
        ({"name": "n", "sql": {"assignments": {"place__x": "1"}}, "type": "Scale"}, ".sql"),
        ({"sql": {"assignments": {"place__x": "1"}}}, ".name"),
        ({"name": "n", "sql": {}}, ".sql.assignments"),
    ],
)
async def test_what_does_not_fit_is_refused_at_the_door(world: AsyncWorld, payload: Any, field: str) -> None:
    with pytest.raises(TickwireError) as raised:
        await world.submit([Submission(CommandType.ADD_PROCESSOR, payload)])
    assert raised.value.field == f"commands[0].add_processor{field}"


@pytest.mark.parametrize(
    ("assignments", "why"),
    [
        ({"place__x": "(-9223372036854775808) // (entity_id - 2)"}, "assignments.place__x"),
        ({"tag__text": "nullif(tag__text, '')"}, "tag__text has 1 nulls"),
    ],
)
async def test_a_value_that_cannot_be_computed_aborts_the_tick_and_names_the_processor(
    world: AsyncWorld, assignments: dict[str, str], why: str
) -> None:
    await world.create_entity([Place(), Tag()])
    await world.step()
    await world.submit([sql("culprit", assignments)])
    with pytest.raises(ProcessorFailedError, match="culprit") as raised:
        await world.step()
    assert why in raised.value.message
    assert world.tick == 1
    await world.submit([Submission(CommandType.REMOVE_PROCESSOR, {"name": "culprit"})])
    await world.step()
    assert world.fault is None


async def test_an_integer_that_does_not_fit_its_column_aborts_the_tick(
    world: AsyncWorld, engine: Engine
) -> None:
    narrow = ComponentType(
        "Narrow", pa.schema([pa.field("n", pa.int8(), nullable=False)]), {"n": 0}, origin="RPC"
    )
    engine.setup.vocabulary.components.add(narrow)
    await world.submit([Submission(CommandType.SPAWN, {"components": {"Narrow": {"n": 100}}})])
    await world.submit([sql("grow", {"narrow__n": "narrow__n + 20"})])
    await world.step()
    assert world.entity(1) == {"Narrow": {"n": 120}}
    with pytest.raises(ProcessorFailedError, match="a value for narrow__n does not fit int8"):
        await world.step()
    assert world.entity(1) == {"Narrow": {"n": 120}}


async def test_explain_prints_its_texts(world: AsyncWorld, capsys: pytest.CaptureFixture[str]) -> None:
    await world.create_entity([Place()])
    await world.submit([sql("drift", {"place__x": "place__x + 1"}, where="place__x < 9")])
    await world.step(RunConfig(explain=True))
    assert capsys.readouterr().out.splitlines()[-3:] == [
        "tick 0  processor drift on Place: SQL",
        "    place__x = place__x + 1",
        "    where place__x < 9",
    ]


async def test_in_process_it_is_added_like_any_other(world: AsyncWorld) -> None:
    await world.create_entity([Place(x=1.0), Speed()])
    await world.add_processor(SqlProcessor([Place, Speed], {"place__x": "place__x + speed__vx"}, priority=3))
    await world.add_processor(Raise(10.0))
    await world.step()
    assert world.entity(1)["Place"]["x"] == 12.0
    assert [(e.name, e.type, e.priority) for e in world.processors] == [
        ("SqlProcessor", "SqlProcessor", 3),
        ("Raise", "Raise", 10),
    ]
    await world.remove_processor(SqlProcessor)
    await world.step()
    assert [entry.name for entry in world.processors] == ["Raise"]


async def test_it_survives_a_restart_pending_or_in_force(opener: Opener) -> None:
    world = await (await opener.open()).create_world(WorldConfig(name="w"))
    await world.create_entity([Place(x=1.0)])
    await world.submit([sql("double", {"place__x": "place__x * 2"}, where="place__x < 100")])
    await world.step()
    await world.submit([sql("late", {"place__y": "place__x"})])
    hash_ = world.state.state_hash()
    world = (await opener.open(setup())).world("w")
    assert world.state.state_hash() == hash_
    assert [(e.name, e.params) for e in world.processors] == [
        (
            "double",
            {"components": ["Place"], "assignments": {"place__x": "place__x * 2"}, "where": "place__x < 100"},
        )
    ]
    await world.step()
    assert world.entity(1)["Place"] == {"x": 4.0, "y": 4.0}
