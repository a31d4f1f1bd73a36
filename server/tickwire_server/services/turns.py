"""Shares: how much of one actor's sending is worked on at a time while others send too.

A server takes requests in the order they come. Who keeps sixty-four of them on their way, or ten thousand commands in one,
would make everybody else wait for as long as all of that takes. So while more than one actor sends, each has a few requests
in work, or one large one, and its next ones wait, in their order, for those to be journaled. An actor that is alone has no
share: nobody notices. Lives on the event loop.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from time import monotonic, sleep

SHARE = 64
"""Commands of one actor in work at a time; a larger request is in work alone."""
LEAST = 8
"""What a request of fewer commands counts as: eight small ones make a share."""
HAND_OVER_S = 50e-6
"""What a pause leaves to other threads: the journal's asks for the interpreter several times for each transaction, and
waits for as long as `sys.getswitchinterval` (5 ms) each time that it is not given up in earnest."""
RECENT_S = 1.0
"""For so long after an actor's last request others count it as sending."""


@dataclass(slots=True)
class _Sender:
    active: int = 0
    is_reading: bool = False
    """A request is read a part at a time: those after it must not overtake it."""
    waiting: deque[tuple[int, asyncio.Future[None]]] = field(default_factory=deque)


class Turn:
    """A request in work; `end` it once it is journaled, refused or given up. Again: nothing."""

    __slots__ = ("_actor", "_turns", "_weight")

    def __init__(self, turns: Turns, actor: str, weight: int) -> None:
        self._turns: Turns | None = turns
        self._actor = actor
        self._weight = weight

    async def pause(self) -> None:
        """Let others be worked on in the midst of a large request; if nobody else sends, go on at once."""
        if self._turns is not None and self._turns.is_contended(self._actor):
            await self._turns.paused(self._actor)

    def end(self) -> None:
        """Make room for the actor's next requests."""
        turns, self._turns = self._turns, None
        if turns is not None:
            turns.left(self._actor, self._weight)


class Turns:
    """Everybody's requests that are in work, and those that wait."""

    def __init__(self) -> None:
        self._senders: dict[str, _Sender] = {}
        self._last, self._last_s = "", 0.0
        self._other_s = 0.0
        """When somebody else than the last one sent last."""

    async def take(self, actor: str, commands: int) -> Turn:
        """Wait for a share of `actor`; its requests go in the order in which they ask."""
        self._note(actor)
        weight = max(commands, LEAST)
        sender = self._senders.get(actor)
        if sender is None:
            sender = self._senders[actor] = _Sender()
        if not sender.waiting and self._fits(actor, sender, weight):
            sender.active += weight
            return Turn(self, actor, weight)
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        sender.waiting.append((weight, waiter))
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                self.left(actor, weight)
            raise
        return Turn(self, actor, weight)

    def is_contended(self, actor: str) -> bool:
        """Whether somebody else sends too."""
        since_s = self._other_s if actor == self._last else self._last_s
        return monotonic() - since_s < RECENT_S

    async def paused(self, actor: str) -> None:
        """Give other threads and the loop a turn; see `Turn.pause`."""
        sender = self._senders[actor]
        sender.is_reading = True
        try:
            sleep(HAND_OVER_S)  # noqa: ASYNC251  # it is this very thread that is to stand still
            await asyncio.sleep(0)
        finally:
            sender.is_reading = False

    def left(self, actor: str, weight: int) -> None:
        """Note that a request is no longer in work; see `Turn.end`."""
        sender = self._senders[actor]
        sender.active -= weight
        while sender.waiting:
            weight, waiter = sender.waiting[0]
            if not waiter.done():
                if not self._fits(actor, sender, weight):
                    return
                sender.active += weight
                waiter.set_result(None)
            sender.waiting.popleft()
        if not sender.active:
            del self._senders[actor]

    def _fits(self, actor: str, sender: _Sender, weight: int) -> bool:
        if not sender.active:
            return True
        return not sender.is_reading and (sender.active + weight <= SHARE or not self.is_contended(actor))

    def _note(self, actor: str) -> None:
        if actor != self._last:
            self._last, self._other_s = actor, self._last_s
        self._last_s = monotonic()
