"""Ticks out of history, one after another, for a subscriber that is behind. Blocks; worker threads, one at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tickwire_engine.storage.retention import not_kept
from tickwire_server.hub.ticks import FullTick

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tickwire_engine.storage.history import History, StoredTick
    from tickwire_engine.storage.rows import Frame, Stream
    from tickwire_server.hub._selecting import Selector


class HistoryReader:
    """Reads consecutive ticks and remembers where it is, so that no page of history is read twice.

    It holds one page of history and one state; whoever does not read for long had better let go of it.
    """

    def __init__(
        self, history: History, world_key: int, streams: Mapping[int, Stream], first: int, selector: Selector
    ) -> None:
        """Begin at a tick.

        Args:
            streams: The world's streams by number; new ones may be added while the reader reads.
            selector: The reader's own.
        """
        self.selector = selector
        self.next_tick = first
        self.base: Mapping[int, tuple[Stream, Frame]] | None = None
        """What the subscriber has, in CHANGES."""
        self.base_tick: int | None = None
        self._history = history
        self._world_key = world_key
        self._streams = streams
        self._frames: dict[int, tuple[Stream, Frame]] | None = None
        self._stored: Iterator[StoredTick] = iter(())

    def read(self, last: int, newest: int) -> FullTick | None:
        """Return the next tick; None if there is none up to `last` yet.

        Args:
            last: The last tick that is wanted now.
            newest: The last one that will be: so far a page of history may go, for the reads after this one.

        Raises:
            TickNotKeptError: Retention has overtaken the reader.
            CorruptRecordError: Stored bytes are not what was committed.
        """
        if self.next_tick > last:
            return None
        stored = next(self._stored, None)
        if stored is None:
            self._stored = self._history.ticks(self._world_key, self.next_tick, max(last, newest))
            stored = next(self._stored, None)
            if stored is None:
                return None
        tick = stored.summary.tick
        if self._frames is None:
            self._frames = self._whole(tick)
        elif stored.changed:
            changed = {frame.stream: (self._streams[frame.stream], frame) for frame in stored.changed}
            merged = {**self._frames, **changed}
            self._frames = {number: merged[number] for number in sorted(merged) if merged[number][1].rows}
        self.next_tick = tick + 1
        return FullTick(stored.summary, self._frames, stored.despawned)

    def _whole(self, tick: int) -> dict[int, tuple[Stream, Frame]]:
        frames = self._history.frames_at(self._world_key, tick)
        earliest = self._history.earliest_tick(self._world_key)
        if tick < earliest:
            # The floor moved while it was read: some of it may be gone.
            raise not_kept(tick, earliest)
        return {number: (self._streams[number], frames[number]) for number in sorted(frames)}
