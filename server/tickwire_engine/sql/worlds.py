"""Worlds as the tables of SQL queries: ``world.position`` for every component, and ``world.entities``.

A component's table has the columns tick, entity_id, is_active (always true: only active rows are there) and the component's
fields, of every entity that has it. ``entities`` has one row for every entity: the same first columns, archetype,
components (a list of names), and every field, NULL where an entity has none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from tickwire_engine.archetype import ENTITY_ID, IS_ACTIVE
from tickwire_engine.reading import TICK, active_rows, only_entities

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from tickwire_engine.archetype import Signature
    from tickwire_engine.component import ComponentType
    from tickwire_engine.sql._pushdown import Bounds
    from tickwire_engine.sql.catalog import SqlTable

ENTITIES = "entities"
ARCHETYPE = "archetype"
COMPONENTS = "components"
FEW_ENTITIES = 4_096
"""Up to so many entities are looked up by id; of more, all rows are read."""
_PAGE_ROWS = 65_536
_FIRST: list[pa.Field[Any]] = [
    pa.field(TICK, pa.int64(), nullable=False),
    pa.field(ENTITY_ID, pa.int64(), nullable=False),
    pa.field(IS_ACTIVE, pa.bool_(), nullable=False),
]


def component_schema(kind: ComponentType) -> pa.Schema:
    """Return the columns of a component's table."""
    return pa.schema([*_FIRST, *kind.prefixed_schema])


def entities_schema(kinds: Iterable[ComponentType]) -> pa.Schema:
    """Return the columns of the table of entities that may have `kinds`."""
    own: list[pa.Field[Any]] = [
        pa.field(ARCHETYPE, pa.utf8(), nullable=False),
        pa.field(COMPONENTS, pa.list_(pa.utf8()), nullable=False),
    ]
    ordered = sorted(kinds, key=lambda kind: kind.name)
    fields = [field.with_nullable(True) for kind in ordered for field in kind.prefixed_schema]
    return pa.schema([*_FIRST, *own, *fields])


def table_rows(
    batch: pa.RecordBatch, sig: Signature, columns: Sequence[str], schema: pa.Schema, *, tick: int = -1
) -> Iterator[pa.RecordBatch]:
    """Yield rows of an archetype as pages of a table's rows.

    Args:
        batch: Active rows of it.
        sig: Its components.
        columns: The columns to show, in this order.
        schema: The table's.
        tick: The tick that they are shown at, if they have no column of ticks themselves.
    """
    shown = pa.schema([schema.field(name) for name in columns])
    for start in range(0, batch.num_rows, _PAGE_ROWS):
        page = batch.slice(start, _PAGE_ROWS)
        arrays = [_column(page, sig, tick, field) for field in shown]
        yield pa.RecordBatch.from_arrays(arrays, schema=shown)


def _column(page: pa.RecordBatch, sig: Signature, tick: int, field: pa.Field[Any]) -> pa.Array[Any]:
    rows = page.num_rows
    if field.name == TICK and tick >= 0:
        return pa.array(np.full(rows, tick, np.int64))
    if field.name == ARCHETYPE:
        return _repeated("+".join(sig), rows, field.type)
    if field.name == COMPONENTS:
        return _repeated([*sig], rows, field.type)
    index = page.schema.get_field_index(field.name)
    return page.column(index) if index >= 0 else pa.nulls(rows, field.type)


def _repeated(value: object, rows: int, kind: pa.DataType) -> pa.Array[Any]:
    scalar: Any = pa.scalar(value, kind)
    repeated: pa.Array[Any] = pa.repeat(scalar, rows)
    return repeated


class StateCatalog:
    """One world at one tick, as it is in memory: its tables with the world's name before them, and without."""

    def __init__(
        self,
        world: str,
        tick: int,
        tables: Mapping[Signature, pa.RecordBatch],
        kinds: Iterable[ComponentType],
    ) -> None:
        """Takes a state.

        Args:
            world: The world's name; "" if the tables have no other names than their own.
            tick: What the column tick says.
            tables: The rows of every archetype, inactive ones too.
            kinds: All components that a query may name.
        """
        self._world = world.lower()
        self._tick = tick
        self._tables = tables
        self._kinds = {kind.name.lower(): kind for kind in kinds}

    def table(self, schema: str, name: str) -> SqlTable | None:
        """Return a table by its name."""
        if schema and schema.lower() != self._world:
            return None
        kind = self._kinds.get(name.lower())
        if kind is not None:
            return _StateTable(self._tick, self._tables, kind.name, component_schema(kind))
        if name.lower() == ENTITIES:
            return _StateTable(self._tick, self._tables, "", entities_schema(self._kinds.values()))
        return None

    def names(self) -> Sequence[str]:
        """Return the names that there are."""
        return [ENTITIES, *sorted(self._kinds)]


class _StateTable:
    """The rows of a state whose entities have a component; without one, all."""

    def __init__(
        self, tick: int, tables: Mapping[Signature, pa.RecordBatch], component: str, schema: pa.Schema
    ) -> None:
        self._tick = tick
        self._tables = tables
        self._component = component
        self.schema = schema

    def scan(self, columns: Sequence[str], bounds: Bounds) -> Iterator[pa.RecordBatch]:
        """Yield its rows."""
        if not any(first <= self._tick <= last for first, last in bounds.ticks):
            return
        few = bounds.few_entities(FEW_ENTITIES)
        for sig, batch in self._tables.items():
            if not self._component or self._component in sig:
                rows = active_rows(batch)
                rows = rows if few is None else only_entities(rows, few)
                yield from table_rows(rows, sig, columns, self.schema, tick=self._tick)
