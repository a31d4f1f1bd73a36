"""Spawn, update, despawn: what a tick makes of them, against a model of plain dictionaries."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.engine.parts import Place, Speed, Tag, setup, stream
from tickwire_engine import CommandType, Submission, WorldConfig
from tickwire_engine.errors import EntityNotFoundError, SchemaMismatchError

if TYPE_CHECKING:
    from tests.engine.conftest import Opener
    from tickwire_engine import AsyncWorld, CommittedTick, Engine

Entity = dict[str, dict[str, Any]]


def spawn(**components: dict[str, Any]) -> Submission:
    return Submission(CommandType.SPAWN, {"components": components})


def update(ids: list[int], *, skip_missing: bool = False, **components: dict[str, Any]) -> Submission:
    payload = {"entity_ids": ids, "components": components, "skip_missing": skip_missing}
    return Submission(CommandType.UPDATE, payload)


def despawn(*ids: int, skip_missing: bool = False) -> Submission:
    return Submission(CommandType.DESPAWN, {"entity_ids": list(ids), "skip_missing": skip_missing})


def spawn_table(columns: dict[str, Any]) -> Submission:
    return Submission(CommandType.SPAWN, {"table": stream(columns)})


def update_table(columns: dict[str, Any], *, skip_missing: bool = False) -> Submission:
    return Submission(CommandType.UPDATE, {"table": stream(columns), "skip_missing": skip_missing})


def add(ids: list[int], *, skip_missing: bool = False, **components: dict[str, Any]) -> Submission:
    payload = {"entity_ids": ids, "components": components, "skip_missing": skip_missing}
    return Submission(CommandType.ADD_COMPONENT, payload)


def add_table(columns: dict[str, Any], *, skip_missing: bool = False) -> Submission:
    return Submission(CommandType.ADD_COMPONENT, {"table": stream(columns), "skip_missing": skip_missing})


def remove(ids: list[int], names: list[str], *, skip_missing: bool = False) -> Submission:
    payload = {"entity_ids": ids, "components": names, "skip_missing": skip_missing}
    return Submission(CommandType.REMOVE_COMPONENT, payload)


def entities(world: AsyncWorld, *, active: bool = True) -> dict[int, Entity]:
    """Return the world's whole state as plain values: active entities, or those with their last row."""
    found: dict[int, Entity] = {}
    for sig, table in world.state.tables.items():
        ids = table.batch.column("entity_id").to_pylist()
        assert ids == sorted(set(ids))
        for row in table.batch.to_pylist():
            if row["is_active"] is not active:
                continue
            values: Entity = {name: {} for name in sig}
            for name in sig:
                for column, value in row.items():
                    prefix, _, bare = column.partition("__")
                    if bare and prefix == name.lower():
                        values[name][bare] = value
            assert row["entity_id"] not in found
            found[row["entity_id"]] = values
    return found


def reasons(committed: CommittedTick) -> list[str]:
    return [outcome.reason for outcome in committed.computed.outcomes]


async def test_spawn_update_and_despawn_in_one_tick_by_the_receipts_id(world: AsyncWorld) -> None:
    (receipt,) = await world.submit([spawn(Place={"x": 1})])
    assert receipt.command is not None
    entity = receipt.command.first_entity_id
    await world.submit([update([entity], Place={"y": 2}), despawn(entity), update([entity], Place={"y": 3})])
    committed = await world.step()
    assert reasons(committed) == ["", "", "", "ENTITY_NOT_FOUND"]
    assert entities(world, active=False) == {entity: {"Place": {"x": 1.0, "y": 2.0}}}
    assert (committed.summary.spawned, committed.summary.despawned) == (1, 1)
    assert committed.computed.despawned == (entity,)
    assert (await world.step()).summary.rows == 0


async def test_a_despawned_entity_has_one_last_row_then_none(world: AsyncWorld) -> None:
    first, second = await world.create_entities([[Place(x=1)], [Place(x=2)]])
    await world.step()
    await world.remove_entity(first)
    committed = await world.step()
    assert entities(world, active=False) == {first: {"Place": {"x": 1.0, "y": 0.0}}}
    assert (committed.summary.entities, committed.summary.rows) == (1, 2)
    with pytest.raises(EntityNotFoundError):
        world.entity(first)
    committed = await world.step()
    assert (committed.summary.entities, committed.summary.rows) == (1, 1)
    assert entities(world) == {second: {"Place": {"x": 2.0, "y": 0.0}}}
    assert len(committed.computed.frames) == 1
    assert not (await world.step()).computed.frames


