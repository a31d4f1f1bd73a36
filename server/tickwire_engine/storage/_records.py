"""The greatest record up to a tick of each stream, in whichever world has it, in the journal's tail or in the archive.

That is what was at a tick: an archetype that nothing touched keeps its last record. Each function runs inside its
caller's read transaction.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from tickwire_engine.storage import _reads as reads
from tickwire_engine.storage._archived import ArchivedHistory
from tickwire_engine.storage._writes import WorldKey

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    import apsw

    from tickwire_engine.storage import Archive, TickLog
    from tickwire_engine.storage._lineage import Segment
    from tickwire_engine.storage.rows import Frame


class _Last(NamedTuple):
    """The greatest records that one world has.

    Attributes:
        tail: (tick, rows) by stream, of those in the journal.
        archived: (stream, tick) of those in the archive.
    """

    world: int
    tail: Mapping[int, tuple[int, int]]
    archived: Sequence[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Records:
    """Reads records of one store."""

    log: TickLog
    archive: Archive
    ids: Mapping[int, bytes]
    """Of the worlds, by key."""

    def frames(
        self, connection: apsw.Connection, segments: Sequence[Segment], streams: Iterable[int]
    ) -> dict[int, tuple[int, Frame]]:
        """Read the records, each with its tick, by stream; emptied streams are left out."""
        frames: dict[int, tuple[int, Frame]] = {}
        for last in _last_records(connection, segments, streams):
            key = WorldKey(last.world, self.ids[last.world])
            for stream, (at, _) in last.tail.items():
                frames[stream] = (at, reads.frame(connection, self.log, key, stream, at))
            if last.archived:
                frames |= ArchivedHistory(connection, self.archive, last.world).frames(last.archived)
        return dict(sorted(frames.items()))

    def counts(
        self, connection: apsw.Connection, segments: Sequence[Segment], streams: Iterable[int]
    ) -> dict[int, int]:
        """Read how many rows the records have, by stream; none of the rows."""
        counts: dict[int, int] = {}
        for last in _last_records(connection, segments, streams):
            counts |= {stream: rows for stream, (_, rows) in last.tail.items()}
            if last.archived:
                past = ArchivedHistory(connection, self.archive, last.world)
                counts |= {stream: past.rows(stream, at) for stream, at in last.archived}
        return dict(sorted(counts.items()))


def _last_records(
    connection: apsw.Connection, segments: Sequence[Segment], streams: Iterable[int]
) -> Iterator[_Last]:
    """Look from the newest segment back, for each stream until one has a record of it, were it of no rows."""
    wanted = set(streams)
    for segment in reversed(segments):
        if not wanted:
            return
        yield _last_of(connection, segment, wanted)


def _last_of(connection: apsw.Connection, segment: Segment, wanted: set[int]) -> _Last:
    """Find the greatest records in one segment, and take their streams out of those wanted."""
    tail: dict[int, tuple[int, int]] = {}
    archived: list[tuple[int, int]] = []
    for stream in sorted(wanted):
        record = reads.last_record(connection, segment.world, stream, segment.last)
        if record is not None:
            wanted.discard(stream)
            if record[1]:
                tail[stream] = record
            continue
        span = reads.last_span(connection, segment.world, stream, segment.last)
        if span is not None:
            wanted.discard(stream)
            if span.occupied:
                archived.append((stream, min(span.last_tick, segment.last)))
    return _Last(segment.world, tail, archived)
