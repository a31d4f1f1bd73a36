"""Reading worlds: rows by components out of archetype tables, as they are and as they were.

Plain functions over immutable batches, for any thread; those that take a `History` block.
"""

from __future__ import annotations

import bisect
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from tickwire_engine.archetype import ENTITY_ID, IS_ACTIVE, signature
from tickwire_engine.encoding import decode
from tickwire_engine.errors import EntityNotFoundError, InvalidRequestError
from tickwire_engine.evolution import fitted
from tickwire_engine.tick import columns as col

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from tickwire_engine.archetype import Signature
    from tickwire_engine.component import ComponentCatalog, ComponentType
    from tickwire_engine.storage.history import History
    from tickwire_engine.storage.rows import Stream

TICK = "tick"
_FEW = 16
"""Up to here ticks are read one by one; more of them in one go, where they lie close together."""


def rows_having(
    tables: Mapping[Signature, pa.RecordBatch],
    kinds: Sequence[ComponentType],
    entity_ids: Sequence[int] | None = None,
) -> pa.RecordBatch:
    """Return the active rows of every entity that has all `kinds`, as one batch in entity order.

    Columns: entity_id, is_active, then the components' fields in (component, field) order.
    """
    wanted = set(signature(kind.name for kind in kinds))
    schema = _schema_of(kinds)
    batches = [
        active_rows(batch).select(schema.names).replace_schema_metadata(None)
        for sig, batch in tables.items()
        if wanted <= set(sig)
    ]
    if not batches:
        return pa.RecordBatch.from_pylist([], schema=schema)
    whole = col.concat(batches)
    return whole if entity_ids is None else only_entities(whole, entity_ids)


def active_rows(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return the rows with ``is_active=true``; the batch itself where all are."""
    mask = col.active_mask(batch)
    return batch if mask.all() else batch.filter(pa.array(mask))


def entity_values(batches: Iterable[pa.RecordBatch], entity_id: int) -> dict[str, dict[str, Any]]:
    """Return one entity's row as values by component and field.

    Raises:
        EntityNotFoundError: No batch has it.
    """
    wanted = pa.array([entity_id], pa.int64()).to_numpy()
    for batch in batches:
        rows, found = col.locate(wanted, batch)
        if not found[0]:
            continue
        result: dict[str, dict[str, Any]] = {}
        for field in list(batch.schema)[2:]:
            metadata = field.metadata or {}
            component = metadata.get(b"tickwire.component", b"").decode()
            name = metadata.get(b"tickwire.field", b"").decode()
            result.setdefault(component, {})[name] = batch.column(field.name)[int(rows[0])].as_py()
        return result
    raise EntityNotFoundError(f"no entity {entity_id} at that tick", field="entity_id", entity_id=entity_id)


def archetype_schema(
    sig: Signature, components: Sequence[str] | None, catalog: ComponentCatalog
) -> pa.Schema:
    """Return the columns of an archetype's history: tick, entity_id, is_active, fields of `components` (None: all).

    Raises:
        InvalidRequestError: The archetype does not have one of `components`.
        UnknownComponentError: A component is not registered.
    """
    names = sig if components is None else signature(components)
    for name in names:
        if name not in sig:
            raise InvalidRequestError(
                f"archetype {'+'.join(sig)} has no component {name}", field="components", component=name
            )
    rest = list(_schema_of([catalog.require(name) for name in names]))
    return pa.schema([pa.field(TICK, pa.int64(), nullable=False), *rest])


def archetype_history(
    history: History,
    world: int,
    stream: Stream,
    ticks: Collection[int],
    *,
    schema: pa.Schema,
    entity_ids: Sequence[int] | None,
    catalog: ComponentCatalog,
) -> pa.Table:
    """Read an archetype's active rows at each of `ticks`, ordered by (tick, entity_id), with the columns of `schema`."""
    pieces = []
    for tick, batch in _at_each(history, world, stream, sorted(ticks)):
        rows = active_rows(batch)
        if entity_ids is not None:
            rows = only_entities(rows, entity_ids)
        if rows.num_rows:
            stamp = pa.array(np.full(rows.num_rows, tick, np.int64))
            shown = fitted(rows, pa.schema(list(schema)[1:]), catalog)
            arrays: list[pa.Array[Any]] = [stamp, *shown.columns]
            pieces.append(pa.RecordBatch.from_arrays(arrays, schema=schema))
    return pa.Table.from_batches(pieces, schema=schema)


def _at_each(
    history: History, world: int, stream: Stream, ticks: Sequence[int]
) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Yield the rows of a stream at each tick; its record at a tick is the greatest one up to it."""
    if not ticks:
        return
    only = (stream.number,)
    # Ticks below the floor lie apart, and cannot be read in one go.
    dense = bisect.bisect_left(ticks, history.earliest_tick(world))
    if dense and dense < len(ticks):
        yield from _at_each(history, world, stream, ticks[:dense])
        yield from _at_each(history, world, stream, ticks[dense:])
        return
    if dense or len(ticks) <= _FEW or ticks[-1] - ticks[0] > 4 * len(ticks):
        for tick in ticks:
            found = history.state_at(world, tick, streams=only).get(stream.number)
            if found is not None:
                yield tick, found[1]
        return
    wanted = set(ticks)
    found = history.state_at(world, ticks[0], streams=only).get(stream.number)
    rows = None if found is None else found[1]
    for stored in history.ticks(world, ticks[0], ticks[-1]):
        for frame in stored.changed:
            if frame.stream == stream.number:
                rows = decode(stream.schema, frame.messages)
        tick = stored.summary.tick
        if rows is not None and tick in wanted:
            yield tick, rows


def _schema_of(kinds: Iterable[ComponentType]) -> pa.Schema:
    fields: list[pa.Field[Any]] = [
        pa.field(ENTITY_ID, pa.int64(), nullable=False),
        pa.field(IS_ACTIVE, pa.bool_(), nullable=False),
    ]
    for kind in sorted(kinds, key=lambda entry: entry.name):
        fields.extend(kind.prefixed_schema)
    return pa.schema(fields)


def only_entities(batch: pa.RecordBatch, entity_ids: Sequence[int]) -> pa.RecordBatch:
    """Return the rows of these entities, in entity order; those that are not there are passed over."""
    rows, found = col.locate(pa.array(sorted(set(entity_ids)), pa.int64()).to_numpy(), batch)
    return batch.take(pa.array(rows[found], pa.int64()))
