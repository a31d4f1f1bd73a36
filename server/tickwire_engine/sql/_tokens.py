"""The tokens of an SQL text."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tickwire_engine.errors import InvalidSqlError

if TYPE_CHECKING:
    from collections.abc import Iterator

_TOKEN = re.compile(
    r"""(?P<blank>\s+|--[^\n]*|/\*.*?\*/)
      | (?P<number>(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?)
      | (?P<string>'(?:[^']|'')*')
      | (?P<quoted>"[^"]+")
      | (?P<name>[^\W\d]\w*)
      | (?P<sign><>|!=|<=|>=|==|\|\||::|//|[-+*/%<>=(),.\[\]])
    """,
    re.VERBOSE | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Token:
    """A word of an SQL text.

    Attributes:
        kind: "number", "string", "quoted", "name", "sign", or "end".
        text: As it was written, quotes and all; upper case for names in `word`.
        position: Where it begins, in characters from 1.
    """

    kind: str
    text: str
    position: int

    @property
    def word(self) -> str:
        """The keyword or sign that this may be; "" for literals and quoted names."""
        if self.kind == "name":
            return self.text.upper()
        return self.text if self.kind == "sign" else ""


def tokens(text: str, *, field: str) -> Iterator[Token]:
    """Yield the tokens of `text`, comments and blanks left out, then one of kind "end".

    Raises:
        InvalidSqlError: A character that begins no token.
    """
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise InvalidSqlError(
                f"{field}: character {at + 1}, {text[at]!r}, begins nothing in SQL expressions", field=field
            )
        if match.lastgroup != "blank":
            assert match.lastgroup is not None
            yield Token(match.lastgroup, match.group(), at + 1)
        at = match.end()
    yield Token("end", "", len(text) + 1)
