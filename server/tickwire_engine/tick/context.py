"""What a processor's call belongs to: the tick, the processor and the archetype it runs for.

Resources that act differently in each call (`CommandBroker`, `TickRandom`, `Mailbox`) find out here, by a context variable
that follows the call into worker threads. Nothing of it outlives the tick.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import xxhash

from tickwire_engine.ids import uuid7_from
from tickwire_engine.storage.rows import Letter

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from uuid import UUID

    from tickwire_engine.commands import Decision, Operation, Vocabulary
    from tickwire_engine.errors import TickwireError
    from tickwire_engine.submission import Submission
    from tickwire_engine.tick.watching import TickWatch


@dataclass(frozen=True, slots=True)
class Message:
    """A message from one entity to another, as a processor reads it."""

    sender_id: int
    receiver_id: int
    channel: str
    content: dict[str, Any]
    actor_id: str


@dataclass(frozen=True, slots=True)
class CommandResult:
    """What came of a command that answers something, as the processors of its tick read it.

    Attributes:
        type: As in `CommandType`, in lower case.
        actor_id: Its sender; ``processor:<name>`` where a processor of this world sent it.
        applied: False: it was rejected, and `reason` and `message` say why.
        world_id: The world that it made, or "".
        value: What a custom command's handler returned, or None.
        table: The rows that it answered as an Arrow IPC stream, or b"": `CommandResults.table` reads them.
    """

    command_id: UUID
    type: str
    actor_id: str
    applied: bool
    reason: str = ""
    message: str = ""
    world_id: str = ""
    value: dict[str, Any] | None = None
    table: bytes = b""


class CallPlace(NamedTuple):
    """Where a call stands in the canonical order of a tick."""

    priority: int
    processor: str
    archetype: str


@dataclass(frozen=True, slots=True)
class IssuedCommand:
    """A command that a processor sent in this tick; it is accepted with the tick, and due in the next."""

    id: UUID
    submission: Submission
    operation: Operation
    first_entity_id: int
    encoded: tuple[bytes, bytes, bytes]
    """See `Submission.encode`."""


@dataclass(slots=True)
class TickContext:
    """One tick: what its processors may know, and what they send."""

    world_id: UUID
    seed: int
    tick: int
    time_us: int
    """The journaled time of the tick, microseconds since the Unix epoch: the only clock that replays."""
    vocabulary: Vocabulary
    messages: tuple[Message, ...] = ()
    results: tuple[CommandResult, ...] = ()
    next_issued_id: int = 0
    """The id of the first entity that is sent for in this tick."""
    decisions: Mapping[int, Decision | TickwireError] = field(default_factory=dict)
    """See `TickDraft.decisions`."""
    watch: TickWatch | None = None
    """What the run asks to see and to have checked."""
    _outgoing: dict[CallPlace, list[tuple[UUID, Submission]]] = field(default_factory=dict)
    _issued: dict[CallPlace, list[tuple[Submission, Operation]]] = field(default_factory=dict)

    def issued(self, first_entity_id: int) -> Iterator[IssuedCommand]:
        """Yield what was sent, in the order of (priority, processor, archetype, sent), with derived ids."""
        for place in sorted(self._issued):
            for ordinal, (submission, operation) in enumerate(self._issued[place]):
                count = operation.entity_count
                yield IssuedCommand(
                    id=self._command_id(place, ordinal),
                    submission=submission,
                    operation=operation,
                    first_entity_id=first_entity_id if count else 0,
                    encoded=submission.encode(),
                )
                first_entity_id += count

    def add(self, place: CallPlace, submission: Submission, operation: Operation) -> UUID:
        """Buffer a command of one call, and return its id; calls run side by side, each in its own list."""
        sent = self._issued.setdefault(place, [])
        sent.append((submission, operation))
        return self._command_id(place, len(sent) - 1)

    def next_entity_id(self) -> int:
        """Return the id of the next entity that is sent for, while calls still come one after another."""
        return self.next_issued_id + sum(
            operation.entity_count for sent in self._issued.values() for _, operation in sent
        )

    def post(self, place: CallPlace, target: UUID, submission: Submission) -> UUID:
        """Buffer a command of one call to another world, and return its id."""
        sent = self._outgoing.setdefault(place, [])
        sent.append((target, submission))
        return self._command_id(place, f"out {len(sent) - 1}")

    def letters(self) -> Iterator[Letter]:
        """Yield what was sent to other worlds, in canonical order, with derived ids."""
        for place in sorted(self._outgoing):
            for ordinal, (target, sent) in enumerate(self._outgoing[place]):
                command_id = self._command_id(place, f"out {ordinal}").bytes
                payload, table, _ = sent.encode()
                how = (sent.tick, sent.priority, sent.version, sent.actor)
                yield Letter(target.bytes, command_id, sent.type.value, *how, payload, table)

    def withdraw(self, place: CallPlace) -> None:
        """Forget what one call sent."""
        self._issued.pop(place, None)
        self._outgoing.pop(place, None)

    def _command_id(self, place: CallPlace, ordinal: int | str) -> UUID:
        text = f"{self.world_id} {self.tick} {place.processor} {place.archetype} {ordinal}"
        return uuid7_from(self.time_us // 1000, xxhash.xxh3_128_digest(text.encode()))


@dataclass(slots=True)
class ProcessorCall:
    """One processor on one archetype."""

    context: TickContext
    place: CallPlace
    sender: str = ""
    """Who sends what it sends, where a handler runs; "": the processor."""
    generator: np.random.Generator | None = None

    @property
    def knows_ids(self) -> bool:
        """Whether it can be told the ids of what it spawns: handlers run alone, processors side by side."""
        return bool(self.sender)

    @property
    def actor(self) -> str:
        """The actor of what the call sends."""
        return self.sender or f"processor:{self.place.processor}"

    def random(self) -> np.random.Generator:
        """Return the call's generator; every call has one of its own, made at first use."""
        if self.generator is None:
            place = self.place
            text = f"{self.context.seed} {self.context.tick} {place.processor} {place.archetype}"
            seed = int.from_bytes(xxhash.xxh3_128_digest(text.encode()))
            self.generator = np.random.Generator(np.random.PCG64(seed))
        return self.generator


current_call: ContextVar[ProcessorCall | None] = ContextVar("tickwire_processor_call", default=None)
