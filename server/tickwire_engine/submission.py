"""What is sent to a world and what its sender gets: the command as it was made, its receipt, what became of it.

Values, and no more: `Acceptance` makes them. Used on the world's event loop only.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, Self

from tickwire_engine.command import CommandType, content_hash, split_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tickwire_engine.command import ActorCtx, Command
    from tickwire_engine.errors import TickwireError
    from tickwire_engine.storage.rows import CommandRow, Outcome


class Submission(NamedTuple):
    """A command as its sender made it."""

    type: CommandType
    payload: dict[str, Any]
    id: bytes | None = None
    """The 16 bytes of a UUIDv7; None: no idempotency, one is made."""
    tick: int | None = None
    priority: int = 0
    version: int = 1
    actor: str = ""
    sender: str = ""
    """JSON of the sender's `ActorCtx`, for handlers of custom commands; of others it need not be given."""

    def encode(self) -> tuple[bytes, bytes, bytes]:
        """Return (canonical JSON of the payload, its Arrow table, the content hash)."""
        payload, table = split_table(self.payload)
        digest = content_hash(
            self.type,
            tick=self.tick,
            priority=self.priority,
            version=self.version,
            payload=payload,
            table=table,
        )
        return payload, table, digest


def submission_of(cmd: Command, ctx: ActorCtx | None) -> Submission:
    """Return a command as `ctx` sends it; None: whoever it says itself."""
    return Submission(
        cmd.type,
        cmd.payload,
        cmd.id.bytes,
        cmd.tick,
        cmd.priority,
        cmd.version,
        (cmd.actor_id if ctx is None else ctx.id).hex,
        ctx.model_dump_json() if ctx is not None and cmd.type is CommandType.CUSTOM else "",
    )


@dataclass(frozen=True, slots=True)
class Settled:
    """What became of a command, durably."""

    tick: int
    outcome: Outcome
    outcome_seq: int = -1


@dataclass(slots=True)
class Accepted:
    """A command that this world has taken, from acceptance until its retries are improbable."""

    id: bytes
    content_hash: bytes
    actor: str
    seq: int
    tick: int
    first_entity_id: int
    entity_count: int
    journaled: asyncio.Future[None] | None
    """Done once the command is durable, and all that came with it; None when it was durable before."""
    settled: Settled | None = None
    waiters: list[asyncio.Future[Settled]] = field(default_factory=list)

    @classmethod
    def of(cls, row: CommandRow, *, journaled: asyncio.Future[None] | None = None) -> Self:
        """Return a command as the journal has it, or is about to."""
        return cls(
            row.id,
            row.content_hash,
            row.actor,
            row.seq,
            row.tick,
            row.first_entity_id,
            row.entity_count,
            journaled,
        )

    async def wait_settled(self) -> Settled:
        """Return the outcome once its tick is durable."""
        if self.settled is not None:
            return self.settled
        waiter: asyncio.Future[Settled] = asyncio.get_running_loop().create_future()
        self.waiters.append(waiter)
        try:
            return await waiter
        finally:
            if waiter in self.waiters:
                self.waiters.remove(waiter)


class Receipt(NamedTuple):
    """The answer to one submission.

    Attributes:
        command: None when `error` says why it was not accepted.
        duplicate: It was accepted before; this was a retry.
    """

    command: Accepted | None
    duplicate: bool = False
    error: TickwireError | None = None


class Guard(Protocol):
    """What the sender of a request may do; made for one request, asked on the event loop."""

    def check(self, submission: Submission, tick: int) -> None:
        """Judge a command that was not accepted before, due at `tick`; in order.

        Raises:
            TickwireError: Its sender may not send it.
        """
        ...

    def admitted(self, rows: Sequence[CommandRow]) -> None:
        """Count what the request brought: it is accepted. Not called when the whole request is refused."""
        ...


def asked_for_next(row: CommandRow) -> bool:
    """Whether the sender named no tick: the content hash covers what was asked, not what it became."""
    digest = content_hash(
        CommandType(row.type),
        tick=None,
        priority=row.priority,
        version=row.version,
        payload=row.payload,
        table=row.table,
    )
    return digest == row.content_hash
