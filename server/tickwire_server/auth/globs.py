"""World globs: which worlds, by name, an actor may reach. ``*``, ``?`` and ``[...]`` as in a shell."""

from __future__ import annotations

import fnmatch
import re
from typing import TYPE_CHECKING

from tickwire_engine.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Iterable

_GLOB = re.compile(r"[a-z0-9_\-*?\[\]!]{1,128}")
_WILD = re.compile(r"[*?\[]")


class WorldGlobs:
    """An unchanging set of globs.

    Attributes:
        everything: Whether every name matches.
    """

    __slots__ = ("_match", "everything", "globs")

    def __init__(self, globs: Iterable[str]) -> None:
        self.globs = tuple(globs)
        self.everything = "*" in self.globs
        whole = "|".join(fnmatch.translate(glob) for glob in self.globs)
        # Without globs nothing matches, and an empty pattern would match everything.
        self._match = re.compile(whole or r"(?!)").match

    def match(self, name: str) -> bool:
        """Whether a world of that name is within."""
        return self.everything or self._match(name) is not None

    def covers(self, inner: str) -> bool:
        """Whether everything that the glob `inner` matches is within; in doubt it is not."""
        if self.everything or inner in self.globs:
            return True
        if not _WILD.search(inner):
            return self.match(inner)
        literal = _WILD.split(inner, maxsplit=1)[0]
        # "game-*" covers "game-eu-?": what follows a literal beginning is matched by the star, whatever it is.
        return any(
            glob.endswith("*") and not _WILD.search(glob[:-1]) and literal.startswith(glob[:-1])
            for glob in self.globs
        )


def check_globs(globs: Iterable[str], *, field: str) -> None:
    """Refuse what is no glob of world names.

    Raises:
        InvalidRequestError: One is none; `field` says which.
    """
    for index, glob in enumerate(globs):
        if not _GLOB.fullmatch(glob):
            raise InvalidRequestError(
                f"{glob!r} is no glob of world names: a-z, 0-9, _, - and the wildcards * ? [...]",
                field=f"{field}[{index}]",
            )
