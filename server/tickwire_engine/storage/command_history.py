"""Commands and what became of them, whether they still lie in the journal or were archived.

Every call sees one consistent state of journal and archive, but for a list, which is read in windows of seqs, each by
itself. All calls block: use them on a worker thread, or accept some milliseconds; any thread will do.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tickwire_engine.errors import CorruptRecordError, TickNotKeptError, WorldNotFoundError
from tickwire_engine.storage import _packing as packing
from tickwire_engine.storage import _reads as reads
from tickwire_engine.storage._archived import ArchivedHistory
from tickwire_engine.storage._archiving import watermark
from tickwire_engine.storage._deciding import decided, decided_in, first_outcome_seq, last_outcome_seq
from tickwire_engine.storage._forgetting import id_floors, id_ms
from tickwire_engine.storage._listing import Window
from tickwire_engine.storage._retaining import floor
from tickwire_engine.storage._writes import WorldKey
from tickwire_engine.storage.history import StoredCommand

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    import apsw

    from tickwire_engine.storage import Archive, Journal, TickLog
    from tickwire_engine.storage._columns import ArchivedCommand
    from tickwire_engine.storage._leases import Leases
    from tickwire_engine.storage.rows import DecidedCommand, Outcome

_FIRST_WINDOW = 1_000
_LAST_WINDOW = 64_000
"""Seqs that a list looks at in one transaction: more and more while it finds little."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandFilter:
    """Which commands a list shows: all conditions hold."""

    states: Collection[str] = ()
    """"PENDING", "APPLIED", "REJECTED", "CANCELLED"; empty: any."""
    types: Collection[str] = ()
    """Values of `CommandType`; empty: any."""
    actor: str | None = None
    """As `CommandRow.actor`; None: anybody's."""
    from_us: int = 0
    """Accepted at this time or later, microseconds since the Unix epoch."""


@dataclass(frozen=True, slots=True)
class CommandPage:
    """Commands by descending seq, and where the list goes on."""

    commands: list[StoredCommand]
    before: int
    """The next page has smaller seqs only; 0: there is none."""


