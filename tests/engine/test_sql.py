"""The SQL dialect of conditions and expressions: what it means, what it refuses, and that no text harms."""

from __future__ import annotations

import datetime as dt
import math
from typing import Any

import daft
import daft.functions
import pyarrow as pa
import pytest
from daft.daft import list_sql_functions
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.parts import setup
from tickwire_engine.errors import InvalidSqlError, TickwireError, UnknownComponentError
from tickwire_engine.expressions import _RowWise
from tickwire_engine.sql import (
    FUNCTIONS,
    MAX_DEPTH,
    MAX_LENGTH,
    batch_columns,
    catalog_columns,
    parse_condition,
    parse_expression,
)

AT = dt.datetime(2026, 1, 31, 12, 30, 15, 250_000, tzinfo=dt.UTC)
ROWS = pa.RecordBatch.from_pydict(
    {
        "entity_id": pa.array([1, 2, 3, 4]),
        "is_active": pa.array([True] * 4),
        "a__i": pa.array([1, -2, None, 7], pa.int64()),
        "a__j": pa.array([0, 3, 2, None], pa.int32()),
        "a__u": pa.array([1, 255, None, 0], pa.uint8()),
        "a__f": pa.array([0.5, math.nan, None, -1.25]),
        "a__s": pa.array(["ab", "Cd%", None, ""]),
        "a__b": pa.array([True, None, False, True]),
        "a__t": pa.array([AT, AT + dt.timedelta(days=1), None, AT], pa.timestamp("us", "UTC")),
        "a__d": pa.array([dt.date(2026, 1, 31), None, dt.date(2000, 2, 29), dt.date(1969, 1, 1)]),
        "a__w": pa.array([dt.timedelta(seconds=90), None, dt.timedelta(0), dt.timedelta(days=-1)], pa.duration("us")),
        "a__l": pa.array([[1.0, 2.0], None, [], [4.0]], pa.list_(pa.float64())),
        "a__p": pa.array(
            [{"x": 1.0, "n": "q"}, None, {"x": None, "n": "z"}, {"x": 2.0, "n": None}],
            pa.struct({"x": pa.float64(), "n": pa.string()}),
        ),
    }
)  # fmt: skip
COLUMNS = batch_columns(ROWS.schema)


def values(text: str) -> list[Any]:
    return parse_expression(text, COLUMNS, path="sql").values(ROWS).to_pylist()


