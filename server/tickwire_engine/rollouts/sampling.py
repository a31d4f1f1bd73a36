"""Where the initial conditions of an episode are drawn from: distributions over the columns of components.

    {"uniform": {"low": -1, "high": 1}}            reals of [low, high); for integer columns integers of [low, high]
    {"normal": {"mean": 0, "std": 2}}              rounded for integer columns
    {"choice": {"values": ["a", "b"], "weights": [1, 3]}}
    {"table": {"values": [0.1, 0.2, 0.3]}}         the c-th copy takes the c-th value, around and around

Each entity that has the column draws for itself; with ``"per": "copy"`` beside the distribution, all of a copy's entities
get the one value that the copy draws. `table` is always drawn per copy. Pure functions of a generator.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pyarrow as pa

from tickwire_engine.errors import InvalidCommandError

if TYPE_CHECKING:
    from tickwire_engine.component import ComponentCatalog

_FIELDS = {
    "uniform": ("low", "high"),
    "normal": ("mean", "std"),
    "choice": ("values", "weights"),
    "table": ("values",),
}


@dataclass(frozen=True, slots=True)
class Distribution:
    """What a column is drawn from.

    Attributes:
        kind: "uniform", "normal", "choice" or "table".
        type: The column's type.
        numbers: The parameters of "uniform" and "normal".
        values: Those of "choice" and "table", in the column's type.
        weights: Of `values`; they sum up to 1.
        per_copy: All entities of a copy get one value.
    """

    kind: str
    type: pa.DataType
    numbers: tuple[float, float] = (0.0, 1.0)
    values: pa.Array[Any] | None = None
    weights: tuple[float, ...] | None = None
    per_copy: bool = False

    def draw(self, generator: np.random.Generator, count: int, copy: int) -> pa.Array[Any]:
        """Draw values for `count` entities of a copy, in the column's type."""
        if self.values is not None:
            picked = self._pick(generator, count, copy)
            return self.values.take(pa.array(picked, pa.int64()))
        first, second = self.numbers
        size = 1 if self.per_copy else count
        drawn: np.ndarray
        if pa.types.is_integer(self.type):
            if self.kind == "uniform":
                drawn = generator.integers(int(first), int(second), size=size, endpoint=True)
            else:
                drawn = np.rint(generator.normal(first, second, size)).astype(np.int64)
        elif self.kind == "uniform":
            drawn = generator.uniform(first, second, size)
        else:
            drawn = generator.normal(first, second, size)
        return pa.array(np.repeat(drawn, count) if self.per_copy else drawn).cast(self.type)

    def _pick(self, generator: np.random.Generator, count: int, copy: int) -> np.ndarray:
        assert self.values is not None
        if self.kind == "table":
            return np.full(count, copy % len(self.values), np.int64)
        size = 1 if self.per_copy else count
        picked: np.ndarray = generator.choice(len(self.values), size=size, p=self.weights)
        return np.repeat(picked, count) if self.per_copy else picked


def parse_distribution(column: str, given: Any, catalog: ComponentCatalog, path: str) -> Distribution:
    """Read the distribution of a column.

    Raises:
        InvalidCommandError: There is no such column, or the distribution does not fit it.
    """
    kind_of_column = _column_type(column, catalog, path)
    if not isinstance(given, Mapping):
        raise InvalidCommandError(f"{path}: expected an object", field=path)
    kinds = [kind for kind in _FIELDS if kind in given]
    unknown = given.keys() - _FIELDS.keys() - {"per"}
    if len(kinds) != 1 or unknown:
        raise InvalidCommandError(
            f"{path} needs one of {', '.join(_FIELDS)}, and beside it at most `per`", field=path
        )
    (kind,) = kinds
    body = given[kind]
    if not isinstance(body, Mapping) or body.keys() - set(_FIELDS[kind]):
        raise InvalidCommandError(f"{path}.{kind} takes {', '.join(_FIELDS[kind])}", field=f"{path}.{kind}")
    per = given.get("per", "copy" if kind == "table" else "entity")
    if per not in ("copy", "entity") or (kind == "table" and per == "entity"):
        raise InvalidCommandError(
            f'{path}.per is "entity" or "copy"; a table\'s is "copy"', field=f"{path}.per"
        )
    if kind in ("choice", "table"):
        values = _values(body, kind_of_column, f"{path}.{kind}")
        weights = _weights(body, len(values), f"{path}.{kind}") if kind == "choice" else None
        return Distribution(kind, kind_of_column, values=values, weights=weights, per_copy=per == "copy")
    if not (pa.types.is_integer(kind_of_column) or pa.types.is_floating(kind_of_column)):
        raise InvalidCommandError(f"{path}: {column} is {kind_of_column}: use choice or table", field=path)
    numbers = _numbers(body, kind, f"{path}.{kind}")
    return Distribution(kind, kind_of_column, numbers, per_copy=per == "copy")


def _column_type(column: str, catalog: ComponentCatalog, path: str) -> pa.DataType:
    for entry in catalog:
        for field in entry.prefixed_schema:
            if field.name == column:
                return cast("pa.DataType", field.type)
    raise InvalidCommandError(
        f"{path}: no component has a column {column!r}; columns are component__field, as position__x",
        field=path,
    )


def _numbers(body: Mapping[str, Any], kind: str, path: str) -> tuple[float, float]:
    defaults = {"low": 0.0, "high": 1.0, "mean": 0.0, "std": 1.0}
    found = []
    for name in _FIELDS[kind]:
        value = body.get(name, defaults[name])
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < float("inf"):
            raise InvalidCommandError(f"{path}.{name} must be a finite number", field=f"{path}.{name}")
        found.append(float(value))
    first, second = found
    if kind == "uniform" and first > second:
        raise InvalidCommandError(f"{path}: low is greater than high", field=f"{path}.low")
    if kind == "normal" and second < 0:
        raise InvalidCommandError(f"{path}.std must not be negative", field=f"{path}.std")
    return first, second


def _values(body: Mapping[str, Any], kind: pa.DataType, path: str) -> pa.Array[Any]:
    given = body.get("values")
    if not isinstance(given, Sequence) or isinstance(given, str) or not given:
        raise InvalidCommandError(
            f"{path}.values must be a list with something in it", field=f"{path}.values"
        )
    if pa.types.is_integer(kind):
        if not all(isinstance(v, int) or (isinstance(v, float) and v.is_integer()) for v in given):
            raise InvalidCommandError(f"{path}.values are not all {kind}", field=f"{path}.values")
        given = [int(v) for v in given]
    try:
        return pa.array(list(given), kind)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        raise InvalidCommandError(f"{path}.values are not all {kind}", field=f"{path}.values") from None


def _weights(body: Mapping[str, Any], count: int, path: str) -> tuple[float, ...] | None:
    given = body.get("weights")
    if given is None:
        return None
    valid = (
        isinstance(given, Sequence)
        and len(given) == count
        and all(isinstance(w, int | float) and 0 <= w < float("inf") for w in given)
        and sum(given) > 0
    )
    if not valid:
        raise InvalidCommandError(
            f"{path}.weights must be as many as values, none negative, not all 0", field=f"{path}.weights"
        )
    total = float(sum(given))
    return tuple(float(w) / total for w in given)
