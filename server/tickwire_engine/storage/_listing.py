"""Commands of a window of seqs, the newest first, out of journal and archive.

Commands that wait or were cancelled lie in the journal, applied and rejected ones in either. A window is looked through by
small columns first; only what the page shows is read whole. An instance lives as long as one read transaction.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from tickwire_engine.storage import _packing as packing
from tickwire_engine.storage import _reads as reads
from tickwire_engine.storage._archived import ArchivedHistory
from tickwire_engine.storage.history import StoredCommand

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import apsw

    from tickwire_engine.storage import Archive, TickLog
    from tickwire_engine.storage._writes import WorldKey
    from tickwire_engine.storage.command_history import CommandFilter

_TAIL = (
    "SELECT commands.seq, commands.tick, payload_bytes + table_bytes, applied.outcome FROM commands "
    "LEFT JOIN applied ON applied.world = commands.world AND applied.seq = commands.seq "
    "WHERE commands.world = ? AND commands.seq >= ? AND commands.seq < ?"
)
SETTLED_STATES = frozenset(("APPLIED", "REJECTED"))
"""What commands of the archive can be."""


class _Place(NamedTuple):
    """Where a command of the journal's tail was decided."""

    tick: int
    position: int
    rejected: bool


class _Candidate(NamedTuple):
    seq: int
    body_bytes: int
    archived: bool
    place: _Place | None = None
    """Of one in the journal; None: it is pending, or was cancelled."""
    cancelled: bytes | None = None
    """Its packed outcome."""


class Window:
    """What one read transaction shows of a world's commands."""

    def __init__(
        self,
        connection: apsw.Connection,
        log: TickLog,
        archive: Archive,
        world: WorldKey,
        wanted: CommandFilter,
    ) -> None:
        self._connection = connection
        self._log = log
        self._archive = archive
        self._world = world
        self._wanted = wanted
        self._blobs: dict[int, bytes] = {}

    def read(
        self, first: int, end: int, limit: int, max_bytes: int, *, anyway: bool
    ) -> tuple[list[StoredCommand], int | None]:
        """Read the commands with seqs from `first` up to, but not including, `end`; descending.

        Args:
            first: The smallest seq.
            end: One past the greatest.
            limit: At most so many.
            max_bytes: Of payloads and tables together.
            anyway: Read one, however large.

        Returns:
            The commands, and where to go on: below this seq; None: all of the window was read.
        """
        tail = [*self._tail(first, end)]
        known = {candidate.seq for candidate in tail}
        candidates = [c for c in self._archived(first, end, len(known)) if c.seq not in known] + tail
        candidates.sort(reverse=True, key=lambda candidate: candidate.seq)
        chosen: list[_Candidate] = []
        size = 0
        for candidate in candidates:
            size += candidate.body_bytes
            if len(chosen) == limit or (size > max_bytes and (chosen or not anyway)):
                return self._whole(chosen), candidate.seq + 1
            chosen.append(candidate)
        return self._whole(chosen), None

    def _tail(self, first: int, end: int) -> Iterator[_Candidate]:
        where, values = self._conditions()
        query = f"{_TAIL}{where}"
        rows = list(self._connection.execute(query, (self._world.key, first, end, *values)))
        places = self._places({seq: due for seq, due, _, cancelled in rows if cancelled is None})
        for seq, _, size, cancelled in rows:
            place = places.get(seq)
            state = (
                "CANCELLED"
                if cancelled is not None
                else "PENDING"
                if place is None
                else "REJECTED"
                if place.rejected
                else "APPLIED"
            )
            if not self._wanted.states or state in self._wanted.states:
                yield _Candidate(seq, size, False, place, cancelled)

    def _places(self, due: dict[int, int]) -> dict[int, _Place]:
        """Find where commands of the journal's tail were decided: seqs and the ticks they were due at."""
        found: dict[int, _Place] = {}
        if not due:
            return found
        # See `_reads.settled`; here each tick is looked at once for all commands of the window.
        cursor = self._connection.execute(
            "SELECT tick, outcomes FROM ticks WHERE world = ? AND tick >= ? AND outcomes <> x'' ORDER BY tick",
            (self._world.key, min(due.values()) - 1),
        )
        for tick, blob in cursor:
            seqs = packing.outcome_seqs(blob)
            if due.keys().isdisjoint(seqs):
                continue
            rejected = packing.rejected_at(blob)
            for position, seq in enumerate(seqs):
                if seq in due:
                    found[seq] = _Place(tick, position, position in rejected)
            if len(found) == len(due):
                cursor.close()
                break
        return found

    def _conditions(self) -> tuple[str, list[str | int]]:
        wanted = self._wanted
        where, values = "", list[str | int]()
        if wanted.types:
            where += f" AND commands.type IN ({','.join('?' * len(wanted.types))})"
            values += wanted.types
        if wanted.actor is not None:
            where += " AND commands.actor = ?"
            values.append(wanted.actor)
        if wanted.from_us:
            where += " AND commands.accepted_at_us >= ?"
            values.append(wanted.from_us)
        return where, values

    def _archived(self, first: int, end: int, known: int) -> list[_Candidate]:
        wanted = self._wanted
        states = SETTLED_STATES.intersection(wanted.states) if wanted.states else SETTLED_STATES
        if not states or known == end - first:
            return []
        conditions = [f"seq >= {first} AND seq < {end}"]
        if len(states) < len(SETTLED_STATES):
            conditions.append(f"state = '{next(iter(states))}'")
        if wanted.types:
            conditions.append(f"type IN ({','.join(map(_quoted, wanted.types))})")
        if wanted.actor is not None:
            conditions.append(f"actor = {_quoted(wanted.actor)}")
        if wanted.from_us:
            conditions.append(f"accepted_at_us >= {wanted.from_us}")
        past = ArchivedHistory(self._connection, self._archive, self._world.key)
        return [_Candidate(seq, size, True) for seq, size in past.command_sizes(" AND ".join(conditions))]

    def _whole(self, chosen: Sequence[_Candidate]) -> list[StoredCommand]:
        archived = [candidate.seq for candidate in chosen if candidate.archived]
        past: dict[int, StoredCommand] = {}
        if archived:
            history = ArchivedHistory(self._connection, self._archive, self._world.key)
            for entry in history.commands(archived):
                past[entry.command.seq] = StoredCommand(entry.command, entry.outcome, entry.tick)
        return [past[each.seq] if each.archived else self._of_tail(each) for each in chosen]

    def _of_tail(self, candidate: _Candidate) -> StoredCommand:
        command = reads.command(self._connection, self._log, self._world, candidate.seq)
        if candidate.cancelled is not None:
            return StoredCommand(command, packing.unpack_outcomes(candidate.cancelled)[0], -1)
        place = candidate.place
        if place is None:
            return StoredCommand(command, None, -1)
        (outcome,) = packing.outcomes_at(self._outcomes(place.tick), (place.position,))
        return StoredCommand(command, outcome, place.tick)

    def _outcomes(self, tick: int) -> bytes:
        if tick not in self._blobs:
            self._blobs[tick] = self._connection.execute(
                "SELECT outcomes FROM ticks WHERE world = ? AND tick = ?", (self._world.key, tick)
            ).get
        return self._blobs[tick]


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
