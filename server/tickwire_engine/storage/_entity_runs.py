"""Runs: copies of a dataset's rows in the order of entities, so that one entity's history is a few reads, not one a tick.

A dataset lies in the order of ticks, for that is how it is written and mostly read; an entity's rows are then as far apart
as they can be, and a read of each costs Lance some 50 microseconds. So when there is nothing else to do, rows of many ticks
are sorted by entity and kept beside the dataset, in its folder, as Arrow files. They are a convenience: whatever they do not
have, or cannot be read from them, the dataset has. They go with its folder.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa

from tickwire_engine.storage._files import sync_directory, write_out

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

FOLDER = "entities"
"""In a dataset's own."""
RUN_ROWS = 500_000
"""About as many rows are sorted at a time: it bounds the memory that this takes."""
RUN_LEAST_ROWS = 50_000
"""Fewer are left to Lance."""
LEAST_TICKS = 16
"""A run of fewer ticks would not be worth a file."""
_BATCH_ROWS = 8_192
_FIRSTS = b"tickwire.first_entities"
_NAME = re.compile(r"(\d+)-(\d+)-(\d+)\.arrow")
_TICK, _ENTITY = "tick", "entity_id"


class Run(NamedTuple):
    """Rows of consecutive ticks, in the order of (entity, tick)."""

    first_tick: int
    last_tick: int
    rows: int
    path: Path


def runs_in(folder: Path) -> list[Run]:
    """Return the runs beside a dataset in the order of ticks, as far as they follow each other.

    Args:
        folder: The dataset's.
    """
    try:
        entries = list((folder / FOLDER).iterdir())
    except FileNotFoundError:
        return []
    found: list[Run] = []
    named = [(match, path) for path in entries if (match := _NAME.fullmatch(path.name))]
    for run in sorted(Run(int(match[1]), int(match[2]), int(match[3]), path) for match, path in named):
        if not found or run.first_tick == found[-1].last_tick + 1:
            found.append(run)
    return found


def write_run(folder: Path, first_tick: int, last_tick: int, rows: pa.Table) -> None:
    """Sort all rows of some ticks by entity and keep them, durably.

    Raises:
        OSError: They cannot be written; nothing is kept then.
    """
    order = np.lexsort((rows[_TICK].to_numpy(), rows[_ENTITY].to_numpy()))
    ordered = rows.combine_chunks().take(order)
    firsts = ordered[_ENTITY].to_numpy()[::_BATCH_ROWS].astype("<i8")
    ordered = ordered.replace_schema_metadata({_FIRSTS: firsts.tobytes()})
    target = folder / FOLDER / f"{first_tick}-{last_tick}-{rows.num_rows}.arrow"
    target.parent.mkdir(exist_ok=True)
    part = target.parent / "next.part"
    options = pa.ipc.IpcWriteOptions(compression="lz4")
    try:
        with part.open("wb") as file:
            with pa.ipc.new_file(file, ordered.schema, options=options) as writer:
                writer.write_table(ordered, max_chunksize=_BATCH_ROWS)
            file.flush()
            write_out(file.fileno())
            os.fsync(file.fileno())
        part.replace(target)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    sync_directory(target.parent)
    sync_directory(folder)


def read_run(run: Run, entity_ids: np.ndarray[Any, Any], columns: Sequence[str]) -> pa.Table:
    """Read the rows of some entities.

    Args:
        run: The run.
        entity_ids: Ascending.
        columns: Which columns, entity_id among them.

    Raises:
        OSError: It cannot be read.
        ArrowInvalid: It is no run.
    """
    source = pa.memory_map(str(run.path))
    schema = pa.ipc.open_file(source).schema
    firsts = np.frombuffer((schema.metadata or {})[_FIRSTS], dtype="<i8")
    begin = np.maximum(np.searchsorted(firsts, entity_ids, side="left") - 1, 0)
    end = np.searchsorted(firsts, entity_ids, side="right")
    wanted = sorted({number for start, stop in zip(begin, end, strict=True) for number in range(start, stop)})
    fields = sorted(schema.get_field_index(name) for name in columns)
    reader = pa.ipc.open_file(source, options=pa.ipc.IpcReadOptions(included_fields=fields))
    found = []
    for number in wanted:
        batch = reader.get_batch(int(number)).select(list(columns))
        mine = np.flatnonzero(np.isin(batch.column(_ENTITY).to_numpy(), entity_ids))
        if len(mine):
            found.append(batch.take(mine).replace_schema_metadata(None))
    return pa.Table.from_batches(found, schema=pa.schema([schema.field(name) for name in columns]))