async def test_an_archetype_empties_and_fills_again(opener: Opener) -> None:
    world = await (await opener.open()).create_world(WorldConfig(name="w"))
    entity = await world.create_entity([Place()])
    await world.step()
    await world.remove_entity(entity)
    await world.step()
    emptied = await world.step()
    assert [frame.rows for frame in emptied.computed.frames] == [0]
    assert not world.state.tables
    assert not (await world.step()).computed.frames
    again = await world.create_entity([Place(x=5)])
    committed = await world.step()
    assert again != entity
    assert [frame.stream for frame in committed.computed.frames] == [1]
    assert not committed.computed.new_streams
    before = entities(world)
    world = (await opener.open()).world("w")
    assert entities(world) == before == {again: {"Place": {"x": 5.0, "y": 0.0}}}


async def test_rows_and_arrow_make_the_same_world(shared_engine: Engine) -> None:
    count = 40
    one, other = [await shared_engine.create_world(WorldConfig(seed=1)) for _ in range(2)]
    values = [{"text": f"t{i}", "count": i, "note": None if i % 3 else "n"} for i in range(count)]
    await one.submit([spawn(Tag=value, Place={"x": i}) for i, value in enumerate(values)])
    columns = {f"tag__{name}": [value[name] for value in values] for name in ("text", "count", "note")}
    await other.submit([spawn_table({**columns, "place__x": pa.array(range(count), pa.int8())})])
    await one.step()
    await other.step()
    assert entities(one) == entities(other)
    even = list(range(2, count, 2))
    await one.submit([update([i], Tag={"count": -i, "note": f"u{i}"}) for i in even])
    changes = {"entity_id": even, "tag__count": [-i for i in even], "tag__note": [f"u{i}" for i in even]}
    await other.submit([update_table(changes)])
    await one.step()
    await other.step()
    assert entities(one) == entities(other)
    assert entities(one)[4]["Tag"] == {"text": "t3", "count": -4, "note": "u4"}
    hashes = [[t.frame.hash for t in w.state.tables.values()] for w in (one, other)]
    assert hashes[0] == hashes[1]


async def test_an_update_changes_only_the_fields_it_names(world: AsyncWorld) -> None:
    entity = await world.create_entity([Tag(text="a", count=1, note="n"), Place(x=1, y=2)])
    await world.step()
    await world.submit([update([entity], Tag={"note": None}, Place={"y": 9})])
    await world.step()
    assert world.entity(entity) == {
        "Tag": {"text": "a", "count": 1, "note": None},
        "Place": {"x": 1.0, "y": 9.0},
    }


async def test_a_missing_id_rejects_alone_and_changes_nothing(world: AsyncWorld) -> None:
    (entity,) = await world.create_entities([[Place(x=1)]])
    await world.step()
    await world.submit(
        [
            update([entity, 99], Place={"x": 5}),
            despawn(entity, 99),
            update_table({"entity_id": [entity, 99], "place__x": [6.0, 6.0]}),
        ]
    )
    committed = await world.step()
    assert reasons(committed) == ["ENTITY_NOT_FOUND"] * 3
    assert world.entity(entity)["Place"]["x"] == 1.0


async def test_skip_missing_leaves_missing_ids_out(world: AsyncWorld) -> None:
    first, second = await world.create_entities([[Place()], [Place()]])
    await world.submit(
        [
            update([first, 99], skip_missing=True, Place={"x": 5}),
            update_table({"entity_id": [98, second], "place__x": [6.0, 7.0]}, skip_missing=True),
            despawn(97, skip_missing=True),
        ]
    )
    committed = await world.step()
    assert [(o.applied, o.entity_count) for o in committed.computed.outcomes[2:]] == [
        (True, 1),
        (True, 1),
        (True, 0),
    ]
    assert [world.entity(i)["Place"]["x"] for i in (first, second)] == [5.0, 7.0]


async def test_a_component_that_an_entity_lacks_rejects_the_command(world: AsyncWorld) -> None:
    plain, moving = await world.create_entities([[Place()], [Place(), Speed()]])
    await world.submit(
        [
            update([moving, plain], Speed={"vx": 5}),
            update_table({"entity_id": [moving, plain], "speed__vx": [6.0, 6.0]}),
        ]
    )
    committed = await world.step()
    assert reasons(committed)[2:] == ["COMPONENT_NOT_FOUND"] * 2
    assert world.entity(moving)["Speed"]["vx"] == 1.0


