"""A committed tick, as a subscriber sees it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import pyarrow as pa

from tickwire._models import Outcome, to_datetime

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from tickwire.v1 import tick_service_pb2 as pb

_KEYS = ("entity_id", "is_active")


@dataclass(frozen=True, slots=True, kw_only=True)
class TickSummary:
    """What a tick did; where ticks were left out before it, the counts are sums over them too.

    Attributes:
        state_hash: equal hashes, equal worlds, as long as the server's hash algorithm is the same.
        committed_at: the tick's wall-clock time, journaled with it.
        compute_s: what the tick cost from drain to encoded result.
        hz: the rate that ticks have come at lately.
    """

    tick: int
    run_id: str
    entities: int
    rows: int
    spawned: int
    despawned: int
    commands_applied: int
    commands_rejected: int
    state_hash: bytes
    committed_at: datetime | None
    compute_s: float
    hz: float

    @classmethod
    def from_message(cls, message: pb.TickSummary) -> Self:
        """Reads the contract's message."""
        return cls(
            tick=message.tick,
            run_id=message.run_id,
            entities=message.entities,
            rows=message.rows,
            spawned=message.spawned,
            despawned=message.despawned,
            commands_applied=message.commands_applied,
            commands_rejected=message.commands_rejected,
            state_hash=message.state_hash,
            committed_at=to_datetime(message.committed_at) if message.HasField("committed_at") else None,
            compute_s=message.compute.ToNanoseconds() / 1e9,
            hz=message.hz,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """A whole committed tick.

    Attributes:
        tick: its number; the rows are the state after it.
        tables: rows by archetype name ("Position+Velocity"), ascending in `entity_id`; columns `entity_id`,
            `is_active`, then `component__field`. A despawned entity is there once more, with is_active =
            false. With mode="changes": the rows that changed or came, and once more, with is_active = false, those
            that left their archetype or the view.
        summary: what the tick did.
        despawned: the ids of the entities in view that ended.
        skipped: how many ticks were left out before it (lag="skip_to_latest").
        snapshot: with mode="changes": this tick is whole; clear what you gathered before.
        outcomes: of the commands it decided, where they were asked for.
    """

    tick: int
    tables: dict[str, pa.Table]
    summary: TickSummary
    despawned: tuple[int, ...]
    skipped: int
    snapshot: bool
    outcomes: tuple[Outcome, ...]

    def table(self, *components: str) -> pa.Table:
        """Joins the archetypes that have all of these components into one table of their columns.

        Args:
            *components: class names; none: all archetypes and columns, null where an archetype lacks one.

        Returns:
            `entity_id`, `is_active`, then the fields of the components in the order named; archetype by
            archetype. No such archetype: no rows, and only the first two columns.
        """
        return select(self.tables, components)


def select(tables: Mapping[str, pa.Table], components: tuple[str, ...]) -> pa.Table:
    """Joins the tables of the archetypes that have all of these components, see `Tick.table`."""
    wanted = set(components)
    chosen = [
        _select(table, components)
        for archetype, table in tables.items()
        if wanted.issubset(archetype.split("+"))
    ]
    if not chosen:
        return pa.table({"entity_id": pa.array([], pa.int64()), "is_active": pa.array([], pa.bool_())})
    return join(chosen)


def join(tables: list[pa.Table]) -> pa.Table:
    """Puts tables below each other; columns that one lacks are null there."""
    if len(tables) == 1:
        return tables[0]
    # Metadata names one archetype, which the rows of a joined table no longer share.
    plain = [table.replace_schema_metadata(None) for table in tables]
    return pa.concat_tables(plain, promote_options="default")


def _select(table: pa.Table, components: tuple[str, ...]) -> pa.Table:
    if not components:
        return table
    prefixes = [f"{component.lower()}__" for component in components]
    fields = [name for prefix in prefixes for name in table.column_names if name.startswith(prefix)]
    return table.select([*_KEYS, *fields])