MEANINGS: list[tuple[str, list[Any]]] = [
    ("a__i + 1", [2, -1, None, 8]),
    ("-a__i", [-1, 2, None, -7]),
    ("-a__u", [-1, -255, None, 0]),
    ("1 - 2 - 3", [-4] * 4),
    ("2 + 3 * 4", [14] * 4),
    ("(2 + 3) * 4", [20] * 4),
    ("- 2 * 3", [-6] * 4),
    ("+a__i", [1, -2, None, 7]),
    ("a__i / 2", [0.5, -1.0, None, 3.5]),
    ("7 // a__j", [None, 2, 3, None]),
    ("7 % a__j", [None, 1, 1, None]),
    ("mod(7, 0)", [None] * 4),
    ("1 = 1 AND NOT 2 < 1 OR false", [True] * 4),
    ("true OR false AND false", [True] * 4),
    ("NOT a__i = 1", [False, True, None, True]),
    ("a__i <> 1 and a__b", [False, None, False, True]),
    ("a__i != 1", [False, True, None, True]),
    ("a__b AND NULL", [None, None, False, None]),
    ("a__i BETWEEN 1 AND 7 AND a__b", [True, False, False, True]),
    ("a__i NOT BETWEEN 1 AND 6", [False, True, None, True]),
    ("a__i IN (1, 7)", [True, False, None, True]),
    ("a__i NOT IN (1, 7)", [False, True, None, False]),
    ("a__f in (1, 0.5)", [True, False, None, False]),
    ("a__i IN (0, -2, 2.5)", [False, True, None, False]),
    ("a__f * 0 IN (0)", [True, False, None, True]),
    ("a__f * 0 = 0", [True, False, None, True]),
    ("0 >= a__f * 0 AND NOT a__f * 0 < 0", [True, False, None, True]),
    ("a__f * 0 BETWEEN 0 AND 1", [True, False, None, True]),
    ("a__f = a__f", [True, True, None, True]),
    ("a__f > 1e308", [False, True, None, False]),
    ("a__b IN (true)", [True, None, False, True]),
    ("a__i IN (a__j + 1, 7)", [True, False, None, True]),
    ("a__s IN ('ab')", [True, False, None, False]),
    ("a__s LIKE '%b'", [True, False, None, False]),
    ("a__s ILIKE 'c%'", [False, True, None, False]),
    ("a__s NOT LIKE '%b'", [False, True, None, True]),
    ("a__i IS NULL", [False, False, True, False]),
    ("a__i IS NOT NULL", [True, True, False, True]),
    ("a__b IS TRUE", [True, False, False, True]),
    ("a__b IS NOT FALSE", [True, True, False, True]),
    ("a__i IS DISTINCT FROM a__j", [True, True, True, True]),
    ("a__i IS NOT DISTINCT FROM NULL", [False, False, True, False]),
    (
        "CASE WHEN a__i > 1 THEN 'big' WHEN a__i < 0 THEN 'low' ELSE 'else' END",
        ["else", "low", "else", "big"],
    ),
    ("CASE a__i WHEN 1 THEN 10 END", [10, None, None, None]),
    ("if(a__b, 1, 2)", [1, 2, 2, 1]),
    ("coalesce(a__i, a__j, 0)", [1, -2, 2, 7]),
    ("nullif(a__i, 7)", [1, -2, None, None]),
    ("least(a__i, a__j, 1)", [0, -2, 1, 1]),
    ("greatest(a__i, 0.5)", [1.0, 0.5, 0.5, 7.0]),
    ("isnan(a__f)", [False, True, None, False]),
    ("abs(a__i)", [1, 2, None, 7]),
    ("floor(a__f * 3)", [1.0, "nan", None, -4.0]),
    ("sqrt(4)", [2.0] * 4),
    ("hypot(3, 4)", [5.0] * 4),
    ("pi() > 3.14", [True] * 4),
    ("1e3 + .5", [1000.5] * 4),
    ("'it''s' || a__i", ["it's1", "it's-2", None, "it's7"]),
    ("concat(a__s, '-', a__b)", ["ab-true", None, None, "-true"]),
    ("upper(a__s)", ["AB", "CD%", None, ""]),
    ("length(a__s)", [2, 3, None, 0]),
    ("trim('  x ')", ["x"] * 4),
    ("substr(a__s, 2)", ["b", "d%", None, None]),
    ("substring(a__s, 1, 1)", ["a", "C", None, None]),
    ("left(a__s, 1)", ["a", "C", None, ""]),
    ("strpos(a__s, 'd')", [0, 2, None, 0]),
    ("contains(a__s, '%')", [False, True, None, False]),
    ("starts_with(a__s, 'a') or ends_with(a__s, '%')", [True, True, None, False]),
    ("regexp_matches(a__s, '^[a-c]+$')", [True, False, None, False]),
    ("CAST('12' AS bigint) + 1", [13] * 4),
    ("a__f::bigint", [0, None, None, -1]),
    ("a__i::double precision / 2", [0.5, -1.0, None, 3.5]),
    ("cast(a__i as text)", ["1", "-2", None, "7"]),
    ("a__i::boolean", [True, True, None, True]),
    ("isnan('NaN'::double)", [True] * 4),
    ("a__t >= TIMESTAMP '2026-01-31T12:30:15.250000Z'", [True, True, None, True]),
    ("a__t - TIMESTAMP '2026-01-31T12:30:15.25Z' > INTERVAL '1.5s'", [False, True, None, False]),
    ("a__d = DATE '2000-02-29'", [False, None, True, False]),
    ("extract(year from a__d) + month(a__d)", [2027, None, 2002, 1970]),
    ("hour(a__t) * 100 + minute(a__t)", [1230, 1230, None, 1230]),
    ("total_seconds(a__w)", [90, None, 0, -86400]),
    ("list_sum(a__l)", [3.0, None, None, 4.0]),
    ("list_get(a__l, 0)", [1.0, None, None, 4.0]),
    ("list_contains(a__l, 4.0)", [False, None, False, True]),
    ("a__p.x", [1.0, None, None, 2.0]),
    ("a__p.n = 'q'", [True, None, False, None]),
    ('"a__i" + entity_id', [2, 0, None, 11]),
    ("a__i -- a comment\n + /* another */ 1", [2, -1, None, 8]),
    ("is_active", [True] * 4),
    ("null", [None] * 4),
]


