"""What the archiver writes to the journal: the moved watermark, and the rows that may go for it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from tickwire_engine import failpoints
from tickwire_engine.storage import _packing as packing
from tickwire_engine.storage._reads import segments
from tickwire_engine.storage._writes import Plain
from tickwire_engine.storage.archive import Dataset

if TYPE_CHECKING:
    from collections.abc import Sequence

    import apsw

    from tickwire_engine.storage import Archive, Journal, TickLog


_DATASET = "world, kind, stream, first_tick, last_tick, rows, path, version, unindexed, optimised, sealed, bytes, kept"


class RecordedAt(NamedTuple):
    """That a stream has a record at a tick."""

    stream: int
    tick: int
    occupied: bool


def datasets(connection: apsw.Connection, world: int | None = None) -> list[Dataset]:
    """Read the datasets of a world, or of all, in order of kind, stream and ticks."""
    cursor = connection.execute(
        f"SELECT {_DATASET} FROM datasets WHERE ?1 IS NULL OR world = ?1 "  # noqa: S608
        "ORDER BY world, kind, stream, first_tick",
        (world,),
    )
    return [Dataset(*row) for row in cursor]


def watermark(connection: apsw.Connection, world: int) -> int:
    """Read the last archived tick."""
    tick: int = connection.execute("SELECT tick FROM watermarks WHERE world = ?", (world,)).get
    return tick


@dataclass(slots=True)
class Archived(Plain):
    """Move a world's watermark: from now on, readers find these ticks in the archive."""

    world: int
    tick: int
    datasets: Sequence[Dataset]
    records: Sequence[RecordedAt]
    """In the order of ticks, for each stream."""

    def apply(self, connection: apsw.Connection) -> None:
        """Name the datasets' synced versions, and where each stream has records."""
        write_datasets(connection, self.datasets)
        connection.execute("UPDATE watermarks SET tick = ? WHERE world = ?", (self.tick, self.world))
        self._extend_spans(connection)
        # The archive has the older ones; a start needs the last of each name.
        connection.execute(
            "DELETE FROM snapshots AS old WHERE world = ?1 AND tick < (SELECT max(tick) FROM snapshots "
            "WHERE world = ?1 AND name = old.name AND tick <= ?2)",
            (self.world, self.tick),
        )

    def _extend_spans(self, connection: apsw.Connection) -> None:
        spans: dict[int, list[list[int]]] = {}
        for stream, tick, occupied in self.records:
            if stream not in spans:
                last = connection.execute(
                    "SELECT first_tick, last_tick, occupied FROM spans WHERE world = ? AND stream = ? "
                    "ORDER BY first_tick DESC LIMIT 1",
                    (self.world, stream),
                ).get
                spans[stream] = [list(last)] if last else []
            known = spans[stream]
            if known and known[-1][1] == tick - 1 and known[-1][2] == occupied:
                known[-1][1] = tick
            else:
                known.append([tick, tick, int(occupied)])
        connection.executemany(
            "INSERT OR REPLACE INTO spans VALUES (?,?,?,?,?)",
            [(self.world, stream, *span) for stream, known in spans.items() for span in known],
        )


@dataclass(slots=True)
class WriteDataset(Plain):
    """Name the synced version of a dataset whose rows did not change: it was compacted, indexed or sealed."""

    dataset: Dataset

    def apply(self, connection: apsw.Connection) -> None:
        """Replace its row."""
        write_datasets(connection, [self.dataset])


@dataclass(slots=True)
class ReplaceDatasets(Plain):
    """Name a dataset in the place of others, or none: their rows that a kept tick needs are in it."""

    gone: Sequence[Dataset]
    made: Dataset | None = None

    def apply(self, connection: apsw.Connection) -> None:
        """Delete the rows of those that go, and write the new one."""
        connection.executemany("DELETE FROM datasets WHERE path = ?", [(old.path,) for old in self.gone])
        if self.made is not None:
            write_datasets(connection, [self.made])
        failpoints.reach("retire.before")

    def committed(self) -> None:
        """Do nothing but mark the place."""
        failpoints.reach("retire.after")


@dataclass(slots=True)
class Trim(Plain):
    """Let go of the first rows up to the watermark, in small bites: commits wait behind it."""

    world: int
    max_rows: int
    max_bytes: int
    """About how much it may touch."""

    def apply(self, connection: apsw.Connection) -> bool:
        """Delete whole ticks, oldest first; their commands move to those applied.

        Returns:
            Whether there is more to let go.
        """
        last = watermark(connection, self.world)
        cursor = connection.execute(
            "SELECT tick, recorded, outcomes, bytes, committed_at_us FROM ticks WHERE world = ? AND tick <= ? "
            "ORDER BY tick LIMIT ?",
            (self.world, last, self.max_rows),
        )
        size = 0
        ticks: list[int] = []
        records: list[tuple[int, int, int]] = []
        settled: list[tuple[int, int, int, int, bytes, int, int]] = []
        for tick, recorded, outcomes, nbytes, at_us in cursor:
            ticks.append(tick)
            records += [(self.world, r.stream, tick) for r in packing.unpack_recorded(recorded)]
            for position, outcome in enumerate(packing.unpack_outcomes(outcomes)):
                blob = packing.pack_outcomes((outcome,), outcome.outcome_seq)
                settled.append(
                    (self.world, outcome.seq, tick, position, blob, outcome.outcome_seq, at_us // 1000)
                )
            size += nbytes
            if len(ticks) + len(records) + len(settled) >= self.max_rows or size >= self.max_bytes:
                break
        cursor.close()
        if not ticks:
            return False
        connection.executemany(
            "INSERT INTO applied SELECT world, id, seq, tick, priority, type, actor, version, "
            "accepted_at_us, content_hash, first_entity_id, entity_count, ?3, ?4, ?5, ?6, max(?7, id_ms(id)) "
            "FROM commands WHERE world = ?1 AND seq = ?2",
            settled,
        )
        connection.executemany(
            "DELETE FROM commands WHERE world = ? AND seq = ?", [(row[0], row[1]) for row in settled]
        )
        connection.executemany("DELETE FROM records WHERE world = ? AND stream = ? AND tick = ?", records)
        connection.execute("DELETE FROM ticks WHERE world = ? AND tick <= ?", (self.world, ticks[-1]))
        failpoints.reach("trim.before")
        return True

    def committed(self) -> None:
        """Do nothing but mark the place."""
        failpoints.reach("trim.after")


@dataclass(slots=True)
class FindUnused(Plain):
    """Find the segments of the tick log that no row names, and none ever will."""

    log: TickLog
    unused: list[int] = field(default_factory=list)
    connection: apsw.Connection | None = None

    def apply(self, connection: apsw.Connection) -> None:
        """Wait for the group's end: its other requests may have written to the log, and not named it yet."""
        self.connection = connection

    def committed(self) -> None:
        """Look, between two groups."""
        assert self.connection is not None
        used = segments(self.connection)
        self.unused = [n for n in self.log.segments() if n not in used and n != self.log.current]


def sync_dataset(journal: Journal, archive: Archive, path: str) -> None:
    """Make a dataset's files durable.

    Raises:
        StorageFailedError: The sync failed: what was not synced cannot be told from what was.
    """
    try:
        archive.sync(path)
    except OSError as error:
        raise journal.fail(error) from error


def write_datasets(connection: apsw.Connection, changed: Sequence[Dataset]) -> None:
    """Insert or replace datasets."""
    connection.executemany("INSERT OR REPLACE INTO datasets VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?)", changed)
