"""Writing ticks to the journal: all that one tick makes durable, in one transaction."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from tickwire_engine import failpoints
from tickwire_engine.errors import StorageError
from tickwire_engine.storage import _packing as packing
from tickwire_engine.storage._accepting import INLINE_BYTES, insert_commands, log_commands, next_seq
from tickwire_engine.storage._writes import WhenFull, WorldKey, require_alive
from tickwire_engine.storage.tick_log import Location, RecordKind

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import apsw

    from tickwire_engine.storage import TickLog
    from tickwire_engine.storage.journal import Write
    from tickwire_engine.storage.rows import Frame, TickCommit

SHARED_INLINE_BYTES = 8 << 10
"""What takes the place of `INLINE_BYTES` where several are written at once and share a sync of the log: a row's pages cost
more to write, and are written twice."""

_SELECT_HEAD = """
    SELECT next_tick, next_outcome_seq FROM heads JOIN worlds ON worlds.key = heads.world
    WHERE heads.world = ? AND destroyed_at_us = 0
"""
_INSERT_RECORD = "INSERT INTO records VALUES (?,?,?,?,?,?,?,?,?,?)"
_INSERT_TICK = "INSERT INTO ticks VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)"


@dataclass(slots=True)
class CommitTick:
    """Make a tick durable, with all that came of it."""

    when_full: ClassVar[WhenFull] = WhenFull.HELD

    world: WorldKey
    commit: TickCommit
    log: TickLog
    on_committed: Callable[[TickCommit], None]
    along: Sequence[Write[object]] = ()
    """What its commands do to other worlds, in the same transaction."""
    frames: dict[int, Location] = field(default_factory=dict)
    commands: dict[int, Location] = field(default_factory=dict)

    def prepare(self, *, alone: bool) -> bool:
        """Write large frames and large issued commands to the tick log."""
        tick = self.commit.summary.tick
        inline = INLINE_BYTES if alone else SHARED_INLINE_BYTES
        for frame in self.commit.frames:
            if frame.nbytes > inline:
                location = self.log.append(RecordKind.FRAME, self.world.id, tick, frame.messages)
                self.frames[frame.stream] = location
        self.commands = log_commands(self.log, self.world, self.commit.issued)
        logged = [write.prepare(alone=alone) for write in self.along]
        return bool(self.frames or self.commands) or any(logged)

    def apply(self, connection: apsw.Connection) -> int:
        """Insert the tick and its records, and move the head.

        Returns:
            The outcome seq of the first command's outcome: numbers are given here, where the order is.

        Raises:
            StorageError: It is not the tick after the last one.
        """
        commit, key = self.commit, self.world.key
        tick = commit.summary.tick
        found = connection.execute(_SELECT_HEAD, (key,)).get
        if found is None:
            require_alive(connection, key)
        head, outcome_seq = found
        if head != tick:
            raise StorageError(f"tick {tick} cannot be committed: the world's next tick is {head}", tick=tick)
        for stream in commit.new_streams:
            connection.execute(
                "INSERT INTO streams VALUES (?,?,?,?,?)",
                (key, stream.number, stream.archetype, json.dumps(stream.components), stream.schema),
            )
        if commit.new_configuration is not None:
            configuration = commit.new_configuration
            connection.execute(
                "INSERT OR IGNORE INTO configurations VALUES (?,?)", (configuration.id, configuration.body)
            )
        if commit.snapshots:
            connection.executemany(
                "INSERT INTO snapshots VALUES (?,?,?,?)",
                [(key, name, tick, body) for name, body in commit.snapshots.items()],
            )
        connection.execute(_INSERT_TICK, self._tick_values(outcome_seq))
        for frame in commit.frames:
            connection.execute(_INSERT_RECORD, self._record_values(frame))
        insert_commands(connection, key, commit.issued, self.commands)
        if commit.results:
            connection.executemany(
                "INSERT INTO results VALUES (?,?,?,?)",
                [(key, seq, packing.checksum(body, key, seq), body) for seq, body in commit.results.items()],
            )
        for write in self.along:
            write.apply(connection)
        connection.execute(
            "UPDATE heads SET next_tick = ?, next_seq = max(next_seq, ?), next_entity_id = ?, "
            "next_issued_id = ?, next_outcome_seq = ?, run_id = ?, configuration = ? WHERE world = ?",
            (
                tick + 1,
                next_seq(commit.issued),
                commit.next_entity_id,
                commit.next_issued_id,
                outcome_seq + len(commit.outcomes),
                commit.summary.run_id,
                commit.configuration_id,
                key,
            ),
        )
        failpoints.reach("tick_commit.before")
        return int(outcome_seq)

    def committed(self) -> None:
        """Tell whoever keeps count."""
        failpoints.reach("tick_commit.after")
        for write in self.along:
            write.committed()
        self.on_committed(self.commit)

    def _tick_values(self, outcome_seq: int) -> tuple[apsw.SQLiteValue, ...]:
        commit, summary = self.commit, self.commit.summary
        recorded = [packing.Recorded(frame.stream, frame.rows, frame.hash) for frame in commit.frames]
        return (
            self.world.key,
            summary.tick,
            summary.run_id,
            summary.entities,
            summary.rows,
            summary.spawned,
            summary.despawned,
            summary.commands_applied,
            summary.commands_rejected,
            summary.state_hash,
            summary.committed_at_us,
            summary.compute_us,
            summary.hz,
            commit.tick_time_us,
            commit.inputs,
            commit.configuration_id,
            sum(frame.nbytes for frame in commit.frames),
            packing.pack_recorded(recorded),
            packing.pack_ids(commit.despawned),
            packing.pack_outcomes(commit.outcomes, outcome_seq),
            commit.next_entity_id,
            commit.next_issued_id,
        )

    def _record_values(self, frame: Frame) -> tuple[apsw.SQLiteValue, ...]:
        key, tick = self.world.key, self.commit.summary.tick
        layout = packing.pack_layout([len(message) for message in frame.messages], frame.message_rows)
        head = (key, frame.stream, tick, frame.rows, frame.hash, layout)
        location = self.frames.get(frame.stream)
        if location is not None:
            return (*head, None, None, *location)
        body = frame.messages[0] if len(frame.messages) == 1 else b"".join(frame.messages)
        return (*head, packing.checksum(body, key, frame.stream, tick), body, None, None)
