"""Every function that the recorded path knows, and random expressions over random data, against Daft's own plan."""

from __future__ import annotations

import datetime as dt
import math
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import daft
import daft.functions as f
import pyarrow as pa
import pytest
from daft import DataType, col, lit
from daft.functions import when
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tickwire_engine import expressions
from tickwire_engine.expressions import ROW_WISE_FUNCTIONS, _RowWise, columns_of, evaluate
from tickwire_engine.recorded import RecordedDataFrame

if TYPE_CHECKING:
    from collections.abc import Callable

    from daft.expressions import Expression

NAN, INF = math.nan, math.inf


def at(*parts: int) -> dt.datetime:
    return dt.datetime(*parts, tzinfo=dt.UTC)  # type: ignore[arg-type, misc]


ROWS = pa.RecordBatch.from_pydict(
    {
        "i": pa.array([1, -2, None, 7, 0, 2**53 + 1], pa.int64()),
        "j": pa.array([3, 3, 2, None, -5, 1], pa.int32()),
        "u": pa.array([1, 20, None, 0, 3, 9], pa.uint8()),
        "f": pa.array([0.5, NAN, None, -1.25, INF, -0.0]),
        "g": pa.array([2.0, 0.0, -0.0, None, 1e300, -INF]),
        "h": pa.array([1.5, NAN, None, -2.0, 0.0, 3.0], pa.float32()),
        "s": pa.array(["a", "Bb", None, "", " ÄÖ ", "2020-01-01"]),
        "k": pa.array(["b", "B", "x", None, "Ö", "-"]),
        "b": pa.array([True, None, False, True, False, True]),
        "c": pa.array([True, False, None, None, True, False]),
        "t": pa.array(
            [
                at(2020, 1, 2, 3, 4, 5, 678901),
                None,
                at(1969, 1, 1),
                at(2026, 12, 31, 23, 59, 59),
                at(2000, 2, 29),
                at(1900, 1, 1),
            ],
            pa.timestamp("us", "UTC"),
        ),
        "d": pa.array(
            [
                dt.date(2020, 1, 2),
                None,
                dt.date(1969, 1, 1),
                dt.date(2026, 12, 31),
                dt.date(2000, 2, 29),
                dt.date(1900, 1, 1),
            ]
        ),
        "w": pa.array(
            [
                dt.timedelta(seconds=5),
                None,
                dt.timedelta(days=-1),
                dt.timedelta(0),
                dt.timedelta(microseconds=7),
                dt.timedelta(hours=49),
            ],
            pa.duration("us"),
        ),
        "l": pa.array([[1.0, 2.0], None, [], [3.0, None], [NAN], [-0.0, 5.0]], pa.list_(pa.float64())),
        "m": pa.array([[True, False], None, [], [None], [True], [False]], pa.list_(pa.bool_())),
        "n": pa.array([["a", "b"], None, [], ["x", None], [""], ["z"]], pa.list_(pa.string())),
        "p": pa.array(
            [
                {"x": 1.0, "n": "q"},
                None,
                {"x": None, "n": "z"},
                {"x": 2.0, "n": None},
                {"x": 0.0, "n": ""},
                {"x": NAN, "n": "n"},
            ],
            pa.struct({"x": pa.float64(), "n": pa.string()}),
        ),
        "v": pa.array(
            [[1.0, 2.0], None, [0.0, 0.0], [3.0, 4.0], [5.0, 6.0], [1.0, -1.0]], pa.list_(pa.float32(), 2)
        ),
        "e": pa.array(
            [Decimal("1.50"), None, Decimal("-3.25"), Decimal(0), Decimal("9.99"), Decimal("2.00")],
            pa.decimal128(10, 2),
        ),
    }
)

