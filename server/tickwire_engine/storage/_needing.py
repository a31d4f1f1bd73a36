"""Which records of a stream kept ticks need: each needs the greatest one up to it.

Spans say where a stream had records, and stay true of ticks that are gone; only those that no kept tick needs are let go.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tickwire_engine.storage._writes import Plain

if TYPE_CHECKING:
    from collections.abc import Sequence

    import apsw

    from tickwire_engine.storage.retention import Kept

_Ticks = np.ndarray[Any, np.dtype[np.int64]]


class Needed(NamedTuple):
    """What kept ticks need of a stream's records in a range of ticks."""

    ticks: _Ticks
    """Those of them that have rows, in order."""
    before: int
    """How many records with rows there were."""


class _Spans(NamedTuple):
    first: _Ticks
    last: _Ticks
    occupied: _Ticks

    def serving(self, kept: _Ticks) -> _Ticks:
        """Return the indexes of the spans with the greatest records up to kept ticks; -1: there is none."""
        return np.searchsorted(self.first, kept, side="right") - 1


def needed_records(
    connection: apsw.Connection, world: int, stream: int, first: int, last: int, kept: Kept
) -> Needed:
    """Find which records of a stream from `first` to `last` kept ticks need."""
    spans = _spans(connection, world, stream, first, last)
    ticks = _asking(connection, world, stream, first, last, kept)
    serving = spans.serving(ticks)
    ticks, serving = ticks[serving >= 0], serving[serving >= 0]
    records = np.minimum(spans.last[serving], ticks)
    inside = (records >= first) & (records <= last) & (spans.occupied[serving] == 1)
    overlaps = np.minimum(spans.last, last) - np.maximum(spans.first, first) + 1
    count = int((np.maximum(overlaps, 0) * spans.occupied).sum())
    return Needed(np.unique(records[inside]), count)


def idle_spans(
    connection: apsw.Connection, world: int, stream: int, first: int, last: int, kept: Kept
) -> list[int]:
    """Find the spans up to `last` that serve no kept tick, by their first ticks; those long before `first` apart."""
    spans = _spans(connection, world, stream, first, last)
    if not len(spans.first):
        return []
    ticks = _asking(connection, world, stream, int(spans.first[0]), last, kept)
    idle = spans.last <= last
    serving = spans.serving(ticks)
    idle[serving[serving >= 0]] = False
    found: list[int] = spans.first[idle].tolist()
    return found


def _spans(connection: apsw.Connection, world: int, stream: int, first: int, last: int) -> _Spans:
    """Read the spans that reach into a range of ticks, and the one before."""
    rows = connection.execute(
        "SELECT first_tick, last_tick, occupied FROM spans WHERE world = ?1 AND stream = ?2 AND first_tick <= ?4 "
        "AND first_tick >= coalesce((SELECT max(first_tick) FROM spans WHERE world = ?1 AND stream = ?2 "
        "AND first_tick < ?3), 0) ORDER BY first_tick",
        (world, stream, first, last),
    )
    table = np.array(list(rows), np.int64).reshape(-1, 3)
    return _Spans(table[:, 0], table[:, 1], table[:, 2])


def _asking(
    connection: apsw.Connection, world: int, stream: int, first: int, last: int, kept: Kept
) -> _Ticks:
    """Return the kept ticks whose greatest record may lie from `first` to `last`."""
    ticks = kept.below_floor(first, last)
    after = kept.first_after(last)
    superseded = connection.execute(
        "SELECT 1 FROM spans WHERE world = ? AND stream = ? AND last_tick > ? AND first_tick <= ? LIMIT 1",
        (world, stream, last, after),
    ).get
    return ticks if superseded else np.append(ticks, after)


@dataclass(slots=True)
class ForgetSpans(Plain):
    """Let go of spans that serve no kept tick."""

    world: int
    stream: int
    first_ticks: Sequence[int]

    def apply(self, connection: apsw.Connection) -> None:
        """Delete them."""
        connection.executemany(
            "DELETE FROM spans WHERE world = ? AND stream = ? AND first_tick = ?",
            [(self.world, self.stream, first) for first in self.first_ticks],
        )