class CommandHistory:
    """Reads of one store; see `Store.command_history`."""

    def __init__(
        self, journal: Journal, log: TickLog, archive: Archive, leases: Leases, ids: Mapping[int, bytes]
    ) -> None:
        self._journal = journal
        self._log = log
        self._archive = archive
        self._leases = leases
        self._ids = ids

    def find(self, world: int, command_id: bytes) -> StoredCommand | None:
        """Read a command with its payload and table, and its outcome; None if the id is unknown.

        One of a tick that is no longer kept has neither payload nor table, as long as its id is remembered. One whose id is
        forgotten is found as long as its tick is kept.

        Raises:
            CorruptRecordError: Stored bytes are not what was committed, or are missing.
        """
        with self._reading(world) as connection:
            found = reads.find_commands(connection, world, (command_id,)).get(command_id)
            past = ArchivedHistory(connection, self._archive, world)
            if found is None:
                forgotten = id_ms(command_id) < id_floors(connection).get(world, 0)
                archived = past.command_of(command_id) if forgotten else None
                return None if archived is None else _stored(archived)
            if not found.archived:
                command = reads.command(connection, self._log, self._key(world), found.row.seq)
                return StoredCommand(command, found.outcome, found.tick)
            archived = past.command_at(found.tick, found.position)
            if archived is not None:
                return _stored(archived)
            if found.tick >= floor(connection, world):
                raise CorruptRecordError(
                    f"a command of tick {found.tick} is missing in the archive; restore the data directory from a "
                    "backup",
                    tick=found.tick,
                )
            return StoredCommand(found.row, found.outcome, found.tick)

    def page(
        self, world: int, wanted: CommandFilter, *, before: int, limit: int, max_bytes: int
    ) -> CommandPage:
        """Read commands, the newest first.

        Args:
            world: The world's key.
            wanted: Which.
            before: Only those of smaller seqs.
            limit: At most so many.
            max_bytes: A page ends early rather than hold more of payloads and tables, but holds at least one command.
        """
        with self._journal.read() as connection:
            before = min(before, reads.next_seq(connection, world))
        commands: list[StoredCommand] = []
        size, room = _FIRST_WINDOW, max_bytes
        while before > 0 and len(commands) < limit and room > 0:
            first = max(before - size, 0)
            with self._reading(world) as connection:
                window = Window(connection, self._log, self._archive, self._key(world), wanted)
                found, stopped_at = window.read(
                    first, before, limit - len(commands), room, anyway=not commands
                )
            commands += found
            room -= sum(len(each.command.payload) + len(each.command.table) for each in found)
            before = first if stopped_at is None else stopped_at
            if stopped_at is not None:
                break
            size = min(2 * size, _LAST_WINDOW)
        return CommandPage(commands, before if before > 1 else 0)

    def outcomes(self, world: int, first: int, limit: int) -> list[DecidedCommand]:
        """Read outcomes in the order in which they became durable, from the outcome seq `first` on.

        Args:
            world: The world's key.
            first: 0: the first kept.
            limit: At most so many.

        Raises:
            TickNotKeptError: `first` is no longer kept.
        """
        with self._reading(world) as connection:
            found = decided(connection, world, first or first_outcome_seq(connection, world), limit)
            if (
                not first
                or (found and found[0].outcome_seq == first)
                or first > last_outcome_seq(connection, world)
            ):
                return found
            earliest = first_outcome_seq(connection, world)
        raise TickNotKeptError(
            f"outcome {first} is not kept any more, the earliest is {earliest}: begin there",
            field="after_outcome_seq",
            outcome_seq=first,
            earliest=earliest,
        )

    def decided_in(self, world: int, first: int, last: int) -> dict[int, tuple[DecidedCommand, ...]]:
        """Read what became of the commands of ticks, by tick, in the order in which each applied them.

        Ticks that another world committed, which a fork has inherited, have none; neither have commands that were
        forgotten.

        Args:
            world: The world's key.
            first: The first tick.
            last: The last one, inclusive.
        """
        outcomes: dict[int, Sequence[Outcome]] = {}
        with self._reading(world) as connection:
            mark = watermark(connection, world)
            if first <= mark:
                past = ArchivedHistory(connection, self._archive, world)
                outcomes |= past.outcomes(first, min(last, mark))
            for tick, blob in connection.execute(
                "SELECT tick, outcomes FROM ticks WHERE world = ? AND tick BETWEEN ? AND ? AND outcomes <> x''",
                (world, max(first, mark + 1), last),
            ):
                outcomes[tick] = packing.unpack_outcomes(blob)
            return decided_in(connection, world, outcomes)

    def last_outcome_seq(self, world: int) -> int:
        """Return the number of the last outcome; 0 before the first. Takes microseconds."""
        with self._journal.read() as connection:
            return last_outcome_seq(connection, world)

    def result(self, world: int, seq: int) -> bytes | None:
        """Read the table that a command answered, an Arrow IPC stream; None: there is none, or it is not kept.

        Raises:
            CorruptRecordError: The bytes are not those that were committed.
        """
        with self._reading(world) as connection:
            return reads.result(connection, self._key(world), seq)

    @contextlib.contextmanager
    def _reading(self, world: int) -> Iterator[apsw.Connection]:
        try:
            with self._leases.reading(), self._journal.read() as connection:
                yield connection
        except CorruptRecordError as error:
            error.metadata.setdefault("world", self._key(world).id.hex())
            raise

    def _key(self, world: int) -> WorldKey:
        if world not in self._ids:
            raise WorldNotFoundError(f"the store has no world of key {world}")
        return WorldKey(world, self._ids[world])


def _stored(archived: ArchivedCommand) -> StoredCommand:
    return StoredCommand(archived.command, archived.outcome, archived.tick)
