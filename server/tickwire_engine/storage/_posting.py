"""The outbox: commands that ticks have sent to other worlds, from the tick's transaction until they are accepted there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tickwire_engine.storage._writes import Plain
from tickwire_engine.storage.rows import Letter

if TYPE_CHECKING:
    from collections.abc import Sequence

    import apsw

OUTBOX_TABLES = """
CREATE TABLE outbox(
    number INTEGER PRIMARY KEY AUTOINCREMENT, target BLOB NOT NULL, id BLOB NOT NULL UNIQUE, type TEXT NOT NULL,
    tick INTEGER, priority INTEGER NOT NULL, version INTEGER NOT NULL, actor TEXT NOT NULL, payload BLOB NOT NULL,
    body BLOB NOT NULL
) STRICT;
"""


@dataclass(slots=True)
class Post(Plain):
    """Put letters into the outbox, in order."""

    letters: Sequence[Letter]

    def apply(self, connection: apsw.Connection) -> None:
        """Insert them."""
        connection.executemany(
            "INSERT INTO outbox(target, id, type, tick, priority, version, actor, payload, body) "
            "VALUES (?,?,?,?,?,?,?,?,?)",
            [tuple(letter) for letter in self.letters],
        )


@dataclass(slots=True)
class Posted(Plain):
    """Take letters out of the outbox: their worlds have them, or never will."""

    ids: Sequence[bytes]

    def apply(self, connection: apsw.Connection) -> None:
        """Delete them."""
        connection.executemany("DELETE FROM outbox WHERE id = ?", [(id_,) for id_ in self.ids])


def outbox(connection: apsw.Connection) -> list[Letter]:
    """Read what is in the outbox, in the order it was put there."""
    rows = connection.execute(
        "SELECT target, id, type, tick, priority, version, actor, payload, body FROM outbox ORDER BY number"
    )
    return [Letter(*row) for row in rows]
