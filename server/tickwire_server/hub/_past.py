"""What subscribers who are behind share: ticks of history that were just read, and readers that stand where others go on.

Those who fell behind together mostly walk together; what one of them has read and encoded, the others are given. Bounded
in bytes and in readers, whoever stalls. Any thread.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from tickwire_engine.storage.rows import TickSummary
    from tickwire_server.hub._catching_up import HistoryReader
    from tickwire_server.hub._ring import ShownKey
    from tickwire_server.hub.ticks import ShownTick
    from tickwire_server.hub.view import Selected

READERS = 8
"""Readers that are kept; each holds a page of history, some MiB."""
_TICK_BYTES = 512


class PastKey(NamedTuple):
    """What makes two subscribers who are behind see the same.

    Attributes:
        first_tick: The first tick that the summary covers.
    """

    shown: ShownKey
    first_tick: int
    tick: int


class PastTick(NamedTuple):
    """A tick as a view shows it, and its summary with the counts of those left out before it."""

    shown: ShownTick
    summary: TickSummary

    @property
    def nbytes(self) -> int:
        """About what it takes in memory."""
        return _TICK_BYTES + sum(frame.nbytes for _, frame in self.shown.frames)


class ReaderKey(NamedTuple):
    """Where a reader stands.

    Attributes:
        base_tick: The tick whose state it holds for CHANGES to build on.
    """

    selected: Selected
    next_tick: int
    base_tick: int | None


class Past:
    """The least recently used ticks and readers go first."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._held = 0
        self._lock = threading.Lock()
        self._ticks: OrderedDict[PastKey, PastTick] = OrderedDict()
        self._readers: OrderedDict[ReaderKey, HistoryReader] = OrderedDict()

    def tick(self, key: PastKey) -> PastTick | None:
        """Return what is known of a tick."""
        with self._lock:
            found = self._ticks.get(key)
            if found is not None:
                self._ticks.move_to_end(key)
            return found

    def remember(self, key: PastKey, tick: PastTick) -> None:
        """Keep a tick for those who come after."""
        with self._lock:
            if key in self._ticks or tick.nbytes > self._max_bytes:
                return
            self._ticks[key] = tick
            self._held += tick.nbytes
            while self._held > self._max_bytes:
                self._held -= self._ticks.popitem(last=False)[1].nbytes

    def take(self, key: ReaderKey) -> HistoryReader | None:
        """Return a reader that stands there, for the caller alone."""
        with self._lock:
            return self._readers.pop(key, None)

    def put(self, key: ReaderKey, reader: HistoryReader) -> None:
        """Leave a reader to whoever goes on from there."""
        with self._lock:
            self._readers[key] = reader
            while len(self._readers) > READERS:
                self._readers.popitem(last=False)
