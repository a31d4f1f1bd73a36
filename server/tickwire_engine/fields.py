"""Types of fields in text: "float64", "list<int32>", "struct<x: float64, tag: string>", as `Field.type` has them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from tickwire_engine.errors import SchemaMismatchError

if TYPE_CHECKING:
    from collections.abc import Sequence

_FLAT: dict[str, pa.DataType] = {
    "bool": pa.bool_(),
    "int8": pa.int8(),
    "int16": pa.int16(),
    "int32": pa.int32(),
    "int64": pa.int64(),
    "uint8": pa.uint8(),
    "uint16": pa.uint16(),
    "uint32": pa.uint32(),
    "uint64": pa.uint64(),
    "float32": pa.float32(),
    "float": pa.float32(),
    "float64": pa.float64(),
    "double": pa.float64(),
    "string": pa.string(),
    "utf8": pa.string(),
    "binary": pa.binary(),
    "date32": pa.date32(),
    "timestamp": pa.timestamp("us", tz="UTC"),
    "duration": pa.duration("us"),
}
_TOKEN = re.compile(r"\s*([A-Za-z_][A-Za-z0-9_=]*|\d+|[<>\[\](),:])")
_MAX_DEPTH = 16


def parse_type(text: str, *, path: str) -> pa.DataType:
    """Return the Arrow type of a text.

    Raises:
        SchemaMismatchError: It is none that goes into a column; the error's field is `path`.
    """
    tokens: list[str] = []
    at = 0
    while at < len(text.rstrip()):
        found = _TOKEN.match(text, at)
        if found is None:
            raise _no_type(text, path)
        tokens.append(found[1])
        at = found.end()
    reader = _Reader(tokens, text, path)
    kind = reader.type(0)
    if reader.left:
        raise _no_type(text, path)
    return kind


def type_text(kind: Any) -> str:
    """Return a type as text that `parse_type` reads back."""
    if pa.types.is_struct(kind):
        inside = (f"{f.name}: {type_text(f.type)}" for f in (kind.field(i) for i in range(kind.num_fields)))
        return f"struct<{', '.join(inside)}>"
    if pa.types.is_fixed_size_list(kind):
        return f"fixed_size_list<{type_text(kind.value_type)}>[{kind.list_size}]"
    if pa.types.is_list(kind):
        return f"list<{type_text(kind.value_type)}>"
    if pa.types.is_timestamp(kind):
        return "timestamp[us, UTC]"
    names = {pa.float32(): "float32", pa.float64(): "float64", pa.date32(): "date32"}
    return names.get(kind, str(kind))


class _Reader:
    """Reads one type off a list of tokens."""

    def __init__(self, tokens: Sequence[str], text: str, path: str) -> None:
        self._tokens = list(reversed(tokens))
        self._text = text
        self._path = path

    @property
    def left(self) -> bool:
        return bool(self._tokens)

    def type(self, depth: int) -> pa.DataType:
        name = self._next()
        if depth > _MAX_DEPTH:
            raise _no_type(self._text, self._path)
        if name == "list":
            return pa.list_(self._item(depth))
        if name == "fixed_size_list":
            item = self._item(depth)
            self._expect("[")
            size = self._number()
            self._expect("]")
            if not 0 < size <= 1 << 16:
                raise _no_type(self._text, self._path)
            return pa.list_(item, size)
        if name == "struct":
            return pa.struct(self._fields(depth))
        if name == "decimal128":
            return self._decimal()
        if name not in _FLAT:
            raise _no_type(self._text, self._path)
        if name == "date32" and self._peek() == "[":
            # As Arrow itself writes it: date32[day].
            self._expect("[")
            self._expect("day")
            self._expect("]")
        if name in ("timestamp", "duration") and self._peek() == "[":
            self._unit(name)
        return _FLAT[name]

    def _item(self, depth: int) -> pa.DataType:
        self._expect("<")
        if self._peek(1) == ":":
            # As Arrow itself writes it: list<item: int32>.
            self._next()
            self._next()
        item = self.type(depth + 1)
        self._expect(">")
        return item

    def _fields(self, depth: int) -> list[pa.Field[Any]]:
        self._expect("<")
        fields: list[pa.Field[Any]] = []
        while True:
            name = self._next()
            self._expect(":")
            fields.append(pa.field(name, self.type(depth + 1)))
            if self._peek() != ",":
                break
            self._next()
        self._expect(">")
        if len({field.name for field in fields}) < len(fields):
            raise _no_type(self._text, self._path)
        return fields

    def _decimal(self) -> pa.DataType:
        self._expect("(")
        precision = self._number()
        self._expect(",")
        scale = self._number()
        self._expect(")")
        if not 1 <= precision <= 38 or scale > precision:
            raise _no_type(self._text, self._path)
        return pa.decimal128(precision, scale)

    def _unit(self, name: str) -> None:
        self._expect("[")
        self._expect("us")
        if name == "timestamp" and self._peek() == ",":
            self._next()
            if self._next() not in ("UTC", "tz=UTC"):
                raise _no_type(self._text, self._path)
        self._expect("]")

    def _number(self) -> int:
        text = self._next()
        if not text.isdecimal() or len(text) > 9:
            raise _no_type(self._text, self._path)
        return int(text)

    def _expect(self, token: str) -> None:
        if self._next() != token:
            raise _no_type(self._text, self._path)

    def _peek(self, ahead: int = 0) -> str:
        return self._tokens[-1 - ahead] if ahead < len(self._tokens) else ""

    def _next(self) -> str:
        if not self._tokens:
            raise _no_type(self._text, self._path)
        return self._tokens.pop()


def _no_type(text: str, path: str) -> SchemaMismatchError:
    return SchemaMismatchError(
        f"{path}: {text[:200]!r} is no type of a field; there are {', '.join(sorted(_FLAT))}, decimal128(p, s), "
        "list<T>, fixed_size_list<T>[n] and struct<name: T, ...>",
        field=path,
    )
