"""Writing commands to the journal: those that clients submit, and those that ticks issue."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import apsw

from tickwire_engine import failpoints
from tickwire_engine.errors import DuplicateCommandError, StorageError
from tickwire_engine.storage import _packing as packing
from tickwire_engine.storage._forgetting import require_remembered
from tickwire_engine.storage._reads import greatest_archived_id
from tickwire_engine.storage._writes import FIRST_ISSUED_ENTITY_ID, WhenFull, WorldKey, require_alive
from tickwire_engine.storage.tick_log import Location, RecordKind

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tickwire_engine.storage import TickLog
    from tickwire_engine.storage.rows import CommandRow

INLINE_BYTES = 64 << 10
"""Frames and command bodies up to this lie in the journal's rows; larger ones in the tick log."""

_INSERT_COMMAND = "INSERT INTO commands VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)"


@dataclass(slots=True)
class Accept:
    """Make commands durable, all of them or none."""

    when_full: ClassVar[WhenFull] = WhenFull.REFUSED

    world: WorldKey
    commands: Sequence[CommandRow]
    log: TickLog
    locations: dict[int, Location] = field(default_factory=dict)
    id_floors_ms: Mapping[int, int] = field(default_factory=dict)
    """By world; moved on this thread, and before anything is forgotten."""

    def prepare(self, *, alone: bool) -> bool:
        """Write large bodies to the tick log."""
        self.locations = log_commands(self.log, self.world, self.commands)
        return bool(self.locations)

    def apply(self, connection: apsw.Connection) -> None:
        """Insert the commands, and move the counters past their seqs and entity ids.

        Raises:
            DuplicateCommandError: The journal holds some of the ids; it names them.
            CommandIdTooOldError: An id may have been forgotten.
        """
        require_alive(connection, self.world.key)
        insert_commands(connection, self.world.key, self.commands, self.locations)
        floor_ms = self.id_floors_ms.get(self.world.key, 0)
        if floor_ms and self.commands:
            # Whoever handed them in may not have seen the floor move.
            require_remembered(min(row.id for row in self.commands), floor_ms)
        connection.execute(
            "UPDATE heads SET next_seq = max(next_seq, ?), reserved_entity_id = max(reserved_entity_id, ?) "
            "WHERE world = ?",
            (next_seq(self.commands), _next_entity_id(self.commands), self.world.key),
        )
        failpoints.reach("accept.before")

    def committed(self) -> None:
        """Do nothing but mark the place."""
        failpoints.reach("accept.after")


def log_commands(log: TickLog, world: WorldKey, commands: Sequence[CommandRow]) -> dict[int, Location]:
    """Write the large bodies among commands to the tick log.

    Returns:
        Where they are, by seq.
    """
    return {
        row.seq: log.append(RecordKind.COMMAND, world.id, row.seq, (row.payload, row.table))
        for row in commands
        if len(row.payload) + len(row.table) > INLINE_BYTES
    }


def insert_commands(
    connection: apsw.Connection, key: int, commands: Sequence[CommandRow], logged: dict[int, Location]
) -> None:
    """Insert commands, and name the log's records of large bodies.

    Raises:
        DuplicateCommandError: The journal holds some of the ids; it names them.
    """
    if not commands:
        return
    # Most are younger than all that were archived, and then the index of the table that they go into is enough.
    greatest = greatest_archived_id(connection, key)
    error = _duplicates(connection, key, [row for row in commands if row.id <= greatest])
    if error is not None:
        raise error
    try:
        connection.executemany(_INSERT_COMMAND, [_command_values(key, row, logged) for row in commands])
    except apsw.ConstraintError as error:
        raise _duplicates(connection, key, commands) or StorageError(f"seq taken: {error}") from None


def _command_values(key: int, row: CommandRow, logged: dict[int, Location]) -> tuple[apsw.SQLiteValue, ...]:
    seq, *due, payload, table, version, accepted_at_us, content_hash, first, count, sender = row
    head = (key, seq, *due, version, accepted_at_us, content_hash, first, count, len(payload), len(table))
    if seq in logged:
        return (*head, None, None, *logged[seq], sender)
    body = payload + table
    return (*head, packing.checksum(body, key, seq), body, None, None, sender)


def _duplicates(
    connection: apsw.Connection, key: int, commands: Sequence[CommandRow]
) -> DuplicateCommandError | None:
    # The statement that failed may have left some of this very batch behind, so known ones have another seq.
    known = [
        row.id.hex()
        for row in commands
        if connection.execute(
            "SELECT 1 FROM commands WHERE world = ?1 AND id = ?2 AND seq <> ?3 "
            "UNION ALL SELECT 1 FROM applied WHERE world = ?1 AND id = ?2",
            (key, row.id, row.seq),
        ).get
    ]
    if not known:
        return None
    return DuplicateCommandError(f"already in the journal: {', '.join(known)}", ids=",".join(known))


def next_seq(commands: Sequence[CommandRow]) -> int:
    """Return the seq after the last one; 0 without commands."""
    return max((row.seq for row in commands), default=-1) + 1


def _next_entity_id(commands: Sequence[CommandRow]) -> int:
    return max(
        (
            row.first_entity_id + row.entity_count
            for row in commands
            if row.first_entity_id < FIRST_ISSUED_ENTITY_ID
        ),
        default=0,
    )
