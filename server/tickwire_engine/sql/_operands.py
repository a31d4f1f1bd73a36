"""The operands of SQL expressions: literals, columns, calls, CASE and casts."""

from __future__ import annotations

import datetime as dt
import math
import re
from abc import abstractmethod
from typing import TYPE_CHECKING

import pyarrow as pa
from daft import DataType, col, lit
from daft.functions import fill_nan, get

from tickwire_engine.errors import SchemaMismatchError, TickwireError
from tickwire_engine.expressions import daft_schema, is_floating
from tickwire_engine.sql._functions import FUNCTIONS, chosen, text_of
from tickwire_engine.sql._reader import Node, Reader
from tickwire_engine.values import to_column

if TYPE_CHECKING:
    from daft.expressions import Expression

    from tickwire_engine.sql._tokens import Token

_RESERVED = frozenset(
    (
        *("AND", "OR", "NOT", "IS", "IN", "BETWEEN", "LIKE", "ILIKE"),
        *("CASE", "WHEN", "THEN", "ELSE", "END", "AS"),
        *("SELECT", "FROM", "WHERE", "EXISTS", "UNION", "OVER", "DISTINCT", "GROUP", "ORDER", "LIMIT"),
    )
)
_PARTS = frozenset(
    ("YEAR", "QUARTER", "MONTH", "DAY", "HOUR", "MINUTE", "SECOND", "MILLISECOND", "MICROSECOND")
)
_TIME_LITERALS: dict[str, pa.DataType] = {
    "TIMESTAMP": pa.timestamp("us", "UTC"),
    "DATE": pa.date32(),
    "INTERVAL": pa.duration("us"),
}
TYPES: dict[str, DataType] = {
    **dict.fromkeys(("BOOLEAN", "BOOL"), DataType.bool()),
    **dict.fromkeys(("TINYINT", "INT8"), DataType.int8()),
    **dict.fromkeys(("SMALLINT", "INT16"), DataType.int16()),
    **dict.fromkeys(("INTEGER", "INT", "INT32"), DataType.int32()),
    **dict.fromkeys(("BIGINT", "INT64"), DataType.int64()),
    "UINT8": DataType.uint8(),
    "UINT16": DataType.uint16(),
    "UINT32": DataType.uint32(),
    "UINT64": DataType.uint64(),
    **dict.fromkeys(("REAL", "FLOAT32"), DataType.float32()),
    **dict.fromkeys(("DOUBLE", "FLOAT", "FLOAT64"), DataType.float64()),
    **dict.fromkeys(("TEXT", "VARCHAR", "STRING", "UTF8"), DataType.string()),
    "DATE": DataType.date(),
    "TIMESTAMP": DataType.timestamp("us", "UTC"),
}


SIGNED = 8
"""How tightly a sign binds."""


