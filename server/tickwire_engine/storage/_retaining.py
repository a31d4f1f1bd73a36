"""What the journal says of the ticks that are kept: each world's floor, what was thinned below it, and pins.

A floor moves by a row of its own, before anything is deleted: from then on no reader begins below it, and what is left
there is garbage.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tickwire_engine import failpoints
from tickwire_engine.errors import TickInTheFutureError
from tickwire_engine.storage._writes import Plain, require_alive, unpin
from tickwire_engine.storage.retention import Kept, Retention, Thinned, not_kept

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import apsw

RETENTION_TABLES = """
CREATE TABLE floors(
    world INTEGER PRIMARY KEY, tick INTEGER NOT NULL, id_ms INTEGER NOT NULL, purged INTEGER NOT NULL
) STRICT;
CREATE TABLE thinned(
    world INTEGER NOT NULL, first_tick INTEGER NOT NULL, last_tick INTEGER NOT NULL, every INTEGER NOT NULL,
    PRIMARY KEY(world, first_tick)
) STRICT, WITHOUT ROWID;
CREATE TABLE pins(
    world INTEGER NOT NULL, tick INTEGER NOT NULL, holder BLOB NOT NULL, first_tick INTEGER NOT NULL,
    PRIMARY KEY(world, tick, holder)
) STRICT, WITHOUT ROWID;
CREATE INDEX pins_by_holder ON pins(holder);
"""


def floor(connection: apsw.Connection, world: int) -> int:
    """Read the tick from which on every tick is kept."""
    tick: int = connection.execute("SELECT tick FROM floors WHERE world = ?", (world,)).get
    return tick


def kept(connection: apsw.Connection, world: int) -> Kept:
    """Read which ticks are kept."""
    thinned = connection.execute(
        "SELECT first_tick, last_tick, every FROM thinned WHERE world = ? ORDER BY first_tick", (world,)
    )
    pins = connection.execute(
        "SELECT min(first_tick), tick, 1 FROM pins WHERE world = ? GROUP BY tick ORDER BY tick", (world,)
    )
    ranges = tuple(Thinned(*row) for row in thinned)
    return Kept(floor(connection, world), ranges, tuple(Thinned(*row) for row in pins))


def retention(connection: apsw.Connection, world: int) -> Retention:
    """Read what a world is told to keep."""
    text: str = connection.execute("SELECT retention FROM worlds WHERE key = ?", (world,)).get
    return Retention.of(json.loads(text))


def require_dense(connection: apsw.Connection, world: int, tick: int) -> None:
    """Refuse to read on from a tick below the floor.

    Raises:
        TickNotKeptError: It is not kept, or not every tick after it.
    """
    earliest = floor(connection, world)
    if tick < earliest:
        raise not_kept(tick, earliest)


def require_kept(connection: apsw.Connection, world: int, tick: int) -> None:
    """Refuse to read a tick that is not kept; it may be one that was spared by thinning.

    Raises:
        TickNotKeptError: It is not kept.
    """
    earliest = floor(connection, world)
    if tick < earliest and tick not in kept(connection, world):
        raise not_kept(tick, earliest)


def pin(
    connection: apsw.Connection, world: int, tick: int, holder: bytes, *, first_tick: int | None = None
) -> None:
    """Keep a tick for `holder`, inside the caller's transaction; the same pin again changes nothing.

    Args:
        first_tick: Keep every tick from here to `tick`; those that are gone already stay gone. None: `tick` alone.

    Raises:
        TickNotKeptError: The tick is not kept any more.
        TickInTheFutureError: It is not committed yet.
    """
    last: int = connection.execute("SELECT next_tick - 1 FROM heads WHERE world = ?", (world,)).get
    if tick > last:
        raise TickInTheFutureError(
            f"tick {tick} is not committed yet: the last one is {last}", tick=tick, committed_tick=last
        )
    require_kept(connection, world, tick)
    connection.execute(
        "INSERT OR IGNORE INTO pins VALUES (?,?,?,?)",
        (world, tick, holder, tick if first_tick is None else first_tick),
    )


@dataclass(slots=True)
class Pin(Plain):
    """Keep a tick of a world, whatever its retention says, until nobody holds it any more."""

    world: int
    tick: int
    holder: bytes

    def apply(self, connection: apsw.Connection) -> None:
        """Insert it.

        Raises:
            TickNotKeptError: The tick is not kept any more.
            TickInTheFutureError: It is not committed yet.
        """
        require_alive(connection, self.world)
        pin(connection, self.world, self.tick, self.holder)


@dataclass(slots=True)
class Unpin(Plain):
    """Let go of all that a holder has pinned."""

    holder: bytes
    overdue: Callable[[Sequence[int]], None]
    """Told in which worlds there is something to delete now."""
    worlds: Sequence[int] = ()

    def apply(self, connection: apsw.Connection) -> None:
        """Delete its pins."""
        self.worlds = unpin(connection, self.holder)

    def committed(self) -> None:
        """Have deleted what nobody needs any more."""
        self.overdue(self.worlds)


@dataclass(slots=True)
class MoveFloor(Plain):
    """Say which ticks are kept from now on; nothing is deleted yet."""

    world: int
    kept: Kept

    def apply(self, connection: apsw.Connection) -> None:
        """Move the floor, never back, and write the ranges below it anew."""
        connection.execute(
            "UPDATE floors SET tick = max(tick, ?) WHERE world = ?", (self.kept.floor, self.world)
        )
        # A fork lets go of what it shares and keeps no more, but for the tick that it goes on from.
        connection.execute(
            "UPDATE pins SET first_tick = min(max(first_tick, ?), tick) "
            "WHERE holder = (SELECT id FROM worlds WHERE key = ?)",
            (self.kept.floor, self.world),
        )
        connection.execute("DELETE FROM thinned WHERE world = ?", (self.world,))
        connection.executemany(
            "INSERT INTO thinned VALUES (?,?,?,?)", [(self.world, *thinned) for thinned in self.kept.thinned]
        )
        failpoints.reach("floor.before")

    def committed(self) -> None:
        """Do nothing but mark the place."""
        failpoints.reach("floor.after")
