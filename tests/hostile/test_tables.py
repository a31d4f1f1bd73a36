"""Tables of strangers: whatever their bytes are, they are read or refused, within bounds; no reader dies of them."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest

from tests.engine.parts import setup
from tests.hostile.tables import bombs, good_streams, stream, stream_of
from tests.system.torture import seeds
from tickwire_engine import CommandType, Engine, Submission, WorldConfig
from tickwire_engine.commands import parse, parse_row
from tickwire_engine.commands.rows import spawn_batch, update_batch
from tickwire_engine.errors import (
    InvalidArrowError,
    InvalidSqlError,
    SchemaMismatchError,
    TickwireError,
    UnknownComponentError,
)
from tickwire_engine.limits import Limits
from tickwire_engine.storage.rows import CommandRow

if TYPE_CHECKING:
    from pathlib import Path

CATALOG = setup().vocabulary.components
ROOM = Limits(table_bytes=100 << 20)


def refused(data: bytes, limits: Limits = ROOM) -> TickwireError:
    with pytest.raises(TickwireError) as raised:
        spawn_batch(data, CATALOG, path="t", limits=limits)
    return raised.value


def test_no_damaged_table_ends_the_process_that_reads_it_or_fills_its_memory(tmp_path: Path) -> None:
    file = tmp_path / "table"
    for seed in seeds(1, share=0.3):
        command = [sys.executable, "-m", "tests.hostile.read_tables", str(seed), "4000", str(file)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"seed {seed}: {done.stderr[-2000:]}\n{file.read_bytes().hex()}"
        answers = json.loads(done.stdout)
        assert "without a field" not in answers
        assert answers["read"]
        assert answers["INVALID_ARROW"]
        assert answers["SCHEMA_MISMATCH"]
        assert answers["peak_mb"] < 600


def test_what_promises_too_much_is_refused_before_it_is_decoded() -> None:
    for name, data in bombs("place__x", "tag__text").items():
        assert len(data) < 1 << 20, name
        before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        error = refused(data)
        assert error.reason in ("INVALID_ARROW", "SCHEMA_MISMATCH"), name
        assert error.field in ("t", "t.place__x"), name
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kb < 50 << 10, name


def test_every_layout_of_good_streams_is_read() -> None:
    read = 0
    for data in good_streams("place__x", "tag__text", "speed__vx"):
        for reader in (spawn_batch, update_batch):
            try:
                read += reader(data, CATALOG, path="t")[1].num_rows == 45
            except (SchemaMismatchError, InvalidArrowError, UnknownComponentError):
                continue
    assert read == 6


@pytest.mark.parametrize(
    ("columns", "limits", "field"),
    [
        ({"place__x": [1.0] * 4}, Limits(table_rows=3), "t"),
        ({"place__x": [1.0], "place__y": [1.0]}, Limits(table_columns=1), "t"),
        ({"tag__text": ["four", "fives"]}, Limits(string_bytes=4), "t.tag__text"),
        ({"tag__text": pa.array(["fives"], pa.string_view())}, Limits(string_bytes=4), "t.tag__text"),
        ({"tag__text": pa.array(["fives"]).dictionary_encode()}, Limits(string_bytes=4), "t.tag__text"),
        ({"tag__text": ["é" * 3]}, Limits(string_bytes=5), "t.tag__text"),
        ({"place__x": [1.0] * 1_000}, Limits(table_bytes=4_000), "t"),
        ({"place__x": pa.nulls(1_000)}, Limits(table_bytes=4_000), "t"),
    ],
)
def test_a_table_over_a_limit_is_refused_and_one_at_it_is_not(
    columns: dict[str, Any], limits: Limits, field: str
) -> None:
    error = refused(stream(columns), limits)
    assert error.field == field
    assert error.metadata["limit"] in error.message


def test_a_table_at_its_limits_is_taken() -> None:
    limits = Limits(table_rows=3, table_columns=2, string_bytes=4, table_bytes=3_000)
    data = stream({"place__x": [1.0] * 3, "tag__text": ["four"] * 3})
    assert spawn_batch(data, CATALOG, path="t", limits=limits)[1].num_rows == 3


def test_columns_that_are_left_out_count_as_what_they_will_be() -> None:
    data = stream_of({"place__x": [1.0] * 1_000})
    assert refused(data, Limits(table_bytes=8_000 + 7_999)).reason == "INVALID_ARROW"
    assert spawn_batch(data, CATALOG, path="t", limits=Limits(table_bytes=16_000))[1].num_rows == 1_000


@pytest.mark.parametrize(
    "column",
    [
        pa.array([{"a": {"b": 1}}]),
        pa.array([[[[[[[[[[1.0]]]]]]]]]]),
        pa.ListArray.from_arrays([0, 1], pa.array(["a"]).dictionary_encode()),
        pa.array([[1.0]], pa.list_view(pa.float64())),
        pa.RunEndEncodedArray.from_arrays([3], [1.0]),
        pa.UnionArray.from_sparse(pa.array([0], pa.int8()), [pa.array([1.0])]),
        pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int64())),
    ],
    ids=lambda column: str(column.type)[:30],
)
def test_a_type_that_no_component_has_is_refused_by_its_column(column: pa.Array[Any]) -> None:
    error = refused(stream_of({"place__x": column}))
    assert isinstance(error, SchemaMismatchError)
    assert error.field == "t.place__x"


def test_two_streams_in_a_row_are_refused_rather_than_the_second_dropped() -> None:
    whole = stream_of({"place__x": [1.0]})
    assert isinstance(refused(whole + whole), InvalidArrowError)


def test_names_that_are_no_text_are_refused() -> None:
    whole = stream_of({"place__x": [1.0]})
    for at in (i for i in range(len(whole)) if whole[i : i + 8] == b"place__x"):
        assert isinstance(refused(whole[:at] + b"\xff\xfe" + whole[at + 2 :]), InvalidArrowError)


def test_what_was_accepted_under_a_higher_limit_is_still_read_under_a_lower_one() -> None:
    table = stream_of({"place__x": [1.0] * 5})
    vocabulary = replace(setup().vocabulary, limits=Limits(table_rows=4, sql_chars=10))
    with pytest.raises(InvalidArrowError):
        parse(CommandType.SPAWN, {}, table, vocabulary)
    spawned = CommandRow(1, b"", 0, 0, "spawn", "", b"{}", table)
    assert parse_row(spawned, vocabulary).entity_count == 5
    where = {"where": "place__x > 1000.0 AND place__y < 5"}
    with pytest.raises(InvalidSqlError):
        parse(CommandType.DESPAWN, where, b"", vocabulary)
    assert parse_row(CommandRow(2, b"", 0, 0, "despawn", "", json.dumps(where).encode()), vocabulary)


async def test_a_spawn_over_the_limits_is_refused_by_its_field(tmp_path: Path) -> None:
    data = stream_of({"place__x": pa.nulls(6_000_000)})
    async with await Engine.open(tmp_path / "data", setup()) as engine:
        world = await engine.create_world(WorldConfig())
        with pytest.raises(InvalidArrowError) as raised:
            await world.submit([Submission(CommandType.SPAWN, {"table": data})])
        assert raised.value.field == "commands[0].spawn.table"
        assert world.acceptance.pending == 0
