"""Free-form values: the rules into columns, and back."""

from __future__ import annotations

import base64
import datetime as dt
import json
import math
import time
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tickwire_engine.errors import SchemaMismatchError
from tickwire_engine.values import to_column, to_json

US = pa.timestamp("us", tz="UTC")
DURATION = pa.duration("us")
POINT = pa.struct([pa.field("x", pa.float64(), nullable=False), pa.field("tags", pa.list_(pa.int32()))])


def column(value: Any, kind: pa.DataType, *, nullable: bool = False) -> Any:
    """Return `value` as the column holds it, Arrow included."""
    return pa.array([to_column(value, kind, nullable=nullable, path="at")], type=kind)[0].as_py()


@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [
        (3, pa.int64(), 3),
        (3.0, pa.int64(), 3),
        (-0.0, pa.int8(), 0),
        ("9223372036854775807", pa.int64(), (1 << 63) - 1),
        ("18446744073709551615", pa.uint64(), (1 << 64) - 1),
        (float((1 << 53) - 1), pa.int64(), (1 << 53) - 1),
        (1, pa.float64(), 1.0),
        ("1.5", pa.float64(), 1.5),
        ("-1e-3", pa.float64(), -0.001),
        ("Infinity", pa.float64(), math.inf),
        ("-Infinity", pa.float32(), -math.inf),
        (True, pa.bool_(), True),
        ("true", pa.string(), "true"),
        ("aGk=", pa.binary(), b"hi"),
        (b"hi", pa.binary(), b"hi"),
        ("2026-01-31T12:00:00Z", US, dt.datetime(2026, 1, 31, 12, tzinfo=dt.UTC)),
        ("2026-01-31T12:00:00.25+02:00", US, dt.datetime(2026, 1, 31, 10, 0, 0, 250_000, tzinfo=dt.UTC)),
        ("2026-01-31", pa.date32(), dt.date(2026, 1, 31)),
        ("1.5s", DURATION, dt.timedelta(seconds=1.5)),
        ("-0.000001s", DURATION, dt.timedelta(microseconds=-1)),
        ("12.50", pa.decimal128(6, 2), Decimal("12.50")),
        (12, pa.decimal128(6, 2), Decimal("12.00")),
        ([1, "2"], pa.list_(pa.int32()), [1, 2]),
        ([0.5, 1], pa.list_(pa.float64(), 2), [0.5, 1.0]),
        ({"x": 1, "tags": None}, POINT, {"x": 1.0, "tags": None}),
        ({"x": "NaN", "tags": [1]}, POINT, {"x": math.nan, "tags": [1]}),
    ],
)
def test_a_value_goes_into_its_column(value: Any, kind: pa.DataType, expected: Any) -> None:
    assert repr(to_json(column(value, kind))) == repr(to_json(expected))


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (1.5, pa.int64()),
        (float(1 << 53), pa.int64()),
        (float("inf"), pa.int64()),
        (float("nan"), pa.int64()),
        (1e300, pa.int64()),
        (128, pa.int8()),
        (-1, pa.uint8()),
        ("9223372036854775808", pa.int64()),
        ("1.0", pa.int64()),
        ("1_000", pa.int64()),
        ("", pa.int64()),
        ("1\n", pa.int64()),
        (True, pa.int64()),
        (True, pa.float64()),
        ("inf", pa.float64()),
        ("nan", pa.float64()),
        ("1_000", pa.float64()),
        (" 1", pa.float64()),
        ("", pa.float64()),
        ("1e999", pa.float64()),
        (10**400, pa.float64()),
        (1, pa.bool_()),
        ("true", pa.bool_()),
        (1, pa.string()),
        ("not base64!", pa.binary()),
        (1, pa.binary()),
        ("yesterday", US),
        (1.0, US),
        ("0001-01-01T00:00:00+14:00", US),
        ("9999-12-31T23:59:59-14:00", US),
        ("31.1.2026", pa.date32()),
        (1, pa.date32()),
        ("1.5", DURATION),
        ("1.5s\n", DURATION),
        ("٣s", DURATION),
        (1.5, DURATION),
        ("9999999999999s", DURATION),
        ("99999999999999999999999999s", DURATION),
        ("12.505", pa.decimal128(6, 2)),
        ("123456", pa.decimal128(6, 2)),
        ("NaN", pa.decimal128(6, 2)),
        ("1e400", pa.decimal128(6, 2)),
        ("1e-400", pa.decimal128(6, 2)),
        ("x", pa.decimal128(6, 2)),
        ("ab", pa.list_(pa.string())),
        ([1.0], pa.list_(pa.float64(), 2)),
        ([], POINT),
        ({"x": 1, "z": 2}, POINT),
        ({"tags": []}, POINT),
        ("\ud800", pa.string()),
        (None, pa.string()),
    ],
)
def test_a_value_that_does_not_fit_is_refused(value: Any, kind: pa.DataType) -> None:
    with pytest.raises(SchemaMismatchError) as raised:
        to_column(value, kind, nullable=False, path="at")
    assert raised.value.field.startswith("at")


