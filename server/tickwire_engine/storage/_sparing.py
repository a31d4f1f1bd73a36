"""What is spared of datasets that the floor has passed, and how its rows are copied."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from tickwire_engine.storage._archived import ArchivedHistory
from tickwire_engine.storage._columns import (
    COMMAND_VALUES,
    TICK,
    TICKS_SCHEMA,
    subschema,
    tick_values,
    ticks_table,
)
from tickwire_engine.storage._packing import pack_snapshots, unpack_snapshots

if TYPE_CHECKING:
    from collections.abc import Iterator

    import apsw
    import pyarrow as pa

    from tickwire_engine.storage import Archive
    from tickwire_engine.storage.archive import Dataset

_SCHEMAS = {"ticks": TICKS_SCHEMA, "commands": COMMAND_VALUES}
_PIECE_ROWS = 500_000
_PIECE_TICKS = 500


@dataclass(frozen=True, slots=True)
class Left:
    """What kept ticks need of one dataset."""

    ticks: np.ndarray[Any, np.dtype[np.int64]]
    """The records, by their ticks, in order."""
    before: int
    """How many records it has."""
    snapshots: dict[int, bytes] = field(default_factory=dict)
    """By tick: all resources' snapshots as of then, for its row to carry instead of those that it wrote itself."""

    @property
    def count(self) -> int:
        """How many records are left."""
        return len(self.ticks)


def left_of_ticks(
    connection: apsw.Connection,
    archive: Archive,
    dataset: Dataset,
    ticks: np.ndarray[Any, np.dtype[np.int64]],
    *,
    superseded: bool,
) -> Left:
    """Find which rows of a dataset of ticks are left: those of `ticks`, and one to carry on the snapshots.

    Resources' snapshots build on each other: a tick's are the last ones of each name up to it. So every row that is left
    carries them all, and the last row of the dataset is left for the ticks after it, where there are any.
    """
    snapshots: dict[int, bytes] = {}
    past = ArchivedHistory(connection, archive, dataset.world)
    current = past.snapshots_at(dataset.first_tick - 1)
    written = archive.read(dataset, "snapshots <> X''", subschema(TICKS_SCHEMA, TICK, "snapshots")).sort_by(
        "tick"
    )
    changes: list[tuple[int, bytes]] = [(row["tick"], row["snapshots"]) for row in written.to_pylist()]
    if not (current or changes):
        return Left(ticks, dataset.rows)
    if not superseded:
        ticks = np.union1d(ticks, [dataset.last_tick])
    position = 0
    for tick in ticks.tolist():
        while position < len(changes) and changes[position][0] <= tick:
            current |= unpack_snapshots(changes[position][1])
            position += 1
        snapshots[tick] = pack_snapshots(current)
    return Left(ticks, dataset.rows, snapshots)


def rows_at(archive: Archive, dataset: Dataset, left: Left) -> Iterator[pa.Table]:
    """Read what is left of a dataset, some of it at a time, in freshly allocated arrays."""
    per_record = max(1, dataset.rows // max(1, left.before))
    size = max(1, min(_PIECE_TICKS, _PIECE_ROWS // per_record))
    for start in range(0, left.count, size):
        wanted = ", ".join(map(str, left.ticks[start : start + size].tolist()))
        rows = archive.read(dataset, f"tick IN ({wanted})", _SCHEMAS.get(dataset.kind))
        if rows.num_rows:
            yield _carrying(rows, left.snapshots) if left.snapshots else _fresh(rows)


def new_path(dataset: Dataset, first_tick: int) -> str:
    """Return where what is left is kept: a name that no dataset has had."""
    folder = dataset.path.partition("/")[0]
    stream = f"-{dataset.stream}" if dataset.kind == "stream" else ""
    return f"{folder}/{dataset.kind}{stream}-{first_tick}-{secrets.token_hex(4)}"


def _fresh(rows: pa.Table) -> pa.Table:
    order = np.argsort(rows["tick"].to_numpy(), kind="stable")
    return rows.combine_chunks().take(order)


def _carrying(rows: pa.Table, snapshots: dict[int, bytes]) -> pa.Table:
    # Checked before their checksums are made anew.
    found = tick_values(rows.sort_by(TICK))
    return ticks_table([(*values[:-1], snapshots[values[0]]) for values in found])
