"""Cancelling: the journal settles a pending command before a tick does, once for all.

Used on the world's event loop only.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from tickwire_engine.errors import CommandNotFoundError, CommandNotPendingError

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

    from tickwire_engine.command_journal import CommandJournal
    from tickwire_engine.due_queue import DueQueue
    from tickwire_engine.known_commands import KnownCommands
    from tickwire_engine.storage.rows import Outcome
    from tickwire_engine.submission import Accepted, Settled


class Cancelling:
    """The cancellations of one world."""

    def __init__(
        self,
        *,
        journal: CommandJournal,
        queue: DueQueue,
        known: KnownCommands,
        cancelled: Callable[[Accepted, Outcome], None],
    ) -> None:
        """Takes what it works on.

        Args:
            cancelled: Called once a command is cancelled for good.
        """
        self._journal = journal
        self._queue = queue
        self._known = known
        self._cancelled = cancelled
        self._in_hand: dict[int, asyncio.Future[Outcome]] = {}
        """By seq: what the journal is about to settle."""

    async def cancel(self, command_id: UUID) -> Settled:
        """Withdraw a pending command for good: see `Acceptance.cancel`."""
        entry = self._known.find([command_id.bytes]).get(command_id.bytes)
        if entry is None:
            raise CommandNotFoundError(
                f"no command {command_id} is known in this world", field="command_id", command_id=command_id
            )
        if entry.journaled is not None:
            await asyncio.shield(entry.journaled)
        while entry.settled is None:
            if self._queue.is_drained(entry.seq):
                await self._decided_or_returned(entry)
            else:
                await self._withdraw(entry)
        if not entry.settled.outcome.cancelled:
            raise CommandNotPendingError(
                f"tick {entry.settled.tick} has decided command {command_id}: there is nothing left to cancel",
                field="command_id",
                command_id=command_id,
                state=f"COMMAND_STATE_{'APPLIED' if entry.settled.outcome.applied else 'REJECTED'}",
                tick=entry.settled.tick,
            )
        return entry.settled

    async def _withdraw(self, entry: Accepted) -> None:
        written = self._in_hand.get(entry.seq)
        if written is None:
            written = self._journal.cancel(entry.seq)
            self._queue.withdraw(entry.seq)
            self._in_hand[entry.seq] = written
            # Whoever asked for it may give up waiting; the journal does not.
            written.add_done_callback(lambda done: self._written(entry, done))
        await asyncio.shield(written)

    def _written(self, entry: Accepted, done: asyncio.Future[Outcome]) -> None:
        del self._in_hand[entry.seq]
        if done.exception() is not None:
            self._queue.not_withdrawn(entry.seq)
            return
        self._queue.withdrawn(entry.seq)
        self._cancelled(entry, done.result())

    async def _decided_or_returned(self, entry: Accepted) -> None:
        """Wait until a tick in hand is over: it has decided the command, or was aborted and put it back."""
        if self._known.failure is not None:
            raise self._known.failure
        over = self._queue.tick_over()
        decided = asyncio.ensure_future(entry.wait_settled())
        try:
            await asyncio.wait((decided, over), return_when=asyncio.FIRST_COMPLETED)
            if decided.done():
                decided.result()
        finally:
            decided.cancel()
