"""Vectorised edits of Arrow columns: the arithmetic under spawn, update and despawn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from tickwire_engine.archetype import ENTITY_ID, IS_ACTIVE
from tickwire_engine.state import entity_ids

if TYPE_CHECKING:
    from collections.abc import Mapping

_PLAIN = (pa.types.is_integer, pa.types.is_floating)


def locate(ids: np.ndarray, batch: pa.RecordBatch) -> tuple[np.ndarray, np.ndarray]:
    """Find entities in a batch sorted by entity_id.

    Returns:
        (positions, found): for each id its row, and whether it is there; a position counts only where found.
    """
    own = entity_ids(batch)
    positions = np.searchsorted(own, ids)
    clipped = np.minimum(positions, max(len(own) - 1, 0))
    found = (own[clipped] == ids) if len(own) else np.zeros(len(ids), dtype=bool)
    return clipped, found


def scatter(column: pa.Array[Any], rows: np.ndarray, values: pa.Array[Any]) -> pa.Array[Any]:
    """Return `column` with `values` written at `rows`; where a row is named twice, the last one wins."""
    if (
        any(kind(column.type) for kind in _PLAIN)
        and not column.null_count
        and not values.null_count
        and column.type == values.type
    ):
        plain = column.to_numpy(zero_copy_only=False).copy()
        plain[rows] = values.to_numpy(zero_copy_only=False)
        written: pa.Array[Any] = pa.array(plain, type=column.type)
        return written
    picks = np.arange(len(column), dtype=np.int64)
    picks[rows] = len(column) + np.arange(len(values), dtype=np.int64)
    joined: pa.Array[Any] = pa.concat_arrays([column, values]).take(picks)
    return joined


def replace_columns(batch: pa.RecordBatch, columns: Mapping[str, pa.Array[Any]]) -> pa.RecordBatch:
    """Return `batch` with some columns exchanged."""
    return pa.RecordBatch.from_arrays(
        [columns.get(name, old) for name, old in zip(batch.schema.names, batch.columns, strict=True)],
        schema=batch.schema,
    )


def deactivate(batch: pa.RecordBatch, rows: np.ndarray) -> pa.RecordBatch:
    """Return `batch` with ``is_active=false`` at `rows`."""
    active = np.array(batch.column(IS_ACTIVE).to_numpy(zero_copy_only=False))
    active[rows] = False
    return replace_columns(batch, {IS_ACTIVE: pa.array(active)})


def active_mask(batch: pa.RecordBatch) -> np.ndarray:
    """Return ``is_active`` as a boolean array."""
    return np.asarray(batch.column(IS_ACTIVE).to_numpy(zero_copy_only=False))


def all_active(batch: pa.RecordBatch) -> bool:
    """Whether no row has ``is_active=false``; counted in place, where the mask would be a copy."""
    active: Any = batch.column(IS_ACTIVE)
    return bool(active.true_count == len(active))


def concat(batches: list[pa.RecordBatch]) -> pa.RecordBatch:
    """Return one batch of all rows, in ascending entity_id."""
    joined = batches[0] if len(batches) == 1 else pa.concat_batches(batches)  # type: ignore[attr-defined]
    return in_entity_order(joined)


def in_entity_order(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return `batch` sorted by entity_id; the same object when it is already."""
    ids = batch.column(batch.schema.get_field_index(ENTITY_ID)).to_numpy()
    if len(ids) < 2 or bool(np.all(ids[1:] > ids[:-1])):
        return batch
    return batch.take(np.argsort(ids, kind="stable"))