TYPES = (
    *(DataType.int8(), DataType.int64(), DataType.uint16(), DataType.float32(), DataType.float64()),
    *(DataType.string(), DataType.bool(), DataType.timestamp("us", "UTC"), DataType.date()),
)
MONADS = (
    *(
        "sqrt",
        "cbrt",
        "exp",
        "expm1",
        "ln",
        "log2",
        "log10",
        "log1p",
        "sin",
        "cos",
        "tan",
        "csc",
        "sec",
        "cot",
    ),
    *(
        "sinh",
        "cosh",
        "tanh",
        "degrees",
        "radians",
        "arcsin",
        "arccos",
        "arctan",
        "arcsinh",
        "arccosh",
        "arctanh",
    ),
    *("ceil", "floor", "sign", "negate", "abs", "is_nan", "is_inf", "not_nan"),
)
CALENDAR = ("year", "quarter", "month", "day", "day_of_week", "day_of_month", "day_of_year", "week_of_year")
CLOCK = (
    "hour",
    "minute",
    "second",
    "millisecond",
    "microsecond",
    "nanosecond",
    "date",
    "time",
    "to_unix_epoch",
)
SPANS = ("days", "hours", "minutes", "seconds", "milliseconds", "microseconds", "nanoseconds")
TEXT = (
    "upper",
    "lower",
    "capitalize",
    "reverse",
    "strip",
    "lstrip",
    "rstrip",
    "length",
    "length_bytes",
    "to_snake_case",
)
LISTS = (
    "list_count",
    "list_sum",
    "list_min",
    "list_max",
    "list_mean",
    "list_sort",
    "list_distinct",
    "length",
)

