"""Conditions mean what they mean in DuckDB: whom a query finds, a command with the same text selects."""

from __future__ import annotations

import math
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tickwire_engine.sql import batch_columns, parse_condition

NAN, INF = math.nan, math.inf
ROWS = pa.RecordBatch.from_pydict(
    {
        "entity_id": pa.array(range(1, 9)),
        "a__i": pa.array([1, -2, None, 7, 0, 3, -3, 1], pa.int64()),
        "a__j": pa.array([0, 3, 2, None, -5, 3, 1, 1], pa.int32()),
        "a__f": pa.array([0.5, NAN, None, -1.25, INF, -0.0, 0.0, -INF]),
        "a__g": pa.array([0.5, NAN, 0.0, None, 1.0, 0.0, NAN, 2.0]),
        "a__s": pa.array(["ab", "Cd%", None, "", "a_b", "ABC", "ä", "b"]),
        "a__t": pa.array(["ab", None, "x", "", "%", "abc", "Ä", "a"]),
        "a__b": pa.array([True, None, False, True, False, None, True, False]),
    }
)
COLUMNS = batch_columns(ROWS.schema)


@pytest.fixture(scope="module")
def duck() -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect()
    connection.register("rows", pa.Table.from_batches([ROWS]))
    return connection


NUMBER = st.recursive(
    st.one_of(
        st.sampled_from(["a__i", "a__j", "a__f", "a__g", "entity_id", "length(a__s)", "-a__j", "abs(a__f)"]),
        st.integers(-3, 7).map(str),
        st.sampled_from(["0.5", "1e1", "CAST('NaN' AS DOUBLE)", "NULL::DOUBLE"]),
    ),
    lambda inner: st.one_of(
        st.builds("({} {} {})".format, inner, st.sampled_from("+-*"), inner),
        st.builds("coalesce({}, {})".format, inner, inner),
        st.builds("nullif({}, {})".format, inner, inner),
        st.builds("CASE WHEN a__b THEN {} ELSE {} END".format, inner, inner),
    ),
    max_leaves=3,
)
TEXT = st.one_of(
    st.sampled_from(
        ["a__s", "a__t", "'ab'", "''", "upper(a__s)", "lower(a__t)", "a__s || a__t", "left(a__s, 1)"]
    ),
    st.just("substr(a__s, 2, 1)").map(lambda text: f"coalesce(nullif({text}, ''), '')"),
)
SIGN = st.sampled_from(["=", "<>", "!=", "<", "<=", ">", ">="])
CONDITION = st.recursive(
    st.one_of(
        st.just("a__b"),
        st.builds("{} {} {}".format, NUMBER, SIGN, NUMBER),
        st.builds("{} {} {}".format, TEXT, SIGN, TEXT),
        st.builds("{} IS {}NULL".format, st.one_of(NUMBER, TEXT), st.sampled_from(["", "NOT "])),
        st.builds("{} IS {}DISTINCT FROM {}".format, NUMBER, st.sampled_from(["", "NOT "]), NUMBER),
        st.builds("a__b IS {}{}".format, st.sampled_from(["", "NOT "]), st.sampled_from(["TRUE", "FALSE"])),
        st.builds("{} {}BETWEEN {} AND {}".format, NUMBER, st.sampled_from(["", "NOT "]), NUMBER, NUMBER),
        st.builds(
            "{} {}IN ({})".format,
            st.sampled_from(["a__i", "a__j", "a__f"]),
            st.sampled_from(["", "NOT "]),
            st.lists(st.sampled_from(["0", "1", "-2", "3"]), min_size=1, max_size=3).map(", ".join),
        ),
        st.builds(
            "a__s {}{} '{}'".format,
            st.sampled_from(["", "NOT "]),
            st.sampled_from(["LIKE", "ILIKE"]),
            st.sampled_from(["a%", "%b", "_b", "a_b", "%", "", "ab", "%B%"]),
        ),
        st.builds("{}(a__s, a__t)".format, st.sampled_from(["contains", "starts_with", "ends_with"])),
    ),
    lambda inner: st.one_of(
        st.builds("({} AND {})".format, inner, inner),
        st.builds("({} OR {})".format, inner, inner),
        st.builds("{} AND {} OR {}".format, inner, inner, inner),
        st.builds("NOT ({})".format, inner),
    ),
    max_leaves=4,
)


@given(text=CONDITION)
@settings(max_examples=50, deadline=None)
def test_a_condition_selects_whom_a_query_finds(duck: duckdb.DuckDBPyConnection, text: str) -> None:
    found: Any = duck.sql(f"SELECT entity_id FROM rows WHERE {text} ORDER BY entity_id").fetchall()
    mask = parse_condition(text, COLUMNS, path="where").mask(ROWS)
    assert [i + 1 for i in range(ROWS.num_rows) if mask[i]] == [entity for (entity,) in found]
