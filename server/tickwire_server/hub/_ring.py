"""The newest ticks of a world in memory, bounded in bytes, what was encoded from them included.

A record that many ticks share counts once. Under pressure what was encoded for readers of old ticks goes first, since it
can be made again; then what was encoded of the newest tick, down to half of the bound; then the oldest ticks. On the event
loop only.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import asyncio

    from tickwire_server.hub.ticks import FullTick, ShownTick
    from tickwire_server.hub.view import View


class ShownKey(NamedTuple):
    """What makes two readers of a tick see the same.

    Attributes:
        base_tick: In CHANGES: the tick that it builds on.
    """

    view: View
    base_tick: int | None


class SentKey(NamedTuple):
    """What makes two readers of a tick be sent the same.

    Attributes:
        first_tick: The first tick that the summary covers.
        unknown: Streams whose schemas come with it.
        emptied: Streams that have no rows any more.
        outcomes_of: Whose outcomes come with it; see `Cursor`.
    """

    shown: ShownKey
    first_tick: int
    unknown: frozenset[int]
    emptied: tuple[int, ...]
    outcomes_of: str | None = None


_TICK_BYTES = 512
"""About what an entry takes besides rows and outcomes."""
_OUTCOME_BYTES = 400


@dataclass(slots=True, eq=False)
class RingTick:
    """One tick, and what was made of it for its readers."""

    full: FullTick
    shown: dict[ShownKey, ShownTick | asyncio.Future[ShownTick]] = field(default_factory=dict)
    messages: dict[SentKey, list[bytes]] = field(default_factory=dict)


class Ring:
    """Ticks without gaps, oldest first; the newest two stay, whatever their size: one builds on the other."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.held = 0
        """Bytes held now."""
        self._ticks: deque[RingTick] = deque()
        self._made: deque[tuple[RingTick, ShownKey | SentKey, int]] = deque()

    def __len__(self) -> int:
        return len(self._ticks)

    @property
    def first_tick(self) -> int | None:
        """The oldest tick in it; None while it is empty."""
        return self._ticks[0].full.tick if self._ticks else None

    def at(self, tick: int) -> RingTick | None:
        """Return a tick, if it is there."""
        if not self._ticks:
            return None
        index = tick - self._ticks[0].full.tick
        return self._ticks[index] if 0 <= index < len(self._ticks) else None

    def append(self, full: FullTick) -> None:
        """Add the next tick."""
        before = self._ticks[-1].full if self._ticks else None
        self._ticks.append(RingTick(full))
        self.held += _TICK_BYTES + _own_bytes(full, before)
        self.shrink()

    def add(self, entry: RingTick, key: ShownKey | SentKey, nbytes: int) -> None:
        """Count bytes that were made of a tick."""
        if nbytes and self.at(entry.full.tick) is entry:
            self._made.append((entry, key, nbytes))
            self.held += nbytes
            self.shrink()

    def shrink(self) -> None:
        """Let go of what is over the bound."""
        newest = self._ticks[-1]
        for _ in range(len(self._made)):
            if self.held <= self.max_bytes:
                return
            made = self._made.popleft()
            if made[0] is newest:
                self._made.append(made)
            else:
                self._drop(*made)
        # All is of the newest tick now. Views of a large one are not to push the others out: history is slower to read.
        newest_bytes = sum(nbytes for _, _, nbytes in self._made)
        while self.held > self.max_bytes and newest_bytes > self.max_bytes // 2:
            made = self._made.popleft()
            newest_bytes -= made[2]
            self._drop(*made)
        while self.held > self.max_bytes and len(self._ticks) > 2:
            gone = self._ticks.popleft()
            self.held -= _TICK_BYTES + _own_bytes(gone.full, self._ticks[0].full)

    def _drop(self, entry: RingTick, key: ShownKey | SentKey, nbytes: int) -> None:
        self.held -= nbytes
        if isinstance(key, ShownKey):
            entry.shown.pop(key, None)
        else:
            entry.messages.pop(key, None)


def _own_bytes(tick: FullTick, neighbour: FullTick | None) -> int:
    """Return the bytes of the records that a tick does not share with the one next to it, and of its outcomes."""
    beside = {} if neighbour is None else neighbour.frames
    outcomes = _OUTCOME_BYTES * len(tick.decided or ())
    return outcomes + sum(
        frame.nbytes
        for number, (_, frame) in tick.frames.items()
        if number not in beside or beside[number][1] is not frame
    )
