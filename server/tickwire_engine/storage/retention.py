"""Which ticks of a world are kept: its newest ones densely, of older ones each n-th, and those that are pinned.

Pure values. What they are in force by is journaled (`_retaining`), always before anything is deleted (`_retiring`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np

from tickwire_engine.errors import TickNotKeptError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

KEEP_TICKS = 100_000
KEEP_BYTES = 8 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """What a world is told to keep; the defaults are finite in ticks and in bytes."""

    keep_ticks: int = KEEP_TICKS
    """So many of the newest ticks, without gaps; 0: all."""
    keep_every: int = 0
    """Of older ticks those that it divides; 0: none."""
    keep_bytes: int = KEEP_BYTES
    """At most about so many bytes of archived history, as Arrow holds them; the oldest go first. 0: no bound."""

    @classmethod
    def of(cls, stored: Mapping[str, int]) -> Self:
        """Read what `stored` wrote; what is not there is the default."""
        return cls(**{name: stored[name] for name in cls.__dataclass_fields__ if name in stored})

    @property
    def stored(self) -> dict[str, int]:
        """By name, for a world's row."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


@dataclass(frozen=True, slots=True, kw_only=True)
class Horizon:
    """How long what a command's retry is answered from is kept, of each world."""

    age_s: float = 7 * 86_400.0
    """Since it was applied, and since the time in its id."""
    rows: int = 5_000_000
    """At most so many commands, however young; about 300 bytes each."""
    least_s: float = 600.0
    """But never shorter than this, however many they are. At least twice what ids may be dated ahead."""


class Thinned(NamedTuple):
    """A range of ticks of which only those are left that `every` divides."""

    first_tick: int
    last_tick: int
    every: int

    def between(self, first: int, last: int) -> range:
        """Return its ticks that are kept from `first` to `last`."""
        start = max(first, self.first_tick)
        return range(-(-start // self.every) * self.every, min(last, self.last_tick) + 1, self.every)


@dataclass(frozen=True, slots=True)
class Kept:
    """The ticks of a world that are kept."""

    floor: int
    """Every tick from here on."""
    thinned: tuple[Thinned, ...] = ()
    """Below the floor, in order."""
    pins: tuple[Thinned, ...] = ()
    """Ranges that are kept whole; below the floor they are kept besides."""

    def __contains__(self, tick: int) -> bool:
        """Whether a committed tick is kept."""
        return tick >= self.floor or any(r.between(tick, tick) for r in (*self.thinned, *self.pins))

    def below_floor(self, first: int, last: int) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Return the ticks from `first` to `last` that are kept although they are below the floor, in order."""
        last = min(last, self.floor - 1)
        ranges = [spared.between(first, last) for spared in (*self.thinned, *self.pins)]
        spared = [np.arange(r.start, r.stop, r.step, dtype=np.int64) for r in ranges if r]
        return np.unique(np.concatenate([np.array([], np.int64), *spared]))

    def first_after(self, tick: int) -> int:
        """Return the first kept tick after one; the floor is kept."""
        found = [self.floor]
        for spared in (*self.thinned, *self.pins):
            found += spared.between(tick + 1, spared.last_tick)[:1]
        return min(kept for kept in found if kept > tick) if tick < self.floor else tick + 1

    def dense_until(self, last: int) -> int:
        """Return the tick from which on every tick up to `last` is kept; one past `last`: not even that one."""
        if last >= self.floor:
            return self.floor
        return min((pin.first_tick for pin in self.pins if pin.between(last, last)), default=last + 1)

    def moved(self, retention: Retention, *, committed: int, archived: int) -> Self:
        """Return what is kept once the floor is where `retention` wants it: it never goes back.

        Args:
            retention: What the world is told.
            committed: Its last tick.
            archived: Its last tick that is archived; that one is always kept densely.
        """
        floor = self.floor
        if retention.keep_ticks:
            floor = max(floor, min(committed + 1 - retention.keep_ticks, archived))
        every = retention.keep_every
        ranges = [*self.thinned, Thinned(self.floor, floor - 1, 1)] if every else []
        # What was thinned more before does not come back.
        thinned = _merged(Thinned(r.first_tick, r.last_tick, math.lcm(r.every, every)) for r in ranges)
        return replace(self, floor=floor, thinned=thinned)

    def cut(self, tick: int) -> Self:
        """Return what is kept when everything before a tick goes, pins apart."""
        thinned = _merged(Thinned(max(r.first_tick, tick), r.last_tick, r.every) for r in self.thinned)
        return replace(self, floor=max(self.floor, tick), thinned=thinned)


def not_kept(tick: int, earliest: int, *, field: str = "") -> TickNotKeptError:
    """Return the error of whoever asks for a tick that is gone."""
    return TickNotKeptError(
        f"tick {tick} is not kept any more; from tick {earliest} on every tick is",
        field=field,
        tick=tick,
        earliest=earliest,
    )


def _merged(ranges: Iterable[Thinned]) -> tuple[Thinned, ...]:
    merged: list[Thinned] = []
    for thinned in ranges:
        if thinned.first_tick > thinned.last_tick:
            continue
        last = merged[-1] if merged else None
        if last and last.every == thinned.every and last.last_tick + 1 == thinned.first_tick:
            merged[-1] = last._replace(last_tick=thinned.last_tick)
        else:
            merged.append(thinned)
    return tuple(merged)
