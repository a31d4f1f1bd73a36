"""The functions of SQL texts: the whole list, by the names they are called with.

Each is row-wise and deterministic on every machine, and needs nothing but its arguments: no file, no network, no code of
anybody's, no clock, no randomness, no session time zone. None makes much out of little (as `repeat` and `replace`
would), so that a short text cannot fill the memory. Whatever is not here is refused.
"""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import daft.functions as daft_functions
from daft import DataType, lit
from daft.functions import when

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from daft.expressions import Expression


@dataclass(frozen=True, slots=True)
class SqlFunction:
    """A function: how many arguments it takes, and the Daft expression it stands for."""

    build: Callable[[Sequence[Expression]], Expression]
    least: int
    most: int


def _of(function: Callable[..., Expression], arguments: int = 1, *, most: int | None = None) -> SqlFunction:
    return SqlFunction(lambda given: function(*given), arguments, arguments if most is None else most)


_MANY = 32


def text_of(value: Expression) -> Expression:
    """Return a value as text."""
    return value.cast(DataType.string())


def joined(parts: Sequence[Expression]) -> Expression:
    """Return texts one after another; NULL if one is."""
    whole = text_of(parts[0])
    for part in parts[1:]:
        whole = arithmetic(operator.add, whole, text_of(part))
    return whole


def arithmetic(
    operation: Callable[[Expression, Expression], Expression], left: Expression, right: Expression
) -> Expression:
    """Return what an operator makes of two operands; both named alike: Daft loses the name where `left` is a NULL."""
    return operation(left.alias("value"), right.alias("value"))


def modulo(left: Expression, right: Expression) -> Expression:
    """Return the remainder; NULL where `right` is 0 (Daft's own would end the process's thread)."""
    return arithmetic(operator.mod, left, when(right == 0, lit(None)).otherwise(right))


def whole_division(left: Expression, right: Expression) -> Expression:
    """Return the quotient rounded to an integer; NULL where `right` is 0."""
    return arithmetic(operator.floordiv, left, when(right == 0, lit(None)).otherwise(right))


def chosen(condition: Expression, value: Expression, otherwise: Expression) -> Expression:
    """Return `value` where the condition holds; Daft itself makes NULL of a condition that is NULL, SQL does not."""
    return when(daft_functions.coalesce(condition, lit(False)), value).otherwise(otherwise)


def _null_if(given: Sequence[Expression]) -> Expression:
    value, unwanted = given
    return chosen(value == unwanted, lit(None), value)


def _substring(given: Sequence[Expression]) -> Expression:
    # SQL counts characters from 1, Daft from 0; 0 and less would be an offset from nowhere.
    start = daft_functions.columns_max(given[1] - 1, lit(0))
    return daft_functions.substr(given[0], start, *given[2:])


def _position(given: Sequence[Expression]) -> Expression:
    text, part = given
    return daft_functions.find(text, part) + 1


_f = daft_functions
FUNCTIONS: dict[str, SqlFunction] = {
    # Numbers
    "abs": _of(_f.abs),
    "sign": _of(_f.sign),
    "ceil": _of(_f.ceil),
    "ceiling": _of(_f.ceil),
    "floor": _of(_f.floor),
    "sqrt": _of(_f.sqrt),
    "cbrt": _of(_f.cbrt),
    "exp": _of(_f.exp),
    "ln": _of(_f.ln),
    "log2": _of(_f.log2),
    "log10": _of(_f.log10),
    "sin": _of(_f.sin),
    "cos": _of(_f.cos),
    "tan": _of(_f.tan),
    "asin": _of(_f.arcsin),
    "acos": _of(_f.arccos),
    "atan": _of(_f.arctan),
    "atan2": _of(_f.arctan2, 2),
    "sinh": _of(_f.sinh),
    "cosh": _of(_f.cosh),
    "tanh": _of(_f.tanh),
    "degrees": _of(_f.degrees),
    "radians": _of(_f.radians),
    "hypot": _of(_f.hypot, 2),
    "mod": SqlFunction(lambda given: modulo(*given), 2, 2),
    "pi": SqlFunction(lambda _: lit(math.pi), 0, 0),
    "least": SqlFunction(lambda given: _f.columns_min(*given), 2, _MANY),
    "greatest": SqlFunction(lambda given: _f.columns_max(*given), 2, _MANY),
    # Choices and nulls
    "coalesce": _of(_f.coalesce, 2, most=_MANY),
    "nullif": SqlFunction(_null_if, 2, 2),
    "if": SqlFunction(lambda given: chosen(*given), 3, 3),
    "isnan": _of(_f.is_nan),
    "isinf": _of(_f.is_inf),
    # Text
    "upper": _of(_f.upper),
    "lower": _of(_f.lower),
    "length": _of(_f.length),
    "trim": _of(_f.strip),
    "ltrim": _of(_f.lstrip),
    "rtrim": _of(_f.rstrip),
    "reverse": _of(_f.reverse),
    "left": _of(_f.left, 2),
    "right": _of(_f.right, 2),
    "substr": SqlFunction(_substring, 2, 3),
    "substring": SqlFunction(_substring, 2, 3),
    "concat": SqlFunction(joined, 1, _MANY),
    "contains": _of(_f.contains, 2),
    "starts_with": _of(_f.startswith, 2),
    "ends_with": _of(_f.endswith, 2),
    "strpos": SqlFunction(_position, 2, 2),
    "regexp_matches": _of(_f.regexp, 2),
    # Times
    "year": _of(_f.year),
    "quarter": _of(_f.quarter),
    "month": _of(_f.month),
    "day": _of(_f.day),
    "day_of_week": _of(_f.day_of_week),
    "day_of_year": _of(_f.day_of_year),
    "hour": _of(_f.hour),
    "minute": _of(_f.minute),
    "second": _of(_f.second),
    "millisecond": _of(_f.millisecond),
    "microsecond": _of(_f.microsecond),
    "total_seconds": _of(_f.total_seconds),
    "total_milliseconds": _of(_f.total_milliseconds),
    "total_microseconds": _of(_f.total_microseconds),
    # Lists and vectors
    "list_contains": _of(_f.list_contains, 2),
    "list_count": _of(_f.list_count),
    "list_sum": _of(_f.list_sum),
    "list_min": _of(_f.list_min),
    "list_max": _of(_f.list_max),
    "list_mean": _of(_f.list_mean),
    "list_get": SqlFunction(lambda given: _f.get(given[0], given[1]), 2, 2),
    "cosine_distance": _of(_f.cosine_distance, 2),
    "euclidean_distance": _of(_f.euclidean_distance, 2),
    "dot_product": _of(_f.dot_product, 2),
}
