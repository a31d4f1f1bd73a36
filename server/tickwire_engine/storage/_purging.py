"""Purging destroyed worlds: once nobody follows them any more, their rows and files go, but for what forks share.

A tombstone stays: the world's row and its counters, so that its id is never given again. Breaking off anywhere is safe: what
is left is found at the next start. On the archiver's thread only.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tickwire_engine import failpoints
from tickwire_engine.storage import _reads as reads
from tickwire_engine.storage import _retaining as retaining
from tickwire_engine.storage._archiving import ReplaceDatasets, datasets
from tickwire_engine.storage._writes import Plain
from tickwire_engine.storage.retention import Kept

if TYPE_CHECKING:
    import apsw

    from tickwire_engine.storage import Archive, Journal
    from tickwire_engine.storage._copying import Copier
    from tickwire_engine.storage._leases import Leases
    from tickwire_engine.storage._retiring import Retirement

_KEYS = {
    "applied": "id",
    "commands": "seq",
    "results": "seq",
    "ticks": "tick",
    "records": "stream, tick",
    "spans": "stream, first_tick",
    "snapshots": "name, tick",
    "streams": "number",
}
"""The tables of a world's history, and what their rows are told apart by."""
_BITE_ROWS = 200
_COPY_BYTES = 64 << 20
_COPY_ROWS = 1_000_000


def leftovers(connection: apsw.Connection) -> list[int]:
    """Read which destroyed worlds are not purged yet."""
    rows = connection.execute(
        "SELECT key FROM worlds JOIN floors ON world = key WHERE destroyed_at_us <> 0 AND NOT purged"
    )
    return [key for (key,) in rows]


class Purging:
    """Deletes what destroyed worlds leave."""

    def __init__(
        self, journal: Journal, archive: Archive, leases: Leases, copier: Copier, retirement: Retirement
    ) -> None:
        self._journal = journal
        self._archive = archive
        self._leases = leases
        self._copier = copier
        self._retirement = retirement

    def is_destroyed(self, world: int) -> bool:
        """Whether a world is destroyed."""
        with self._journal.read() as connection:
            return bool(connection.execute("SELECT destroyed_at_us FROM worlds WHERE key = ?", (world,)).get)

    def purge(self, world: int) -> bool:
        """Delete what a destroyed world leaves and no fork shares.

        Returns:
            False: readers in other processes put it off.
        """
        with self._journal.read() as connection:
            shared = retaining.kept(connection, world).pins
            last = reads.next_tick(connection, world) - 1
        while shared and self._copier.copy(world, max_bytes=_COPY_BYTES, max_rows=_COPY_ROWS) < last:
            pass
        with self._leases.nobody_outside() as alone:
            if not alone:
                return False
            if shared:
                self._copier.trim(world)
                self._retirement.end(world, last + 1)
            else:
                self._purge(world, last + 1)
        self._copier.release_segments()
        return True

    def _purge(self, world: int, floor: int) -> None:
        self._journal.call(retaining.MoveFloor(world, Kept(floor)))
        with self._journal.read() as connection:
            known = datasets(connection, world)
        failpoints.reach("purge.before")
        self._journal.call(ReplaceDatasets(known))
        for dataset in known:
            self._leases.defer(functools.partial(self._archive.delete, dataset.path))
        for table in _KEYS:
            while self._journal.call(PurgeRows(world, table, _BITE_ROWS)):
                pass
        self._journal.call(Purged(world))


@dataclass(slots=True)
class PurgeRows(Plain):
    """Delete some rows of a destroyed world: commits wait behind it."""

    world: int
    table: str
    max_rows: int

    def apply(self, connection: apsw.Connection) -> bool:
        """Delete some.

        Returns:
            Whether there may be more.
        """
        table, key = self.table, _KEYS[self.table]
        connection.execute(
            f"DELETE FROM {table} WHERE world = ?1 AND ({key}) IN "  # noqa: S608
            f"(SELECT {key} FROM {table} WHERE world = ?1 LIMIT ?2)",
            (self.world, self.max_rows),
        )
        return connection.changes() == self.max_rows

    def committed(self) -> None:
        """Do nothing but mark the place."""
        failpoints.reach("purge.inside")


@dataclass(slots=True)
class Purged(Plain):
    """Note that nothing is left of a destroyed world but its tombstone."""

    world: int

    def apply(self, connection: apsw.Connection) -> None:
        """Mark it."""
        connection.execute("UPDATE floors SET purged = 1 WHERE world = ?", (self.world,))

    def committed(self) -> None:
        """Do nothing but mark the place."""
        failpoints.reach("purge.after")
