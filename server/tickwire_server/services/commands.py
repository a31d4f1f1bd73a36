"""CommandService: takes commands, waits for what becomes of them, and tells it, now or later."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from tickwire_engine import Receipt, Submission
from tickwire_engine.archetype import MAX_ID
from tickwire_engine.errors import (
    CommandNotFoundError,
    InvalidRequestError,
    RoleForbidsError,
    ShuttingDownError,
    TickwireError,
)
from tickwire_engine.storage.rows import DecidedCommand
from tickwire_engine.submission import submission_of
from tickwire_server.auth import caller
from tickwire_server.services.outcomes import OutcomeFeed
from tickwire_server.services.paging import page_position, page_size_of, page_token
from tickwire_server.services.results import pieces

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping, Sequence
    from uuid import UUID

    from tickwire_engine import ActorCtx, AsyncWorld, Command
    from tickwire_engine.preparing import Pause
    from tickwire_engine.storage.command_history import CommandFilter
    from tickwire_engine.storage.history import StoredCommand
    from tickwire_engine.submission import Accepted, Guard
    from tickwire_server.services.results import Piece
    from tickwire_server.storages import Storages

T = TypeVar("T")
INLINE_TABLE_BYTES = 1 << 20
"""Tables up to this size come with the outcome itself."""
ANSWER_BYTES = 3 << 20
"""Of payloads and tables in one answer: gRPC's clients take 4 MiB unless they are told otherwise."""


class WaitLevel(Enum):
    """What Submit waits for."""

    ACCEPTED = 1
    APPLIED = 2
    ARCHIVED = 3


_NO_TABLES: Mapping[int, bytes] = MappingProxyType({})


class SubmitRequest(NamedTuple):
    """One Submit, in plain values."""

    submissions: Sequence[Submission | TickwireError]
    """In order; an error stands for a command that could not be read, which only `partial` allows."""
    partial: bool
    wait: WaitLevel
    max_wait_s: float | None
    guard: Guard | None = None
    """Judges what the sender may do; None: everything."""
    pause: Pause | None = None
    """Gives others a turn in the midst of a large request."""
    journaled: Callable[[], None] = lambda: None
    """Called once the commands are durable, before anything is waited for."""


class SubmitAnswer(NamedTuple):
    """What became of a Submit.

    Attributes:
        receipts: In order.
        tables: By the commands' seqs: the tables of their outcomes that are small enough to go along.
        unreached: Seqs of commands that have not come as far as was asked for: their outcomes are not told.
    """

    receipts: Sequence[Receipt]
    tables: Mapping[int, bytes] = _NO_TABLES
    unreached: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class OutcomeWatch:
    """A stream of outcomes, and where it begins."""

    after: int
    """The number of the last outcome before it; 0: it begins with the first kept."""
    outcomes: AsyncGenerator[DecidedCommand, None]


