"""The Arrow tables of a tick in the making: whole columns in, whole columns out.

Every edit is vectorised and makes new batches; those that a tick began with stay as they are. Rows of a batch stand in
ascending entity_id, always.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from tickwire_engine.archetype import IS_ACTIVE, archetype_schema
from tickwire_engine.evolution import fitted
from tickwire_engine.tick import columns as col

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tickwire_engine.archetype import Signature
    from tickwire_engine.component import ComponentCatalog
    from tickwire_engine.state import WorldState


class TableDraft:
    """Batches by signature; used by one thread."""

    def __init__(self, state: WorldState, catalog: ComponentCatalog) -> None:
        self._world_id = state.world_id
        self._catalog = catalog
        self._schemas: dict[Signature, pa.Schema] = {}
        self.batches: dict[Signature, pa.RecordBatch] = {}
        self.grown: set[Signature] = set()
        """Archetypes whose components have other fields by now than their stream has."""
        for sig, table in state.tables.items():
            self._schemas[sig] = table.schema
            # Those despawned in the tick before had their last row there.
            live = table.batch.filter(table.batch.column(IS_ACTIVE)) if table.inactive else table.batch
            self.batches[sig] = live
        if state.generation != catalog.generation:
            self._grow()

    def schema(self, sig: Signature) -> pa.Schema:
        """Return the schema of an archetype, whether it has rows or not."""
        if sig not in self._schemas:
            kinds = [self._catalog.require(name) for name in sig]
            self._schemas[sig] = archetype_schema(kinds, world_id=self._world_id)
        return self._schemas[sig]

    def _grow(self) -> None:
        for sig, batch in self.batches.items():
            if not all(name in self._catalog for name in sig):
                continue
            kinds = [self._catalog.require(name) for name in sig]
            schema = archetype_schema(kinds, world_id=self._world_id)
            if not schema.equals(batch.schema):
                self.batches[sig] = fitted(batch, schema, self._catalog)
                self._schemas[sig] = schema
                self.grown.add(sig)

    def find(self, ids: np.ndarray) -> Iterator[tuple[Signature, np.ndarray, np.ndarray]]:
        """Yield (signature, rows in its batch, positions in `ids`) wherever active entities of `ids` stand."""
        for sig, batch in self.batches.items():
            if not batch.num_rows:
                continue
            rows, found = col.locate(ids, batch)
            if found.any() and not col.all_active(batch):
                found &= col.active_mask(batch)[rows]
            if found.any():
                yield sig, rows[found], np.flatnonzero(found)

    def append(self, sig: Signature, rows: pa.RecordBatch) -> None:
        """Add rows to an archetype."""
        old = self.batches.get(sig)
        has_rows = old is not None and old.num_rows
        self.batches[sig] = (
            col.concat([old, rows]) if old is not None and has_rows else col.in_entity_order(rows)
        )

    def write(self, sig: Signature, rows: np.ndarray, columns: Mapping[str, pa.Array[Any]]) -> None:
        """Write `columns` into `rows` of an archetype."""
        batch = self.batches[sig]
        replaced = {name: col.scatter(batch.column(name), rows, values) for name, values in columns.items()}
        self.batches[sig] = col.replace_columns(batch, replaced)

    def deactivate(self, sig: Signature, rows: np.ndarray) -> None:
        """Set ``is_active=false`` at `rows` of an archetype."""
        self.batches[sig] = col.deactivate(self.batches[sig], rows)

    def move(
        self, origin: Signature, target: Signature, rows: np.ndarray, columns: Mapping[str, pa.Array[Any]]
    ) -> None:
        """Move `rows` of one archetype into another.

        Args:
            rows: Positions in the batch of `origin`.
            columns: Values by column, one for each of `rows`: they go over the row's own, and must include every column
                that `origin` does not have.
        """
        source = self.batches[origin]
        schema = self.schema(target)
        taken = source.take(rows)
        arrays = [columns[name] if name in columns else taken.column(name) for name in schema.names]
        staying = np.ones(source.num_rows, dtype=bool)
        staying[rows] = False
        self.batches[origin] = source.filter(pa.array(staying))
        self.append(target, pa.RecordBatch.from_arrays(arrays, schema=schema))

    def rows_of(self, sig: Signature, ids: list[int]) -> np.ndarray:
        """Return where entities, which are there, stand in an archetype's batch."""
        return col.locate(np.array(ids, dtype=np.int64), self.batches[sig])[0]
