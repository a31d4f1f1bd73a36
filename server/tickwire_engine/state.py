"""World state: an immutable value per tick.

A tick makes a new `WorldState` from the old one. Falling back is swapping a reference; a fork in memory shares it.
Tables are never changed in place, so any thread may read a state that it holds.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

import xxhash

from tickwire_engine.archetype import ENTITY_ID, FIRST_ENTITY_ID, FIRST_ISSUED_ENTITY_ID
from tickwire_engine.deferred import DeferredTables

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from uuid import UUID

    import numpy as np
    import pyarrow as pa

    from tickwire_engine.archetype import Signature
    from tickwire_engine.configuration import WorldConfiguration
    from tickwire_engine.storage.rows import Frame, Stream


@dataclass(frozen=True, slots=True)
class Table:
    """One archetype's rows after a tick.

    Attributes:
        schema: The archetype's schema, world and component metadata included.
        batch: All rows in ascending entity_id; the inactive ones are those despawned in the tick itself.
        inactive: How many rows have ``is_active=false``.
        frame: The same rows, encoded; carried along while nothing changes them.
        record_tick: The tick whose record holds them.
    """

    stream: Stream
    schema: pa.Schema
    batch: pa.RecordBatch
    inactive: int
    frame: Frame
    record_tick: int

    @property
    def active(self) -> int:
        """Rows with ``is_active=true``."""
        return int(self.batch.num_rows) - self.inactive


def entity_ids(batch: pa.RecordBatch) -> np.ndarray:
    """Return a batch's entity ids, int64, without a copy."""
    return batch.column(ENTITY_ID).to_numpy()


@dataclass(frozen=True, slots=True)
class WorldState:
    """A world between two ticks.

    Attributes:
        tick: The next tick to compute; the tables are those after `tick - 1`.
        tables: By signature; an archetype without rows is left out. Those of a fork are read at first use.
        streams: Every stream that the world ever had, by signature.
        next_entity_id: One past the greatest entity id that an applied command reserved.
        next_issued_id: The same for entities that processors spawned.
        snapshots: The states of resources that declare `Snapshot`, by type name.
        generation: The generation of the component catalog that the tables' shapes are those of; no part of the hash.
    """

    world_id: UUID
    tick: int
    configuration: WorldConfiguration
    tables: Mapping[Signature, Table] = field(default_factory=lambda: MappingProxyType({}))
    streams: Mapping[Signature, Stream] = field(default_factory=lambda: MappingProxyType({}))
    next_entity_id: int = FIRST_ENTITY_ID
    next_issued_id: int = FIRST_ISSUED_ENTITY_ID
    snapshots: Mapping[str, bytes] = field(default_factory=lambda: MappingProxyType({}))
    generation: int = -1

    @property
    def entities(self) -> int:
        """Active entities in all archetypes."""
        if isinstance(self.tables, DeferredTables):
            return self.tables.entities
        return sum(table.active for table in self.tables.values())

    @property
    def entity_counts(self) -> Mapping[Signature, int]:
        """Active entities by archetype; those that have rows only."""
        if isinstance(self.tables, DeferredTables):
            return self.tables.counts()
        return {sig: table.active for sig, table in self.tables.items()}

    def loaded(self) -> WorldState:
        """Read the tables, unless they were, and return the state. Blocks; any thread."""
        if isinstance(self.tables, DeferredTables):
            self.tables.load()
        return self

    @property
    def rows(self) -> int:
        """Rows in all archetypes, those despawned in the last tick included."""
        return sum(int(table.batch.num_rows) for table in self.tables.values())

    def state_hash(self, issued: Sequence[bytes] = ()) -> bytes:
        """Return 16 bytes over the tables' hashes, the counters, the configuration, the snapshots and what processors sent.

        Args:
            issued: Content hashes of the commands that processors sent in the tick, in canonical order.

        Equal states of deterministic worlds hash the same wherever and whenever they were computed.
        """
        digest = xxhash.xxh3_128()
        for sig in sorted(self.tables):
            digest.update("+".join(sig).encode())
            digest.update(self.tables[sig].frame.hash)
        digest.update(f"{self.tick} {self.next_entity_id} {self.next_issued_id}".encode())
        digest.update(self.configuration.interned.id)
        for name, snapshot in sorted(self.snapshots.items()):
            digest.update(f"{name} {len(snapshot)} ".encode())
            digest.update(snapshot)
        for content_hash in issued:
            digest.update(content_hash)
        return digest.digest()
