"""Which ticks of a history are kept that several worlds have made: a fork's own rules, and its ancestors' pins.

A fork pins what it shares when it is made, so an ancestor's floor may pass it. What the fork itself is told to keep lets
go of the older part. Each function runs inside its caller's read transaction.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tickwire_engine.storage import _retaining as retaining
from tickwire_engine.storage.retention import not_kept

if TYPE_CHECKING:
    from collections.abc import Sequence

    import apsw

    from tickwire_engine.storage._lineage import Segment


def floor(connection: apsw.Connection, segments: Sequence[Segment]) -> int:
    """Read the tick from which on every tick of a history is kept."""
    earliest = first = retaining.floor(connection, segments[-1].world)
    for segment in reversed(segments[:-1]):
        if first > segment.last:
            break
        dense = retaining.kept(connection, segment.world).dense_until(segment.last)
        earliest, first = max(earliest, dense), max(dense, segment.first)
    return earliest


def shared_floor(connection: apsw.Connection, segments: Sequence[Segment]) -> int:
    """Read the tick from which on every tick that a fork would share is kept; one past the last: not even that one."""
    *older, last = segments
    first = retaining.kept(connection, last.world).dense_until(last.last)
    return first if first > last.first or not older else max(first, shared_floor(connection, older))


def require_dense(connection: apsw.Connection, segments: Sequence[Segment], tick: int) -> None:
    """Refuse to read on from a tick below the floor.

    Raises:
        TickNotKeptError: It is not kept, or not every tick after it.
    """
    earliest = floor(connection, segments)
    if tick < earliest:
        raise not_kept(tick, earliest)


def require_kept(connection: apsw.Connection, segments: Sequence[Segment], tick: int) -> None:
    """Refuse to read a tick that is not kept; it may be one that was spared by thinning, or the fork tick.

    Raises:
        TickNotKeptError: It is not kept.
    """
    own = segments[-1]
    if tick >= own.first:
        retaining.require_kept(connection, own.world, tick)
        return
    maker = next(segment for segment in segments if tick <= segment.last)
    wanted = tick == own.first - 1 or tick in retaining.kept(connection, own.world)
    if not wanted or tick not in retaining.kept(connection, maker.world):
        raise not_kept(tick, floor(connection, segments))


def require_all_kept(connection: apsw.Connection, segments: Sequence[Segment], ticks: Sequence[int]) -> None:
    """Refuse to read ticks, in ascending order, of which one is not kept.

    Raises:
        TickNotKeptError: It names the first.
    """
    earliest = floor(connection, segments)
    if ticks[0] >= earliest:
        return
    gone = set(ticks).difference(kept_ticks(connection, segments, ticks[0], ticks[-1]))
    if gone:
        raise not_kept(min(gone), earliest)


def kept_ticks(connection: apsw.Connection, segments: Sequence[Segment], first: int, last: int) -> list[int]:
    """Read which of consecutive committed ticks are kept."""
    own = retaining.kept(connection, segments[-1].world)
    found: list[int] = []
    for segment in segments:
        begin, end = max(first, segment.first), min(last, segment.last)
        kept = retaining.kept(connection, segment.world)
        ticks = [*kept.below_floor(begin, end).tolist(), *range(max(begin, kept.floor), end + 1)]
        found += [tick for tick in ticks if segment is segments[-1] or tick in own]
    return found
