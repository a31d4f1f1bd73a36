"""WatchOutcomes: what became of a world's commands, one after another, to whoever follows. On the event loop.

Outcomes are numbered without gaps in the order in which they became durable. The newest are kept in memory while somebody
follows; whoever is further behind reads the journal, a page at a time, and catches up.
"""

from __future__ import annotations

import asyncio
from collections import deque
from itertools import islice
from typing import TYPE_CHECKING

from tickwire_engine.errors import ShuttingDownError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from tickwire_engine import AsyncWorld
    from tickwire_engine.errors import TickwireError
    from tickwire_engine.storage.rows import DecidedCommand
    from tickwire_engine.tick.pipeline import CommittedTick

KEPT = 8_192
"""Newest outcomes of a world in memory."""
_PAGE = 1_000


class OutcomeFeed:
    """The outcomes of one world as they come; made when the first follower comes, lives as long as the world."""

    def __init__(self, world: AsyncWorld) -> None:
        self._world = world
        self._recent: deque[DecidedCommand] = deque(maxlen=KEPT)
        self._last = world.command_history.last_outcome_seq(world.row.key)
        self._followers = 0
        self._waiting: set[asyncio.Future[None]] = set()
        self._ended: TickwireError | None = None
        world.on_committed(self._add_tick)
        world.on_cancelled(lambda cancelled: self._add([cancelled]))
        world.on_ended(self._end)

    @property
    def followers(self) -> int:
        """How many follow it."""
        return self._followers

    @property
    def last(self) -> int:
        """The number of the last outcome; 0 before the first."""
        return self._last

    def wake(self) -> None:
        """Let followers look again: the server stops."""
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_result(None)

    async def follow(
        self, after: int, actor: str | None, stopping: asyncio.Event
    ) -> AsyncGenerator[DecidedCommand, None]:
        """Yield every outcome after the one numbered `after`, in order, once, as they become durable.

        Args:
            after: 0: from the first kept.
            actor: Only outcomes of this actor's commands; None: everybody's.
            stopping: Set once the server stops.

        Raises:
            TickNotKeptError: The next outcome is not kept any more.
            ShuttingDownError: The server stops.
            TickwireError: The world ended, and its last outcome was yielded.
        """
        self._followers += 1
        try:
            following = after + 1 if after else await self._first_kept()
            while True:
                if stopping.is_set():
                    raise ShuttingDownError("the server is stopping: go on after the last outcome that came")
                page = await self._page(following)
                for decided in page:
                    if actor is None or decided.actor == actor:
                        yield decided
                    following = decided.outcome_seq + 1
                if page:
                    continue
                if self._ended is not None:
                    raise self._ended
                # Nothing was awaited since the page was found empty: no outcome can slip in between.
                await self._more()
        finally:
            self._followers -= 1

    async def _page(self, first: int) -> Sequence[DecidedCommand]:
        if first > self._last:
            return ()
        if self._recent and self._recent[0].outcome_seq <= first:
            begin = first - self._recent[0].outcome_seq
            return [*islice(self._recent, begin, begin + _PAGE)]
        history, key = self._world.command_history, self._world.row.key
        return await asyncio.to_thread(history.outcomes, key, first, _PAGE)

    async def _first_kept(self) -> int:
        following = self._last + 1
        history, key = self._world.command_history, self._world.row.key
        for decided in await asyncio.to_thread(history.outcomes, key, 0, 1):
            return decided.outcome_seq
        return following

    async def _more(self) -> None:
        waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.add(waiting)
        try:
            await waiting
        finally:
            self._waiting.discard(waiting)

    def _add_tick(self, committed: CommittedTick) -> None:
        outcomes = committed.computed.outcomes
        if not outcomes:
            return
        if self._followers and len(outcomes) <= KEPT:
            self._add(committed.decided)
            return
        self._recent.clear()
        self._last = committed.first_outcome_seq + len(outcomes) - 1
        self.wake()

    def _add(self, decided: Sequence[DecidedCommand]) -> None:
        if self._recent and decided[0].outcome_seq != self._recent[-1].outcome_seq + 1:
            self._recent.clear()
        self._recent.extend(decided)
        self._last = decided[-1].outcome_seq
        self.wake()

    def _end(self, error: TickwireError) -> None:
        self._ended = error
        self.wake()
