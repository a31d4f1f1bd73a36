"""What changed in one stream of a view between two ticks. Pure; any thread."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa

from tickwire_engine.archetype import ENTITY_ID, IS_ACTIVE
from tickwire_engine.tick import columns as col
from tickwire_server.hub._comparing import rows_differ

if TYPE_CHECKING:
    import numpy.typing as npt


class Changes(NamedTuple):
    """One stream's rows that a subscriber must hear of.

    Attributes:
        departed: Rows that left the stream, with ``is_active=false``: as they are now if they are still in the archetype,
            else as they were.
        arrived: Rows that are new in the stream, or of which a column changed.
        ended: Entities that have their last row here, whether they were seen before or not.
    """

    departed: pa.RecordBatch
    arrived: pa.RecordBatch
    ended: npt.NDArray[np.int64]


def changes_between(before: pa.RecordBatch, after: pa.RecordBatch) -> Changes:
    """Compare a stream's rows, in entity order, at two ticks; inactive rows before count as absent."""
    before_active, after_active = col.active_mask(before), col.active_mask(after)
    if not before_active.all():
        before = before.filter(pa.array(before_active))
    before_ids, after_ids = _ids(before), _ids(after)
    at, found = col.locate(before_ids, after)
    stays = found.copy()
    stays[found] = after_active[at[found]]
    arrives = after_active.copy()
    if stays.all() and len(before_ids) == len(after_ids):
        arrives &= _differ(before, after)
    else:
        rows = at[stays]
        same = ~_differ(before.filter(pa.array(stays)), after.take(rows))
        arrives[rows[same]] = False
    arrived = after if arrives.all() else after.filter(pa.array(arrives))
    ended = ~after_active
    return Changes(_departed(before, after, stays, found, at), arrived, after_ids[ended])


def _departed(
    before: pa.RecordBatch,
    after: pa.RecordBatch,
    stays: npt.NDArray[np.bool_],
    found: npt.NDArray[np.bool_],
    at: npt.NDArray[np.int64],
) -> pa.RecordBatch:
    if stays.all():
        return before.slice(0, 0)
    moved, ended = ~stays & ~found, ~stays & found
    pieces = []
    if moved.any():
        old = before.filter(pa.array(moved))
        pieces.append(col.deactivate(old, np.arange(old.num_rows)))
    if ended.any():
        pieces.append(after.take(at[ended]))
    return col.concat(pieces)


def _differ(before: pa.RecordBatch, after: pa.RecordBatch) -> npt.NDArray[np.bool_]:
    differ = np.zeros(after.num_rows, bool)
    for name, old, new in zip(before.schema.names, before.columns, after.columns, strict=True):
        if name not in (ENTITY_ID, IS_ACTIVE):
            differ |= rows_differ(old, new)
    return differ


def _ids(batch: pa.RecordBatch) -> npt.NDArray[np.int64]:
    return np.asarray(batch.column(ENTITY_ID).to_numpy())