@pytest.mark.parametrize(("text", "expected"), MEANINGS, ids=lambda case: str(case)[:40])
def test_an_expression_means_what_sql_says(text: str, expected: list[Any]) -> None:
    found = ["nan" if isinstance(value, float) and math.isnan(value) else value for value in values(text)]
    assert found == expected


def test_null_is_false_in_a_condition() -> None:
    assert parse_condition("a__i > 0", COLUMNS, path="sql").mask(ROWS).tolist() == [True, False, False, True]
    assert parse_condition("NOT a__b", COLUMNS, path="sql").mask(ROWS).tolist() == [False, False, True, False]
    assert parse_condition("true", COLUMNS, path="sql").mask(ROWS).tolist() == [True] * 4
    assert parse_condition("a__b = null", COLUMNS, path="sql").mask(ROWS).tolist() == [False] * 4


def test_what_an_expression_reads_is_known() -> None:
    parsed = parse_condition("a__i > 1 and lower(a__s) = 'x' or a__p.x > 0", COLUMNS, path="sql")
    assert parsed.columns == {"a__i", "a__s", "a__p"}
    assert parsed.fits(ROWS.schema.names)
    assert not parsed.fits(["a__i", "a__s"])


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "expected a value"),
        ("a__i >", "character 7"),
        ("a__i > 1 garbage", "expected the end, not 'garbage'"),
        ("a__i; DROP TABLE x", "';'"),
        ("a__i > 1) or (true", "expected the end"),
        ("(a__i > 1", "expected )"),
        ("a__i IN ()", "IN needs a value"),
        ("a__i IN (1, 'x')", "one type"),
        ("a__i IN (1, NULL, 'x')", "one type"),
        ("a__i IN (a__j, 1.5, 'x')", "one type"),
        ("a__i = 'x'", "Int64, String"),
        ("a__s > 1", "String, Int64"),
        ("a__i", "compare it"),
        ("null", "compare it"),
        ("(select 1) = 1", "SELECT"),
        ("exists(select * from read_csv('/etc/passwd'))", "EXISTS"),
        ("a__i in (select entity_id from world)", "SELECT"),
        ("sum(a__i) > 1", "no function sum"),
        ("count(*) > 1", "no function count"),
        ("row_number() over () = 1", "no function row_number"),
        ("*", "'*'"),
        ("abs(a__i, 2) = 1", "abs takes 1"),
        ("abs(distinct a__i) = 1", "DISTINCT"),
        ("cast(a__s as file) is null", "no type 'file'"),
        ("cast(a__s as python) is null", "no type"),
        ("a__i = 9223372036854775808", "64 bits"),
        ("a__t > timestamp 'yesterday'", "RFC 3339"),
        ("a__p.z = 1", "no field 'z'"),
        ("a__i.x = 1", "no field 'x'"),
        ("a__k = 1", "there is no column a__k"),
        ("regexp_matches(a__s, '(')", ""),
        ("hour(a__d) = 1", "hour"),
        ("'unfinished", "begins nothing"),
        ("a__i = $1", "'$'"),
        ("a__i NOT 3", "after NOT"),
        ("case when a__b then 1", "expected END"),
        ("case end = 1", "END has no place"),
        ("a__i IS 3", "after IS"),
    ],
)
def test_what_is_no_condition_is_refused_with_a_reason(text: str, why: str) -> None:
    with pytest.raises(InvalidSqlError) as raised:
        parse_condition(text, COLUMNS, path="despawn.where").mask(ROWS)
    assert raised.value.field == "despawn.where"
    assert raised.value.reason == "INVALID_SQL"
    assert why in raised.value.message


