"""A world's state after any kept tick, read back from its history."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING
from uuid import UUID

import numpy as np

from tickwire_engine.configuration import WorldConfiguration
from tickwire_engine.deferred import DeferredTables
from tickwire_engine.encoding import decode
from tickwire_engine.rehydration import rehydrate
from tickwire_engine.state import Table, WorldState
from tickwire_engine.tick import columns as col

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tickwire_engine.archetype import Signature
    from tickwire_engine.commands import Vocabulary
    from tickwire_engine.storage._forking import ForkPoint
    from tickwire_engine.storage.history import History
    from tickwire_engine.storage.rows import Stream, WorldRow


def state_after(history: History, row: WorldRow, tick: int, vocabulary: Vocabulary) -> WorldState:
    """Return the state of a world after a tick; after -1 it is the empty one that every world begins with.

    Its tables are read at first use.

    Raises:
        TickNotKeptError: The tick is no longer kept.
        CorruptRecordError: Stored bytes are not what was committed.
    """
    return state_from(history, row, history.fork_point(row.key, tick), vocabulary)


def state_from(history: History, row: WorldRow, point: ForkPoint, vocabulary: Vocabulary) -> WorldState:
    """Return the state of a world at a point of its history; its tables are read at first use."""
    world_id, tick = UUID(bytes=row.id), point.tick
    if tick < 0:
        return WorldState(world_id, 0, WorldConfiguration.of())
    # A fork that is not stored yet has no key of its own; the tick was committed in the world that made it.
    maker = point.segments[-1].world
    saved = history.configuration(point.configuration_id)
    return WorldState(
        world_id=world_id,
        tick=tick + 1,
        configuration=WorldConfiguration.of() if saved is None else rehydrate(saved, vocabulary),
        tables=deferred_tables(history, maker, tick, point.streams, entities=point.entities),
        streams=MappingProxyType({stream.components: stream for stream in point.streams}),
        next_entity_id=point.next_entity_id,
        next_issued_id=point.next_issued_id,
        snapshots=MappingProxyType(history.snapshots_at(maker, tick)),
    )


def deferred_tables(
    history: History, world: int, tick: int, streams: Sequence[Stream], *, entities: int
) -> DeferredTables:
    """Return the tables of a world after a tick, to be read at first use.

    Args:
        streams: Those that may have rows.
        entities: How many active ones there are.
    """

    def read() -> Mapping[Signature, Table]:
        return tables_after(history, world, tick, streams)

    def count() -> Mapping[Signature, int]:
        rows = history.row_counts(world, tick)
        if sum(rows.values()) != entities:
            # Some of them have their last row in this very tick: only the rows tell in which archetype.
            return {sig: table.active for sig, table in read().items()}
        return {s.components: rows[s.number] for s in streams if s.number in rows}

    return DeferredTables(read, count, entities=entities)


def tables_after(
    history: History, world: int, tick: int, streams: Sequence[Stream]
) -> Mapping[Signature, Table]:
    """Return the tables of a world after a tick, by signature; none before the first."""
    tables: dict[Signature, Table] = {}
    records = history.records_at(world, tick) if tick >= 0 else {}
    for stream in streams:
        if stream.number in records:
            record_tick, frame = records[stream.number]
            batch = decode(stream.schema, frame.messages)
            inactive = int(batch.num_rows - np.count_nonzero(col.active_mask(batch)))
            tables[stream.components] = Table(stream, batch.schema, batch, inactive, frame, record_tick)
    return MappingProxyType(tables)
