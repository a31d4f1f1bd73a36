"""Who may call, what they used up and what they did: tokens, quotas and the audit trail in the journal.

The engine gives none of it a meaning; it keeps the rows, with the same durability as commands. Writes are handed in on an
event-loop thread and return futures; reads block for microseconds to milliseconds.
"""

from __future__ import annotations

import json
from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING, Any

from tickwire_engine.storage._writes import Plain
from tickwire_engine.storage.rows import AuditRow, TokenRow

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Sequence

    import apsw

    from tickwire_engine.storage.journal import SqliteJournal

IDENTITY_TABLES = """
CREATE TABLE tokens(
    id BLOB PRIMARY KEY, name TEXT NOT NULL, hash BLOB NOT NULL UNIQUE, roles TEXT NOT NULL, worlds TEXT NOT NULL,
    allowed_commands TEXT NOT NULL, created_at_us INTEGER NOT NULL, expires_at_us INTEGER NOT NULL,
    revoked_at_us INTEGER NOT NULL, created_by TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE quotas(
    actor TEXT PRIMARY KEY, day INTEGER NOT NULL, used INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE audit(
    number INTEGER PRIMARY KEY AUTOINCREMENT, at_us INTEGER NOT NULL, actor TEXT NOT NULL, subject TEXT NOT NULL,
    method TEXT NOT NULL, world TEXT NOT NULL, world_name TEXT NOT NULL, resource TEXT NOT NULL,
    code INTEGER NOT NULL, reason TEXT NOT NULL, peer TEXT NOT NULL
) STRICT;
CREATE INDEX audit_by_actor ON audit(actor);
CREATE INDEX audit_by_world ON audit(world) WHERE world <> '';
"""
_AUDIT_COLUMNS = "at_us, actor, subject, method, world, world_name, resource, code, reason, peer, number"


class IdentityStore:
    """The rows of one journal; lives as long as its `Store`."""

    def __init__(self, journal: SqliteJournal) -> None:
        self._journal = journal

    def put_token(self, token: TokenRow) -> asyncio.Future[None]:
        """Make a token durable, new or changed."""
        return self._journal.submit(PutToken(token))

    def tokens(self) -> list[TokenRow]:
        """Read all tokens."""
        with self._journal.read() as connection:
            return [_token(row) for row in connection.execute("SELECT * FROM tokens")]

    def save_quotas(self, used: Sequence[tuple[str, int, int]]) -> asyncio.Future[None]:
        """Make (actor, day, cost units used) durable; rows of earlier days go."""
        return self._journal.submit(SaveQuotas(used))

    def quotas(self, day: int) -> list[tuple[str, int, int]]:
        """Read what actors used up on `day`."""
        with self._journal.read() as connection:
            rows = connection.execute("SELECT actor, day, used FROM quotas WHERE day = ?", (day,))
            return [(actor, day, used) for actor, day, used in rows]

    def append_audit(self, events: Sequence[AuditRow], *, keep: int, since_us: int) -> asyncio.Future[None]:
        """Make audit events durable; only the newest `keep`, and those since `since_us`, stay."""
        return self._journal.submit(AppendAudit(events, keep, since_us))

    def audit(self, *, actor: str, world: str, from_us: int, before: int, limit: int) -> list[AuditRow]:
        """Read audit events, the newest first.

        Args:
            actor: Only this actor's; "": everybody's.
            world: Only of the world of this id, or of those of this name; "": all.
            from_us: Only at this time or later.
            before: Only those with smaller numbers; 0: from the newest.
            limit: At most so many.
        """
        query = f"SELECT {_AUDIT_COLUMNS} FROM audit WHERE at_us >= ?"  # noqa: S608 - constants only
        values: list[str | int] = [from_us]
        for condition, wanted in (
            ("actor = ?", (actor,) if actor else ()),
            ("(world = ? OR world_name = ?)", (world, world) if world else ()),
            ("number < ?", (before,) if before else ()),
        ):
            if wanted:
                query += f" AND {condition}"
                values += wanted
        with self._journal.read() as connection:
            rows = connection.execute(f"{query} ORDER BY number DESC LIMIT ?", (*values, limit))
            return [AuditRow(*row) for row in rows]


@dataclass(slots=True)
class PutToken(Plain):
    """Insert a token, or change it."""

    token: TokenRow

    def apply(self, connection: apsw.Connection) -> None:
        """Write it whole."""
        id_, name, hash_, roles, worlds, allowed, *rest = astuple(self.token)
        connection.execute(
            "INSERT OR REPLACE INTO tokens VALUES (?,?,?,?,?,?,?,?,?,?)",
            (id_, name, hash_, *map(json.dumps, (roles, worlds, allowed)), *rest),
        )


@dataclass(slots=True)
class SaveQuotas(Plain):
    """Keep what actors used up."""

    used: Sequence[tuple[str, int, int]]

    def apply(self, connection: apsw.Connection) -> None:
        """Write them over what was there."""
        connection.executemany("INSERT OR REPLACE INTO quotas VALUES (?,?,?)", self.used)
        newest = max((day for _, day, _ in self.used), default=0)
        connection.execute("DELETE FROM quotas WHERE day < ?", (newest - 1,))


@dataclass(slots=True)
class AppendAudit(Plain):
    """Append audit events, and drop what is too much or too old."""

    events: Sequence[AuditRow]
    keep: int
    since_us: int

    def apply(self, connection: apsw.Connection) -> None:
        """Insert and delete."""
        connection.executemany(
            "INSERT INTO audit VALUES (NULL,?,?,?,?,?,?,?,?,?,?)",
            [astuple(event)[:-1] for event in self.events],
        )
        connection.execute(
            "DELETE FROM audit WHERE number <= (SELECT max(number) FROM audit) - ?", (self.keep,)
        )
        # Numbers follow time: the oldest are the first, and few at once.
        connection.execute(
            "DELETE FROM audit WHERE number IN (SELECT number FROM audit ORDER BY number LIMIT 1000) AND at_us < ?",
            (self.since_us,),
        )


def _token(row: tuple[Any, ...]) -> TokenRow:
    id_, name, hash_, roles, worlds, allowed, *rest = row
    return TokenRow(id_, name, hash_, _words(roles), _words(worlds), _words(allowed), *rest)


def _words(text: str) -> tuple[str, ...]:
    return tuple(json.loads(text))
