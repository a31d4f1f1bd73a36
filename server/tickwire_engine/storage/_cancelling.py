"""Withdrawing a command: its outcome becomes durable without a tick."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tickwire_engine.storage import _packing as packing
from tickwire_engine.storage._writes import Plain, require_alive
from tickwire_engine.storage.rows import Outcome

if TYPE_CHECKING:
    import apsw


@dataclass(slots=True)
class Cancel(Plain):
    """Settle a command that no tick has drained; its row stays, for whoever asks what it was."""

    world: int
    seq: int
    at_us: int

    def apply(self, connection: apsw.Connection) -> Outcome:
        """Number the outcome, and put the command among those that are settled."""
        require_alive(connection, self.world)
        number: int = connection.execute(
            "UPDATE heads SET next_outcome_seq = next_outcome_seq + 1 WHERE world = ? "
            "RETURNING next_outcome_seq - 1",
            (self.world,),
        ).get
        outcome = Outcome(self.seq, applied=False, cancelled=True, outcome_seq=number)
        connection.execute(
            "INSERT INTO applied SELECT world, id, seq, tick, priority, type, actor, version, accepted_at_us, "
            "content_hash, first_entity_id, entity_count, -1, -1, ?3, ?4, max(?5, id_ms(id)) "
            "FROM commands WHERE world = ?1 AND seq = ?2",
            (self.world, self.seq, packing.pack_outcomes((outcome,), number), number, self.at_us // 1000),
        )
        return outcome
