"""History out of the archive: ticks, records and commands at or below a world's watermark.

An instance lives as long as one read transaction: it sees the datasets at the versions that this transaction
names. What comes back from Lance is encoded again; the encoding is canonical, so these are the bytes that
were committed, and the hash that the tick recorded for them proves it.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import pyarrow as pa

from tickwire_engine.encoding import encode, read_schema
from tickwire_engine.errors import CorruptRecordError
from tickwire_engine.storage import _reads as reads
from tickwire_engine.storage._archiving import datasets
from tickwire_engine.storage._columns import (
    COMMAND_VALUES,
    SUMMARY_COLUMNS,
    TICK,
    TICKS_SCHEMA,
    by_tick,
    command_rows,
    stored_schema,
    subschema,
    summary_rows,
    tick_rows,
)
from tickwire_engine.storage._packing import unpack_outcomes, unpack_recorded, unpack_snapshots

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import apsw

    from tickwire_engine.storage import Archive
    from tickwire_engine.storage._columns import ArchivedCommand, TickRow
    from tickwire_engine.storage.archive import Dataset
    from tickwire_engine.storage.rows import Frame, Outcome, TickSummary

_PAGE_TICKS = 256
_PAGE_ROWS = 200_000
_SUMMARIES = 1024


class ArchivedHistory:
    """One world's archive, as one read transaction sees it."""

    def __init__(self, connection: apsw.Connection, archive: Archive, world: int) -> None:
        self.streams: dict[int, bytes] = {s.number: s.schema for s in reads.streams(connection, world)}
        self._archive = archive
        self._datasets = datasets(connection, world)

    def frames(self, wanted: Iterable[tuple[int, int]]) -> dict[int, tuple[int, Frame]]:
        """Read records: (stream, tick) each; the result is by stream, with the record's tick."""
        wanted = list(wanted)
        hashes: dict[tuple[int, int], bytes] = {}
        for tick in {tick for _, tick in wanted}:
            for dataset in self._covering("ticks", 0, tick, tick):
                rows = self._archive.read(
                    dataset, _between(TICK, tick, tick), subschema(TICKS_SCHEMA, "recorded")
                )
                for blob in rows["recorded"]:
                    hashes |= {(record.stream, tick): record.hash for record in unpack_recorded(blob.as_py())}
        frames = {}
        for stream, tick in wanted:
            batch = self._batches(stream, tick, tick).get(tick)
            frames[stream] = (tick, self._encoded(stream, tick, batch, hashes.get((stream, tick), b"")))
        return frames

    def page(self, first: int, last: int) -> list[tuple[TickRow, list[Frame]]]:
        """Read ticks in order with the frames that they recorded: as many of them as make a handy page."""
        ticks = _first_of(self._ticks(first, min(last, first + _PAGE_TICKS - 1)))
        if not ticks:
            raise _missing(first)
        _require_all([tick.summary.tick for tick in ticks], first)
        last = ticks[-1].summary.tick
        streams = {record.stream for tick in ticks for record in tick.recorded if record.rows}
        batches = {stream: self._batches(stream, first, last) for stream in streams}
        return [
            (
                tick,
                [
                    self._encoded(
                        record.stream,
                        tick.summary.tick,
                        batches.get(record.stream, {}).get(tick.summary.tick),
                        record.hash,
                    )
                    for record in tick.recorded
                ],
            )
            for tick in ticks
        ]

    def tick(self, tick: int) -> TickRow:
        """Read one tick without the bytes of its frames."""
        for row in self._ticks(tick, tick):
            return row
        raise _missing(tick)

    def summaries(self, first: int, last: int) -> list[TickSummary]:
        """Read summaries in order: as many of them as make a handy page."""
        rows = self._summaries(first, min(last, first + _SUMMARIES - 1))
        if not rows:
            raise _missing(first)
        _require_all([row.tick for row in rows], first)
        return rows

    def outcomes(self, first: int, last: int) -> dict[int, Sequence[Outcome]]:
        """Read what became of the commands of ticks, by tick; of ticks without commands nothing."""
        return {
            tick.summary.tick: unpack_outcomes(tick.outcomes)
            for tick in self._ticks(first, last)
            if tick.outcomes
        }

    def command_at(self, tick: int, position: int) -> ArchivedCommand | None:
        """Read the command that a tick applied at a position; None: there is none, or it is no longer kept."""
        for dataset in self._covering("commands", 0, tick, tick):
            where = f"applied_tick = {tick} AND position = {position}"
            for found in command_rows(self._archive.read(dataset, where, COMMAND_VALUES)):
                # A damaged index takes one row for another.
                if (found.tick, found.position) == (tick, position):
                    return found
        return None

    def command_of(self, command_id: bytes) -> ArchivedCommand | None:
        """Read a command by its id, which takes a look at every one that is kept."""
        for dataset in self._datasets:
            if dataset.kind == "commands":
                found = command_rows(
                    self._archive.read(dataset, f"id = X'{command_id.hex()}'", COMMAND_VALUES)
                )
                if found:
                    return found[0]
        return None

    def command_sizes(self, where: str) -> list[tuple[int, int]]:
        """Look for commands: (seq, bytes of payload and table) each, in no order."""
        found: list[tuple[int, int]] = []
        for dataset in self._datasets:
            if dataset.kind == "commands":
                rows = self._archive.read(dataset, where, subschema(COMMAND_VALUES, "seq", "body_bytes"))
                found += [(row["seq"], row["body_bytes"]) for row in rows.to_pylist()]
        return found

    def commands(self, seqs: Sequence[int]) -> list[ArchivedCommand]:
        """Read commands by seq, in the order in which they were applied."""
        where = f"seq IN ({','.join(map(str, seqs))})"
        found: list[ArchivedCommand] = []
        for dataset in self._datasets:
            if dataset.kind == "commands":
                found += command_rows(self._archive.read(dataset, where, COMMAND_VALUES))
        lost = sorted({*seqs} - {entry.command.seq for entry in found})
        if lost or len(found) != len(seqs):
            raise CorruptRecordError(
                f"commands {lost[:5]} are missing in the archive; restore the data directory from a backup",
                seq=min(lost, default=min(seqs)),
            )
        return found

    def applied(self, first: int, last: int) -> list[ArchivedCommand]:
        """Read the commands that ticks applied or rejected, in their order."""
        found: list[ArchivedCommand] = []
        for dataset in self._covering("commands", 0, first, last):
            found += command_rows(
                self._archive.read(dataset, _between("applied_tick", first, last), COMMAND_VALUES)
            )
        # A damaged index leaves rows out, or takes one for another: the ticks know how many there are.
        positions = defaultdict(set)
        for entry in found:
            positions[entry.tick].add(entry.position)
        for row in self._summaries(first, last):
            if positions[row.tick] != {*range(row.commands_applied + row.commands_rejected)}:
                raise CorruptRecordError(
                    f"commands of tick {row.tick} are missing in the archive; restore the data directory from a "
                    "backup",
                    tick=row.tick,
                )
        return sorted(found, key=lambda entry: entry[1:3])

    def snapshots_at(self, tick: int) -> dict[str, bytes]:
        """Read the last snapshot of each resource up to a tick."""
        found: dict[str, bytes] = {}
        for dataset in self._covering("ticks", 0, 0, tick):
            # Not by the index on ticks: were it damaged, an older snapshot would pass for the last.
            rows = self._archive.read(dataset, "snapshots <> X''", TICKS_SCHEMA)
            for row in sorted(tick_rows(rows), key=lambda row: row.summary.tick):
                if row.summary.tick <= tick:
                    found |= unpack_snapshots(row.snapshots)
        return found

    def rows(self, stream: int, tick: int) -> int:
        """Read how many rows a tick recorded in a stream."""
        return next((r.rows for r in self.tick(tick).recorded if r.stream == stream), 0)

    def _summaries(self, first: int, last: int) -> list[TickSummary]:
        rows: list[TickSummary] = []
        for dataset in self._covering("ticks", 0, first, last):
            columns = subschema(TICKS_SCHEMA, *SUMMARY_COLUMNS, "summary_checksum")
            rows += summary_rows(self._archive.read(dataset, _between(TICK, first, last), columns))
        return sorted(rows, key=lambda row: row.tick)

    def _ticks(self, first: int, last: int) -> list[TickRow]:
        rows: list[TickRow] = []
        for dataset in self._covering("ticks", 0, first, last):
            rows += tick_rows(self._archive.read(dataset, _between(TICK, first, last), TICKS_SCHEMA))
        return sorted(rows, key=lambda row: row.summary.tick)

    def _batches(self, stream: int, first: int, last: int) -> dict[int, pa.RecordBatch]:
        schema = read_schema(self.streams[stream])
        stored = stored_schema(schema)
        batches: dict[int, pa.RecordBatch] = {}
        for dataset in self._covering("stream", stream, first, last):
            batches |= by_tick(self._archive.read(dataset, _between(TICK, first, last), stored), schema)
        return batches

    def _encoded(self, stream: int, tick: int, batch: pa.RecordBatch | None, expected: bytes) -> Frame:
        if batch is None:
            batch = pa.RecordBatch.from_pylist([], schema=read_schema(self.streams[stream]))
        frame = encode(batch, stream=stream)
        if frame.hash != expected:
            raise CorruptRecordError(
                f"the archive's rows of stream {stream} at tick {tick} are not those that were committed; "
                "restore the data directory from a backup",
                stream=stream,
                tick=tick,
            )
        return frame

    def _covering(self, kind: str, stream: int, first: int, last: int) -> list[Dataset]:
        return [
            dataset
            for dataset in self._datasets
            if (dataset.kind, dataset.stream) == (kind, stream)
            and dataset.first_tick <= last
            and dataset.last_tick >= first
        ]


def _first_of(ticks: Sequence[TickRow]) -> list[TickRow]:
    page: list[TickRow] = []
    rows = 0
    for tick in ticks:
        rows += sum(record.rows for record in tick.recorded)
        if page and rows > _PAGE_ROWS:
            break
        page.append(tick)
    return page


def _between(column: str, first: int, last: int) -> str:
    return f"{column} = {first}" if first == last else f"{column} >= {first} AND {column} <= {last}"


def _require_all(ticks: Iterable[int], first: int) -> None:
    """Refuse ticks with gaps: a damaged index leaves rows out without a word."""
    for expected, tick in enumerate(ticks, first):
        if tick != expected:
            raise _missing(expected)


def _missing(tick: int) -> CorruptRecordError:
    return CorruptRecordError(
        f"tick {tick} is missing in the archive; restore the data directory from a backup", tick=tick
    )
