"""Scans: the rows of many ticks, or of few entities over many ticks, in the order of ticks, some of them at a time.

What did not change was not written again, so the rows of a tick are those of each archetype's greatest record up to it. A
scan finds out which records its ticks need, reads each once, and shows it at every tick that it holds for. Each page is
read in a transaction of its own. Rows of a scan are not held against the hashes of their ticks, for they are seldom a tick's
all: `verify` and `doctor` do that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa

from tickwire_engine.archetype import ENTITY_ID, IS_ACTIVE
from tickwire_engine.encoding import decode, read_schema
from tickwire_engine.errors import CorruptRecordError
from tickwire_engine.storage import _reads as reads
from tickwire_engine.storage._archiving import datasets
from tickwire_engine.storage._columns import TICK, stored_schema
from tickwire_engine.storage._storable import convert
from tickwire_engine.storage._writes import WorldKey

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    import apsw

    from tickwire_engine.storage import Archive, TickLog
    from tickwire_engine.storage._lineage import Segment
    from tickwire_engine.storage.archive import Dataset
    from tickwire_engine.storage.rows import Stream

PAGE_ROWS = 100_000
"""About so many rows are read at a time; a tick that has more is read whole."""
MAX_PAGE_TICKS = 4_096
_FEW_IDS = 512
"""More entities than these are not looked up one by one."""

Ints = np.ndarray[Any, np.dtype[np.int64]]


class StreamRows(NamedTuple):
    """Rows of one archetype at some ticks: a column of ticks, then the stream's own columns that were asked for."""

    stream: Stream
    rows: pa.RecordBatch


