"""Queries: which rows of a world are asked for, and what answers them, now and in the past.

Plain values and functions over immutable batches, for any thread; those that take a `History` block.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pyarrow as pa

from tickwire_engine.archetype import ENTITY_ID, IS_ACTIVE, MAX_ID, signature
from tickwire_engine.component import COMPONENT_KEY
from tickwire_engine.encoding import read_schema
from tickwire_engine.errors import InvalidRequestError, UnknownComponentError
from tickwire_engine.reading import TICK, active_rows, only_entities
from tickwire_engine.sql import catalog_columns, parse_condition

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from tickwire_engine.archetype import Signature
    from tickwire_engine.component import ComponentCatalog
    from tickwire_engine.sql import SqlCondition
    from tickwire_engine.storage.history import History
    from tickwire_engine.storage.rows import Stream

FIRST_FIELDS: tuple[pa.Field[Any], ...] = (
    pa.field(TICK, pa.int64(), nullable=False),
    pa.field(ENTITY_ID, pa.int64(), nullable=False),
    pa.field(IS_ACTIVE, pa.bool_(), nullable=False),
)
"""What every answer begins with."""


@dataclass(frozen=True, slots=True)
class RowQuery:
    """A checked query.

    Attributes:
        components: Entities that have all of these, with their fields; empty: all entities, all fields.
        condition: What must hold for a row; None: nothing.
        entity_ids: Only these, ascending; None: all.
        limit: At most so many rows; 0: all.
        asked: The fields of `components`: they are in the answer also where no entity has them.
    """

    components: Signature = ()
    condition: SqlCondition | None = None
    entity_ids: tuple[int, ...] | None = None
    limit: int = 0
    asked: tuple[pa.Field[Any], ...] = ()

    @classmethod
    def parse(
        cls,
        catalog: ComponentCatalog,
        *,
        components: Sequence[str] = (),
        where: str = "",
        entity_ids: Sequence[int] = (),
        limit: int = 0,
        path: str = "",
    ) -> Self:
        """Check what is asked.

        Args:
            catalog: The components that there are.
            components: Entities that have all of these.
            where: A condition over their columns; "": none.
            entity_ids: Only these; none: all.
            limit: At most so many rows; 0: all.
            path: What stands before the names of fields in errors, as "query_world.".

        Raises:
            InvalidRequestError: A number is out of range.
            InvalidSqlError: `where` is no condition.
            UnknownComponentError: A component is not registered.
        """
        if limit < 0:
            raise InvalidRequestError(f"{path}limit must not be negative", field=f"{path}limit")
        for index, entity_id in enumerate(entity_ids):
            if not 0 < entity_id <= MAX_ID:
                field = f"{path}entity_ids[{index}]"
                raise InvalidRequestError(
                    f"{field}: {entity_id} is no entity id: they are positive", field=field
                )
        for index, name in enumerate(components):
            if name not in catalog:
                raise UnknownComponentError(
                    f"component {name!r} is not registered (known: {', '.join(k.name for k in catalog) or 'none'})",
                    field=f"{path}components[{index}]",
                    component=name,
                )
        condition = None
        if where:
            condition = parse_condition(where, catalog_columns(catalog), path=f"{path}where")
        wanted = signature(components)
        asked = tuple(field for name in wanted for field in catalog.require(name).prefixed_schema)
        return cls(wanted, condition, tuple(sorted(set(entity_ids))) or None, limit, asked)

    def fits(self, sig: Iterable[str], names: list[str]) -> bool:
        """Whether entities of an archetype may be in the answer.

        Args:
            sig: Its components.
            names: Its columns.
        """
        return set(self.components) <= {*sig} and (self.condition is None or self.condition.fits(names))

    def schema(self, archetypes: Iterable[tuple[Signature, pa.Schema]]) -> pa.Schema:
        """Return the answer's columns: tick, entity_id, is_active, then fields in (component, field) order.

        Args:
            archetypes: Those that there are, with their own schemas.
        """
        chosen = [schema for sig, schema in archetypes if set(self.components) <= {*sig}]
        fields: dict[str, pa.Field[Any]] = {} if chosen else {field.name: field for field in self.asked}
        for schema in chosen:
            for field in list(schema)[2:]:
                if not self.components or _component_of(field) in self.components:
                    everywhere = all(field.name in other.names for other in chosen)
                    fields[field.name] = field if everywhere else field.with_nullable(True)
        # Fields of a component are in the order of its declaration, which is the archetype's.
        ordered = sorted(fields.values(), key=_component_of)
        return pa.schema([*FIRST_FIELDS, *ordered])

    def columns(self, schema: pa.Schema) -> set[str]:
        """Return the columns that must be read for an answer of `schema`."""
        return {*schema.names[1:], *(() if self.condition is None else self.condition.columns)}

    def select(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        """Return those of some active rows that the condition and the ids leave.

        Raises:
            InvalidSqlError: A row has a value that the condition cannot work with.
        """
        if self.condition is not None:
            mask = self.condition.mask(rows)
            rows = rows if mask.all() else rows.filter(pa.array(mask))
        return rows


def live_rows(
    query: RowQuery, tables: Mapping[Signature, pa.RecordBatch], tick: int, schema: pa.Schema
) -> pa.RecordBatch:
    """Answer a query from a state.

    Args:
        query: What is asked.
        tables: The rows of every archetype, inactive ones too.
        tick: Their tick.
        schema: See `RowQuery.schema`.

    Raises:
        InvalidSqlError: A row has a value that the condition cannot work with.
    """
    pieces = []
    for sig, batch in tables.items():
        if query.fits(sig, batch.schema.names):
            rows = active_rows(batch)
            if query.entity_ids is not None:
                rows = only_entities(rows, query.entity_ids)
            rows = query.select(rows)
            if rows.num_rows:
                pieces.append(_widened(rows, schema, pa.array(np.full(rows.num_rows, tick, np.int64))))
    joined = _joined(pieces, schema)
    return joined.slice(0, query.limit) if query.limit else joined


def past_rows(
    query: RowQuery,
    history: History,
    world: int,
    ticks: Sequence[int],
    streams: Sequence[Stream],
    schema: pa.Schema,
) -> Iterator[pa.RecordBatch]:
    """Answer a query from history, page by page, in the order of (tick, entity_id).

    Args:
        query: What is asked.
        history: Where the rows are.
        world: The world's key.
        ticks: Kept ticks, ascending.
        streams: The world's, as of the last of them.
        schema: See `RowQuery.schema`.

    Raises:
        InvalidSqlError: A row has a value that the condition cannot work with.
        TickNotKeptError: Retention has overtaken the reader.
        CorruptRecordError: Stored bytes cannot be read.
    """
    chosen = [s for s in streams if query.fits(s.components, read_schema(s.schema).names)]
    left = query.limit
    pages = history.scan(
        world, ticks, streams=chosen, entity_ids=query.entity_ids, columns=query.columns(schema)
    )
    for page in pages if chosen else ():
        pieces = []
        for entry in page:
            rows = query.select(entry.rows)
            if rows.num_rows:
                pieces.append(_widened(rows, schema, rows.column(TICK)))
        if not pieces:
            continue
        joined = _joined(pieces, schema)
        if query.limit:
            joined = joined.slice(0, left)
            left -= joined.num_rows
        yield joined
        if query.limit and not left:
            return


def _component_of(field: pa.Field[Any]) -> str:
    return (field.metadata or {}).get(COMPONENT_KEY, b"").decode()


def _widened(rows: pa.RecordBatch, schema: pa.Schema, ticks: pa.Array[Any]) -> pa.RecordBatch:
    arrays: list[pa.Array[Any]] = [ticks]
    for field in list(schema)[1:]:
        index = rows.schema.get_field_index(field.name)
        arrays.append(rows.column(index) if index >= 0 else pa.nulls(rows.num_rows, field.type))
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _joined(pieces: Sequence[pa.RecordBatch], schema: pa.Schema) -> pa.RecordBatch:
    if not pieces:
        return pa.RecordBatch.from_pylist([], schema=schema)
    if len(pieces) == 1:
        return pieces[0]
    joined: pa.RecordBatch = pa.concat_batches(pieces)  # type: ignore[attr-defined]
    order = np.lexsort((joined.column(ENTITY_ID).to_numpy(), joined.column(TICK).to_numpy()))
    return joined.take(order)
