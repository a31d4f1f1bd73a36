"""Reading an SQL text token by token: what every part of the parser stands on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tickwire_engine.errors import InvalidSqlError
from tickwire_engine.sql._tokens import Token, tokens

if TYPE_CHECKING:
    from daft.expressions import Expression

    from tickwire_engine.sql.columns import ColumnTypes

MAX_LENGTH = 65_536
"""Characters of an SQL text, whatever the limits of its sender are (`tickwire_engine.limits`)."""
MAX_DEPTH = 64
"""Parentheses, calls and operators inside one another."""


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """A part of the text, and how deep it goes."""

    expression: Expression
    depth: int = 1
    literal: Any = None
    """The value of a number, a string or a truth value."""


@dataclass(slots=True)
class Reader:
    """One text, and how far it was read; used once."""

    text: str
    column_type: ColumnTypes
    path: str
    """Where the text stands in the command, for errors."""
    columns: set[str] = field(default_factory=set)
    _tokens: list[Token] = field(default_factory=list)
    _next: int = 0
    _open: int = 0

    def _begin(self) -> None:
        if len(self.text) > MAX_LENGTH:
            raise InvalidSqlError(
                f"{self.path}: {len(self.text)} characters are more than {MAX_LENGTH}", field=self.path
            )
        self._tokens = list(tokens(self.text, field=self.path))

    def _peek(self) -> Token:
        return self._tokens[self._next]

    def _take(self) -> Token:
        token = self._tokens[self._next]
        self._next += 1
        return token

    def _accept(self, *words: str) -> bool:
        """Take the next tokens if they are `words`, one after another."""
        upcoming = self._tokens[self._next : self._next + len(words)]
        if [token.word for token in upcoming] != list(words):
            return False
        self._next += len(words)
        return True

    def _expect(self, word: str) -> None:
        token = self._peek()
        if not self._accept(word):
            raise self._error(token, f"expected {word}, not {token.text or 'the end'!r}")

    def _error(self, token: Token, what: str) -> InvalidSqlError:
        return InvalidSqlError(f"{self.path}: at character {token.position}: {what}", field=self.path)

    def _node(self, expression: Expression, *parts: Node) -> Node:
        depth = 1 + max((part.depth for part in parts), default=0)
        if depth > MAX_DEPTH:
            raise self._error(self._peek(), f"more than {MAX_DEPTH} levels deep: write it flatter")
        return Node(expression, depth)
