"""Quotas by actor: commands a tick, cost units a day, open streams and connections.

Counted in memory, on the event loop; what a day has used up is written to the journal every second or so, off the calls'
way, and once more at the end: a crash forgets a second's use at most. Days are UTC's.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tickwire_engine import CommandType
from tickwire_engine.errors import ConnectionLimitError, StreamLimitError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from tickwire_engine import AsyncWorld

DAY_S = 86_400
_KEPT_TICKS = 64
"""Counters of past ticks are dropped once so many are there: an aborted tick comes back to the one before."""
_T = CommandType

COSTS: Mapping[CommandType, int] = {
    **dict.fromkeys(_T, 1),
    **dict.fromkeys((_T.CUSTOM, _T.SET_RESOURCE, _T.REMOVE_RESOURCE), 5),
    **dict.fromkeys((_T.ADD_PROCESSOR, _T.REMOVE_PROCESSOR, _T.QUERY_WORLD), 10),
    **dict.fromkeys((_T.CREATE_WORLD, _T.DESTROY_WORLD, _T.FORK_WORLD), 100),
    **dict.fromkeys((_T.RUN_ROLLOUT, _T.RUN_EPISODE), 1_000),
}
"""Cost units of a command by its type, unless the configuration says otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one actor may use; 0: no limit."""

    commands_per_tick: int = 500
    cost_units_per_day: int = 200_000
    streams: int = 1_000
    connections: int = 256
    costs: Mapping[CommandType, int] = field(default_factory=lambda: COSTS)


@dataclass(slots=True, eq=False)
class Account:
    """What one actor has used up, whichever of its credentials and connections it came by."""

    key: str
    limits: Limits
    clock: Callable[[], float]
    """Seconds since the epoch."""
    day: int = 0
    used: int = 0
    """Cost units of `day`."""
    streams: int = 0
    unsaved: bool = False
    ticks: dict[bytes, Counter[int]] = field(default_factory=dict)
    """By the id of a world: commands by the tick they are due at."""
    peers: Counter[str] = field(default_factory=Counter)
    """Calls under way by the connection they came over."""

    def connect(self, peer: str) -> None:
        """Note that a call begins over `peer`.

        Raises:
            ConnectionLimitError: Its other calls under way came over as many connections as it may have.
        """
        limit = self.limits.connections
        if limit and peer not in self.peers and len(self.peers) >= limit:
            raise ConnectionLimitError(
                f"you call over {limit} connections already: share one channel within a process", limit=limit
            )
        self.peers[peer] += 1

    def disconnect(self, peer: str) -> None:
        """Note that a call ended."""
        self.peers[peer] -= 1
        if not self.peers[peer]:
            del self.peers[peer]

    def open_stream(self) -> None:
        """Note that a stream begins.

        Raises:
            StreamLimitError: As many are open as may be.
        """
        limit = self.limits.streams
        if limit and self.streams >= limit:
            raise StreamLimitError(
                f"you have {limit} streams open already: close some that are not needed", limit=limit
            )
        self.streams += 1

    def close_stream(self) -> None:
        """Note that a stream ended."""
        self.streams -= 1

    def used_on(self, day: int) -> int:
        """Return the cost units used on `day`."""
        return self.used if self.day == day else 0

    def spend(self, units: int, day: int) -> None:
        """Count cost units."""
        self.used = self.used_on(day) + units
        self.day = day
        self.unsaved = True

    def due(self, world: AsyncWorld) -> Counter[int]:
        """Return the counters of `world`; at first use they hold what waits there since before a restart."""
        acceptance = world.acceptance
        counted = self.ticks.get(world.row.id)
        if counted is None:
            counted = self.ticks[world.row.id] = acceptance.queue.waiting_of(self.key)
        elif len(counted) > _KEPT_TICKS:
            past = acceptance.queue.cut_tick - 2
            for tick in [tick for tick in counted if tick < past]:
                del counted[tick]
        return counted


class Quotas:
    """The accounts of all actors; lives on one event loop."""

    def __init__(self, limits: Limits, clock: Callable[[], float] = time.time) -> None:
        self.limits = limits
        self.clock = clock
        self._accounts: dict[str, Account] = {}

    def account(self, key: str) -> Account:
        """Return the account of an actor, made at first use."""
        found = self._accounts.get(key)
        if found is None:
            found = self._accounts[key] = Account(key, self.limits, self.clock)
        return found

    def restore(self, used: Iterable[tuple[str, int, int]]) -> None:
        """Take back (actor, day, cost units) as they were saved."""
        for key, day, units in used:
            account = self.account(key)
            account.day, account.used = day, units

    def unsaved(self) -> Iterator[tuple[str, int, int]]:
        """Yield (actor, day, cost units) of accounts that changed since the last time."""
        for account in self._accounts.values():
            if account.unsaved:
                account.unsaved = False
                yield account.key, account.day, account.used