@pytest.mark.parametrize(
    ("value", "kind", "path"),
    [
        ([1, 1.5], pa.list_(pa.int32()), "at[1]"),
        ({"x": 1, "tags": [1, "a"]}, POINT, "at.tags[1]"),
        ({"x": "a"}, POINT, "at.x"),
        ([{"x": 0}, {"x": None}], pa.list_(POINT), "at[1].x"),
        ({"x": 1, "z": 2}, POINT, "at.z"),
    ],
)
def test_a_nested_value_is_refused_by_its_path(value: Any, kind: pa.DataType, path: str) -> None:
    with pytest.raises(SchemaMismatchError) as raised:
        to_column(value, kind, nullable=False, path="at")
    assert raised.value.field == path
    assert raised.value.message.startswith(path)


def test_null_sets_null_where_it_may() -> None:
    assert column(None, pa.int64(), nullable=True) is None
    assert column([None], pa.list_(pa.int64())) == [None]


MICROS = st.integers(-(1 << 63), (1 << 63) - 1)
VALUES = st.one_of(
    st.tuples(st.just(pa.int64()), MICROS),
    st.tuples(st.just(pa.uint64()), st.integers(0, (1 << 64) - 1)),
    st.tuples(st.just(pa.float64()), st.floats()),
    st.tuples(st.just(pa.float32()), st.floats(width=32)),
    st.tuples(st.just(pa.bool_()), st.booleans()),
    st.tuples(st.just(pa.string()), st.text()),
    st.tuples(st.just(pa.binary()), st.binary()),
    st.tuples(st.just(US), st.datetimes(timezones=st.just(dt.UTC))),
    st.tuples(st.just(pa.date32()), st.dates()),
    st.tuples(st.just(DURATION), MICROS.map(lambda micros: dt.timedelta(microseconds=micros))),
    st.tuples(
        st.just(pa.decimal128(20, 4)),
        st.decimals(min_value=-(10**16) + 1, max_value=10**16 - 1, places=4, allow_nan=False),
    ),
    st.tuples(st.just(pa.list_(pa.string())), st.lists(st.one_of(st.none(), st.text()))),
    st.tuples(
        st.just(POINT),
        st.fixed_dictionaries({"x": st.floats(), "tags": st.one_of(st.none(), st.lists(st.integers(-9, 9)))}),
    ),
)


@given(VALUES)
def test_what_goes_out_as_json_comes_back_as_it_was(case: tuple[pa.DataType, Any]) -> None:
    kind, value = case
    stored = pa.array([value], type=kind)
    text = json.dumps(to_json(stored[0].as_py()), allow_nan=False)
    back = to_column(json.loads(text), kind, nullable=True, path="at")
    assert repr(pa.array([back], type=kind)[0].as_py()) == repr(stored[0].as_py())


@given(st.one_of(st.none(), st.booleans(), st.floats(), st.integers(), st.text(), st.binary()), VALUES)
def test_any_value_is_taken_whole_or_refused(value: Any, case: tuple[pa.DataType, Any]) -> None:
    kind, _ = case
    try:
        taken = to_column(value, kind, nullable=True, path="at")
    except SchemaMismatchError:
        return
    pa.array([taken], type=kind)


def test_large_integers_go_out_as_digits() -> None:
    assert to_json((1 << 53) - 1) == (1 << 53) - 1
    assert to_json(1 << 53) == "9007199254740992"
    assert to_json(-(1 << 60)) == str(-(1 << 60))


def test_naive_times_are_utc_both_ways_whatever_the_local_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    naive = dt.datetime(2026, 1, 31, 12)
    assert to_json(naive) == "2026-01-31T12:00:00.000000Z"
    assert column(naive, US) == naive.replace(tzinfo=dt.UTC)
    monkeypatch.undo()
    time.tzset()


def test_bytes_and_odd_numbers_have_a_json_form() -> None:
    assert to_json(b"\x00\xff") == base64.b64encode(b"\x00\xff").decode()
    assert [to_json(v) for v in (math.nan, math.inf, -math.inf)] == ["NaN", "Infinity", "-Infinity"]
    with pytest.raises(TypeError):
        to_json(object())
