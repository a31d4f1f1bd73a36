"""The recorded fast path against Daft's own plan: values, types and nulls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import daft
import pyarrow as pa
import pytest
from daft import Window, col, lit
from daft.functions import negate, when
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tickwire_engine.expressions import EvaluationError, columns_of, is_panic, single_batch
from tickwire_engine.recorded import RecordedDataFrame
from tickwire_engine.tick.processing import ResultError, conform, evaluated

if TYPE_CHECKING:
    from collections.abc import Callable

    from daft.expressions import Expression

Frame = daft.DataFrame
ROWS = pa.RecordBatch.from_pydict(
    {
        "i": pa.array([1, -2, None, 7, 0], pa.int64()),
        "j": pa.array([3, 3, 2, None, -5], pa.int32()),
        "f": pa.array([0.5, float("nan"), None, -1.25, float("inf")]),
        "g": pa.array([2.0, 0.0, -0.0, None, 1e300], pa.float64()),
        "s": pa.array(["a", "Bb", None, "", "ÄÖ"]),
        "b": pa.array([True, None, False, True, False]),
    }
)

NUMBERS = st.sampled_from(["i", "j", "f", "g"])


def varies(expression: Expression) -> bool:
    """Whether an expression reads a column."""
    return bool(columns_of(expression))


def numeric() -> st.SearchStrategy[Any]:
    leaf = st.one_of(NUMBERS.map(col), st.integers(-3, 3).map(lit), st.floats(-2, 2, width=16).map(lit))
    return st.recursive(
        leaf,
        lambda inner: st.one_of(
            # Nothing is added to a constant that may be zero: see test_recorded_functions.
            st.builds(lambda a, b: a + b, inner.filter(varies), NUMBERS.map(col)),
            st.builds(lambda a, b: a - b, NUMBERS.map(col), inner.filter(varies)),
            st.builds(lambda a, b: a * b, inner, inner),
            st.builds(lambda a, b: a / b, inner, inner),
            st.builds(negate, inner),
            inner.map(abs),
            st.builds(lambda a: a.sqrt(), inner),
            st.builds(lambda a: a.sin(), inner),
            st.builds(lambda a: a.exp(), inner),
            st.builds(lambda a: a.ceil(), inner),
            st.builds(lambda a: a.cast(daft.DataType.float64()), inner),
            st.builds(lambda a, b: a.fill_null(b), inner, inner),
            st.builds(lambda c, a, b: when(c > 0, a).otherwise(b), NUMBERS.map(col), inner, inner),
        ),
        max_leaves=5,
    )


def logical() -> st.SearchStrategy[Any]:
    leaf = st.one_of(
        st.just(col("b")),
        st.builds(lambda a, b: a < b, numeric(), numeric()),
        st.builds(lambda a, b: a == b, numeric(), numeric()),
        st.builds(lambda a: a.is_null(), numeric()),
        st.builds(lambda a: a.not_null(), st.just(col("s"))),
        st.just(col("i").is_in([1, 7])),
        st.just(col("i").between(0, 5)),
        st.just(col("s") == "a"),
    )
    return st.recursive(
        leaf,
        lambda inner: st.one_of(
            st.builds(lambda a, b: a & b, inner, inner),
            st.builds(lambda a, b: a | b, inner, inner),
            st.builds(lambda a: ~a, inner),
        ),
        max_leaves=3,
    )


def textual() -> st.SearchStrategy[Any]:
    return st.sampled_from(
        [
            col("s"),
            col("s").upper(),
            col("s").lower(),
            col("s").length(),
            col("s").contains("b"),
            col("s").startswith("B"),
            col("s").endswith("b"),
            col("s").fill_null("none"),
            col("i").cast(daft.DataType.string()),
            lit("x"),
        ]
    )


EXPRESSION = st.one_of(numeric(), logical(), textual())
NAMES = list(ROWS.schema.names)
STAGE = st.one_of(
    st.dictionaries(st.sampled_from([*NAMES, "new", "k"]), EXPRESSION, min_size=1, max_size=3).map(
        lambda columns: ("with_columns", columns)
    ),
    st.lists(st.sampled_from(NAMES), min_size=1, max_size=6, unique=True).map(
        lambda names: ("select", names)
    ),
    st.sampled_from(NAMES).map(lambda name: ("exclude", name)),
    st.sampled_from(NAMES).map(lambda name: ("rename", name)),
)


def apply(frame: Frame, stage: tuple[str, Any]) -> Frame:
    """Apply a stage, were its columns there."""
    kind, given_ = stage
    if kind == "with_columns":
        return frame.with_columns(given_)
    if kind == "select":
        return frame.select(*given_)
    if kind == "exclude":
        return frame.exclude(given_)
    return frame.with_column_renamed(given_, f"{given_}_new")


PANICKED = "panicked"


def outcome(make: Callable[[], pa.Table | pa.RecordBatch]) -> Any:
    """Return rows with their types, or that it failed.

    A column that is passed through keeps the source's layout, where Daft would make it a large one.
    """
    try:
        rows = make()
    except Exception as error:
        return type(error).__name__
    except BaseException as error:
        if not is_panic(error):
            raise
        return PANICKED
    return (
        rows.schema.names,
        [str(t).removeprefix("large_") for t in rows.schema.types],
        repr(rows.to_pydict()),
    )


@given(stages=st.lists(STAGE, min_size=1, max_size=3))
@settings(max_examples=120, deadline=None)
def test_what_is_recorded_equals_dafts_plan(stages: list[tuple[str, Any]]) -> None:
    recorded: Any = RecordedDataFrame.over(ROWS)
    planned = daft.from_arrow(pa.Table.from_batches([ROWS]))
    for stage in stages:
        try:
            planned = apply(planned, stage)
        except Exception:
            # The planner refuses at once; the recorder must refuse too, at the latest when it is evaluated.
            with pytest.raises(Exception):  # noqa: B017
                _rows(apply(recorded, stage))
            return
        recorded = apply(recorded, stage)
    expected = outcome(planned.to_arrow)
    assume(expected != PANICKED)  # the planner's own mistake: there is nothing to be equal to
    assert outcome(lambda: _rows(recorded)) == expected


ARCHETYPE = pa.RecordBatch.from_arrays(
    [pa.array([1, 3, 5, 7, 9]), pa.array([True] * 5), *ROWS.columns],
    schema=pa.schema(
        [
            pa.field("entity_id", pa.int64(), nullable=False),
            pa.field("is_active", pa.bool_(), nullable=False),
            *ROWS.schema,
        ]
    ),
)
CHANGE = st.one_of(
    STAGE,
    st.just(("with_columns", {"is_active": col("i") > 0})),
    st.just(("with_columns", {"is_active": col("i").not_null()})),
    st.just(("with_columns", {"entity_id": col("entity_id") * -1})),
    st.just(("with_columns", {"i": col("i") + 1, "s": col("s").upper()})),
    st.just(("with_columns", {"i": col("entity_id"), "f": col("g")})),
    st.permutations(ARCHETYPE.schema.names).map(lambda names: ("select", names)),
)


@given(stages=st.lists(CHANGE, max_size=3))
@settings(max_examples=50, deadline=None)
def test_looking_only_at_what_was_computed_gives_what_looking_at_everything_does(
    stages: list[tuple[str, Any]],
) -> None:
    frame: Any = RecordedDataFrame.over(ARCHETYPE)
    for stage in stages:
        try:
            frame = apply(frame, stage)
        except Exception:
            return
    if not (isinstance(frame, RecordedDataFrame) and frame.recorded):
        return

    def made(make: Callable[[], pa.RecordBatch]) -> Any:
        try:
            return make()
        except (ResultError, EvaluationError) as error:
            return str(error)

    expected = made(lambda: conform(frame.evaluate(), ARCHETYPE, ARCHETYPE.schema))
    found = made(lambda: evaluated(frame, ARCHETYPE, ARCHETYPE.schema))
    assert repr(found) == repr(expected)
    if isinstance(expected, pa.RecordBatch):
        assert found.schema == expected.schema
        assert repr(found.to_pydict()) == repr(expected.to_pydict())


def _rows(frame: Any) -> pa.RecordBatch:
    if isinstance(frame, RecordedDataFrame) and frame.recorded:
        try:
            return frame.evaluate()
        except EvaluationError:
            pass  # as in a tick: the planner has the last word
    return single_batch(frame.to_arrow())


@pytest.mark.parametrize(
    "stages",
    [
        [("with_columns", {"i": col("i") + 1, "k": col("i") * 2})],
        [("with_columns", {"i": lit(4)})],
        [("with_columns", {"k": lit(None).cast(daft.DataType.int64())})],
        [("with_columns", {"i": col("j"), "j": col("i")})],
        [("rename", "i"), ("with_columns", {"i": col("i_new")})],
        [("select", ["s", "i"]), ("with_columns", {"i": col("i") / 2})],
    ],
)
def test_simple_chains_are_recorded_and_equal(stages: list[tuple[str, Any]]) -> None:
    recorded: Any = RecordedDataFrame.over(ROWS)
    planned = daft.from_arrow(pa.Table.from_batches([ROWS]))
    for stage in stages:
        recorded, planned = apply(recorded, stage), apply(planned, stage)
    assert isinstance(recorded, RecordedDataFrame)
    assert recorded.recorded
    assert outcome(recorded.evaluate) == outcome(planned.to_arrow)
    assert outcome(recorded.to_arrow) == outcome(planned.to_arrow)


def test_select_takes_projections_lists_and_stars() -> None:
    recorded = RecordedDataFrame.over(ROWS)
    planned = daft.from_arrow(pa.Table.from_batches([ROWS]))
    for make in (
        lambda f: f.select("i", (col("i") + 1).alias("k")),
        lambda f: f.select(k=col("i") * 2, m=col("s")),
        lambda f: f.select("*"),
        lambda f: f.select(col("i") * 2),
        lambda f: f.select(lit(1)),
        lambda f: f[["i", "s"]],
        lambda f: f.select(f["i"], f["f"] + f["g"]),
    ):
        assert outcome(lambda make=make: _rows(make(recorded))) == outcome(
            lambda make=make: make(planned).to_arrow()
        )


@daft.func
def doubled(value: int) -> int:
    """Return twice a value: a UDF."""
    return value * 2


@pytest.mark.parametrize(
    "expression",
    [
        col("i").sum(),
        col("i").mean().over(Window().partition_by("b")),
        doubled(col("i")),
        col("i").count(),
        col("*"),
    ],
)
def test_an_aggregate_a_window_or_a_udf_is_not_row_wise(expression: Expression) -> None:
    assert columns_of(expression) is None
    assert columns_of(expression + 1) is None


def test_what_cannot_be_recorded_runs_as_the_plan() -> None:
    recorded = RecordedDataFrame.over(ROWS).with_column("k", col("i") * 2)
    planned = daft.from_arrow(pa.Table.from_batches([ROWS])).with_column("k", col("i") * 2)
    window = Window().partition_by("b").order_by("i")
    for make in (
        lambda f: f.where(col("k") > 2),
        lambda f: f.sort("i", desc=True),
        lambda f: f.groupby("b").agg(col("k").sum()).sort("b"),
        lambda f: f.with_column("n", col("k").sum().over(window)).sort("i"),
        lambda f: f.with_column("d", doubled(col("j"))),
        lambda f: f.join(f.select("i", col("f").alias("other")), on="i").sort("i"),
        lambda f: f.limit(2),
        lambda f: f.distinct().sort("i"),
        lambda f: f.agg(col("k").max()),
    ):
        assert outcome(lambda make=make: _rows(make(recorded))) == outcome(
            lambda make=make: make(planned).to_arrow()
        )


def test_a_recorded_frame_is_a_data_frame_in_every_way() -> None:
    frame: Any = RecordedDataFrame.over(ROWS).with_column("k", col("i") + 1)
    assert isinstance(frame, daft.DataFrame)
    assert frame.column_names == [*NAMES, "k"]
    assert [str(c) for c in frame.columns] == [f"col({n})" for n in [*NAMES, "k"]]
    assert frame.schema().column_names() == frame.column_names
    assert str(frame.schema()["k"].dtype) == "Int64"
    assert "k" in frame
    assert "z" not in frame
    assert frame.count_rows() == 5
    assert frame.to_pydict()["k"] == [2, -1, None, 8, 1]
    assert [row["k"] for row in frame.iter_rows()] == [2, -1, None, 8, 1]
    assert "k" in repr(frame)
    with pytest.raises(ValueError, match="z"):
        frame["z"]
    collected = frame.collect()
    assert len(collected) == 5
    assert collected.with_column("k", col("k") * 2).to_pydict()["k"] == [4, -2, None, 16, 2]
    frame.show()
    assert "Project" in str(RecordedDataFrame.over(ROWS).with_column("k", col("i")).explain() or "Project")


def test_functions_over_frames_are_recorded_with_what_they_do() -> None:
    def twice(frame: Any, name: str) -> Any:
        return frame.with_column(name, frame[name] * 2)

    for change in (
        lambda f: f.pipe(twice, "i"),
        lambda f: f.transform(twice, "i"),
        lambda f: twice(f[["i"]], "i"),
    ):
        frame: Any = change(RecordedDataFrame.over(ROWS))
        assert isinstance(frame, RecordedDataFrame)
        assert frame.evaluate().column("i").to_pylist() == [2, -4, None, 14, 0]


def test_an_empty_frame_keeps_its_types() -> None:
    empty = ROWS.slice(0, 0)
    recorded: Any = RecordedDataFrame.over(empty).with_column("k", col("i") / 2)
    assert [str(t) for t in recorded.evaluate().schema.types][-1] == "double"
    assert recorded.evaluate().num_rows == 0
