"""From an SQL text to a Daft expression: precedence climbing over tokens, and nothing executed on the way."""

from __future__ import annotations

import operator
from functools import partial
from typing import TYPE_CHECKING

from daft import lit

from tickwire_engine.sql._functions import arithmetic, joined, modulo, whole_division
from tickwire_engine.sql._operands import Operands
from tickwire_engine.sql._reader import MAX_DEPTH, Node

if TYPE_CHECKING:
    from collections.abc import Callable

    from daft.expressions import Expression

_BINARY: dict[str, tuple[int, Callable[[Expression, Expression], Expression]]] = {
    **dict.fromkeys(("=", "=="), (4, lambda a, b: a == b)),
    **dict.fromkeys(("<>", "!="), (4, lambda a, b: a != b)),
    "<": (4, lambda a, b: a < b),
    "<=": (4, lambda a, b: a <= b),
    ">": (4, lambda a, b: a > b),
    ">=": (4, lambda a, b: a >= b),
    "||": (5, lambda a, b: joined((a, b))),
    "+": (6, partial(arithmetic, operator.add)),
    "-": (6, partial(arithmetic, operator.sub)),
    "*": (7, partial(arithmetic, operator.mul)),
    "/": (7, partial(arithmetic, operator.truediv)),
    "//": (7, whole_division),
    "%": (7, modulo),
}
_OR, _AND, _NOT, _COMPARED = 1, 2, 3, 4
_PREDICATES = frozenset(("IS", "IN", "BETWEEN", "LIKE", "ILIKE", "NOT"))


class Parser(Operands):
    """One text; used once."""

    __slots__ = ()

    def parse(self) -> Expression:
        """Return the expression that the whole text is.

        Raises:
            InvalidSqlError: It is none, or holds what is not allowed.
            UnknownComponentError: A column of a component that is not registered.
        """
        self._begin()
        node = self._expression(0)
        token = self._peek()
        if token.kind != "end":
            raise self._error(token, f"expected the end, not {token.text!r}")
        return node.expression

    def _expression(self, binding: int) -> Node:
        """Parse what binds tighter than `binding`."""
        self._open += 1
        if self._open > MAX_DEPTH:
            raise self._error(self._peek(), f"more than {MAX_DEPTH} levels deep: write it flatter")
        left = self._not() if self._accept("NOT") else self._operand()
        while True:
            token = self._peek()
            if token.word in ("AND", "OR"):
                own = _AND if token.word == "AND" else _OR
                if own <= binding:
                    break
                left = self._chain(left, token.word, own)
            elif token.word in _PREDICATES:
                if binding >= _COMPARED:
                    break
                left = self._predicate(left)
            elif token.word in _BINARY:
                own, build = _BINARY[token.word]
                if own <= binding:
                    break
                self._take()
                right = self._expression(own)
                sides = (
                    self._compared(left, right) if own == _COMPARED else (left.expression, right.expression)
                )
                left = self._node(build(*sides), left, right)
            else:
                break
        self._open -= 1
        return left

    def _chain(self, first: Node, word: str, binding: int) -> Node:
        """Parse ``a AND b AND ...``; as a balanced tree, so that long lists of conditions are not deep."""
        parts = [first]
        while self._accept(word):
            parts.append(self._expression(binding))
        return self._tree(word, parts)

    def _tree(self, word: str, parts: list[Node]) -> Node:
        while len(parts) > 1:
            pairs = [parts[i : i + 2] for i in range(0, len(parts), 2)]
            parts = [self._joined(word, *pair) if len(pair) == 2 else pair[0] for pair in pairs]
        return parts[0]

    def _joined(self, word: str, one: Node, other: Node) -> Node:
        both = one.expression & other.expression if word == "AND" else one.expression | other.expression
        return self._node(both, one, other)

    def _not(self) -> Node:
        inner = self._expression(_NOT)
        return self._node(~inner.expression, inner)

    def _predicate(self, left: Node) -> Node:
        token = self._peek()
        if self._accept("IS"):
            negated = self._accept("NOT")
            return self._is(left, negated=negated)
        negated = self._accept("NOT")
        if self._accept("IN"):
            node = self._in(left)
        elif self._accept("BETWEEN"):
            low = self._expression(_COMPARED)
            self._expect("AND")
            high = self._expression(_COMPARED)
            value, lowest, highest = self._compared(left, low, high)
            between = (value >= lowest) & (value <= highest)
            node = self._node(between, left, low, high)
        elif self._accept("LIKE"):
            pattern = self._expression(_COMPARED)
            node = self._node(left.expression.like(pattern.expression), left, pattern)
        elif self._accept("ILIKE"):
            pattern = self._expression(_COMPARED)
            node = self._node(left.expression.ilike(pattern.expression), left, pattern)
        else:
            raise self._error(token, "expected IN, BETWEEN, LIKE or ILIKE after NOT")
        return self._node(~node.expression, node) if negated else node

    def _is(self, left: Node, *, negated: bool) -> Node:
        token = self._take()
        value = left.expression
        if token.word == "NULL":
            found = value.not_null() if negated else value.is_null()
            return self._node(found, left)
        if token.word in ("TRUE", "FALSE"):
            found = value.eq_null_safe(lit(token.word == "TRUE"))
        elif token.word == "DISTINCT":
            self._expect("FROM")
            right = self._expression(_COMPARED)
            one, other = self._compared(left, right)
            same = one.eq_null_safe(other)
            return self._node(same if negated else ~same, left, right)
        else:
            raise self._error(token, "expected NULL, TRUE, FALSE or DISTINCT FROM after IS")
        return self._node(~found if negated else found, left)

    def _in(self, left: Node) -> Node:
        self._expect("(")
        items = self._list(")")
        if not items:
            raise self._error(self._peek(), "IN needs a value")
        fixed = [item for item in items if item.literal is not None]
        kinds = {
            float if isinstance(i.literal, int) and not isinstance(i.literal, bool) else type(i.literal)
            for i in fixed
        }
        if len(kinds) > 1:
            raise self._error(self._peek(), "the values of IN must be of one type")
        parts = [self._equal(left, item) for item in items if item.literal is None]
        if fixed:
            values = [float(i.literal) if _has_fraction(fixed) else i.literal for i in fixed]
            (value,) = self._compared(left)
            parts.append(self._node(value.is_in(values), left))
        return self._tree("OR", parts)


def _has_fraction(items: list[Node]) -> bool:
    return any(isinstance(item.literal, float) for item in items)
