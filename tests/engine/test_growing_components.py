"""Components that grow between two starts, or by a client's registration: old data goes on, and nothing is taken back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from pydantic import create_model

from tests.engine.parts import Drift, Place, Speed, Tag
from tickwire_engine import (
    ArrowProcessor,
    AsyncProcessor,
    CommandType,
    Component,
    ComponentCatalog,
    ComponentType,
    Engine,
    EngineSetup,
    ProcessorRegistry,
    Submission,
    WorldConfig,
)
from tickwire_engine.commands import Vocabulary
from tickwire_engine.errors import ComponentExistsError, SchemaMismatchError
from tickwire_engine.fields import parse_type, type_text
from tickwire_engine.replay import Replayed, replay
from tickwire_engine.storage.reader import StoreReader

if TYPE_CHECKING:
    from tests.engine.conftest import Opener
    from tickwire_engine import AsyncWorld

OLD = pa.schema([pa.field("fuel", pa.float64(), nullable=False)])


def _hull(*fields: tuple[str, str, bool], **defaults: Any) -> ComponentType:
    """Describe the component `Hull` as a client does."""
    schema = pa.schema(
        [pa.field(name, parse_type(text, path=name), nullable=null) for name, text, null in fields]
    )
    return ComponentType("Hull", schema, defaults, "RPC")


FUEL = ("fuel", "float64", False)


def _model(**fields: Any) -> type[Component]:
    """Define the component class `Cargo`, as a new start of an application does."""
    return create_model("Cargo", __base__=Component, __module__=__name__, **fields)


class Burn(ArrowProcessor):
    """Takes from the fuel of what has a hull; knows its columns by name only."""

    components = (Place,)

    def process_batch(self, batch: pa.RecordBatch, **kwargs: Any) -> pa.RecordBatch:
        return batch


class Load(AsyncProcessor):
    """Adds the new field to the old one."""

    components = (Place,)

    async def process(self, df: Any, **kwargs: Any) -> Any:
        if "cargo__bonus" in df.column_names:
            return df.with_column("cargo__weight", df["cargo__weight"] + df["cargo__bonus"])
        return df


def _setup(*models: type[Component]) -> EngineSetup:
    made = EngineSetup(Vocabulary(ComponentCatalog(), ProcessorRegistry()))
    for model in (Place, Speed, Tag, *models):
        made.vocabulary.components.register(model)
    for kind in (Drift, Burn, Load):
        made.vocabulary.processors.register(kind)
    return made


async def _spawn(world: AsyncWorld, tick: int | None = None, **components: Any) -> int:
    (receipt,) = await world.submit([Submission(CommandType.SPAWN, {"components": components}, tick=tick)])
    assert receipt.command is not None
    return receipt.command.first_entity_id


async def _begun(opener: Opener) -> AsyncWorld:
    engine = await opener.open(_setup(_model(weight=(float, 1.0))))
    world = await engine.create_world(WorldConfig(name="w"))
    await world.add_processor(Load())
    await _spawn(world, Place={}, Cargo={"weight": 5.0})
    await _spawn(world, Cargo={})
    # Waits in the old shape.
    await _spawn(world, tick=3, Cargo={"weight": 7.0})
    await world.step()
    await world.step()
    return world


async def test_a_field_with_a_default_is_added_between_two_starts_and_works_on_old_data(
    opener: Opener,
) -> None:
    await _begun(opener)
    grown = _model(weight=(float, 1.0), bonus=(float, 2.0), note=(str | None, None))
    await opener.open(_setup(grown))
    world = opener.world("w")
    # Read in the new shape before the first tick, and written in it from then on.
    assert world.entity(1)["Cargo"] == {"weight": 5.0, "bonus": 2.0, "note": None}
    await world.step()
    await world.step()
    rows = world.read([grown]).to_pylist()
    assert [(row["entity_id"], row["cargo__weight"], row["cargo__bonus"]) for row in rows] == [
        (1, 9.0, 2.0),
        (2, 1.0, 2.0),
        (3, 7.0, 2.0),
    ]
    await _spawn(world, Cargo={"weight": 3.0, "note": "new"})
    await world.step()
    await opener.open(_setup(grown))
    again = opener.world("w")
    assert again.entity(4)["Cargo"] == {"weight": 3.0, "bonus": 2.0, "note": "new"}
    assert again.state.entities == 4


async def test_history_from_before_a_component_grew_is_read_in_its_new_shape(opener: Opener) -> None:
    await _begun(opener)
    grown = _model(weight=(float, 1.0), bonus=(float, 2.0))
    await opener.open(_setup(grown))
    world = opener.world("w")
    for _ in range(2):
        await world.step()
    past = (await world.get_components([grown], at_tick=1)).to_arrow().to_pylist()
    assert [(row["cargo__weight"], row["cargo__bonus"]) for row in past] == [(5.0, 2.0), (1.0, 2.0)]
    history = (await world.query_archetype([Place, grown])).to_arrow().to_pylist()
    assert [(row["tick"], row["cargo__weight"], row["cargo__bonus"]) for row in history] == [
        (0, 5.0, 2.0),
        (1, 5.0, 2.0),
        (2, 7.0, 2.0),
        (3, 9.0, 2.0),
    ]
    stored = world.history.state_at(world.row.key, 3)
    assert sorted(rows.num_rows for _, rows in stored.values()) == [1, 2], "nothing is there twice"


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"weight": (int, 1)}, "the field weight was float64 and is int64"),
        ({"mass": (float, 1.0)}, "the field weight is missing"),
        ({"weight": (float, 1.0), "bonus": (float, ...)}, "the new field bonus has no default"),
    ],
)
async def test_an_incompatible_change_is_refused_at_start_up_with_both_schemas(
    opener: Opener, fields: dict[str, Any], why: str
) -> None:
    await _begun(opener)
    with pytest.raises(ComponentExistsError) as refused:
        await opener.open(_setup(_model(**fields)))
    assert why in refused.value.message
    assert "(weight: float64)" in refused.value.message
    assert "world w" in refused.value.message
    # Nothing was changed: as it was, it goes on.
    await opener.open(_setup(_model(weight=(float, 1.0))))
    await opener.world("w").step()


async def test_a_component_that_no_world_holds_may_change_as_it_likes(opener: Opener) -> None:
    engine = await opener.open(_setup(_model(weight=(float, 1.0))))
    await engine.create_world(WorldConfig(name="w"))
    await opener.open(_setup(_model(name=(str, ""))))


async def test_a_component_that_a_client_registered_is_there_after_a_restart(opener: Opener) -> None:
    engine = await opener.open(_setup())
    entry = _hull(FUEL, ("at", "timestamp[us, UTC]", True), fuel=2.5)
    assert await engine.register_component(entry) == entry
    world = await engine.create_world(WorldConfig(name="w"))
    await _spawn(world, Hull={})
    await opener.open(_setup())
    world = opener.world("w")
    await world.step()
    assert world.entity(1) == {"Hull": {"fuel": 2.5, "at": None}}
    assert opener.engine is not None
    again = await opener.engine.register_component(entry)
    assert (again, again.origin) == (entry, "RPC")


async def test_new_fields_appear_in_worlds_at_their_next_tick_and_in_what_waits(opener: Opener) -> None:
    engine = await opener.open(_setup())
    await engine.register_component(_hull(FUEL, fuel=2.5))
    world = await engine.create_world(WorldConfig(name="w"))
    await _spawn(world, Hull={"fuel": 1.0})
    await world.step()
    await _spawn(world, Hull={"fuel": 3.0})
    await engine.register_component(
        _hull(FUEL, ("crew", "list<string>", True), ("age", "int32", False), fuel=2.5, age=9)
    )
    committed = await world.step()
    assert [world.entity(i)["Hull"] for i in (1, 2)] == [
        {"fuel": 1.0, "crew": None, "age": 9},
        {"fuel": 3.0, "crew": None, "age": 9},
    ]
    assert [stream.number for stream in committed.computed.new_streams] == [2]
    assert sorted((frame.stream, frame.rows) for frame in committed.computed.frames) == [(1, 0), (2, 2)]
    quiet = await world.step()
    assert quiet.computed.frames == ()


async def _replayed(opener: Opener, setup: EngineSetup, name: str = "w", **options: Any) -> Replayed:
    await opener.close()
    store = StoreReader(opener.path)
    try:
        (row,) = (world for world in store.worlds() if world.name == name)
        return await replay(Engine.over(store, setup), row, **options)  # type: ignore[arg-type]
    finally:
        store.close()


async def test_replay_computes_every_tick_with_the_shapes_of_its_time(opener: Opener) -> None:
    await _begun(opener)
    grown = _model(weight=(float, 1.0), bonus=(float, 2.0))
    engine = await opener.open(_setup(grown))
    world = opener.world("w")
    await engine.register_component(_hull(FUEL, fuel=2.5))
    await _spawn(world, Hull={}, Cargo={"weight": 2.0})
    await world.step()
    await world.step()
    await engine.register_component(_hull(FUEL, ("age", "int32", False), fuel=2.5, age=9))
    await _spawn(world, Hull={"age": 3})
    for _ in range(3):
        last = (await world.step()).summary.tick
    assert await _replayed(opener, _setup(grown)) == Replayed(0, last)
    for first in (1, 3, 5):
        assert await _replayed(opener, _setup(grown), from_tick=first) == Replayed(first, last)


async def test_an_archetype_that_was_empty_goes_on_in_its_new_shape(opener: Opener) -> None:
    engine = await opener.open(_setup())
    await engine.register_component(_hull(FUEL, fuel=2.5))
    world = await engine.create_world(WorldConfig(name="w"))
    entity = await _spawn(world, Hull={})
    await world.step()
    await world.remove_entity(entity)
    await world.step()
    await world.step()
    await engine.register_component(_hull(FUEL, ("age", "int32", True), fuel=2.5))
    entity = await _spawn(world, Hull={"age": 4})
    await world.step()
    await opener.open(_setup())
    assert opener.world("w").entity(entity)["Hull"] == {"fuel": 2.5, "age": 4}


@pytest.mark.parametrize(
    "entry",
    [
        _hull(("fuel", "int64", False), fuel=2),
        _hull(("age", "int32", True)),
        _hull(FUEL, ("age", "int32", False), fuel=2.5),
        _hull(FUEL, fuel=3.0),
        ComponentType("hull", OLD, {"fuel": 2.5}, "RPC"),
        ComponentType("Place", OLD, {}, "RPC"),
    ],
)
async def test_any_other_change_is_refused_and_changes_nothing(opener: Opener, entry: ComponentType) -> None:
    engine = await opener.open(_setup())
    first = await engine.register_component(_hull(FUEL, fuel=2.5))
    with pytest.raises(ComponentExistsError):
        await engine.register_component(entry)
    assert engine.setup.vocabulary.components.require("Hull") == first
    await opener.open(_setup())
    assert opener.engine is not None
    assert opener.engine.setup.vocabulary.components.require("Hull") == first


async def test_the_same_shape_again_is_fine_whoever_defined_it(engine: Engine) -> None:
    place = engine.setup.vocabulary.components.require("Place")
    again = ComponentType("Place", place.schema, place.defaults, "RPC")
    assert (await engine.register_component(again)).origin == "APP"
    bare = ComponentType("Place", place.schema, {}, "RPC")
    assert await engine.register_component(bare, with_defaults=False) == place


@pytest.mark.parametrize(
    "text",
    [
        *("bool", "int8", "uint64", "float32", "float64", "string", "binary", "date32"),
        *("timestamp[us, UTC]", "duration[us]", "decimal128(10, 2)"),
        *("list<int32>", "fixed_size_list<float32>[3]", "struct<x: float64, tags: list<string>>"),
        "list<list<struct<a: bool>>>",
    ],
)
def test_a_type_in_text_comes_back_as_it_was(text: str) -> None:
    kind = parse_type(text, path="type")
    assert type_text(kind) == text
    assert parse_type(str(kind), path="type") == kind


@pytest.mark.parametrize(
    "text",
    [
        *("", "float65", "list", "list<", "list<>", "list<int32", "list<int32>>", "struct<>", "struct<a>"),
        *("struct<a: int8, a: int8>", "decimal128(39, 2)", "decimal128(2, 3)", "fixed_size_list<int8>[0]"),
        *(
            "timestamp[ns, UTC]",
            "timestamp[us, Europe/Berlin]",
            "int8 int8",
            "map<string, int8>",
            "list<" * 40,
        ),
        *("large_string", "fixed_size_list<int8>[99999999999]", "\x00", "é"),
    ],
)
def test_what_is_no_type_is_refused(text: str) -> None:
    with pytest.raises(SchemaMismatchError) as refused:
        parse_type(text, path="fields[0].type")
    assert refused.value.field == "fields[0].type"
