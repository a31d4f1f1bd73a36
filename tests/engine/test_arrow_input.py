"""Arrow streams from senders: taken whole and by value, or refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.engine.parts import Place, setup, stream
from tickwire_engine import CommandType, Submission, TickwireError
from tickwire_engine.commands import parse
from tickwire_engine.commands.casting import cast_column
from tickwire_engine.commands.rows import read_stream, spawn_batch, update_batch
from tickwire_engine.errors import InvalidArrowError, SchemaMismatchError, UnknownComponentError
from tickwire_engine.world import ipc_stream

if TYPE_CHECKING:
    from tickwire_engine import AsyncWorld, Engine

CATALOG = setup().vocabulary.components
THREE = {"place__x": [1.0, 2.0, 3.0], "tag__text": ["a", "b", "c"]}


def spawned(data: bytes) -> list[dict[str, Any]]:
    return spawn_batch(data, CATALOG, path="spawn.table")[1].to_pylist()


def compressed(codec: str) -> bytes:
    sink = pa.BufferOutputStream()
    table = pa.table({"place__x": [float(i) for i in range(1000)]})
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression=codec)) as writer:
        writer.write(table)
    return sink.getvalue().to_pybytes()


def test_absent_columns_take_their_defaults() -> None:
    sig, rows = spawn_batch(stream(THREE), CATALOG, path="spawn.table")
    assert sig == ("Place", "Tag")
    assert rows.schema.names == ["place__x", "place__y", "tag__text", "tag__count", "tag__note"]
    assert rows.to_pylist()[1] == {
        "place__x": 2.0,
        "place__y": 0.0,
        "tag__text": "b",
        "tag__count": 0,
        "tag__note": None,
    }


@pytest.mark.parametrize(
    "text",
    [
        pa.array(["a", "b", "a"]).dictionary_encode(),
        pa.array(["a", "b", "a"], pa.large_string()),
        pa.array(["a", "b", "a"], pa.large_string()).dictionary_encode(),
        pa.array(["a", "b", "a"], pa.string_view()),
        pa.array([b"a", b"b", b"a"], pa.binary()),
    ],
)
def test_text_of_any_layout_becomes_plain_text(text: pa.Array[Any]) -> None:
    assert [row["tag__text"] for row in spawned(stream({"tag__text": text}))] == ["a", "b", "a"]


@pytest.mark.parametrize(
    "numbers",
    [
        pa.array([1, 2, 3], pa.int8()),
        pa.array([1, 2, 3], pa.uint64()),
        pa.array([1.0, 2.0, 3.0], pa.float32()),
        pa.array([1.0, 2.0, 3.0], pa.float64()),
        pa.array([1, 2, 3], pa.int64()).dictionary_encode(),
    ],
)
def test_casts_are_made_by_value(numbers: pa.Array[Any]) -> None:
    rows = spawned(stream({"tag__count": numbers, "place__x": numbers}))
    assert [(row["tag__count"], row["place__x"]) for row in rows] == [(1, 1.0), (2, 2.0), (3, 3.0)]


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("tag__count", pa.array([1.5])),
        ("tag__count", pa.array([float("nan")])),
        ("tag__count", pa.array([1 << 63], pa.uint64())),
        ("tag__count", pa.array(["one"])),
        ("tag__count", pa.array([None], pa.int64())),
        ("tag__count", pa.array([None], pa.null())),
        ("tag__count", pa.array([None], pa.dictionary(pa.int8(), pa.int64()))),
        (
            "tag__count",
            pa.DictionaryArray.from_arrays(pa.array([0], pa.int8()), pa.array([None], pa.int64())),
        ),
        ("tag__text", pa.array([1])),
        ("tag__text", pa.array([b"\xff"], pa.binary())),
        ("place__x", pa.array([(1 << 53) + 1], pa.int64())),
        ("place__x", pa.array([True])),
        ("place__x", pa.array([[1.0]])),
        ("place__x", pa.array(["1.5"])),
    ],
)
def test_a_column_that_would_lose_something_is_refused(column: str, values: pa.Array[Any]) -> None:
    with pytest.raises(SchemaMismatchError) as raised:
        spawned(stream({column: values}))
    assert raised.value.field == f"spawn.table.{column}"


NESTED = pa.struct(
    [pa.field("a", pa.list_(pa.field("item", pa.float64(), nullable=False))), pa.field("b", pa.int32())]
)


@pytest.mark.parametrize(
    ("given", "kind", "expected"),
    [
        (pa.array([1.5, None, float("nan")]), pa.float32(), "[1.5, None, nan]"),
        (pa.array([[1.0, None]]), pa.list_(pa.float64(), 2), "[[1.0, None]]"),
        (pa.array([["a"]], pa.large_list(pa.large_string())), pa.list_(pa.string()), "[['a']]"),
        (pa.array([{"b": 1, "a": [1]}, None]), NESTED, "[{'a': [1.0], 'b': 1}, None]"),
        (pa.array([{"b": 1}]), NESTED, "[{'a': None, 'b': 1}]"),
        (pa.array([None], pa.null()), NESTED, "[None]"),
        (pa.array([1, 2], pa.int32()), pa.decimal128(12, 2), "[Decimal('1.00'), Decimal('2.00')]"),
        (pa.array([0], pa.date32()), pa.timestamp("us"), "[datetime.datetime(1970, 1, 1, 0, 0)]"),
    ],
)
def test_a_cast_keeps_values_at_any_depth(given: Any, kind: pa.DataType, expected: str) -> None:
    assert repr(cast_column(given, pa.field("c", kind), path="c").to_pylist()) == expected


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        (pa.array([0.1]), pa.float32()),
        (pa.array([1e300]), pa.float32()),
        (pa.array([1.111]), pa.decimal128(6, 2)),
        (pa.array([1], pa.timestamp("us")), pa.date32()),
        (pa.array([1], pa.timestamp("ns")), pa.timestamp("us")),
        (pa.array([1]), pa.timestamp("us")),
        (pa.array([1]), pa.duration("us")),
        (pa.array([[1.0]]), pa.list_(pa.float64(), 2)),
        (pa.array([[0.5]]), pa.list_(pa.int32())),
        (pa.array([["1"]]), pa.list_(pa.int32())),
        (pa.array([{"b": 1, "z": 1}]), NESTED),
        (pa.array([{"b": 1.5}]), NESTED),
        (pa.array([{"a": [None]}]), NESTED),
        (pa.array([1]), NESTED),
    ],
)
def test_a_cast_that_would_change_a_value_is_refused(given: Any, kind: pa.DataType) -> None:
    with pytest.raises(SchemaMismatchError) as raised:
        cast_column(given, pa.field("c", kind), path="c")
    assert raised.value.field.startswith("c")


def test_a_required_column_must_be_there() -> None:
    assert spawned(stream({"score__points": [1]})) == [{"score__points": 1}]
    with pytest.raises(SchemaMismatchError) as raised:
        parse(CommandType.SPAWN, {"components": {"Score": {}}}, b"", setup().vocabulary)
    assert raised.value.field == "spawn.components.Score.points"


@pytest.mark.parametrize(
    ("columns", "error", "field"),
    [
        ({"nothing__x": [1]}, UnknownComponentError, "spawn.table.nothing__x"),
        ({"place__z": [1.0]}, SchemaMismatchError, "spawn.table.place__z"),
        ({"x": [1.0]}, UnknownComponentError, "spawn.table.x"),
        ({"entity_id": [1], "place__x": [1.0]}, UnknownComponentError, "spawn.table.entity_id"),
    ],
)
def test_an_unknown_column_is_named(columns: dict[str, Any], error: type[TickwireError], field: str) -> None:
    with pytest.raises(error) as raised:
        spawned(stream(columns))
    assert raised.value.field == field


def test_column_names_are_unique() -> None:
    table = pa.table([pa.array([1.0]), pa.array([2.0])], names=["place__x", "place__x"])
    with pytest.raises(InvalidArrowError, match="unique"):
        spawned(ipc_stream(table))


@pytest.mark.parametrize(
    ("columns", "error", "field"),
    [
        ({"place__x": [1.0]}, InvalidArrowError, "update.table"),
        ({"entity_id": [1, 1], "place__x": [1.0, 2.0]}, InvalidArrowError, "update.table.entity_id"),
        ({"entity_id": [None], "place__x": [1.0]}, SchemaMismatchError, "update.table.entity_id"),
        ({"entity_id": [1.5], "place__x": [1.0]}, SchemaMismatchError, "update.table.entity_id"),
        ({"entity_id": ["1"], "place__x": [1.0]}, SchemaMismatchError, "update.table.entity_id"),
        ({"entity_id": [1]}, InvalidArrowError, "update.table"),
        ({"entity_id": [1], "place__z": [1.0]}, SchemaMismatchError, "update.table.place__z"),
    ],
)
def test_an_update_table_names_each_entity_once(
    columns: dict[str, Any], error: type[TickwireError], field: str
) -> None:
    with pytest.raises(error) as raised:
        update_batch(stream(columns), CATALOG, path="update.table")
    assert raised.value.field == field


@pytest.mark.parametrize("codec", ["lz4", "zstd"])
def test_compressed_streams_are_read(codec: str) -> None:
    assert len(spawned(compressed(codec))) == 1000


def test_a_stream_of_several_batches_is_one_table() -> None:
    table = pa.concat_tables([pa.table({"place__x": [float(i)]}) for i in range(5)])
    assert [row["place__x"] for row in spawned(ipc_stream(table))] == [0.0, 1.0, 2.0, 3.0, 4.0]


async def test_a_table_without_rows_spawns_nothing(world: AsyncWorld) -> None:
    empty = stream({"place__x": pa.array([], pa.float64())})
    (receipt,) = await world.submit([Submission(CommandType.SPAWN, {"table": empty})])
    assert receipt.command is not None
    assert receipt.command.entity_count == 0
    committed = await world.step()
    assert (committed.summary.commands_applied, committed.summary.rows) == (1, 0)


def test_a_file_is_told_apart_from_a_stream() -> None:
    sink = pa.BufferOutputStream()
    table = pa.table(THREE)
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write(table)
    with pytest.raises(InvalidArrowError, match="send a stream"):
        spawned(sink.getvalue().to_pybytes())


@pytest.mark.parametrize(
    "whole",
    [
        stream(THREE),
        ipc_stream(pa.concat_tables([pa.table(THREE)] * 3)),
        stream({"tag__text": pa.array(["a", "b"]).dictionary_encode()}),
        compressed("lz4"),
    ],
    ids=["plain", "batches", "dictionary", "compressed"],
)
def test_a_stream_cut_anywhere_is_refused_whole(whole: bytes) -> None:
    assert read_stream(whole, path="table").num_rows
    for length in range(len(whole)):
        with pytest.raises(InvalidArrowError):
            read_stream(whole[:length], path="table")


@given(st.binary(max_size=64))
def test_bytes_that_are_no_stream_are_refused(data: bytes) -> None:
    with pytest.raises(InvalidArrowError):
        read_stream(data, path="table")


async def test_a_cut_stream_leaves_nothing_in_the_world(engine: Engine, world: AsyncWorld) -> None:
    whole = stream(THREE)
    for length in (0, 7, len(whole) // 2, len(whole) - 1):
        with pytest.raises(TickwireError) as raised:
            await world.submit([Submission(CommandType.SPAWN, {"table": whole[:length]})])
        assert raised.value.field.startswith("commands[0].spawn")
    assert world.acceptance.pending == 0
    assert await world.create_entity([Place()]) == 1
