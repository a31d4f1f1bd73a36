"""Python values through Structs, ids, commands."""

from __future__ import annotations

import base64
import math
import time
import uuid
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from google.protobuf import struct_pb2
from hypothesis import given
from hypothesis import strategies as st

from tickwire import commands, new_id
from tickwire._arrow import from_ipc, to_ipc
from tickwire._values import MAX_EXACT_INT, from_struct, to_duration, to_struct

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-MAX_EXACT_INT, MAX_EXACT_INT)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]))
)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(TEXT, VALUES, max_size=5))
def test_what_json_can_hold_comes_back_equal_over_the_wire(values: dict[str, Any]) -> None:
    wire = to_struct(values).SerializeToString()
    assert from_struct(struct_pb2.Struct.FromString(wire)) == values


@given(st.integers() | st.integers(-(2**70), 2**70))
def test_no_integer_loses_a_digit(value: int) -> None:
    assert int(from_struct(to_struct({"n": value}))["n"]) == value  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (math.nan, "NaN"),
        (math.inf, "Infinity"),
        (-math.inf, "-Infinity"),
        (b"\x00\xff\xfe", base64.b64encode(b"\x00\xff\xfe").decode()),
        (datetime(2026, 1, 31, 12, 0, 0, 5, UTC), "2026-01-31T12:00:00.000005Z"),
        (datetime(2026, 1, 31, 12, tzinfo=timezone(timedelta(hours=2))), "2026-01-31T10:00:00Z"),
        (date(2026, 1, 31), "2026-01-31"),
        (timedelta(seconds=1.5), "1.5s"),
        (timedelta(seconds=-1.5), "-1.5s"),
        (timedelta(days=1), "86400s"),
        (Decimal("1.10"), "1.10"),
        (2**63 - 1, "9223372036854775807"),
        (uuid.UUID(int=7), str(uuid.UUID(int=7))),
    ],
)
def test_what_json_cannot_hold_travels_as_the_text_that_columns_parse(value: object, text: str) -> None:
    assert from_struct(to_struct({"v": value})) == {"v": text}


def test_foreign_scalars_are_taken_by_value() -> None:
    values = {"i": np.int64(3), "f": np.float32(0.5), "b": np.bool_(True), "a": pa.scalar(7), "l": (1, 2)}
    assert from_struct(to_struct(values)) == {"i": 3, "f": 0.5, "b": True, "a": 7, "l": [1, 2]}


def test_what_cannot_be_sent_is_named_by_its_path() -> None:
    with pytest.raises(TypeError, match=r"Position\.xs\[1\]"):
        to_struct({"Position": {"xs": [1, object()]}})
    with pytest.raises(ValueError, match=r"Position\.t"):
        to_struct({"Position": {"t": datetime(2026, 1, 31)}})
    with pytest.raises(TypeError, match="keys must be str"):
        to_struct({"Position": {1: 2}})


def test_an_empty_component_is_present_on_the_wire() -> None:
    wire = commands.spawn({"Tag": {}}).SerializeToString()
    assert from_struct(commands.Command.FromString(wire).spawn.components) == {"Tag": {}}


def test_ids_are_version_7_and_of_now() -> None:
    before = time.time_ns() // 1_000_000
    ids = [uuid.UUID(new_id()) for _ in range(1_000)]
    after = time.time_ns() // 1_000_000
    assert len(set(ids)) == 1_000
    assert all(made.version == 7 and made.variant == uuid.RFC_4122 for made in ids)
    assert all(before <= made.int >> 80 <= after for made in ids)


@given(st.floats(0, 1e6))
def test_durations_keep_nanoseconds(seconds: float) -> None:
    duration = to_duration(seconds)
    assert duration is not None
    assert duration.ToNanoseconds() == round(seconds * 1e9)


def test_tables_go_in_and_come_out_as_one_stream() -> None:
    table = pa.table({"position__x": [1.0, 2.0]})
    ipc = to_ipc(table)
    assert from_ipc([ipc[:13], ipc[13:]]).equals(table)
    assert from_ipc([to_ipc(table.to_batches()[0])]).equals(table)
    assert from_ipc([to_ipc({"position__x": [1.0, 2.0]})]).equals(table)


def test_builders_set_what_was_asked_and_nothing_else() -> None:
    command = commands.update([3, 4], {"Position": {"x": 1}}, tick=0, priority=-2, skip_missing=True)
    assert command.HasField("tick")
    assert (command.tick, command.priority) == (0, -2)
    assert list(command.update.entity_ids) == [3, 4]
    assert not commands.despawn(3).HasField("tick")
    assert list(commands.despawn(np.array([5, 6])).despawn.entity_ids) == [5, 6]
    assert commands.despawn(3).id != commands.despawn(3).id
    assert commands.despawn(3, command_id="x").id == "x"