class Operands(Reader):
    """The grammar's inner half; the operators are the parser's."""

    __slots__ = ()

    @abstractmethod
    def _expression(self, binding: int) -> Node:
        """Parse what binds tighter than `binding`."""

    def _operand(self) -> Node:
        node = self._primary()
        while self._accept("::"):
            node = self._cast(node)
        return node

    def _primary(self) -> Node:
        token = self._take()
        if token.kind == "number":
            return self._number(token, token.text)
        if token.kind == "string":
            value = token.text[1:-1].replace("''", "'")
            return Node(lit(value), literal=value)
        if token.kind == "quoted":
            return self._column(token, token.text[1:-1])
        if token.word == "(":
            inner = self._expression(0)
            self._expect(")")
            return Node(inner.expression, inner.depth)
        if token.word == "-":
            following = self._peek()
            if following.kind == "number":
                self._take()
                return self._number(following, "-" + following.text)
            inner = self._expression(SIGNED)
            # Not negate(): it has no unsigned numbers. Not 0 - x: it has no -0.0.
            return self._node(lit(-1) * inner.expression, inner)
        if token.word == "+":
            return self._expression(SIGNED)
        if token.kind == "name":
            return self._named(token)
        raise self._error(token, f"expected a value, not {token.text or 'the end'!r}")

    def _named(self, token: Token) -> Node:
        word = token.word
        if word in ("TRUE", "FALSE"):
            return Node(lit(word == "TRUE"), literal=word == "TRUE")
        if word == "NULL":
            return Node(lit(None))
        if word == "CASE":
            return self._case()
        following = self._peek()
        if following.word == "(":
            if word in ("CAST", "TRY_CAST"):
                return self._cast_call()
            if word == "EXTRACT":
                return self._extract()
            if word not in _RESERVED:
                return self._call(token)
        if word in _TIME_LITERALS and following.kind == "string":
            return self._time(self._take(), _TIME_LITERALS[word])
        if word in _RESERVED:
            raise self._error(token, f"{word} has no place here: only an expression over one row is taken")
        return self._column(token, token.text)

    def _number(self, token: Token, text: str) -> Node:
        value: int | float
        if re.fullmatch(r"-?\d+", text):
            value = int(text)
            if not -(1 << 63) <= value < 1 << 63:
                raise self._error(token, f"{text} does not fit 64 bits")
        else:
            value = float(text) + 0.0  # not -0.0
        return Node(lit(value), literal=value)

    def _time(self, token: Token, kind: pa.DataType) -> Node:
        try:
            value = to_column(token.text[1:-1], kind, nullable=False, path=self.path)
        except SchemaMismatchError as error:
            raise self._error(token, error.message.removeprefix(f"{self.path}: ")) from None
        assert isinstance(value, dt.date | dt.timedelta)
        # Daft writes the zone of a literal as +00:00, and a column's as UTC, and takes them for two.
        return Node(lit(value).cast(DataType.from_arrow_type(kind)))

    def _column(self, token: Token, name: str) -> Node:
        if self._peek().word == "." and "__" not in name:
            self._take()
            inner = self._take().text
            raise self._error(token, f"write {name.lower()}__{inner}, not {name}.{inner}")
        try:
            kind = self.column_type(name)
        except TickwireError as error:
            error.field = self.path
            error.message = f"{self.path}: at character {token.position}: {error.message}"
            error.args = (error.message,)
            raise
        self.columns.add(name)
        node = Node(col(name))
        while self._accept("."):
            part = self._take()
            if not pa.types.is_struct(kind) or kind.get_field_index(part.text) < 0:
                raise self._error(part, f"{name} has no field {part.text!r}: it is {kind}")
            kind = kind.field(part.text).type
            node = self._node(get(node.expression, part.text), node)
        return node

    def _call(self, token: Token) -> Node:
        name = token.text.lower()
        function = FUNCTIONS.get(name)
        if function is None:
            raise self._error(
                token, f"there is no function {name}; allowed are {', '.join(sorted(FUNCTIONS))}"
            )
        self._expect("(")
        given = self._list(")")
        if not function.least <= len(given) <= function.most:
            wanted = str(function.least)
            if function.least != function.most:
                wanted += f" to {function.most}"
            raise self._error(token, f"{name} takes {wanted} arguments, not {len(given)}")
        try:
            if name == "nullif":
                expression = chosen(self._equal(*given).expression, lit(None), given[0].expression)
            else:
                expression = function.build([part.expression for part in given])
        except (TypeError, ValueError) as error:
            raise self._error(token, f"{name}: {error}") from None
        return self._node(expression, *given)

    def _case(self) -> Node:
        subject = None if self._peek().word == "WHEN" else self._expression(0)
        branches: list[tuple[Node, Node]] = []
        while self._accept("WHEN"):
            condition = self._expression(0)
            if subject is not None:
                condition = self._equal(subject, condition)
            self._expect("THEN")
            branches.append((condition, self._expression(0)))
        if not branches:
            raise self._error(self._peek(), "CASE needs WHEN")
        whole = self._expression(0) if self._accept("ELSE") else Node(lit(None))
        self._expect("END")
        for condition, value in reversed(branches):
            branch = chosen(condition.expression, value.expression, whole.expression)
            whole = self._node(branch, condition, value, whole)
        return whole

    def _cast_call(self) -> Node:
        self._expect("(")
        inner = self._expression(0)
        self._expect("AS")
        node = self._cast(inner)
        self._expect(")")
        return node

    def _cast(self, inner: Node) -> Node:
        token = self._take()
        kind = TYPES.get(token.word)
        if kind is None:
            raise self._error(
                token, f"there is no type {token.text!r}; there are {', '.join(sorted(TYPES)).lower()}"
            )
        if token.word == "DOUBLE":
            self._accept("PRECISION")
        cast = text_of(inner.expression) if kind == DataType.string() else inner.expression.cast(kind)
        return self._node(cast, inner)

    def _extract(self) -> Node:
        self._expect("(")
        part = self._take()
        if part.word not in _PARTS:
            raise self._error(
                part, f"no part of a time: {part.text!r}; there are {', '.join(sorted(_PARTS)).lower()}"
            )
        self._expect("FROM")
        inner = self._expression(0)
        self._expect(")")
        return self._node(FUNCTIONS[part.word.lower()].build([inner.expression]), inner)

    def _equal(self, one: Node, other: Node) -> Node:
        sides = self._compared(one, other)
        return self._node(sides[0] == sides[1], one, other)

    def _compared(self, *nodes: Node) -> list[Expression]:
        """Return what to compare; to Daft -0.0 is less than 0.0, and a NaN's sign counts. In SQL each is one number."""
        fields = [pa.field(name, self.column_type(name)) for name in self.columns]
        schema = daft_schema(tuple(f.name for f in fields), tuple(f.type for f in fields))
        return [
            fill_nan(node.expression + 0.0, lit(math.nan))
            if node.literal is None and is_floating(node.expression, schema)
            else node.expression
            for node in nodes
        ]

    def _list(self, end: str) -> list[Node]:
        items: list[Node] = []
        if self._accept(end):
            return items
        while True:
            items.append(self._expression(0))
            if self._accept(end):
                return items
            self._expect(",")
