"""A copy of a world's state, kept by changes. Pure: no network, no clock; one thread or task at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from tickwire._tick import Tick, join, select

if TYPE_CHECKING:
    from collections.abc import Mapping


class Replica:
    """The active rows of a view after the last tick that was applied.

    Attributes:
        tick: that tick; None before the first.
    """

    def __init__(self) -> None:
        self.tick: int | None = None
        self._tables: dict[str, pa.Table] = {}

    @property
    def tables(self) -> Mapping[str, pa.Table]:
        """Rows by archetype name, ascending in `entity_id`; archetypes without rows are left out."""
        return self._tables

    def __len__(self) -> int:
        return sum(table.num_rows for table in self._tables.values())

    def table(self, *components: str) -> pa.Table:
        """Joins the archetypes that have all of these components, see `Tick.table`."""
        return select(self._tables, components)

    def entity(self, entity_id: int) -> dict[str, Any] | None:
        """Answers the row of an entity, by column; None if it is not in view."""
        for table in self._tables.values():
            found = table.filter(pc.equal(table["entity_id"], pa.scalar(entity_id, pa.int64())))
            if found.num_rows:
                row: dict[str, Any] = found.to_pylist()[0]
                return row
        return None

    def apply(self, tick: Tick) -> None:
        """Takes a tick of a stream of changes."""
        if tick.snapshot:
            self._tables.clear()
        arrivals: dict[str, pa.Table] = {}
        # Departures of all archetypes come first: an entity may have gone from one to another.
        for archetype, rows in tick.tables.items():
            gone = rows.filter(pc.invert(rows["is_active"]))
            if gone.num_rows:
                self._remove(archetype, gone["entity_id"])
            arrivals[archetype] = rows.filter(rows["is_active"]) if gone.num_rows else rows
        for archetype, rows in arrivals.items():
            if rows.num_rows:
                self._put(archetype, rows)
        self.tick = tick.tick

    def _remove(self, archetype: str, ids: pa.ChunkedArray[Any]) -> None:
        held = self._tables.get(archetype)
        if held is None:
            return
        left = held.filter(pc.invert(pc.is_in(held["entity_id"], ids.combine_chunks())))
        if left.num_rows:
            self._tables[archetype] = left
        else:
            del self._tables[archetype]

    def _put(self, archetype: str, rows: pa.Table) -> None:
        held = self._tables.get(archetype)
        if held is not None and not held["entity_id"].equals(rows["entity_id"]):
            kept = held.filter(pc.invert(pc.is_in(held["entity_id"], rows["entity_id"].combine_chunks())))
            if kept.num_rows:
                metadata = rows.schema.metadata
                rows = join([kept, rows]).combine_chunks().sort_by("entity_id")
                rows = rows.replace_schema_metadata(metadata)
        self._tables[archetype] = rows