async def test_a_row_that_no_command_touches_is_not_written_again(world: AsyncWorld) -> None:
    still, moving = await world.create_entities([[Place()], [Place(), Speed()]])
    await world.step()
    await world.submit([update([moving], Place={"x": 1})])
    committed = await world.step()
    assert [frame.rows for frame in committed.computed.frames] == [1]
    await world.submit([update([still], Place={"x": 0})])
    assert not (await world.step()).computed.frames


async def test_duplicates_among_named_ids_count_once(world: AsyncWorld) -> None:
    entity = await world.create_entity([Place()])
    await world.submit([despawn(entity, entity)])
    committed = await world.step()
    assert committed.computed.outcomes[1].entity_count == 1
    assert committed.computed.despawned == (entity,)


@dataclass
class Model:
    """The rules in plain Python: commands one after another, each whole or not at all."""

    live: dict[int, Entity] = field(default_factory=dict)
    gone: dict[int, Entity] = field(default_factory=dict)
    next_id: int = 1

    def begin(self) -> None:
        self.gone = {}

    def spawn(self, values: Entity) -> bool:
        self.live[self.next_id] = values
        self.next_id += 1
        return True

    def update(self, ids: list[int], values: Entity, skip: bool) -> bool:
        present = [i for i in ids if i in self.live]
        if len(present) < len(ids) and not skip:
            return False
        if any(name not in self.live[i] for i in present for name in values):
            return False
        for i in present:
            for name, fields in values.items():
                self.live[i][name].update(fields)
        return True

    def add(self, ids: list[int], values: Entity, skip: bool) -> bool:
        present = [i for i in ids if i in self.live]
        if len(present) < len(ids) and not skip:
            return False
        for i in present:
            for name, fields in values.items():
                self.live[i].setdefault(name, dict(DEFAULTS[name])).update(fields)
        return True

    def remove(self, ids: list[int], names: list[str], skip: bool) -> bool:
        present = [i for i in ids if i in self.live]
        if len(present) < len(ids) and not skip:
            return False
        if any(set(self.live[i]) <= set(names) for i in present):
            return False
        for i in present:
            for name in names:
                self.live[i].pop(name, None)
        return True

    def where(self, column: str, bound: float) -> list[int]:
        """The active entities for which ``column > bound`` holds; NULL and what is not there is false."""
        component, _, bare = column.partition("__")
        found = []
        for entity, values in self.live.items():
            if column == "entity_id":
                found += [entity] if entity > bound else []
                continue
            value = values.get(component.capitalize(), {}).get(bare)
            found += [entity] if value is not None and value > bound else []
        return found

    def meets(self, ids: list[int], condition: tuple[str, float], skip: bool) -> list[int] | None:
        """Those of `ids` that meet a condition; None: one is missing."""
        if not skip and any(i not in self.live for i in ids):
            return None
        return [i for i in ids if i in self.where(*condition)]

    def despawn(self, ids: list[int], skip: bool) -> bool:
        present = [i for i in dict.fromkeys(ids) if i in self.live]
        if len(present) < len(set(ids)) and not skip:
            return False
        for i in present:
            self.gone[i] = self.live.pop(i)
        return True


DEFAULTS: Entity = {
    "Place": {"x": 0.0, "y": 0.0},
    "Speed": {"vx": 1.0, "vy": 0.0},
    "Tag": {"text": "", "count": 0, "note": None},
}
IDS = st.lists(st.integers(1, 14), min_size=1, max_size=4, unique=True)
NUMBER = st.floats(-1e6, 1e6)
TEXT = st.text(max_size=3)
PLACE = st.fixed_dictionaries({"x": NUMBER, "y": NUMBER})
TAG = st.fixed_dictionaries(
    {"text": TEXT, "count": st.integers(-(1 << 62), 1 << 62), "note": st.one_of(st.none(), TEXT)}
)
ENTITY = st.fixed_dictionaries({"Place": PLACE}, optional={"Tag": TAG})
CHANGE = st.fixed_dictionaries(
    {}, optional={"Place": st.fixed_dictionaries({}, optional={"x": NUMBER}), "Tag": TAG}
).filter(bool)
ADDED = st.fixed_dictionaries(
    {},
    optional={
        "Place": st.fixed_dictionaries({}, optional={"x": NUMBER}),
        "Speed": st.fixed_dictionaries({}, optional={"vy": NUMBER}),
        "Tag": st.fixed_dictionaries({}, optional={"text": TEXT}),
    },
).filter(bool)
NAMES = st.lists(st.sampled_from(["Place", "Speed", "Tag"]), min_size=1, max_size=3, unique=True)
OPERATION = st.one_of(
    st.tuples(st.just("spawn"), ENTITY),
    st.tuples(st.just("spawn_table"), st.lists(PLACE, max_size=3)),
    st.tuples(st.just("update"), IDS, CHANGE, st.booleans()),
    st.tuples(st.just("update_table"), IDS, st.lists(NUMBER, min_size=4, max_size=4), st.booleans()),
    st.tuples(st.just("despawn"), IDS, st.booleans()),
    st.tuples(st.just("add"), IDS, ADDED, st.booleans()),
    st.tuples(st.just("add_table"), IDS, st.lists(NUMBER, min_size=4, max_size=4), st.booleans()),
    st.tuples(st.just("remove"), IDS, NAMES, st.booleans()),
)


