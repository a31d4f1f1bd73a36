"""What a filter says about ticks and entities, so that a scan reads no more history than it has to.

DuckDB hands the filters of a scan over as an Arrow expression. Which values of a column it can hold for is found by
arithmetic on intervals; what is not understood restricts nothing, for the filter itself is applied to every row anyway.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import pyarrow as pa

Interval = tuple[int, int]
"""First and last value, both included."""
_LOWEST, _HIGHEST = -(1 << 63), (1 << 63) - 1
EVERYTHING: tuple[Interval, ...] = ((_LOWEST, _HIGHEST),)
_LINE = re.compile(r"^(call|field_ref|nested_field_ref|literal|options|end): '(.*)'$")
_MAX_BYTES = 4 << 20
_MAX_INTERVALS = 10_000
_FLIPPED = {
    "less": "greater",
    "less_equal": "greater_equal",
    "greater": "less",
    "greater_equal": "less_equal",
}


@dataclass(frozen=True, slots=True)
class Bounds:
    """Which values of the columns tick and entity_id can matter, as ascending intervals that do not touch."""

    ticks: tuple[Interval, ...] = EVERYTHING
    entity_ids: tuple[Interval, ...] = EVERYTHING

    def few_entities(self, most: int) -> list[int] | None:
        """Return the entities as a list, if there are no more than `most`; None: there are."""
        if sum(last - first + 1 for first, last in self.entity_ids) > most:
            return None
        return [value for first, last in self.entity_ids for value in range(first, last + 1)]


@dataclass(frozen=True, slots=True)
class Filter:
    """What is known of a filter.

    Attributes:
        columns: Those that it reads; None: not known.
    """

    bounds: Bounds
    columns: frozenset[str] | None


def read_filter(encoded: bytes) -> Filter:
    """Look into a serialised Arrow expression; no bytes are no filter."""
    if not encoded:
        return Filter(Bounds(), frozenset())
    if len(encoded) > _MAX_BYTES:
        return Filter(Bounds(), None)
    try:
        reader = pa.ipc.open_file(pa.py_buffer(encoded))
        values = reader.get_batch(0)
        lines = reader.schema.to_string(show_schema_metadata=True, truncate_metadata=False).splitlines()
        words = [match.groups() for match in map(_LINE.match, lines) if match]
        columns = frozenset(text for kind, text in words if kind == "field_ref")
        whole = not any(kind == "nested_field_ref" for kind, _ in words)
        tree = _tree(words[::-1], values)
    except (pa.ArrowInvalid, IndexError, ValueError, RecursionError):
        return Filter(Bounds(), None)
    return Filter(Bounds(_interval(tree, "tick"), _interval(tree, "entity_id")), columns if whole else None)


@dataclass(frozen=True, slots=True)
class _Call:
    name: str
    parts: tuple[_Node, ...]
    options: object = None


@dataclass(frozen=True, slots=True)
class _Column:
    name: str


@dataclass(frozen=True, slots=True)
class _Value:
    value: object


_Node = _Call | _Column | _Value


def _tree(words: list[tuple[str, ...]], values: pa.RecordBatch) -> _Node:
    """Build the tree of words in the order of a walk through it; consumes them from the end of the list."""
    kind, text = words.pop()
    if kind == "field_ref":
        return _Column(text)
    if kind == "literal":
        return _Value(values.column(int(text))[0].as_py())
    if kind != "call":
        raise ValueError(kind)
    parts: list[_Node] = []
    options: object = None
    while words[-1][0] != "end":
        if words[-1][0] == "options":
            options = values.column(int(words.pop()[1]))[0].as_py()
        else:
            parts.append(_tree(words, values))
    words.pop()
    return _Call(text, tuple(parts), options)


def _interval(node: _Node, column: str) -> tuple[Interval, ...]:
    """Return where `node` may be true, by the values of `column`."""
    if not isinstance(node, _Call):
        return EVERYTHING
    if node.name in ("and_kleene", "and"):
        return _both(_interval(node.parts[0], column), _interval(node.parts[1], column))
    if node.name in ("or_kleene", "or"):
        return _either(_interval(node.parts[0], column), _interval(node.parts[1], column))
    if node.name == "if_else" and node.parts[2] == _Value(None):
        return _interval(node.parts[1], column)
    if node.name == "is_in" and node.parts == (_Column(column),) and isinstance(node.options, dict):
        return _members(node.options.get("value_set"))
    if len(node.parts) == 2:
        return _compared(node, column)
    return EVERYTHING


def _compared(node: _Call, column: str) -> tuple[Interval, ...]:
    name, (left, right) = node.name, node.parts
    if right == _Column(column):
        name, left, right = _FLIPPED.get(name, name), right, left
    if left != _Column(column) or not isinstance(right, _Value) or type(right.value) is not int:
        return EVERYTHING
    value = right.value
    first, last = {
        "equal": (value, value),
        "less": (_LOWEST, value - 1),
        "less_equal": (_LOWEST, value),
        "greater": (value + 1, _HIGHEST),
        "greater_equal": (value, _HIGHEST),
    }.get(name, (_LOWEST, _HIGHEST))
    return ((first, last),) if first <= last else ()


def _members(values: object) -> tuple[Interval, ...]:
    if not isinstance(values, list) or not all(type(value) is int for value in values):
        return EVERYTHING
    return _merged([(value, value) for value in values])


def _either(one: tuple[Interval, ...], other: tuple[Interval, ...]) -> tuple[Interval, ...]:
    return _merged([*one, *other])


def _both(one: tuple[Interval, ...], other: tuple[Interval, ...]) -> tuple[Interval, ...]:
    found: list[Interval] = []
    i = j = 0
    while i < len(one) and j < len(other):
        first, last = max(one[i][0], other[j][0]), min(one[i][1], other[j][1])
        if first <= last:
            found.append((first, last))
        if one[i][1] < other[j][1]:
            i += 1
        else:
            j += 1
    return tuple(found)


def _merged(intervals: list[Interval]) -> tuple[Interval, ...]:
    merged: list[Interval] = []
    for first, last in sorted(intervals):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = merged[-1][0], max(merged[-1][1], last)
        else:
            merged.append((first, last))
    if len(merged) > _MAX_INTERVALS:
        return ((merged[0][0], merged[-1][1]),)
    return tuple(merged)
