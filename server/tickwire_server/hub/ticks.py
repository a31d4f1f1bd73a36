"""A committed tick as the hub holds it, and what one view shows of it. Immutable; any thread."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from tickwire_engine.storage.rows import DecidedCommand, Frame, Stream, TickSummary
    from tickwire_engine.tick.pipeline import CommittedTick


@dataclass(frozen=True, slots=True)
class FullTick:
    """A whole tick: the state after it.

    Attributes:
        frames: By stream number, ascending: every archetype with rows, those despawned in the tick included. One that
            did not change has the very frame of the tick before.
        despawned: Entities that have their last row in this tick, ascending.
        decided: What became of its commands; None: nobody wanted to know when it came.
    """

    summary: TickSummary
    frames: Mapping[int, tuple[Stream, Frame]]
    despawned: tuple[int, ...]
    decided: tuple[DecidedCommand, ...] | None = None

    @property
    def tick(self) -> int:
        """Its number."""
        return self.summary.tick

    def after(self, left_out: Sequence[FullTick]) -> FullTick:
        """Return the tick as one who was not sent those before it sees it: with their counts and their despawned."""
        if not left_out:
            return self
        ended = {entity for tick in left_out for entity in tick.despawned}
        return replace(
            self,
            summary=summed([tick.summary for tick in left_out], self.summary),
            despawned=tuple(sorted(ended.union(self.despawned))) if ended else self.despawned,
        )


@dataclass(frozen=True, slots=True)
class ShownTick:
    """What a view shows of a tick.

    Attributes:
        frames: In the order in which they are sent: in CHANGES departures before arrivals.
        streams: The streams of these frames.
        despawned: In CHANGES: the entities of the view that ended.
        snapshot: In CHANGES: the tick is whole, and what was sent before is void.
        nbytes: What it holds besides the log's own bytes.
    """

    frames: tuple[tuple[Stream, Frame], ...]
    streams: frozenset[int]
    despawned: tuple[int, ...] = ()
    snapshot: bool = False
    nbytes: int = 0


@dataclass(frozen=True, slots=True)
class TickMessage:
    """All that goes into the wire messages of one tick for one subscriber.

    Attributes:
        summary: With the counts of the ticks that were left out before it.
        unknown: Streams whose schemas the subscriber does not have yet.
        skipped: Ticks left out because the subscriber was too slow.
        outcomes: What became of the commands that it decided, as far as the subscriber is told.
    """

    summary: TickSummary
    frames: Sequence[tuple[Stream, Frame]]
    unknown: frozenset[int] = frozenset()
    despawned: tuple[int, ...] = ()
    snapshot: bool = False
    skipped: int = 0
    outcomes: tuple[DecidedCommand, ...] = ()


def full_tick_of(committed: CommittedTick, *, with_outcomes: bool = False) -> FullTick:
    """Return a tick that was just committed, as a whole.

    Args:
        committed: The tick.
        with_outcomes: Whether anybody wants to know what became of its commands.
    """
    tables = sorted(committed.state.tables.values(), key=lambda table: table.stream.number)
    return FullTick(
        committed.summary,
        {table.stream.number: (table.stream, table.frame) for table in tables},
        committed.computed.despawned,
        committed.decided if with_outcomes else None,
    )


def summed(summaries: Iterable[TickSummary], last: TickSummary) -> TickSummary:
    """Return `last` with the counts of the ticks that were left out before it."""
    left_out = [*summaries]
    if not left_out:
        return last
    return replace(
        last,
        spawned=last.spawned + sum(summary.spawned for summary in left_out),
        despawned=last.despawned + sum(summary.despawned for summary in left_out),
        commands_applied=last.commands_applied + sum(summary.commands_applied for summary in left_out),
        commands_rejected=last.commands_rejected + sum(summary.commands_rejected for summary in left_out),
    )