class CommandService:
    """Takes commands on their way in, and tells what became of them; `stopping` ends whatever waits."""

    def __init__(self, storages: Storages, stopping: asyncio.Event) -> None:
        self._storages = storages
        self._stopping = stopping
        self._feeds: dict[UUID, OutcomeFeed] = {}

    async def submit(self, world_id: UUID | str, cmd: Command, ctx: ActorCtx) -> UUID:
        """Accept one command of the actor `ctx` and return its id; see `submit_batch`."""
        return (await self.submit_batch(world_id, [cmd], ctx))[0]

    async def submit_batch(self, world_id: UUID | str, cmds: Sequence[Command], ctx: ActorCtx) -> list[UUID]:
        """Accept commands of the actor `ctx`, all of them or none; durable once this returns.

        Returns:
            Their ids, in order; a command that was accepted before is not accepted again.

        Raises:
            WorldNotFoundError: There is no such world.
            TickwireError: One could never be applied; `field` says which.
        """
        await self._storages.world(world_id).submit([submission_of(cmd, ctx) for cmd in cmds])
        return [cmd.id for cmd in cmds]

    async def accept(self, world: AsyncWorld, request: SubmitRequest) -> SubmitAnswer:
        """Accept commands, and wait as far as the request says.

        Returns:
            Receipts in order; past `max_wait_s` they come without an outcome, and the commands stay queued.

        Raises:
            ShuttingDownError: The server stops before the outcomes are there; the commands stay queued.
            TickwireError: One is unacceptable and the request is all or nothing.
        """
        if not request.submissions:
            return SubmitAnswer(())
        readable = [sent for sent in request.submissions if isinstance(sent, Submission)]
        receipts = await world.submit(
            readable, partial=request.partial, guard=request.guard, pause=request.pause
        )
        request.journaled()
        if len(readable) < len(request.submissions):
            receipts = _with_unreadable(request.submissions, receipts)
        unreached: frozenset[int] = frozenset()
        if request.wait is not WaitLevel.ACCEPTED:
            unreached = await self._wait(world, receipts, request.wait, request.max_wait_s)
        elif not any(receipt.duplicate for receipt in receipts):
            return SubmitAnswer(receipts)
        return SubmitAnswer(receipts, await _small_tables(world, receipts), unreached)

    async def find(self, world: AsyncWorld, command_id: UUID) -> tuple[StoredCommand, bytes]:
        """Return a command with what became of it, and its table if that is small.

        Raises:
            CommandNotFoundError: There is none of that id, or none that the caller may see.
        """
        if world.acceptance.find(command_id) is not None:
            # It may be on its way to the journal still.
            await self._visible(world, command_id)
        history, key = world.command_history, world.row.key
        stored = await asyncio.to_thread(history.find, key, command_id.bytes)
        if stored is None or not caller().may_see(stored.command.actor):
            raise _not_found(command_id)
        table: bytes | None = None
        if stored.outcome is not None and 0 < stored.outcome.table_bytes <= INLINE_TABLE_BYTES:
            table = await asyncio.to_thread(history.result, key, stored.command.seq)
        return stored, table or b""

    async def page(
        self, world: AsyncWorld, wanted: CommandFilter, *, size: int, token: str
    ) -> tuple[list[StoredCommand], str]:
        """Return a page of commands that the caller may see, the newest first, and the next page's token.

        Args:
            world: Of which world.
            wanted: Which.
            size: At most so many; 0: 100. A page ends early rather than be larger than clients take.
            token: Of the page before.

        Raises:
            RoleForbidsError: The caller may see its own only, and asks for another actor's.
            InvalidPageTokenError: The token belongs to another list.
        """
        count = page_size_of(size)
        conditions = (
            *(world.row.key, sorted(wanted.states), sorted(wanted.types), wanted.actor, wanted.from_us),
        )
        before = page_position(token, conditions) or MAX_ID
        history, key = world.command_history, world.row.key
        page = await asyncio.to_thread(
            history.page, key, wanted, before=before, limit=count, max_bytes=ANSWER_BYTES
        )
        return page.commands, page_token(page.before, conditions) if page.before else ""

    async def cancel(self, world: AsyncWorld, command_id: UUID) -> DecidedCommand:
        """Withdraw a pending command; see `Acceptance.cancel`.

        Raises:
            CommandNotFoundError: There is none of that id, or none that the caller may see.
            CommandNotPendingError: A tick has decided it.
        """
        entry = await self._visible(world, command_id)
        settled = await self._until_stopping(world.cancel(command_id))
        return DecidedCommand(entry.id, entry.actor, settled.outcome_seq, settled.tick, settled.outcome)

    async def result(self, world: AsyncWorld, command_id: UUID) -> AsyncGenerator[Piece, None]:
        """Yield the table that a command answered; waits while it is pending. Nothing: it answered none.

        Raises:
            CommandNotFoundError: There is none of that id, or none that the caller may see.
            ShuttingDownError: The server stops before the command is decided.
        """
        entry = await self._visible(world, command_id)
        settled = await self._until_stopping(entry.wait_settled())
        if not settled.outcome.table_bytes:
            return
        table = await asyncio.to_thread(world.command_history.result, world.row.key, entry.seq)
        if table is None:
            raise _not_found(command_id)
        async for piece in pieces(table):
            yield piece

    def watch(self, world: AsyncWorld, *, after: int | None, actor: str) -> OutcomeWatch:
        """Follow a world's outcomes in the order in which they become durable.

        Args:
            world: Of which world.
            after: Begin after this outcome; 0: with the first kept; None: with the next.
            actor: Only this actor's commands; "": all that the caller may see.

        Raises:
            RoleForbidsError: The caller may see its own only, and asks for another actor's.
        """
        if after is not None and not 0 <= after <= MAX_ID:
            raise InvalidRequestError("after_outcome_seq must lie in [0, 2^53)", field="after_outcome_seq")
        wanted = visible_actor(actor)
        feed = self._feeds.get(world.world_id)
        if feed is None:
            feed = self._feeds[world.world_id] = OutcomeFeed(world)
            world.on_ended(lambda _: self._forget(world))
        begin = feed.last if after is None else after
        # Without an outcome before it, "from now" would read as "from the first kept": which is the same then.
        return OutcomeWatch(begin, feed.follow(begin, wanted, self._stopping))

    def wake(self) -> None:
        """Let whoever follows outcomes look again: the server stops."""
        for feed in self._feeds.values():
            feed.wake()

    def _forget(self, world: AsyncWorld) -> None:
        self._feeds.pop(world.world_id, None)

    async def _visible(self, world: AsyncWorld, command_id: UUID) -> Accepted:
        entry = world.acceptance.find(command_id)
        if entry is None or not caller().may_see(entry.actor):
            raise _not_found(command_id)
        if entry.journaled is not None:
            await asyncio.shield(entry.journaled)
        return entry

    async def _wait(
        self, world: AsyncWorld, receipts: Sequence[Receipt], level: WaitLevel, max_wait_s: float | None
    ) -> frozenset[int]:
        """Wait for what the commands have not reached; returns the seqs of those that are not there in time."""
        commands = [receipt.command for receipt in receipts if receipt.command is not None]
        if level is WaitLevel.APPLIED and all(command.settled is not None for command in commands):
            return frozenset()
        with contextlib.suppress(TimeoutError):
            await self._until_stopping(_reached(world, commands, level), max_wait_s)
        if level is WaitLevel.APPLIED:
            return frozenset()
        last = world.history.archived_tick(world.row.key)
        return frozenset(
            command.seq for command in commands if command.settled is not None and command.settled.tick > last
        )

    async def _until_stopping(self, work: Coroutine[Any, Any, T], timeout_s: float | None = None) -> T:
        task = asyncio.ensure_future(work)
        stopped = asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait((task, stopped), timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            if stopped.done():
                raise ShuttingDownError(
                    "the server is stopping and the commands are queued: ask again by their ids"
                )
            raise TimeoutError
        finally:
            # Also when the caller gave up: nobody is left who waits.
            task.cancel()
            stopped.cancel()


def visible_actor(asked: str) -> str | None:
    """Return whose commands a list or stream of the caller shows; None: everybody's.

    Args:
        asked: An actor, as `CommandRow.actor` has it; "": all that the caller may see.

    Raises:
        RoleForbidsError: The caller may see its own only, and asks for another's.
    """
    actor = caller()
    if asked and not actor.may_see(asked):
        raise RoleForbidsError(
            "you may see your own commands only: leave actor_id out", field="actor_id", needs="operator"
        )
    return asked or (None if actor.sees_others else actor.key)


def _with_unreadable(
    submissions: Sequence[Submission | TickwireError], accepted: Sequence[Receipt]
) -> list[Receipt]:
    """Return receipts for all of `submissions`, given those of the readable ones among them."""
    receipts: list[Receipt] = []
    of_readable = enumerate(accepted)
    for index, submission in enumerate(submissions):
        if not isinstance(submission, Submission):
            receipts.append(Receipt(None, error=submission))
            continue
        given, receipt = next(of_readable)
        if receipt.error is not None:
            # The world counted what it was given; the sender counts what it sent.
            receipt.error.field = receipt.error.field.replace(f"commands[{given}]", f"commands[{index}]", 1)
        receipts.append(receipt)
    return receipts


async def _reached(world: AsyncWorld, commands: Sequence[Accepted], level: WaitLevel) -> None:
    await asyncio.gather(*(command.wait_settled() for command in commands if command.settled is None))
    if level is WaitLevel.ARCHIVED:
        # Of a cancelled command there is nothing to archive.
        last = max((command.settled.tick for command in commands if command.settled is not None), default=-1)
        if last >= 0:
            await world.archived(last)


async def _small_tables(world: AsyncWorld, receipts: Sequence[Receipt]) -> dict[int, bytes]:
    small: dict[int, int] = {}
    room = ANSWER_BYTES
    for receipt in receipts:
        command = receipt.command
        if command is None or command.settled is None:
            continue
        size = command.settled.outcome.table_bytes
        if 0 < size <= min(INLINE_TABLE_BYTES, room) and command.seq not in small:
            small[command.seq] = size
            room -= size
    if not small:
        return {}
    history, key = world.command_history, world.row.key

    def read() -> dict[int, bytes]:
        return {seq: table for seq in small if (table := history.result(key, seq)) is not None}

    return await asyncio.to_thread(read)


def _not_found(command_id: UUID) -> CommandNotFoundError:
    return CommandNotFoundError(
        f"no command {command_id} is known in this world: it was never accepted, or is older than what is kept",
        field="command_id",
        command_id=command_id,
    )
