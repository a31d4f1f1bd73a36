"""One turn of the archiver in one world: copy what was committed, move the watermark, let go of copies."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from tickwire_engine import failpoints
from tickwire_engine.encoding import decode
from tickwire_engine.storage import _packing as packing
from tickwire_engine.storage import _reads as reads
from tickwire_engine.storage._archiving import (
    Archived,
    FindUnused,
    RecordedAt,
    Trim,
    datasets,
    sync_dataset,
    watermark,
)
from tickwire_engine.storage._columns import commands_table, ticks_table, with_ticks
from tickwire_engine.storage._lag import ROW_BYTES
from tickwire_engine.storage._writes import WorldKey
from tickwire_engine.storage.archive import Dataset

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import apsw
    import pyarrow as pa

    from tickwire_engine.storage import Archive, Journal, TickLog
    from tickwire_engine.storage._lag import ArchiveLag
    from tickwire_engine.storage._leases import Leases
    from tickwire_engine.storage.rows import CommandRow, Outcome


_TICKS = 10_000
_COMMANDS = 20_000
_BITE_ROWS = 400
_BITE_BYTES = 1 << 20


class _Load:
    """What one turn takes along, read in one transaction."""

    def __init__(self) -> None:
        self.ticks: list[tuple[Any, ...]] = []
        self.frames: dict[int, list[tuple[int, pa.RecordBatch]]] = {}
        self.records: list[RecordedAt] = []
        self.commands: list[tuple[CommandRow, int, int, Outcome]] = []
        self.datasets: list[Dataset] = []
        self.watermark = -1
        self.rows = 0
        self.nbytes = 0
        self.frame_bytes = 0

    @property
    def lag_bytes(self) -> int:
        """What it takes off the archive's lag."""
        return (len(self.ticks) + len(self.commands)) * ROW_BYTES + self.frame_bytes

    def tables(self) -> Iterator[tuple[str, int, pa.Table]]:
        """Make the tables to append, (kind, stream, rows), one at a time; streams without rows have none.

        A large world's rows take much memory: what was loaded of a stream is let go of once its table is made.
        """
        for stream in sorted(self.frames):
            yield "stream", stream, with_ticks(self.frames.pop(stream))
        yield "ticks", 0, ticks_table(self.ticks)
        if self.commands:
            yield "commands", 0, commands_table(self.commands)


class Copier:
    """Copies worlds' committed ticks to the archive; on the archiver's thread only."""

    def __init__(
        self,
        journal: Journal,
        log: TickLog,
        archive: Archive,
        leases: Leases,
        ids: Mapping[int, bytes],
        lag: ArchiveLag,
    ) -> None:
        self._journal = journal
        self._log = log
        self._archive = archive
        self._leases = leases
        self._ids = ids
        self._lag = lag

    def last_tick(self, world: int) -> int:
        """Return the last tick that the world has committed by now."""
        with self._journal.read() as connection:
            return reads.next_tick(connection, world) - 1

    def archived_tick(self, world: int) -> int:
        """Return the last tick that is archived durably."""
        with self._journal.read() as connection:
            return watermark(connection, world)

    def copy(self, world: int, *, max_bytes: int, max_rows: int) -> int:
        """Copy the oldest ticks that are not archived, up to about so many bytes or rows.

        Returns:
            The watermark, once the copy is durable.

        Raises:
            OSError: A sync failed.
        """
        key = WorldKey(world, self._ids[world])
        with self._journal.read() as connection:
            load = self._load(connection, key, max_bytes, max_rows)
        if not load.ticks:
            return load.watermark
        first, last = load.watermark + 1, int(load.ticks[-1][0])
        changed: list[Dataset] = []
        for kind, stream, rows in load.tables():
            dataset = _open_dataset(load.datasets, key, kind, stream, first)
            failpoints.reach("archive.append.before")
            version = self._archive.append(dataset, rows)
            failpoints.reach("archive.append.after")
            count = rows.num_rows
            changed.append(
                dataset._replace(
                    last_tick=last,
                    rows=dataset.rows + count,
                    version=version,
                    unindexed=dataset.unindexed + count,
                    nbytes=dataset.nbytes + rows.nbytes,
                )
            )
        for dataset in changed:
            sync_dataset(self._journal, self._archive, dataset.path)
        failpoints.reach("watermark.before")
        self._journal.call(Archived(world, last, changed, load.records))
        failpoints.reach("watermark.after")
        self._lag.take(world, load.lag_bytes)
        return last

    def trim(self, world: int) -> None:
        """Let the journal go of what the archive has, and delete segments that no row names any more."""
        while self._journal.call(Trim(world, _BITE_ROWS, _BITE_BYTES)):
            pass
        self.release_segments()

    def release_segments(self) -> None:
        """Delete segments that no row names any more, once nobody reads them."""
        search = FindUnused(self._log)
        self._journal.call(search)
        for segment in search.unused:
            self._leases.defer(functools.partial(self._log.delete, segment))

    def _load(self, connection: apsw.Connection, key: WorldKey, max_bytes: int, max_rows: int) -> _Load:
        load = _Load()
        load.datasets = datasets(connection, key.key)
        load.watermark = watermark(connection, key.key)
        schemas = {stream.number: stream.schema for stream in reads.streams(connection, key.key)}
        for values in reads.raw_ticks(connection, key.key, load.watermark + 1, _TICKS):
            tick = values[0]
            snapshots = reads.snapshots_at(connection, key.key, tick)
            load.frame_bytes += values[15]
            load.ticks.append((*values, packing.pack_snapshots(snapshots)))
            for record in packing.unpack_recorded(values[16]):
                load.records.append(RecordedAt(record.stream, tick, record.rows > 0))
                if record.rows:
                    frame = reads.frame(connection, self._log, key, record.stream, tick)
                    batch = decode(schemas[record.stream], frame.messages)
                    load.frames.setdefault(record.stream, []).append((tick, batch))
                    load.nbytes += frame.nbytes
                load.rows += record.rows
            for position, outcome in enumerate(packing.unpack_outcomes(values[18])):
                command = reads.command(connection, self._log, key, outcome.seq)
                load.commands.append((command, tick, position, outcome))
                load.nbytes += len(command.payload) + len(command.table)
            if load.nbytes >= max_bytes or load.rows >= max_rows or len(load.commands) >= _COMMANDS:
                break
        return load


def _open_dataset(known: list[Dataset], key: WorldKey, kind: str, stream: int, first_tick: int) -> Dataset:
    for dataset in reversed(known):
        if (dataset.kind, dataset.stream) == (kind, stream):
            if not (dataset.sealed or dataset.kept):
                return dataset
            break
    name = f"{kind}-{stream}-{first_tick}" if kind == "stream" else f"{kind}-{first_tick}"
    path = f"{_uuid(key.id)}/{name}"
    return Dataset(key.key, kind, stream, first_tick, first_tick, 0, path, 0, 0, 0, sealed=0)


def _uuid(id_: bytes) -> str:
    text = id_.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
