"""CommandBroker: how code in the process sends commands, from outside ticks and from within.

From outside, a command is accepted like one from the network: journaled before the call returns. From inside a tick, by a
processor, it is buffered and accepted with the tick, atomically, with an id derived from where it was sent: the same tick
sends the same commands, however often it is computed. What a tick sends to another world is journaled with it, and accepted
there once it is durable.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from tickwire_engine.archetype import MAX_ID
from tickwire_engine.command import Command, CommandType
from tickwire_engine.errors import InvalidRequestError
from tickwire_engine.issuing import post, send
from tickwire_engine.storage.command_history import CommandFilter
from tickwire_engine.submission import Submission, submission_of
from tickwire_engine.tick.context import current_call

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any
    from uuid import UUID

    from tickwire_engine.command import ActorCtx
    from tickwire_engine.storage.history import StoredCommand
    from tickwire_engine.submission import Receipt
    from tickwire_engine.world import AsyncWorld

_PAGE_BYTES = 64 << 20


class CommandBroker:
    """A resource of every world, and the engine's own; used on the event loop, and inside ticks on any thread."""

    def __init__(self, find_world: Callable[[UUID], AsyncWorld]) -> None:
        self._find_world = find_world

    async def enqueue(self, world_id: UUID, cmd: Command, ctx: ActorCtx | None = None) -> Command:
        """Send one command; returns it as accepted, or as buffered when a processor sends it, to whichever world.

        Raises:
            TickwireError: It could never be applied.
        """
        return (await self.enqueue_bulk(world_id, [cmd], ctx))[0]

    async def enqueue_bulk(
        self, world_id: UUID, cmds: Sequence[Command], ctx: ActorCtx | None = None
    ) -> list[Command]:
        """Send several commands, all of them or none.

        Raises:
            TickwireError: One could never be applied; nothing was accepted.
        """
        if self._inside(world_id):
            return [self.issue(cmd.type, cmd.payload, tick=cmd.tick, priority=cmd.priority) for cmd in cmds]
        call = current_call.get()
        if call is not None:
            # Inside a tick of another world: on its way once that is durable.
            return [post(call, world_id, cmd) for cmd in cmds]
        receipts = await self._find_world(world_id).submit([submission_of(cmd, ctx) for cmd in cmds])
        return [_accepted(cmd, receipt) for cmd, receipt in zip(cmds, receipts, strict=True)]

    def issue(
        self, kind: CommandType, payload: Mapping[str, Any], *, tick: int | None = None, priority: int = 0
    ) -> Command:
        """Send a command from inside a tick to its own world, due in the next; plain, for `ArrowProcessor` too.

        Args:
            kind: What it does.
            payload: As in `Command.payload`.
            tick: Not before this tick.
            priority: Lower is applied first.

        Raises:
            InvalidRequestError: No processor is running.
            TickwireError: It could never be applied.
        """
        call = current_call.get()
        if call is None:
            raise InvalidRequestError(
                "issue() is for processors and handlers, inside a tick; elsewhere await enqueue()"
            )
        sent = send(call, Submission(kind, dict(payload), tick=tick, priority=priority))
        return Command(id=sent.id, type=kind, payload=dict(payload), tick=tick, priority=priority)

    def dequeue(self, world_id: UUID) -> Command | None:
        """Take the first command that is due at the world's next tick away from it; see `dequeue_due`."""
        world = self._find_world(world_id)
        taken = world.acceptance.queue.take(world.tick, 1)
        return taken[0] if taken else None

    def dequeue_due(self, world_id: UUID, tick: int, limit: int | None = None) -> list[Command]:
        """Take what is due at `tick` away from the world's ticks, in (tick, priority, seq) order, to handle it here.

        It is pending until `ack` settles it for good: what was not acknowledged is due again after a restart, or when it
        is given back, so a consumer that may be killed handles a command at least once.

        Args:
            world_id: Whose commands.
            tick: Those due at this tick or before.
            limit: At most so many; None means all.
        """
        return self._find_world(world_id).acceptance.queue.take(tick, limit)

    async def ack(self, world_id: UUID, *cmds: Command | UUID) -> None:
        """Settle commands that were dequeued; durable once this returns. No tick applied them: they count as CANCELLED.

        Raises:
            CommandNotFoundError: The world knows no such command.
            CommandNotPendingError: A tick has decided it.
        """
        world = self._find_world(world_id)
        ids = [cmd.id if isinstance(cmd, Command) else cmd for cmd in cmds]
        await asyncio.gather(*(world.cancel(command_id) for command_id in ids))

    def give_back(self, world_id: UUID, *cmds: Command | UUID) -> None:
        """Let the world's ticks have commands that were dequeued."""
        ids = [cmd.id if isinstance(cmd, Command) else cmd for cmd in cmds]
        self._find_world(world_id).acceptance.queue.give_back(ids)

    async def clear(self, world_id: UUID) -> int:
        """Cancel every command that waits; returns how many they were. Those that a tick has drained are its own."""
        waiting = self.peek(world_id)
        await self.ack(world_id, *waiting)
        return len(waiting)

    async def get_history(
        self, world_id: UUID, limit: int = 100, wanted: CommandFilter | None = None
    ) -> list[StoredCommand]:
        """Return commands with what became of them, pending ones too, the newest first.

        Args:
            world_id: Whose commands.
            limit: At most so many.
            wanted: Which; None means all.
        """
        world = self._find_world(world_id)
        found: list[StoredCommand] = []
        before = MAX_ID
        while before and len(found) < limit:
            page = await asyncio.to_thread(
                world.command_history.page,
                world.row.key,
                wanted or CommandFilter(),
                before=before,
                limit=limit - len(found),
                max_bytes=_PAGE_BYTES,
            )
            found += page.commands
            before = page.before
        return found

    def peek(self, world_id: UUID, limit: int | None = None) -> list[Command]:
        """Return the commands that wait, in the order they will be applied."""
        return self._find_world(world_id).acceptance.queue.waiting(limit)

    def get_pending_count(self, world_id: UUID) -> int:
        """Return how many commands are accepted and in no durable tick."""
        return self._find_world(world_id).acceptance.pending

    def _inside(self, world_id: UUID) -> bool:
        call = current_call.get()
        return call is not None and call.context.world_id == world_id


def _accepted(cmd: Command, receipt: Receipt) -> Command:
    assert receipt.command is not None
    return cmd.model_copy(update={"tick": receipt.command.tick, "seq": receipt.command.seq})