def test_columns_are_those_of_registered_components() -> None:
    columns = catalog_columns(setup().vocabulary.components)
    assert parse_condition("place__x > 1 and entity_id < 5", columns, path="w").columns == {
        "place__x",
        "entity_id",
    }
    with pytest.raises(UnknownComponentError, match="no registered component") as raised:
        parse_condition("nothing__x > 1", columns, path="w")
    assert raised.value.field == "w"
    with pytest.raises(UnknownComponentError, match="write place__field"):
        parse_condition("Place__x > 1", columns, path="w")
    with pytest.raises(InvalidSqlError, match="write place__x, not Place"):
        parse_condition("Place.x > 1", columns, path="w")
    with pytest.raises(InvalidSqlError, match="it has place__x, place__y"):
        parse_condition("place__z > 1", columns, path="w")


def daft_names() -> list[str]:
    """Every function that Daft's SQL or its Python package offers, by name."""
    from_sql = [getattr(function, "name", function) for function in list_sql_functions()]
    return sorted({*map(str, from_sql), *daft.functions.__all__})


HARMFUL = (
    # files and network
    *("url_download", "url_upload", "download", "upload", "file", "file_exists", "file_path", "file_size"),
    *("audio_file", "image_file", "video_file", "hdf5_file", "decode_image_file", "image_file_metadata"),
    # code and models
    *("run_process", "prompt", "embed_text", "embed_image", "classify_text", "llm_generate", "list_map", "apply"),
    # randomness, clock, order
    *("uuid", "random_int", "current_date", "current_timestamp", "current_timezone", "monotonically_increasing_id"),
    *("row_number", "rank", "lag", "lead"),
    # much out of little
    *("repeat", "replace", "regexp_replace", "space", "lpad", "rpad", "seq", "explode", "unnest"),
)  # fmt: skip


def test_functions_with_effects_are_among_those_refused() -> None:
    assert set(HARMFUL).isdisjoint(FUNCTIONS)
    offered = set(daft_names())
    assert len(offered) > 300
    assert len(offered.intersection(HARMFUL)) > 30


@pytest.mark.parametrize("name", [n for n in (*daft_names(), *HARMFUL) if n.lower() not in FUNCTIONS])
def test_a_function_that_is_not_on_the_list_is_refused(name: str) -> None:
    for arguments in ("", "a__s", "a__s, 1", "'http://127.0.0.1/'"):
        with pytest.raises(InvalidSqlError):
            parse_expression(f"{name}({arguments})", COLUMNS, path="sql")


def test_every_function_on_the_list_is_row_wise() -> None:
    arguments = {"list_": daft.col("l"), "": daft.col("x")}
    for name, function in FUNCTIONS.items():
        given_ = [arguments["list_" if name.startswith("list_") else ""]] * max(function.least, 1)
        if name == "list_get":
            given_[1] = daft.lit(0)
        _RowWise().visit(function.build(given_[: function.least]))  # raises at anything else


def test_length_and_depth_are_bounded() -> None:
    with pytest.raises(InvalidSqlError, match=f"more than {MAX_LENGTH}"):
        parse_condition("true" + " " * MAX_LENGTH, COLUMNS, path="sql")
    for deep in (
        "(" * 2000 + "1" + ")" * 2000,
        "not " * 1500 + "true",
        "1" + "+1" * 3000,
        "-" + " - " * 1500 + "1",
        "abs(" * 1000 + "1" + ")" * 1000,
        "case when true then " * 200 + "1" + " end" * 200,
        "a__i" + "::bigint" * 900,
        "case " + "when true then 1 " * 400 + "end",
    ):
        with pytest.raises(InvalidSqlError, match=f"more than {MAX_DEPTH} levels"):
            parse_expression(deep, COLUMNS, path="sql")
    flat = " or ".join(f"a__i = {n}" for n in range(400))
    assert parse_condition(flat, COLUMNS, path="sql").mask(ROWS).tolist() == [True, False, False, True]


