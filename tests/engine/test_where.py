"""Commands that select by SQL: what they see, whom they touch, and how they compose with the others of their tick."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.engine.parts import Place, Speed, Tag, stream
from tests.engine.test_mutations import add, despawn, entities, reasons, spawn, spawn_table, update
from tickwire_engine import CommandType, Submission
from tickwire_engine.errors import InvalidCommandError, InvalidSqlError, UnknownComponentError

if TYPE_CHECKING:
    from tests.engine.conftest import Opener
    from tickwire_engine import AsyncWorld


def where(kind: CommandType, text: str, **payload: Any) -> Submission:
    return Submission(kind, {"where": text, **payload})


UPDATE, DESPAWN = CommandType.UPDATE, CommandType.DESPAWN
ADD, REMOVE = CommandType.ADD_COMPONENT, CommandType.REMOVE_COMPONENT


async def test_a_condition_sees_the_effects_of_the_commands_before_it_in_the_same_tick(
    world: AsyncWorld,
) -> None:
    await world.submit(
        [
            spawn(Place={"x": 1}),
            spawn_table({"place__x": [2.0, 3.0, 4.0]}),
            where(UPDATE, "place__x >= 3", components={"Place": {"y": 7}}),
            where(DESPAWN, "place__y = 7 AND place__x < 4"),
            update([1], Place={"x": 9}),
            where(ADD, "place__x > 8", components={"Speed": {"vx": 5}}),
            where(UPDATE, "speed__vx = 5", components={"Speed": {"vy": 6}}),
            where(DESPAWN, "place__x = 3"),
            where(REMOVE, "speed__vy = 6", components=["Place"]),
        ]
    )
    committed = await world.step()
    outcomes = committed.computed.outcomes
    assert reasons(committed) == [""] * 9
    assert [o.entity_count for o in outcomes] == [1, 3, 2, 1, 1, 1, 1, 0, 1]
    assert entities(world) == {
        1: {"Speed": {"vx": 5.0, "vy": 6.0}},
        2: {"Place": {"x": 2.0, "y": 0.0}},
        4: {"Place": {"x": 4.0, "y": 7.0}},
    }
    assert entities(world, active=False) == {3: {"Place": {"x": 3.0, "y": 7.0}}}
    assert committed.computed.despawned == (3,)
    assert (committed.summary.spawned, committed.summary.despawned) == (4, 1)


async def test_a_condition_runs_over_the_archetypes_that_have_its_columns(world: AsyncWorld) -> None:
    plain, moving, tagged = await world.create_entities([[Place(x=1)], [Place(x=1), Speed()], [Tag()]])
    await world.submit([where(UPDATE, "place__x = 1 and speed__vx = 1", components={"Place": {"y": 1}})])
    await world.step()
    assert [world.entity(i)["Place"]["y"] for i in (plain, moving)] == [0.0, 1.0]
    await world.submit([where(DESPAWN, "entity_id > 0")])
    assert (await world.step()).computed.despawned == (plain, moving, tagged)


async def test_null_selects_nobody(world: AsyncWorld) -> None:
    null, text = await world.create_entities([[Tag()], [Tag(note="n")]])
    await world.submit(
        [
            where(UPDATE, "tag__note <> 'm'", components={"Tag": {"count": 1}}),
            where(UPDATE, "not tag__note = 'n'", components={"Tag": {"count": 2}}),
        ]
    )
    committed = await world.step()
    assert [o.entity_count for o in committed.computed.outcomes[2:]] == [1, 0]
    assert [world.entity(i)["Tag"]["count"] for i in (null, text)] == [0, 1]


async def test_despawned_entities_are_not_selected(world: AsyncWorld) -> None:
    await world.create_entities([[Place()], [Place()]])
    await world.submit([despawn(1), where(UPDATE, "true", components={"Place": {"x": 5}})])
    committed = await world.step()
    assert committed.computed.outcomes[-1].entity_count == 1
    assert entities(world, active=False) == {1: {"Place": {"x": 0.0, "y": 0.0}}}
    await world.submit([where(DESPAWN, "true")])
    assert (await world.step()).computed.outcomes[0].entity_count == 1


async def test_ids_and_a_condition_intersect(world: AsyncWorld) -> None:
    await world.create_entities([[Place(x=float(i))] for i in range(1, 5)])
    await world.step()
    table = stream({"entity_id": [1, 2, 4], "place__y": [10.0, 20.0, 40.0]})
    await world.submit(
        [
            where(UPDATE, "place__x > 1", entity_ids=[1, 2], components={"Place": {"y": 5}}),
            Submission(UPDATE, {"table": table, "where": "place__x > 2"}),
            where(DESPAWN, "place__x > 2", entity_ids=[1, 3]),
            where(DESPAWN, "place__x > 2", entity_ids=[4, 99]),
            where(DESPAWN, "place__x > 9", entity_ids=[4, 99], skip_missing=True),
        ]
    )
    committed = await world.step()
    assert reasons(committed) == ["", "", "", "ENTITY_NOT_FOUND", ""]
    assert [o.entity_count for o in committed.computed.outcomes] == [1, 1, 1, 0, 0]
    assert {i: values["Place"]["y"] for i, values in entities(world).items()} == {1: 0.0, 2: 5.0, 4: 40.0}


async def test_a_selected_entity_without_the_component_rejects_the_update_whole(world: AsyncWorld) -> None:
    await world.create_entities([[Place(), Speed()], [Place()]])
    await world.submit(
        [
            where(UPDATE, "place__x = 0", components={"Speed": {"vx": 3}}),
            where(REMOVE, "place__x = 0", components=["Place", "Speed"]),
            where(UPDATE, "place__x = 0 and speed__vx > 0", components={"Speed": {"vx": 4}}),
        ]
    )
    committed = await world.step()
    assert reasons(committed)[2:] == ["COMPONENT_NOT_FOUND", "INVALID_COMMAND", ""]
    assert world.entity(1)["Speed"]["vx"] == 4.0


async def test_named_entities_are_found_where_a_condition_moved_them(world: AsyncWorld) -> None:
    await world.create_entities([[Place(x=float(i))] for i in range(3)])
    await world.step()
    await world.submit(
        [
            update([1, 2, 3], Place={"y": 1}),
            where(ADD, "place__x >= 1", components={"Speed": {}}),
            update([2, 3], Speed={"vx": 8}),
            where(DESPAWN, "speed__vx = 8 and place__x = 2"),
            update([3], Place={"y": 2}),
            add([1], Tag={"text": "t"}),
        ]
    )
    committed = await world.step()
    assert reasons(committed) == ["", "", "", "", "ENTITY_NOT_FOUND", ""]
    assert entities(world)[2] == {"Place": {"x": 1.0, "y": 1.0}, "Speed": {"vx": 8.0, "vy": 0.0}}
    assert entities(world)[1]["Tag"]["text"] == "t"


async def test_a_value_that_the_condition_cannot_work_with_rejects_the_command_alone(
    world: AsyncWorld,
) -> None:
    await world.create_entities([[Tag(count=-1)], [Tag(count=1)]])
    await world.submit(
        [
            where(UPDATE, "(-9223372036854775808) % tag__count = 0", components={"Tag": {"text": "x"}}),
            where(UPDATE, "tag__count > 0", components={"Tag": {"text": "y"}}),
        ]
    )
    committed = await world.step()
    assert reasons(committed)[2:] == ["INVALID_SQL", ""]
    assert committed.computed.outcomes[2].field == "update.where"
    assert [world.entity(i)["Tag"]["text"] for i in (1, 2)] == ["", "y"]


async def test_a_condition_that_could_never_hold_is_refused_at_the_door(world: AsyncWorld) -> None:
    for text, error in (
        ("nothing__x > 1", UnknownComponentError),
        ("place__z > 1", InvalidSqlError),
        ("place__x", InvalidSqlError),
        ("url_download('http://127.0.0.1') is null", InvalidSqlError),
        ("place__x = 'far'", InvalidSqlError),
        (7, InvalidCommandError),
    ):
        with pytest.raises(error) as raised:
            await world.submit([Submission(DESPAWN, {"where": text})])
        assert raised.value.field == "commands[0].despawn.where"
    for kind in (DESPAWN, UPDATE, ADD, REMOVE):
        with pytest.raises(InvalidCommandError, match="selects nothing"):
            await world.submit([Submission(kind, {"where": ""})])
    assert world.acceptance.pending == 0


async def test_a_pending_condition_is_applied_after_a_restart(opener: Opener) -> None:
    from tickwire_engine import WorldConfig

    world = await (await opener.open()).create_world(WorldConfig(name="w"))
    await world.create_entities([[Place(x=1)], [Place(x=2)]])
    await world.step()
    await world.submit([where(DESPAWN, "place__x > 1")])
    world = (await opener.open()).world("w")
    assert (await world.step()).computed.despawned == (2,)


async def test_an_update_of_every_type_by_condition_equals_the_one_by_ids(world: AsyncWorld) -> None:
    await world.create_entities([[Tag(text="a", note="n")] for _ in range(4)])
    await world.step()
    values = {"Tag": {"text": "ä", "count": "9007199254740993", "note": None}}
    await world.submit([update([1, 2], **values), where(UPDATE, "entity_id > 2", components=values)])
    await world.step()
    assert len({str(entity) for entity in entities(world).values()}) == 1
