"""History: what was at a tick, whether it still lies in the journal or was archived already.

Every call sees one consistent state of journal and archive. An iterator over many ticks reads them page by
page, each page in a read transaction of its own, so that a slow consumer holds up neither checkpoints nor
deletions. A fork's history up to its fork tick is its ancestors' (`_lineage.py`): reads find the world that has it.
All calls block: use them on a worker thread, or accept some milliseconds; any thread will do.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tickwire_engine.archetype import FIRST_ENTITY_ID
from tickwire_engine.encoding import decode
from tickwire_engine.errors import CorruptRecordError, WorldNotFoundError
from tickwire_engine.storage import _inheriting as inheriting
from tickwire_engine.storage import _packing as packing
from tickwire_engine.storage import _reads as reads
from tickwire_engine.storage._archived import ArchivedHistory
from tickwire_engine.storage._archiving import watermark
from tickwire_engine.storage._columns import tick_row
from tickwire_engine.storage._forking import ForkPoint
from tickwire_engine.storage._lineage import Lineages
from tickwire_engine.storage._records import Records
from tickwire_engine.storage._writes import FIRST_ISSUED_ENTITY_ID, WorldKey
from tickwire_engine.storage.retention import not_kept
from tickwire_engine.storage.rows import Configuration
from tickwire_engine.storage.scanning import MAX_PAGE_TICKS, RowScan

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    import apsw
    import pyarrow as pa

    from tickwire_engine.storage import Archive, Journal, TickLog
    from tickwire_engine.storage._columns import TickRow
    from tickwire_engine.storage._leases import Leases
    from tickwire_engine.storage.rows import CommandRow, Frame, Outcome, Stream, TickSummary
    from tickwire_engine.storage.scanning import StreamRows


_PAGE_TICKS = 256
_PAGE_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class StoredTick:
    """A committed tick, as it was."""

    summary: TickSummary
    changed: tuple[Frame, ...]
    """Archetypes that the tick recorded; the others are as they were."""
    despawned: tuple[int, ...]
    outcomes: tuple[Outcome, ...]
    tick_time_us: int
    inputs: bytes
    configuration_id: bytes
    next_entity_id: int
    """One past the greatest entity id that a command up to this tick reserved."""
    next_issued_id: int
    """The same for entities that processors spawned."""


@dataclass(frozen=True, slots=True)
class StoredCommand:
    """A command with its payload and table, and what became of it."""

    command: CommandRow
    outcome: Outcome | None
    """None while it is pending."""
    tick: int
    """The tick that applied or rejected it; -1 while it is pending."""


class History:
    """Reads of one store; see `Store.history`."""

    def __init__(
        self,
        journal: Journal,
        log: TickLog,
        archive: Archive,
        leases: Leases,
        ids: Mapping[int, bytes],
        lineages: Lineages | None = None,
    ) -> None:
        self.lineages = lineages or Lineages()
        self._journal = journal
        self._log = log
        self._archive = archive
        self._leases = leases
        self._ids = ids
        self._records = Records(log, archive, ids)

    def world_id(self, world: int) -> bytes:
        """Return the id of a world by its key, of a destroyed one too."""
        return self._key(world).id

    def state_at(
        self, world: int, tick: int, *, streams: Collection[int] | None = None
    ) -> dict[int, tuple[int, pa.RecordBatch]]:
        """Read the rows of every archetype as of the end of a tick.

        Args:
            world: The world's key.
            tick: A committed tick; later ones answer as the last one does.
            streams: Only these; None means all.

        Returns:
            By stream: the tick of its greatest record up to then, and that record's rows. Emptied ones are
            left out.

        Raises:
            TickNotKeptError: The tick is not kept.
            CorruptRecordError: Stored bytes are not what was committed.
        """
        schemas = {stream.number: stream.schema for stream in self.streams(world)}
        return {
            stream: (at, decode(schemas[stream], frame.messages))
            for stream, (at, frame) in self._frames(world, tick, streams).items()
        }

    def frames_at(self, world: int, tick: int) -> dict[int, Frame]:
        """Read the same as `state_at`, encoded: the very bytes that were committed."""
        return {stream: frame for stream, (_, frame) in self.records_at(world, tick).items()}

    def records_at(self, world: int, tick: int) -> dict[int, tuple[int, Frame]]:
        """Read the same as `frames_at`, each with the tick of its record."""
        return self._frames(world, tick)

    def ticks(self, world: int, first: int, last: int) -> Iterator[StoredTick]:
        """Read committed ticks in order, from `first` to `last` or to the last one committed.

        Raises:
            TickNotKeptError: `first` is below the floor, or the floor has overtaken whoever reads.
        """
        while first <= last:
            page = self._page(world, first, last)
            if not page:
                return
            yield from page
            first = page[-1].summary.tick + 1

    def scan(
        self,
        world: int,
        ticks: Sequence[int],
        *,
        streams: Sequence[Stream],
        entity_ids: Sequence[int] | None = None,
        columns: Collection[str] | None = None,
    ) -> Iterator[list[StreamRows]]:
        """Read the active rows of many ticks, page by page, each page of the ticks after the last one's.

        Args:
            world: The world's key.
            ticks: Kept ticks, ascending; see `kept_ticks`.
            streams: Only these; see `streams`.
            entity_ids: Only these; None means all.
            columns: Only these, besides entity_id and is_active; None means all.

        Raises:
            TickNotKeptError: The floor has overtaken whoever reads.
            CorruptRecordError: Stored bytes are not what was committed, as far as this can be seen in a part of them.
        """
        segments = self.lineages.of(world)
        scan = RowScan(
            self._log, self._archive, self._ids, segments, streams, entity_ids=entity_ids, columns=columns
        )
        read = 0
        while read < len(ticks):
            with self._reading(world, ticks[read]) as connection:
                page = ticks[read : read + MAX_PAGE_TICKS]
                inheriting.require_all_kept(connection, segments, page)
                count, rows = scan.next_page(connection, page)
            read += count
            yield rows

    def tick(self, world: int, tick: int) -> StoredTick:
        """Read one committed tick that is kept: what a state is made of, besides its rows.

        Raises:
            TickNotKeptError: It is not kept.
        """
        maker = self.lineages.at(world, tick).world
        with self._reading(world, tick) as connection:
            inheriting.require_kept(connection, self.lineages.of(world), tick)
            if tick <= watermark(connection, maker):
                return _stored(ArchivedHistory(connection, self._archive, maker).tick(tick), ())
            for values in reads.raw_ticks(connection, maker, tick, 1):
                return _stored(tick_row(values), ())
        raise not_kept(tick, tick + 1)

    def summaries(self, world: int, first: int, last: int) -> Iterator[TickSummary]:
        """Read the summaries of committed ticks in order, from the floor on."""
        while first <= last:
            with self._journal.read() as connection:
                first = max(first, inheriting.floor(connection, self.lineages.of(world)))
            if first > last:
                return
            segment = self.lineages.at(world, first)
            end = min(last, segment.last)
            with self._reading(segment.world, first) as connection:
                mark = watermark(connection, segment.world)
                if first <= mark:
                    past = ArchivedHistory(connection, self._archive, segment.world)
                    page = past.summaries(first, min(end, mark))
                else:
                    page = reads.summaries(connection, segment.world, first, end, _PAGE_TICKS)
            if not page:
                return
            yield from page
            first = page[-1].tick + 1

    def streams(self, world: int) -> tuple[Stream, ...]:
        """Read every stream that a world ever had, by number; those that it shares have the same numbers."""
        with self._journal.read() as connection:
            return reads.streams(connection, world)

    def fork_point(self, world: int, tick: int) -> ForkPoint:
        """Read what a fork at a tick begins with; no rows are read. At -1: before the first tick.

        Raises:
            TickNotKeptError: The tick is no longer kept.
        """
        if tick < 0:
            return ForkPoint(-1, 0, FIRST_ENTITY_ID, FIRST_ISSUED_ENTITY_ID, b"", (), ())
        facts = self.tick(world, tick)
        return ForkPoint(
            tick,
            facts.summary.entities,
            facts.next_entity_id,
            facts.next_issued_id,
            facts.configuration_id,
            self.streams_at(world, tick),
            self.lineages.until(world, tick),
        )

    def streams_at(self, world: int, tick: int) -> tuple[Stream, ...]:
        """Read the streams that a world had by a tick."""
        with self._leases.reading(), self._journal.read() as connection:
            segments = self.lineages.until(world, tick)
            count = max((reads.stream_count(connection, s.world, s.last) for s in segments), default=0)
            return tuple(s for s in reads.streams(connection, world) if s.number <= count)

    def row_counts(self, world: int, tick: int) -> dict[int, int]:
        """Count the rows of what `state_at` answers, by stream; none of them is read."""
        with self._reading(world, tick) as connection:
            streams = [stream.number for stream in reads.streams(connection, world)]
            return self._records.counts(connection, self.lineages.until(world, tick), streams)

    def archived_tick(self, world: int) -> int:
        """The last tick that LanceDB keeps durably; -1 before the first."""
        with self._journal.read() as connection:
            for segment in self.lineages.of(world):
                mark = watermark(connection, segment.world)
                if mark < segment.last:
                    break
        return max(mark, segment.first - 1)

    def earliest_tick(self, world: int) -> int:
        """Return the floor: every committed tick from there on is kept, and streams begin there at the earliest."""
        with self._journal.read() as connection:
            return inheriting.floor(connection, self.lineages.of(world))

    def kept_ticks(self, world: int, first: int, last: int) -> list[int]:
        """Return the committed ticks from `first` to `last` that are kept, those that thinning has spared included."""
        with self._journal.read() as connection:
            last = min(last, reads.next_tick(connection, world) - 1)
            return inheriting.kept_ticks(connection, self.lineages.of(world), first, last)

    def last_tick(self, world: int) -> int:
        """Return the last committed tick; the one before the world's first, if there is none."""
        with self._journal.read() as connection:
            return reads.next_tick(connection, world) - 1

    def result(self, world: int, seq: int) -> bytes | None:
        """Read the table that a command answered, as an Arrow IPC stream; None: it has none, or it is no longer kept.

        Raises:
            CorruptRecordError: The bytes are not those that were committed.
        """
        key = self._key(world)
        with self._journal.read() as connection:
            return reads.result(connection, key, seq)

    def applied(self, world: int, first: int, last: int) -> dict[int, list[CommandRow]]:
        """Read the commands that ticks applied or rejected, by tick, in the order in which each applied them.

        Raises:
            TickNotKeptError: `first` is below the floor.
        """
        found: dict[int, list[CommandRow]] = {}
        with self._reading(world, first) as connection:
            inheriting.require_dense(connection, self.lineages.of(world), first)
            for segment in self.lineages.until(world, last):
                if segment.last >= first:
                    begin = max(first, segment.first)
                    found |= self._applied(connection, segment.world, begin, segment.last)
        return found

    def configuration(self, configuration_id: bytes) -> Configuration | None:
        """Read what ticks of that configuration id ran with."""
        with self._journal.read() as connection:
            body = connection.execute("SELECT body FROM configurations WHERE id = ?", (configuration_id,)).get
            return None if body is None else Configuration(configuration_id, body)

    def snapshots_at(self, world: int, tick: int) -> dict[str, bytes]:
        """Read the last snapshot of each resource up to a tick.

        Raises:
            TickNotKeptError: The tick is not kept.
        """
        found: dict[str, bytes] = {}
        with self._reading(world, tick) as connection:
            inheriting.require_kept(connection, self.lineages.of(world), tick)
            for segment in self.lineages.until(world, tick):
                # The archiver leaves the last snapshot of each resource in the journal.
                if reads.has_snapshots(connection, segment.world):
                    past = ArchivedHistory(connection, self._archive, segment.world)
                    found |= past.snapshots_at(segment.last)
                    found |= reads.last_snapshots(connection, segment.world, segment.last)
        return found

    @contextlib.contextmanager
    def _reading(self, world: int, tick: int) -> Iterator[apsw.Connection]:
        """Read one consistent state; what cannot be read is named by world and tick."""
        try:
            with self._leases.reading(), self._journal.read() as connection:
                yield connection
        except CorruptRecordError as error:
            error.metadata.setdefault("world", self._key(world).id.hex())
            error.metadata.setdefault("tick", str(tick))
            raise

    def _frames(
        self, world: int, tick: int, streams: Collection[int] | None = None
    ) -> dict[int, tuple[int, Frame]]:
        if tick < 0:
            return {}
        with self._reading(world, tick) as connection:
            inheriting.require_kept(connection, self.lineages.of(world), tick)
            if streams is None:
                streams = [stream.number for stream in reads.streams(connection, world)]
            return self._records.frames(connection, self.lineages.until(world, tick), streams)

    def _applied(
        self, connection: apsw.Connection, world: int, first: int, last: int
    ) -> dict[int, list[CommandRow]]:
        key = self._key(world)
        found: dict[int, list[CommandRow]] = {}
        mark = watermark(connection, world)
        if first <= mark:
            past = ArchivedHistory(connection, self._archive, world)
            for entry in past.applied(first, min(last, mark)):
                found.setdefault(entry.tick, []).append(entry.command)
        start = max(first, mark + 1)
        for values in reads.raw_ticks(connection, world, start, max(0, last - start + 1)):
            seqs = packing.outcome_seqs(values[18])
            found[values[0]] = [reads.command(connection, self._log, key, seq) for seq in seqs]
        return found

    def _page(self, of: int, first: int, last: int) -> list[StoredTick]:
        segment = self.lineages.at(of, first)
        world, last = segment.world, min(last, segment.last)
        with self._reading(world, first) as connection:
            inheriting.require_dense(connection, self.lineages.of(of), first)
            mark = watermark(connection, world)
            if first <= mark:
                pairs = ArchivedHistory(connection, self._archive, world).page(first, min(last, mark))
                return [_stored(tick, frames) for tick, frames in pairs]
            return self._tail_page(connection, world, first, last)

    def _tail_page(self, connection: apsw.Connection, world: int, first: int, last: int) -> list[StoredTick]:
        key = self._key(world)
        page: list[StoredTick] = []
        size = 0
        for values in reads.raw_ticks(connection, world, first, min(last - first + 1, _PAGE_TICKS)):
            tick = tick_row(values)
            size += tick.nbytes
            if page and size > _PAGE_BYTES:
                break
            at = tick.summary.tick
            frames = [reads.frame(connection, self._log, key, record.stream, at) for record in tick.recorded]
            page.append(_stored(tick, frames))
        return page

    def _key(self, world: int) -> WorldKey:
        if world not in self._ids:
            raise WorldNotFoundError(f"the store has no world of key {world}")
        return WorldKey(world, self._ids[world])


def _stored(tick: TickRow, frames: Iterable[Frame]) -> StoredTick:
    return StoredTick(
        tick.summary,
        tuple(frames),
        tick.despawned,
        packing.unpack_outcomes(tick.outcomes),
        tick.tick_time_us,
        tick.inputs,
        tick.configuration_id,
        tick.next_entity_id,
        tick.next_issued_id,
    )