class RowScan:
    """What is asked of a history: which rows and columns of which streams."""

    def __init__(
        self,
        log: TickLog,
        archive: Archive,
        ids: Mapping[int, bytes],
        segments: Sequence[Segment],
        streams: Sequence[Stream],
        *,
        entity_ids: Sequence[int] | None = None,
        columns: Collection[str] | None = None,
    ) -> None:
        """Takes what is asked.

        Args:
            log: Of the store.
            archive: Of the store.
            ids: Of the store's worlds, by key.
            segments: Whose ticks the history is made of, oldest first.
            streams: Which streams.
            entity_ids: Only these; None: all.
            columns: Only these, where a stream has them, entity_id and is_active besides; None: all.
        """
        self._log = log
        self._archive = archive
        self._worlds = ids
        self._segments = segments
        self._streams = streams
        self._ids = None if entity_ids is None else np.unique(np.asarray(entity_ids, dtype=np.int64))
        self._columns = None if columns is None else {*columns, ENTITY_ID, IS_ACTIVE}
        self._looked_up = self._ids is not None and len(self._ids) <= _FEW_IDS
        """Whether only the rows of these entities are read."""
        self._page_ticks = max(1, PAGE_ROWS // max(1, len(entity_ids or ()))) if self._looked_up else 1
        self._held: dict[int, tuple[int, pa.RecordBatch]] = {}

    def next_page(self, connection: apsw.Connection, ticks: Sequence[int]) -> tuple[int, list[StreamRows]]:
        """Read the rows of the first of some kept ticks.

        Returns:
            How many ticks were read, and their active rows by stream, in the order of ticks and entities.
        """
        count = min(len(ticks), self._page_ticks, MAX_PAGE_TICKS)
        while True:
            page = np.asarray(ticks[:count], dtype=np.int64)
            wanted = [self._records(connection, stream, page) for stream in self._streams]
            rows = sum(self._count(connection, records) for records in wanted) if count > 1 else 0
            if rows <= 2 * PAGE_ROWS or count == 1:
                break
            count = max(1, count // 2)
        found = [self._read(connection, records, page) for records in wanted]
        read = [rows for rows in found if rows is not None]
        self._adapt(count, sum(entry.rows.num_rows for entry in read))
        return count, read

    def _adapt(self, ticks: int, rows: int) -> None:
        """Choose how many ticks to read next: as many as make a page, and not all at once."""
        if not self._looked_up:
            fitting = PAGE_ROWS * ticks // max(rows, 1)
            self._page_ticks = max(1, min(fitting, ticks * 8, MAX_PAGE_TICKS))

    def _records(self, connection: apsw.Connection, stream: Stream, page: Ints) -> _Records:
        """Find the greatest record up to each tick of a page; -1 where there is none, or an empty one."""
        first, last = int(page[0]), int(page[-1])
        spans: list[tuple[int, int, bool]] = []
        journaled: dict[int, _Journaled] = {}
        for segment in reversed(self._segments):
            key = WorldKey(segment.world, self._worlds[segment.world])
            end = min(last, segment.last)
            archived = reads.spans_between(connection, key.key, stream.number, first, end)
            spans += [(span.first_tick, min(span.last_tick, end), span.occupied) for span in archived]
            for tick, rows in reads.records_between(connection, key.key, stream.number, first, end):
                spans.append((tick, tick, rows > 0))
                journaled[tick] = _Journaled(key, rows)
            if any(start <= first for start, _, _ in spans):
                break
        spans.sort()
        starts = np.asarray([span[0] for span in spans], dtype=np.int64)
        at = np.searchsorted(starts, page, side="right") - 1
        if not len(starts):
            return _Records(stream, np.full(len(page), -1, dtype=np.int64), journaled)
        ends = np.asarray([span[1] for span in spans], dtype=np.int64)
        occupied = np.asarray([span[2] for span in spans], dtype=bool)
        there = (at >= 0) & occupied[at]
        return _Records(stream, np.where(there, np.minimum(ends[at], page), -1), journaled)

    def _count(self, connection: apsw.Connection, records: _Records) -> int:
        """Count the rows that `_read` would read, about."""
        if self._looked_up:
            return 0
        total = 0
        needed = [tick for tick in np.unique(records.at).tolist() if tick >= 0]
        for dataset, ticks in self._archived(connection, records, needed):
            total += self._archive.count(dataset, _at(ticks))
        total += sum(records.journaled[tick].rows for tick in needed if tick in records.journaled)
        return total * len(records.at) // max(len(needed), 1)

    def _read(self, connection: apsw.Connection, records: _Records, page: Ints) -> StreamRows | None:
        needed = [tick for tick in np.unique(records.at).tolist() if tick >= 0]
        if not needed:
            return None
        batches: list[tuple[Ints, pa.RecordBatch]] = []
        held = self._held.get(records.stream.number)
        if held is not None and held[0] == needed[0]:
            batches.append((np.full(held[1].num_rows, held[0], np.int64), held[1]))
            needed = needed[1:]
        schema = self._schema(records.stream)
        for dataset, ticks in self._archived(connection, records, needed):
            batches.append(self._archived_rows(dataset, ticks, schema))
        for tick in needed:
            if tick in records.journaled:
                key = records.journaled[tick].world
                frame = reads.frame(connection, self._log, key, records.stream.number, tick)
                rows = self._chosen(decode(records.stream.schema, frame.messages))
                batches.append((np.full(rows.num_rows, tick, np.int64), rows))
        if self._ids is None:
            found = np.unique(np.concatenate([ticks for ticks, _ in batches])) if batches else ()
            for tick in needed:
                if tick not in found:
                    raise _missing(tick)
        self._hold(records, batches)
        return _shown(records, page, batches, schema)

    def _hold(self, records: _Records, batches: Sequence[tuple[Ints, pa.RecordBatch]]) -> None:
        """Keep the last record's rows: the next page's first ticks may be it still."""
        last = int(records.at.max())
        for ticks, rows in reversed(batches):
            chosen = np.flatnonzero(ticks == last)
            if len(chosen):
                self._held[records.stream.number] = last, rows.slice(int(chosen[0]), len(chosen))
                return

    def _archived(
        self, connection: apsw.Connection, records: _Records, needed: Sequence[int]
    ) -> Iterator[tuple[Dataset, list[int]]]:
        """Yield the datasets that have the records which the journal has not, with their ticks."""
        rest = [tick for tick in needed if tick not in records.journaled]
        for segment in self._segments if rest else ():
            for dataset in datasets(connection, segment.world):
                if (dataset.kind, dataset.stream) == ("stream", records.stream.number):
                    until = min(dataset.last_tick, segment.last)
                    ticks = [tick for tick in rest if dataset.first_tick <= tick <= until]
                    if ticks:
                        yield dataset, ticks

    def _archived_rows(
        self, dataset: Dataset, ticks: Sequence[int], schema: pa.Schema
    ) -> tuple[Ints, pa.RecordBatch]:
        read = stored_schema(schema)
        if self._ids is not None and self._looked_up:
            rows = self._archive.read_entities(dataset, self._ids, (ticks[0], ticks[-1]), read)
        else:
            rows = self._archive.read(dataset, _at(ticks), read)
        found = rows[TICK].to_numpy()
        entities = rows[ENTITY_ID].to_numpy()
        mask = (found >= ticks[0]) & (found <= ticks[-1])
        if self._ids is not None:
            mask &= np.isin(entities, self._ids)
        # A full scan comes in the order of rows, and an index does not say in which.
        picks = np.lexsort((entities, found))
        picks = picks[mask[picks]]
        batch = _one(rows.select(schema.names)).take(picks)
        columns = [convert(column, field.type) for column, field in zip(batch.columns, schema, strict=True)]
        return found[picks], pa.RecordBatch.from_arrays(columns, schema=schema)

    def _chosen(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        if self._ids is not None:
            rows = rows.take(np.flatnonzero(np.isin(rows.column(ENTITY_ID).to_numpy(), self._ids)))
        return (
            rows
            if self._columns is None
            else rows.select([n for n in rows.schema.names if n in self._columns])
        )

    def _schema(self, stream: Stream) -> pa.Schema:
        schema = read_schema(stream.schema)
        return pa.schema([field for field in schema if self._columns is None or field.name in self._columns])


class _Journaled(NamedTuple):
    """A record in the journal's tail."""

    world: WorldKey
    rows: int


class _Records(NamedTuple):
    """Which record of a stream each tick of a page shows."""

    stream: Stream
    at: Ints
    """Its tick; -1: none."""
    journaled: dict[int, _Journaled]
    """The records that are in the journal still."""


def _shown(
    records: _Records, page: Ints, batches: Sequence[tuple[Ints, pa.RecordBatch]], schema: pa.Schema
) -> StreamRows | None:
    """Show each record at all of its ticks: active rows only, behind a column of ticks."""
    if not batches:
        return None
    parts = [rows for _, rows in batches]
    rows = parts[0] if len(parts) == 1 else pa.concat_batches(parts)  # type: ignore[attr-defined]
    own = np.concatenate([ticks for ticks, _ in batches])
    if len(batches) > 1 and not bool((own[:-1] <= own[1:]).all()):
        order = np.argsort(own, kind="stable")
        own, rows = own[order], rows.take(order)
    starts = np.searchsorted(own, records.at, side="left")
    counts = np.where(records.at >= 0, np.searchsorted(own, records.at, side="right") - starts, 0)
    total = int(counts.sum())
    ends = np.cumsum(counts)
    picks = np.arange(total) - np.repeat(ends - counts, counts) + np.repeat(starts, counts)
    ticks = np.repeat(page, counts)
    active = np.asarray(rows.column(IS_ACTIVE).to_numpy(zero_copy_only=False))[picks]
    if not active.all():
        ticks, picks = ticks[active], picks[active]
    whole = len(picks) == rows.num_rows and bool((picks == np.arange(len(picks))).all())
    chosen = rows if whole else rows.take(picks)
    if not chosen.num_rows:
        return None
    shown = pa.schema([pa.field(TICK, pa.int64(), nullable=False), *schema])
    return StreamRows(
        records.stream, pa.RecordBatch.from_arrays([pa.array(ticks), *chosen.columns], schema=shown)
    )


def _at(ticks: Sequence[int]) -> str:
    if ticks[-1] - ticks[0] + 1 == len(ticks):
        return (
            f"{TICK} = {ticks[0]}" if len(ticks) == 1 else f"{TICK} >= {ticks[0]} AND {TICK} <= {ticks[-1]}"
        )
    return f"{TICK} IN ({', '.join(map(str, ticks))})"


def _one(table: pa.Table) -> pa.RecordBatch:
    batches = table.combine_chunks().to_batches()
    return batches[0] if batches else pa.RecordBatch.from_pylist([], schema=table.schema)


def _missing(tick: int) -> CorruptRecordError:
    return CorruptRecordError(
        f"rows of tick {tick} are missing in the archive; restore the data directory from a backup", tick=tick
    )
