"""Rows chosen by a condition, and what commands do to all of them at once.

Nothing here is done row by row: a condition gives one mask for a table, and a change is written, or moved, as columns.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa

from tickwire_engine.archetype import signature
from tickwire_engine.state import entity_ids
from tickwire_engine.tick import columns as col

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tickwire_engine.archetype import Signature
    from tickwire_engine.sql import SqlCondition
    from tickwire_engine.tick.tables import TableDraft


class Place(NamedTuple):
    """Rows of one archetype.

    Attributes:
        rows: Positions in its batch, ascending.
        ids: The entities that stand there.
    """

    signature: Signature
    rows: np.ndarray
    ids: np.ndarray


def select(tables: TableDraft, condition: SqlCondition) -> list[Place]:
    """Return the active rows where `condition` holds, in the archetypes that have its columns.

    Raises:
        InvalidSqlError: A row has a value that it cannot work with.
    """
    places = []
    for sig, batch in tables.batches.items():
        if not batch.num_rows or not condition.fits(batch.schema.names):
            continue
        if col.all_active(batch):
            rows = np.flatnonzero(condition.mask(batch))
        else:
            active = col.active_mask(batch)
            rows = np.flatnonzero(active)
            rows = rows[condition.mask(batch.filter(pa.array(active)))]
        if len(rows):
            places.append(Place(sig, rows, entity_ids(batch)[rows]))
    return places


def count(places: Iterable[Place]) -> int:
    """Return how many rows were chosen."""
    return sum(len(place.rows) for place in places)


def write(tables: TableDraft, place: Place, values: Mapping[str, Any]) -> None:
    """Write the same values, by column, into rows."""
    schema = tables.schema(place.signature)
    tables.write(place.signature, place.rows, _repeated(values, schema, len(place.rows)))


def extend(
    tables: TableDraft, places: Iterable[Place], changes: Iterable[Mapping[str, Any]], added: Signature
) -> None:
    """Give rows the components `added`: move them, or write where they have them all.

    Args:
        changes: For each place, the values by column: every column of a component that its archetype lacks.
    """
    pairs = [
        (place, values, signature((*place.signature, *added)))
        for place, values in zip(places, changes, strict=True)
    ]
    # Writes in place first: rows that move in shift the others. No archetype is both left and entered here.
    for place, values, target in sorted(pairs, key=lambda pair: pair[0].signature != pair[2]):
        if target == place.signature:
            write(tables, place, values)
        else:
            columns = _repeated(values, tables.schema(target), len(place.rows))
            tables.move(place.signature, target, place.rows, columns)


def reduce(tables: TableDraft, places: Iterable[Place], removed: Iterable[str]) -> None:
    """Take components from rows; where an archetype has none of them, nothing happens."""
    gone = set(removed)
    for place in places:
        target = signature(set(place.signature) - gone)
        if target != place.signature:
            tables.move(place.signature, target, place.rows, {})


def _repeated(values: Mapping[str, Any], schema: pa.Schema, rows: int) -> dict[str, pa.Array[Any]]:
    return {
        name: pa.repeat(pa.scalar(value, type=schema.field(name).type), rows)
        for name, value in values.items()
    }