def test_a_value_that_cannot_be_computed_with_is_an_error_and_no_crash() -> None:
    lowest = "(-9223372036854775808)"
    with pytest.raises(InvalidSqlError) as raised:
        parse_expression(f"{lowest} % (a__i - 2)", COLUMNS, path="sql").values(ROWS)
    assert raised.value.field == "sql"


WORDS = st.sampled_from(
    [
        *("a__i", "a__s", "a__b", "a__f", "a__t", "a__p", "a__l", "1", "2.5", "'x'", "null", "true", "false"),
        *("(", ")", ",", ".", "+", "-", "*", "/", "%", "//", "||", "::", "=", "<>", "<", ">=", "and", "or", "not"),
        *("is", "in", "between", "like", "case", "when", "then", "else", "end", "cast", "as", "bigint", "abs"),
        *("coalesce", "select", "from", "extract", "year", "timestamp", "interval", "date", '"a__i"', "--", "/*"),
    ]
)  # fmt: skip


@given(st.one_of(st.lists(WORDS, max_size=12).map(" ".join), st.text(max_size=20)))
@settings(max_examples=50, deadline=None)
def test_any_text_is_computed_or_refused(text: str) -> None:
    refused: TickwireError | None = None
    try:
        found = len(parse_expression(text, COLUMNS, path="sql").values(ROWS))
    except TickwireError as error:
        refused = error
    assert refused.field == "sql" if refused is not None else found == ROWS.num_rows


Truth = bool | None


def condition() -> st.SearchStrategy[tuple[str, Any]]:
    """Conditions as SQL, each with what it is for a row in three-valued logic."""
    names = st.sampled_from(["a__i", "a__j"])
    leaf = st.one_of(
        st.builds(
            lambda name, sign, n: (f"{name} {sign} {n}", lambda row: _compare(row[name], sign, n)),
            names,
            st.sampled_from(["<", "<=", "=", "<>", ">", ">="]),
            st.integers(-3, 7),
        ),
        names.map(lambda name: (f"{name} IS NULL", lambda row: row[name] is None)),
        st.just(("a__b", lambda row: row["a__b"])),
    )
    return st.recursive(
        leaf,
        lambda inner: st.one_of(
            st.builds(
                lambda a, b: (f"({a[0]} AND {b[0]})", lambda row: _and(a[1](row), b[1](row))), inner, inner
            ),
            st.builds(
                lambda a, b: (f"({a[0]} OR {b[0]})", lambda row: _or(a[1](row), b[1](row))), inner, inner
            ),
            inner.map(lambda a: (f"NOT ({a[0]})", lambda row: _not(a[1](row)))),
        ),
        max_leaves=6,
    )


def _compare(value: int | None, sign: str, other: int) -> Truth:
    if value is None:
        return None
    return {
        "<": value < other,
        "<=": value <= other,
        "=": value == other,
        "<>": value != other,
        ">": value > other,
        ">=": value >= other,
    }[sign]


def _and(one: Truth, other: Truth) -> Truth:
    return False if one is False or other is False else (None if one is None or other is None else True)


def _or(one: Truth, other: Truth) -> Truth:
    return True if one or other else (None if one is None or other is None else False)


def _not(one: Truth) -> Truth:
    return None if one is None else not one


@given(condition())
@settings(max_examples=50, deadline=None)
def test_conditions_follow_three_valued_logic(case: tuple[str, Any]) -> None:
    text, meaning = case
    found = parse_condition(text, COLUMNS, path="sql").mask(ROWS).tolist()
    assert found == [meaning(row) is True for row in ROWS.to_pylist()]
