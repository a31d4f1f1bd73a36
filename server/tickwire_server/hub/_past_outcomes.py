"""Outcomes out of history, for a subscriber that reads ticks one after another. Blocks; worker threads."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tickwire_engine.storage.rows import DecidedCommand
    from tickwire_engine.world import AsyncWorld
    from tickwire_server.hub.cursor import Cursor

_TICKS_AT_ONCE = 256


class PastOutcomes:
    """What one subscriber is told; holds the outcomes of some ticks, so that they are not read one by one."""

    def __init__(self, world: AsyncWorld, cursor: Cursor) -> None:
        self._history = world.command_history
        self._world_key = world.row.key
        self._actor = cursor.outcomes_of
        self._first = 0
        self._last = -1
        self._read: dict[int, tuple[DecidedCommand, ...]] = {}

    def of(self, first: int, last: int) -> tuple[DecidedCommand, ...]:
        """Return the outcomes of ticks, in their order; nothing for one who is told none."""
        if self._actor is None:
            return ()
        if not (self._first <= first and last <= self._last):
            self._first, self._last = first, max(last, first + _TICKS_AT_ONCE - 1)
            self._read = self._history.decided_in(self._world_key, self._first, self._last)
        return tuple(
            each
            for tick in range(first, last + 1)
            for each in self._read.get(tick, ())
            if self._actor in ("", each.actor)
        )
