"""Whose ticks a world's history is made of: its own since it was made, and before that its ancestors'.

A fork copies no rows. Its history up to the fork tick is read from the world that committed each tick, found here in a
flat list, however many forks lie between. Known from the journal's worlds at the start; one is added as it is made.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tickwire_engine.storage.rows import WorldRow

NO_END = (1 << 63) - 1
"""The last tick of a segment that still grows."""


class Segment(NamedTuple):
    """Consecutive ticks of a history that one world committed.

    Attributes:
        world: The key of the world that committed them.
        first: The first one.
        last: The last one, inclusive; `NO_END` for the world's own.
    """

    world: int
    first: int
    last: int


class Lineages:
    """The segments of every world's history. Any thread: what is known of a world never changes."""

    def __init__(self, worlds: Iterable[WorldRow] = ()) -> None:
        self._segments: dict[int, tuple[Segment, ...]] = {}
        for row in worlds:
            # In the order of keys, so that parents come first.
            self.add(row.key, row.parent_key, row.fork_tick)

    def add(self, key: int, parent: int, fork_tick: int) -> None:
        """Learn of a world.

        Args:
            key: Its key.
            parent: The key of the world that it was forked from; 0: of none.
            fork_tick: The last tick that it shares.
        """
        inherited = self.until(parent, fork_tick) if parent else ()
        self._segments[key] = (*inherited, Segment(key, fork_tick + 1 if parent else 0, NO_END))

    def of(self, world: int) -> tuple[Segment, ...]:
        """Return the segments of a world's history, oldest first; the last one is its own."""
        return self._segments.get(world) or (Segment(world, 0, NO_END),)

    def until(self, world: int, tick: int) -> tuple[Segment, ...]:
        """Return the segments of a world's history up to a tick, oldest first."""
        return tuple(
            segment._replace(last=min(segment.last, tick))
            for segment in self.of(world)
            if segment.first <= tick
        )

    def at(self, world: int, tick: int) -> Segment:
        """Return the segment that a tick lies in."""
        return next(segment for segment in reversed(self.of(world)) if segment.first <= max(tick, 0))