CONDITION = st.one_of(
    st.tuples(
        st.sampled_from(["place__x", "speed__vx", "speed__vy", "tag__count"]),
        st.sampled_from([-1.0, 0.0, 0.5]),
    ),
    st.tuples(st.just("entity_id"), st.sampled_from([0, 3, 6])),
)
WHERE = st.one_of(
    st.tuples(st.just("update"), IDS, CHANGE, st.booleans()),
    st.tuples(st.just("despawn"), IDS, st.booleans()),
    st.tuples(st.just("add"), IDS, ADDED, st.booleans()),
    st.tuples(st.just("remove"), IDS, NAMES, st.booleans()),
    st.tuples(st.just("update_table"), IDS, st.lists(NUMBER, min_size=4, max_size=4), st.booleans()),
    st.tuples(st.just("add_table"), IDS, st.lists(NUMBER, min_size=4, max_size=4), st.booleans()),
)


def with_condition(
    model: Model, operation: tuple[Any, ...], condition: tuple[str, float], named: bool
) -> tuple[Submission, bool]:
    """Apply an operation where a condition holds: among the ids that it names, or among all entities."""
    kind, ids, *rest, skip = operation
    named = named or kind.endswith("_table")
    met = model.meets(ids, condition, skip) if named else model.where(*condition)
    text = f"{condition[0]} > {condition[1]}"
    plain, applied = Submission(CommandType.DESPAWN, {}), False
    if met is not None:
        if kind.endswith("_table"):
            numbers = [rest[0][ids.index(i)] for i in met]
            _, applied = as_command(model, (kind, met, numbers, skip))
        else:
            _, applied = as_command(model, (kind, met, *rest, skip))
    plain, _ = as_command(Model(), operation)
    payload = {**plain.payload, "where": text}
    if not named:
        del payload["entity_ids"]
    return Submission(plain.type, payload), applied


def as_command(model: Model, operation: tuple[Any, ...]) -> tuple[Submission, bool]:
    """Apply an operation to the model; return its command, and whether it must be applied."""
    kind, *args = operation
    if kind == "spawn":
        (values,) = args
        return spawn(**values), model.spawn({name: dict(fields) for name, fields in values.items()})
    if kind == "spawn_table":
        (rows,) = args
        for row in rows:
            model.spawn({"Place": dict(row)})
        columns = {f"place__{n}": pa.array([row[n] for row in rows], pa.float64()) for n in ("x", "y")}
        return spawn_table(columns), True
    if kind == "update":
        ids, values, skip = args
        return update(ids, skip_missing=skip, **values), model.update(ids, values, skip)
    if kind == "update_table":
        ids, numbers, skip = args
        alive = all(i in model.live for i in ids)
        able = all("Place" in model.live[i] for i in ids if i in model.live)
        applied = (alive or skip) and able
        if applied:
            for i, number in zip(ids, numbers, strict=False):
                model.update([i], {"Place": {"x": number}}, skip=True)
        columns = {"entity_id": ids, "place__x": numbers[: len(ids)]}
        return update_table(columns, skip_missing=skip), applied
    if kind == "add":
        ids, values, skip = args
        return add(ids, skip_missing=skip, **values), model.add(ids, values, skip)
    if kind == "add_table":
        ids, numbers, skip = args
        applied = skip or all(i in model.live for i in ids)
        if applied:
            for i, number in zip(ids, numbers, strict=False):
                model.add([i], {"Speed": {"vx": number}}, skip=True)
        columns = {"entity_id": ids, "speed__vx": numbers[: len(ids)]}
        return add_table(columns, skip_missing=skip), applied
    if kind == "remove":
        ids, names, skip = args
        return remove(ids, names, skip_missing=skip), model.remove(ids, names, skip)
    ids, skip = args
    return despawn(*ids, skip_missing=skip), model.despawn(ids, skip)


