"""Writing a fork to the journal: a world whose history begins with its ancestors', whole in one transaction.

No rows are copied. What the fork shares of each ancestor is pinned, so that neither retention nor the ancestor's end
takes it away while the fork lives; the streams' schemas are its own, with the ancestors' numbers.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from tickwire_engine.storage import _inheriting as inheriting
from tickwire_engine.storage._creating import CreateWorld
from tickwire_engine.storage._lineage import Lineages
from tickwire_engine.storage._retaining import pin
from tickwire_engine.storage._writes import Plain

if TYPE_CHECKING:
    import apsw

    from tickwire_engine.storage._lineage import Segment
    from tickwire_engine.storage.rows import Stream


class ForkPoint(NamedTuple):
    """Where a fork leaves the history that it shares.

    Attributes:
        entities: Active entities after the last shared tick.
        streams: Those that had a record by then.
        segments: What is shared, oldest first.
    """

    tick: int
    entities: int
    next_entity_id: int
    next_issued_id: int
    configuration_id: bytes
    streams: tuple[Stream, ...]
    segments: tuple[Segment, ...]


@dataclass(slots=True, kw_only=True)
class ForkWorld(CreateWorld):
    """Give a fork its key, its counters and its pins; the same request again answers the fork that it made."""

    point: ForkPoint
    lineages: Lineages = field(default_factory=Lineages)
    """Learns of the fork once it is durable."""

    def committed(self) -> None:
        """Make the key known."""
        # Before the id: whoever finds the world must find its history too.
        self.lineages.add(self.key, self.row.parent_key, self.row.fork_tick)
        CreateWorld.committed(self)

    def pin(self, connection: apsw.Connection) -> int:
        """Pin what the fork shares; the same again changes nothing.

        Returns:
            The first tick that it shares without a gap to the last.

        Raises:
            TickNotKeptError: The last tick that it shares is not kept.
        """
        segments = self.point.segments
        floor = inheriting.shared_floor(connection, segments)
        for segment in segments:
            # Of one whose ticks the fork cannot read the last is pinned too: what never changed since lies there.
            first_tick = min(max(segment.first, floor), segment.last)
            pin(connection, segment.world, segment.last, self.row.id, first_tick=first_tick)
        return floor

    def _insert(self, connection: apsw.Connection) -> int:
        key = CreateWorld._insert(self, connection)
        point = self.point
        connection.execute(
            "UPDATE heads SET next_entity_id = ?2, reserved_entity_id = ?2, next_issued_id = ?3, "
            "configuration = ?4 WHERE world = ?1",
            (key, point.next_entity_id, point.next_issued_id, point.configuration_id),
        )
        connection.executemany(
            "INSERT INTO streams VALUES (?,?,?,?,?)",
            [(key, s.number, s.archetype, json.dumps(s.components), s.schema) for s in point.streams],
        )
        if point.segments:
            connection.execute("UPDATE floors SET tick = ? WHERE world = ?", (self.pin(connection), key))
        return key


@dataclass(slots=True)
class Hold(Plain):
    """Pin what a fork will share, before its own transaction."""

    forking: ForkWorld

    def apply(self, connection: apsw.Connection) -> None:
        """Insert the pins."""
        if self.forking.point.segments:
            self.forking.pin(connection)
