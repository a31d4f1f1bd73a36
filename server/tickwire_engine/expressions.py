"""Daft expressions without Daft's planner: which ones are row-wise, and what they make of a batch.

An expression is row-wise when each value depends on its own row only, and on nothing outside it: then it may be
evaluated on a `RecordBatch` or `MicroPartition` alone, which takes microseconds where a plan takes milliseconds.

Both give the same, but for one thing that a processor with an offset of 0 should not pay a plan for: the planner takes x + 0
and x - 0 for x, and so keeps a -0.0 that IEEE 754, and this, make 0.0.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from daft import DataType
from daft.daft import PyMicroPartition, PyRecordBatch
from daft.expressions import Expression
from daft.expressions.visitor import ExpressionVisitor
from daft.logical.schema import Schema
from daft.recordbatch import MicroPartition, RecordBatch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

LOCKED_ROWS = 4_096
"""Up to here evaluating takes less time than giving up the interpreter's lock and taking it again does."""

ROW_WISE_FUNCTIONS = frozenset(
    (
        # arithmetic and comparison
        *("plus", "minus", "multiply", "true_divide", "floor_divide", "modulus", "pow", "power"),
        *("negate", "abs", "sign", "pmod", "try_divide", "factorial"),
        *("equal", "not_equal", "less_than", "less_than_or_equal", "greater_than", "greater_than_or_equal"),
        *("eq_null_safe", "between", "is_in", "shift_left", "shift_right"),
        # logic and nulls
        *("and", "or", "xor", "not", "is_null", "not_null", "fill_null", "coalesce", "if_else"),
        *("is_nan", "is_inf", "not_nan", "fill_nan"),
        # mathematics
        *("sqrt", "cbrt", "exp", "expm1", "log", "ln", "log2", "log10", "log1p", "hypot"),
        *("sin", "cos", "tan", "csc", "sec", "cot", "sinh", "cosh", "tanh", "degrees", "radians"),
        *("arcsin", "arccos", "arctan", "atan2", "arcsinh", "arccosh", "arctanh"),
        *("ceil", "floor", "round", "clip", "bin", "hash"),
        # text
        *("upper", "lower", "capitalize", "reverse", "strip", "lstrip", "rstrip", "left", "right", "substr"),
        *("length", "length_bytes", "contains", "starts_with", "ends_with", "find", "like", "ilike"),
        *("regexp_match", "regexp_replace", "regexp_count", "extract", "replace", "translate", "normalize"),
        *("split", "split_part", "repeat", "lpad", "rpad", "concat_ws", "count_matches", "to_snake_case"),
        *("levenshtein_distance",),
        # times
        *("year", "quarter", "month", "day", "day_of_week", "day_of_month", "day_of_year", "week_of_year"),
        *("hour", "minute", "second", "millisecond", "microsecond", "nanosecond", "date", "time"),
        *("truncate", "date_add", "date_diff", "last_day", "add_months", "unix_date", "to_unix_epoch"),
        *("to_date", "to_datetime", "strftime"),
        *("total_days", "total_hours", "total_minutes", "total_seconds"),
        *("total_milliseconds", "total_microseconds", "total_nanoseconds"),
        # lists, structs and vectors
        *("list", "list_get", "list_contains", "list_count", "list_sum", "list_min", "list_max", "list_mean"),
        *("list_sort", "list_join", "list_bool_and", "list_bool_or", "list_append", "list_chunk", "slice"),
        *("list_distinct", "struct"),
        *("cosine_distance", "cosine_similarity", "euclidean_distance", "dot_product"),
    )
)
"""By the names that Daft's visitor tells; each is held against the planner by a test. Not here: fields of structs, which the
visitor does not open, and whatever reads a clock, random numbers, files or the network, or calls Python."""


class _NotRowWiseError(Exception):
    """An expression holds something that is not known to be row-wise."""


class _RowWise(ExpressionVisitor[None]):
    """Walks one expression, notes its columns, and raises `_NotRowWiseError` at anything that is not row-wise."""

    def __init__(self) -> None:
        self.columns: set[str] = set()

    def visit_col(self, name: str) -> None:
        if name == "*":
            raise _NotRowWiseError(name)
        self.columns.add(name)

    def visit_lit(self, value: Any) -> None:
        return

    def visit_alias(self, expr: Expression, alias: str) -> None:
        self.visit(expr)

    def visit_cast(self, expr: Expression, dtype: DataType) -> None:
        self.visit(expr)

    def visit_is_in(self, expr: Expression, items: list[Expression]) -> None:
        for each in (expr, *items):
            self.visit(each)

    def visit_function(self, name: str, args: list[Expression]) -> None:
        if name not in ROW_WISE_FUNCTIONS:
            raise _NotRowWiseError(name)
        for operand in _operands(args):
            self.visit(operand)

    def visit_coalesce(self, args: list[Expression]) -> None:
        for arg in args:
            self.visit(arg)


class _AsPlanned(_RowWise):
    """Raises at row-wise expressions too where the planner would make something else of them."""

    def __init__(self) -> None:
        super().__init__()
        self.exact: set[str] = set()
        """Columns that must hold no floating point numbers, or else the planner has the last word."""
        self.nodes = 0

    def visit(self, expr: Expression) -> None:
        self.nodes += 1
        super().visit(expr)

    def visit_is_in(self, expr: Expression, items: list[Expression]) -> None:
        # Plan and kernel are not of one mind about NaN, and about whether -0.0 is 0.
        if any(item.is_literal() and _is_nan_or_zero(item.as_py()) for item in items):
            name = expr.column_name() if expr.is_column() else None
            if not name:
                raise _NotRowWiseError("is_in")
            self.exact.add(name)
        super().visit_is_in(expr, items)

    def visit_function(self, name: str, args: list[Expression]) -> None:
        if name == "list" and not all(operand.is_column() for operand in _operands(args)):
            # The planner loses a list's constants where it lifts a common part out of the expression around it.
            raise _NotRowWiseError(name)
        super().visit_function(name, args)