SAMPLES: list[Expression] = [
    *(getattr(f, name)(col(column)) for name in MONADS for column in ("f", "i", "h")),
    *(getattr(f, name)(col(column)) for name in CALENDAR for column in ("t", "d")),
    *(getattr(f, name)(col("t")) for name in CLOCK),
    *(getattr(f, f"total_{span}")(col("w")) for span in SPANS),
    *(getattr(f, name)(col("s")) for name in TEXT),
    *(getattr(f, name)(col("l")) for name in LISTS),
    *(col(name).cast(kind) for name in "ijufghsbtdwe" for kind in TYPES),
    *(
        make(col(a), col(b))
        for a, b in ("ij", "if", "fg", "hf", "uu", "ui", "ee", "bi")
        for make in (
            lambda a, b: a + b,
            lambda a, b: a - b,
            lambda a, b: a * b,
            lambda a, b: a / b,
            lambda a, b: a == b,
            lambda a, b: a != b,
            lambda a, b: a < b,
            lambda a, b: a <= b,
            lambda a, b: a > b,
            lambda a, b: a >= b,
            f.eq_null_safe,
            f.fill_null,
            f.coalesce,
            f.hypot,
            f.arctan2,
            f.pow,
            f.power,
        )
    ),
    *(make(col("b"), col("c")) for make in (lambda a, b: a & b, lambda a, b: a | b, lambda a, b: a ^ b)),
    *(col(name) % lit(3) for name in "ijf"),
    *(col(name) // lit(2) for name in "ijf"),
    ~col("b"),
    col("i") & lit(3),
    col("i") % col("j"),
    col("i") // lit(0),
    col("i") % lit(0),
    f.shift_left(col("i"), lit(2)),
    f.shift_right(col("i"), lit(1)),
    f.pmod(col("i"), col("j")),
    f.try_divide(col("i"), col("j")),
    f.factorial(col("u")),
    f.bin(col("i")),
    f.hash(col("s")),
    f.hash(col("f")),
    f.round(col("f"), 1),
    f.round(col("i"), -1),
    f.log(col("f"), 2),
    f.clip(col("f"), 0, 1),
    f.clip(col("i"), col("j"), None),
    f.fill_nan(col("f"), col("g")),
    f.fill_null(col("s"), "n"),
    col("f").is_null(),
    col("l").not_null(),
    col("f").between(0, 1),
    col("i").between(col("j"), 9),
    col("f").is_in([0.5, -1.25]),
    col("s").is_in(["a", ""]),
    col("i").is_in([col("j"), lit(7)]),
    col("b").is_in([True]),
    when(col("b"), col("f")).when(col("c"), col("g")).otherwise(0),
    when(col("b"), col("s")).otherwise(lit(None)),
    when(col("b"), col("l")).otherwise(lit(None)),
    when(col("b"), col("p")).otherwise(lit(None)),
    when(col("i") > 0, col("t")).otherwise(lit(None)),
    f.left(col("s"), 2),
    f.right(col("s"), 2),
    f.substr(col("s"), 1, 2),
    f.find(col("s"), col("k")),
    f.contains(col("s"), col("k")),
    f.startswith(col("s"), "a"),
    f.endswith(col("s"), "b"),
    f.like(col("s"), "%b"),
    f.ilike(col("s"), "%B"),
    f.regexp(col("s"), "[a-b]"),
    f.regexp_replace(col("s"), "[a-b]", "z"),
    f.regexp_extract(col("s"), "([a-b])", 1),
    f.regexp_count(col("s"), "b"),
    f.replace(col("s"), "a", "zz"),
    f.translate(col("s"), "ab", "xy"),
    f.normalize(col("s"), lowercase=True),
    f.split(col("s"), "-"),
    f.split_part(col("s"), "-", 1),
    f.repeat(col("s"), 2),
    f.lpad(col("s"), 4, "*"),
    f.rpad(col("s"), 4, "*"),
    f.concat_ws("-", col("s"), col("k")),
    f.count_matches(col("s"), ["b"]),
    f.levenshtein_distance(col("s"), col("k")),
    col("s") + col("k"),
    col("s") + "x",
    f.date_trunc("1 day", col("t")),
    f.date_add(col("d"), 1),
    f.date_diff(col("d"), lit(dt.date(2020, 1, 1))),
    f.last_day(col("d")),
    f.add_months(col("d"), 1),
    f.unix_date(col("d")),
    f.to_date(col("s"), "%Y-%m-%d"),
    f.to_date(lit("2020-01-02"), "%Y-%m-%d"),
    f.to_datetime(lit("2020-01-01 00:00:00"), "%Y-%m-%d %H:%M:%S"),
    f.strftime(col("t"), "%Y"),
    col("t") - col("t"),
    col("t") + col("w"),
    col("w") + col("w"),
    col("d") - col("d"),
    col("t") > lit(at(2020, 1, 1)),
    col("d") == lit(dt.date(2020, 1, 2)),
    f.get(col("l"), 0),
    f.get(col("v"), 1),
    f.list_contains(col("l"), 2.0),
    f.list_join(col("n"), ","),
    f.list_sort(col("n"), desc=True),
    f.list_bool_and(col("m")),
    f.list_bool_or(col("m")),
    f.list_append(col("l"), col("f")),
    f.chunk(col("l"), 1),
    f.slice(col("l"), 0, 1),
    f.to_list(col("f"), col("g")),
    f.columns_min(col("i"), col("j")),
    f.columns_max(col("f"), col("g")),
    f.columns_sum(col("i"), col("j")),
    f.columns_mean(col("f"), col("g")),
    f.to_struct(x=col("f"), y=col("s")),
    f.cosine_distance(col("v"), col("v")),
    f.cosine_similarity(col("v"), col("v")),
    f.euclidean_distance(col("v"), col("v")),
    f.dot_product(col("v"), col("v")),
    lit(None),
    lit(3),
    lit("x"),
    lit([1.0, 2.0]),
    lit({"x": 1}),
    lit(dt.date(2020, 1, 1)),
    lit(at(2020, 1, 1)),
    lit(Decimal("1.5")),
    lit(b"ab"),
]


def outcome(make: Callable[[], pa.Table | pa.RecordBatch]) -> Any:
    """Return values with their type, or that Daft refused."""
    try:
        column: Any = make().column("value")
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        return "refused"
    return str(column.type).replace("large_", ""), repr(column.to_pylist())


def both(batch: pa.RecordBatch, expression: Expression) -> tuple[Any, Any]:
    """What the recorded path and the plan make of an expression; the former the same, however large the batch is."""
    source = daft.from_arrow(pa.Table.from_batches([batch]))
    evaluated = outcome(lambda: evaluate(batch, {"value": expression}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(expressions, "LOCKED_ROWS", -1)
        assert outcome(lambda: evaluate(batch, {"value": expression})) == evaluated
    return evaluated, outcome(lambda: source.select(expression.alias("value")).to_arrow())


@pytest.mark.parametrize("expression", SAMPLES, ids=lambda expression: str(expression)[:60])
def test_what_is_known_to_be_row_wise_equals_the_plan(expression: Expression) -> None:
    assert columns_of(expression) is not None
    evaluated, planned = both(ROWS, expression)
    assert evaluated == planned


class Names(_RowWise):
    """Gathers the functions of an expression."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def visit_is_in(self, expr: Expression, items: list[Expression]) -> None:
        self.found.add("is_in")

    def visit_coalesce(self, args: list[Expression]) -> None:
        self.found.add("coalesce")

    def visit_function(self, name: str, args: list[Expression]) -> None:
        self.found.add(name)
        super().visit_function(name, args)


def test_no_function_is_recorded_that_no_sample_proves() -> None:
    names = Names()
    for expression in SAMPLES:
        names.visit(expression)
    assert names.found == ROW_WISE_FUNCTIONS


class Sums(_RowWise):
    """Finds sums and differences with a constant: where it is zero, planner and IEEE differ in a sign."""

    def __init__(self) -> None:
        super().__init__()
        self.found = False

    def visit_function(self, name: str, args: list[Expression]) -> None:
        if name in ("plus", "minus") and any(not columns_of(arg) for arg in args):
            self.found = True
        super().visit_function(name, args)


def adds_zero(expression: Expression) -> bool:
    """Whether an expression holds a sum or difference with a constant, which may be zero."""
    sums = Sums()
    sums.visit(expression)
    return sums.found


@pytest.mark.parametrize(
    "expression",
    [
        f.uuid(),
        f.random_int(0, 5),
        f.monotonically_increasing_id(),
        f.current_timestamp(),
        f.current_date(),
        f.download(col("s")),
        f.file_exists(f.file(col("s"))),
        f.explode(col("l")),
        col("f").sum(),
        col("f").is_in([0.5, NAN]),
        col("f").is_in([lit(NAN)]),
        col("f").is_in([0, 1]),
        col("i").is_in([0.0]),
        f.columns_min(col("i"), lit(0)),
        f.to_list(lit(1.5), col("f")),
        f.to_list(col("i"), f.coalesce(lit(0), col("j"))),
    ],
    ids=str,
)
def test_what_is_not_row_wise_or_differs_takes_the_plan(expression: Expression) -> None:
    assert columns_of(expression) is None
    assert columns_of(lit(1) + expression) is None


def test_zero_among_values_is_recorded_where_no_floating_point_number_is_asked_for() -> None:
    for name, recorded in (("i", True), ("u", True), ("f", False), ("h", False)):
        frame: Any = RecordedDataFrame.over(ROWS)
        changed = frame.with_column("b", col(name).is_in([0, 1]))
        assert isinstance(changed, RecordedDataFrame) is recorded
        assert (
            changed.to_pydict()["b"]
            == frame.collect().with_column("b", col(name).is_in([0, 1])).to_pydict()["b"]
        )
    frame = RecordedDataFrame.over(ROWS)
    computed = frame.with_column("i", col("f") + 1).with_column("b", col("i").is_in([0, 1]))
    assert not isinstance(computed, RecordedDataFrame)


def test_an_expression_too_deep_to_walk_takes_the_plan() -> None:
    deep = col("i")
    for _ in range(2000):
        deep = deep + 1
    assert columns_of(deep) is None


FLOATS = st.one_of(st.sampled_from([0.0, -0.0, NAN, INF, -INF, 1.5, -2.0, 1e300, 5e-324]), st.floats())
VALUES: dict[str, tuple[pa.DataType, st.SearchStrategy[Any]]] = {
    "i": (pa.int64(), st.one_of(st.integers(-3, 3), st.integers(-(1 << 62), 1 << 62))),
    "j": (pa.int32(), st.integers(-(1 << 31), (1 << 31) - 1)),
    "u": (pa.uint8(), st.integers(0, 255)),
    "f": (pa.float64(), FLOATS),
    "g": (pa.float64(), FLOATS),
    "h": (pa.float32(), st.floats(width=32)),
    "s": (pa.string(), st.text("aB Ä%", max_size=3)),
    "k": (pa.string(), st.text("aB Ä%", max_size=3)),
    "b": (pa.bool_(), st.booleans()),
    "c": (pa.bool_(), st.booleans()),
    "t": (
        pa.timestamp("us", "UTC"),
        st.datetimes(dt.datetime(1900, 1, 1), dt.datetime(2100, 1, 1), timezones=st.just(dt.UTC)),
    ),
    "l": (pa.list_(pa.float64()), st.lists(st.one_of(st.none(), FLOATS), max_size=3)),
}


@st.composite
def rows(draw: st.DrawFn) -> pa.RecordBatch:
    count = draw(st.integers(1, 4))
    columns = {}
    for name, (kind, values) in VALUES.items():
        column = draw(st.lists(st.one_of(st.none(), values), min_size=count, max_size=count))
        columns[name] = pa.array(column, kind)
    return pa.RecordBatch.from_pydict(columns)


NUMBER = st.recursive(
    st.one_of(
        st.sampled_from([col(name) for name in "ijufgh"]),
        st.sampled_from([0, 1, -1, 2.5, -0.0, NAN, None]).map(lit),
        st.sampled_from(
            [
                f.length(col("s")),
                f.year(col("t")),
                f.list_sum(col("l")),
                f.get(col("l"), 0),
                f.find(col("s"), col("k")),
                f.columns_min(col("i"), col("j")),
                f.columns_max(col("f"), col("g")),
            ]
        ),
    ),
    lambda inner: st.one_of(
        *(
            st.builds(make, inner, inner)
            for make in (
                lambda a, b: a + b,
                lambda a, b: a - b,
                lambda a, b: a * b,
                lambda a, b: a / b,
                f.coalesce,
                f.fill_null,
                f.hypot,
                lambda a, b: when(col("b"), a).otherwise(b),
                lambda a, b: when(a < b, b).otherwise(a),
            )
        ),
        *(
            inner.map(make)
            for make in (
                abs,
                f.sign,
                f.floor,
                f.sqrt,
                f.sin,
                f.exp,
                lambda a: a.cast(DataType.int64()),
                lambda a: a.cast(DataType.float32()),
            )
        ),
    ),
    max_leaves=5,
)
TRUTH = st.recursive(
    st.one_of(
        st.sampled_from(
            [
                col("b"),
                col("c"),
                col("s").is_null(),
                f.contains(col("s"), "a"),
                f.list_contains(col("l"), 1.5),
                col("t") > lit(at(2000, 1, 1)),
            ]
        ),
        st.builds(lambda a, b: a < b, NUMBER, NUMBER),
        st.builds(lambda a, b: a == b, NUMBER, NUMBER),
        st.builds(lambda a, b: f.eq_null_safe(a, b), NUMBER, NUMBER),
        NUMBER.map(lambda a: a.is_null()),
        st.just(col("f").between(0, 1)),
        st.sampled_from("if").map(lambda name: col(name).is_in([2, 1])),
        st.sampled_from("sk").map(lambda name: col(name).is_in(["a", ""])),
    ),
    lambda inner: st.one_of(
        st.builds(lambda a, b: a & b, inner, inner),
        st.builds(lambda a, b: a | b, inner, inner),
        st.builds(lambda a, b: a ^ b, inner, inner),
        inner.map(lambda a: ~a),
    ),
    max_leaves=4,
)
TEXTS = st.one_of(
    st.builds(
        lambda a, b: a + b,
        st.sampled_from([col("s"), col("k"), lit("x")]),
        st.sampled_from([col("s"), f.upper(col("k"))]),
    ),
    NUMBER.map(lambda a: a.cast(DataType.string())),
    st.builds(lambda a: when(a, col("s")).otherwise(col("k")), TRUTH),
)


def test_a_sum_with_zero_is_recorded_and_has_the_sign_of_ieee_where_the_planner_keeps_that_of_x() -> None:
    zeros = pa.RecordBatch.from_pydict({"f": pa.array([-0.0, 0.0, None, 1.5])})
    for expression in (col("f") + 0, lit(0) + col("f"), col("f") - lit(-0.0)):
        evaluated, planned = both(zeros, expression)
        assert evaluated == ("double", "[0.0, 0.0, None, 1.5]")
        assert planned == ("double", "[-0.0, 0.0, None, 1.5]")


@given(rows(), st.one_of(NUMBER, TRUTH, TEXTS))
@settings(max_examples=50, deadline=None)
def test_random_expressions_over_random_rows_equal_the_plan(
    batch: pa.RecordBatch, expression: Expression
) -> None:
    assume(not adds_zero(expression))
    assert columns_of(expression) is not None
    evaluated, planned = both(batch, expression)
    assert evaluated == planned
