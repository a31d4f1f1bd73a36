"""The journal's transactions: what each request to the writer thread does to the tables."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import apsw

from tickwire_engine import failpoints
from tickwire_engine.errors import (
    ComponentExistsError,
    WorldDestroyedError,
    WorldExistsError,
    WorldNotFoundError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tickwire_engine.storage.rows import WorldRow

FIRST_ISSUED_ENTITY_ID = 1 << 52
"""Entity ids from here on are given by processors' commands, and counted in the tick commit."""


class WorldKey(NamedTuple):
    """A world's key in the journal, and its id, which log records carry."""

    key: int
    id: bytes


class WhenFull(Enum):
    """What becomes of a write that the disk has no room for."""

    REFUSED = "refused"
    """It makes data: refused from the floor on."""
    HELD = "held"
    """It was computed and is on its way: kept back until there is room."""
    TRIED = "tried"
    """It is small, or makes room: tried to the last byte, that of the ballast included."""


class Plain:
    """A write without anything to do before or after its transaction."""

    when_full: ClassVar[WhenFull] = WhenFull.TRIED

    def prepare(self, *, alone: bool) -> bool:
        """Write nothing to the tick log."""
        return False

    def committed(self) -> None:
        """Do nothing more."""


@dataclass(slots=True)
class DestroyWorld(Plain):
    """Mark a world destroyed, and drop its pending commands: its name is free again."""

    world: int
    at_us: int
    ended: Callable[[int, Sequence[int]], None]
    """Told the world, and in which others it shares nothing any more."""
    released: Sequence[int] = ()

    def apply(self, connection: apsw.Connection) -> None:
        """Mark it; once marked, it stays as it is."""
        connection.execute(
            "UPDATE worlds SET destroyed_at_us = ? WHERE key = ? AND destroyed_at_us = 0",
            (self.at_us, self.world),
        )
        # Of its ancestors it needs nothing more; its own forks have pins of their own.
        holder = connection.execute("SELECT id FROM worlds WHERE key = ?", (self.world,)).get
        self.released = unpin(connection, holder)
        failpoints.reach("world_destroy.before")

    def committed(self) -> None:
        """Have deleted what it leaves."""
        failpoints.reach("world_destroy.after")
        self.ended(self.world, self.released)


@dataclass(slots=True)
class UpdateWorld(Plain):
    """Change a world's name, labels and retention; what else its row says is for ever."""

    row: WorldRow
    overdue: Callable[[Sequence[int]], None]
    """Told that it may keep less now."""

    def apply(self, connection: apsw.Connection) -> WorldRow:
        """Write the row.

        Raises:
            WorldExistsError: Another living world has the name.
        """
        row = self.row
        require_alive(connection, row.key)
        try:
            connection.execute(
                "UPDATE worlds SET name = ?, labels = ?, retention = ? WHERE key = ?",
                (row.name, json.dumps(dict(row.labels)), json.dumps(dict(row.retention)), row.key),
            )
        except apsw.ConstraintError:
            raise WorldExistsError(
                f"a world called {row.name!r} exists already", field="name", world=row.name
            ) from None
        failpoints.reach("world_update.before")
        return row

    def committed(self) -> None:
        """Have deleted what it does not keep any more."""
        failpoints.reach("world_update.after")
        self.overdue([self.row.key])


@dataclass(slots=True)
class RegisterComponent(Plain):
    """Keep a component's schema; the same again changes nothing."""

    name: str
    schema: bytes
    defaults: bytes
    origin: str

    def apply(self, connection: apsw.Connection) -> None:
        """Insert or replace it.

        Raises:
            ComponentExistsError: Another component has the same name but for its case.
        """
        other = connection.execute(
            "SELECT name FROM components WHERE lower(name) = lower(?) AND name <> ?", (self.name, self.name)
        ).get
        if other is not None:
            raise ComponentExistsError(f"a component named {other!r} exists already", field="name")
        connection.execute(
            "INSERT OR REPLACE INTO components VALUES (?,?,?,?)",
            (self.name, self.schema, self.defaults, self.origin),
        )


@dataclass(slots=True)
class RecordStart(Plain):
    """Note what code, libraries and CPU this start runs on: replay is exact only on the same."""

    at_us: int
    fingerprint: str

    def apply(self, connection: apsw.Connection) -> None:
        """Insert the start."""
        connection.execute("INSERT INTO starts VALUES (NULL,?,?)", (self.at_us, self.fingerprint))


def require_alive(connection: apsw.Connection, key: int) -> None:
    """Refuse to write to a world that is not there, or not any more."""
    destroyed = connection.execute("SELECT destroyed_at_us FROM worlds WHERE key = ?", (key,)).get
    if destroyed is None:
        raise WorldNotFoundError(f"the journal has no world of key {key}")
    if destroyed:
        raise WorldDestroyedError("the world was destroyed; create another one")


def unpin(connection: apsw.Connection, holder: bytes) -> list[int]:
    """Delete a holder's pins, inside the caller's transaction; return the worlds that they were in."""
    rows = connection.execute("SELECT DISTINCT world FROM pins WHERE holder = ?", (holder,))
    worlds = [world for (world,) in rows]
    connection.execute("DELETE FROM pins WHERE holder = ?", (holder,))
    return worlds