def _operands(args: list[Any]) -> list[Expression]:
    return [item for arg in args for item in (arg if isinstance(arg, list) else [arg])]


def columns_of(
    expression: Any, *, is_exact: Callable[[str], bool] = lambda _: False
) -> frozenset[str] | None:
    """Return the columns that a row-wise expression reads, or None where only Daft's planner may evaluate it.

    Args:
        is_exact: Whether a column is known to hold no floating point numbers.
    """
    if not isinstance(expression, Expression):
        return None
    key = _Key(expression)
    found = _looked_through.get(key)
    if found is None:
        found, nodes = _look_through(expression)
        if nodes <= _KEPT_NODES:
            if len(_looked_through) >= _KEPT:
                _looked_through.clear()
            _looked_through[key] = found
    reads, exact = found
    return reads if reads is None or all(map(is_exact, exact)) else None


class _Key:
    """An expression as a key: `==` of expressions makes another one."""

    __slots__ = ("_expr",)

    def __init__(self, expression: Expression) -> None:
        self._expr = expression._expr

    def __hash__(self) -> int:
        return hash(self._expr)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Key) and self._expr._eq(other._expr)


_Found = tuple[frozenset[str] | None, frozenset[str]]
"""(The columns that an expression reads, or None; those of them that must be exact)."""

_looked_through: dict[_Key, _Found] = {}
"""A processor makes the same expressions in every tick; large ones, which may hold other constants then, are not kept."""
_KEPT = 1_024
_KEPT_NODES = 256


def _look_through(expression: Expression) -> tuple[_Found, int]:
    visitor = _AsPlanned()
    try:
        visitor.visit(expression)
    except (_NotRowWiseError, ValueError, AttributeError, RecursionError):
        # ValueError is Daft's own "visitor does not support ..." for aggregates, windows and UDFs.
        return (None, frozenset()), visitor.nodes
    return (frozenset(visitor.columns), frozenset(visitor.exact)), visitor.nodes


def _is_nan_or_zero(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and (value != value or value == 0)


class EvaluationError(Exception):
    """An expression cannot be evaluated on these types, or on one of these values; the text says why."""


def evaluate(batch: pa.RecordBatch, expressions: Mapping[str, Expression]) -> pa.RecordBatch:
    """Return one column for each of `expressions`, evaluated on the rows of `batch`.

    Args:
        batch: Its columns are what the expressions may read; it has at least one, which tells the number of rows.

    Raises:
        EvaluationError: Daft refuses them.
    """
    columns = computed(batch, [[expression.alias(name) for name, expression in expressions.items()]])
    return pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))


def computed(batch: pa.RecordBatch, stages: Sequence[Sequence[Expression]]) -> dict[str, pa.Array[Any]]:
    """Return the columns that the last of `stages` makes; each is projected from what the one before it made.

    Raises:
        EvaluationError: Daft refuses them.
    """
    # Only a partition is evaluated with the interpreter's lock given up.
    kind = PyRecordBatch if batch.num_rows <= LOCKED_ROWS else PyMicroPartition
    part = kind.from_arrow_record_batches([batch], _schema_of(batch)._schema)
    try:
        for projections in stages:
            part = part.eval_expression_list([projection._expr for projection in projections])
    except Exception as error:
        raise EvaluationError(_first_line(error)) from error
    except BaseException as error:
        if not is_panic(error):
            raise
        raise EvaluationError(_first_line(error)) from None
    rows = part.to_record_batch() if isinstance(part, PyMicroPartition) else part
    return {column.name(): column.to_arrow() for column in RecordBatch._from_pyrecordbatch(rows).columns()}


def is_panic(error: BaseException) -> bool:
    """Whether a library written in Rust panicked, as Daft does at an integer's division by zero.

    Python's binding makes no `Exception` of that; the thread and what was computed on are unharmed.
    """
    return type(error).__name__ == "PanicException"


def partition(batch: pa.RecordBatch) -> MicroPartition:
    """Return a batch as Daft evaluates it, without a copy."""
    return MicroPartition._from_pymicropartition(
        PyMicroPartition.from_arrow_record_batches([batch], _schema_of(batch)._schema)
    )


def _schema_of(batch: pa.RecordBatch) -> Schema:
    return daft_schema(tuple(batch.schema.names), tuple(batch.schema.types))


@lru_cache(maxsize=1024)
def daft_schema(names: tuple[str, ...], types: tuple[Any, ...]) -> Schema:
    """Describing a schema to Daft takes longer than evaluating a small batch does: do it once."""
    return Schema._from_field_name_and_types(
        [(name, DataType.from_arrow_type(kind)) for name, kind in zip(names, types, strict=True)]
    )


def is_floating(expression: Expression, schema: Schema) -> bool:
    """Whether an expression over the columns of `schema` gives floating point numbers; no, where Daft refuses it."""
    try:
        return bool(expression._to_field(schema).dtype in _FLOATS)
    except Exception:
        return False


_FLOATS = (DataType.float32(), DataType.float64())


def single_batch(table: pa.Table) -> pa.RecordBatch:
    """Return a table's rows as one batch."""
    batches = table.combine_chunks().to_batches()
    return batches[0] if batches else pa.RecordBatch.from_pylist([], schema=table.schema)


def _first_line(error: BaseException) -> str:
    text = str(error).splitlines()
    return text[0][:300] if text else type(error).__name__