@given(ticks=st.lists(st.lists(OPERATION, max_size=8), min_size=1, max_size=4))
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
async def test_any_commands_make_what_the_model_makes(
    shared_engine: Engine, ticks: list[list[tuple[Any, ...]]]
) -> None:
    world = await shared_engine.create_world(WorldConfig())
    model = Model()
    for operations in ticks:
        model.begin()
        commands, expected = [], []
        for operation in operations:
            command, applied = as_command(model, operation)
            commands.append(command)
            expected.append(applied)
        if commands:
            await world.submit(commands)
        committed = await world.step()
        assert [o.applied for o in committed.computed.outcomes] == expected
        assert entities(world) == model.live
        assert entities(world, active=False) == model.gone
        assert committed.computed.despawned == tuple(sorted(model.gone))
        assert committed.summary.entities == len(model.live) == world.acceptance.entities
        stored = shared_engine.store.history.state_at(world.row.key, committed.summary.tick)
        assert {n: b for n, (_, b) in stored.items()} == {
            t.stream.number: t.batch for t in world.state.tables.values()
        }


@given(
    ticks=st.lists(
        st.lists(
            st.one_of(OPERATION, st.tuples(st.just("where"), WHERE, CONDITION, st.booleans())), max_size=8
        ),
        min_size=1,
        max_size=3,
    )
)
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
async def test_any_commands_with_conditions_make_what_the_model_makes(
    shared_engine: Engine, ticks: list[list[tuple[Any, ...]]]
) -> None:
    world = await shared_engine.create_world(WorldConfig())
    model = Model()
    for operations in ticks:
        model.begin()
        commands, expected = [], []
        for operation in [("spawn", {"Place": {"x": 1.0, "y": 0.0}}), *operations]:
            make = with_condition if operation[0] == "where" else as_command
            command, applied = make(model, *(operation[1:] if operation[0] == "where" else (operation,)))
            commands.append(command)
            expected.append(applied)
        await world.submit(commands)
        committed = await world.step()
        assert [o.applied for o in committed.computed.outcomes] == expected
        assert entities(world) == model.live
        assert entities(world, active=False) == model.gone


async def test_entity_ids_are_never_given_twice(opener: Opener) -> None:
    world = await (await opener.open(setup())).create_world(WorldConfig(name="w"))
    seen: set[int] = set()
    for _ in range(3):
        made = await world.create_entities([[Place()], [Place()]])
        assert seen.isdisjoint(made)
        seen.update(made)
        await world.submit([despawn(*made)])
        await world.step()
        await world.step()
        world = (await opener.open()).world("w")


async def test_components_come_and_go_in_process_and_values_are_kept(world: AsyncWorld) -> None:
    first, second = await world.create_entities([[Place(x=1.0)], [Place(x=2.0), Tag(text="b")]])
    await world.step()
    await world.add_components(first, [Speed(vx=3.0), Place(x=9.0)])
    await world.remove_components(second, [Tag, Speed])
    await world.step()
    assert entities(world) == {
        first: {"Place": {"x": 9.0, "y": 0.0}, "Speed": {"vx": 3.0, "vy": 0.0}},
        second: {"Place": {"x": 2.0, "y": 0.0}},
    }


async def test_one_table_extends_entities_that_have_the_component_and_others_that_do_not(
    world: AsyncWorld,
) -> None:
    ids = await world.create_entities([[Place()], [Place()], [Place(), Speed(vx=7.0)]])
    await world.step()
    await world.submit([add_table({"entity_id": [ids[0], ids[2]], "speed__vx": [1.5, 2.5]})])
    await world.step()
    assert entities(world)[ids[0]]["Speed"]["vx"] == 1.5
    assert entities(world)[ids[2]]["Speed"]["vx"] == 2.5
    assert "Speed" not in entities(world)[ids[1]]


async def test_a_field_without_a_default_must_be_given_to_add_its_component(world: AsyncWorld) -> None:
    (entity,) = await world.create_entities([[Place()]])
    with pytest.raises(SchemaMismatchError, match="no default") as error:
        await world.submit([add([entity], Score={})])
    assert error.value.field == "commands[0].add_component.components.Score.points"
    await world.submit([add([entity], Score={"points": 3})])
    await world.step()
    assert entities(world)[entity]["Score"] == {"points": 3}
