"""The door of a world: commands are checked, given their order and their entity ids, journaled, and wait for their tick.

This is the one way in, for the network and for in-process calls alike. A command is due only once it is journaled;
a tick takes everything that is due at one cut point. Used on the world's event loop only.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from uuid import UUID

from tickwire_engine.archetype import MAX_ID
from tickwire_engine.cancelling import Cancelling
from tickwire_engine.due_queue import DueQueue
from tickwire_engine.errors import (
    InvalidCommandError,
    InvalidRequestError,
    QueueFullError,
    TickInThePastError,
    TickwireError,
    WorldFullError,
    together,
)
from tickwire_engine.ids import MAX_CLOCK_AHEAD_MS, is_uuid7, uuid7, uuid7_ms
from tickwire_engine.known_commands import KnownCommands, require_same
from tickwire_engine.preparing import PART, Prepared, prepare
from tickwire_engine.rehydration import read_pending
from tickwire_engine.storage._forgetting import require_remembered
from tickwire_engine.storage.rows import CommandRow, DecidedCommand, Outcome
from tickwire_engine.submission import Accepted, Receipt, Settled

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tickwire_engine.command_journal import CommandJournal
    from tickwire_engine.commands import Operation, Vocabulary
    from tickwire_engine.preparing import Pause
    from tickwire_engine.submission import Guard, Submission
    from tickwire_engine.tick.context import IssuedCommand


class Acceptance:
    """Takes the commands of one world; `queue` has those that wait, `known` all that it ever took."""

    def __init__(
        self,
        *,
        journal: CommandJournal,
        vocabulary: Vocabulary,
        next_seq: int,
        next_entity_id: int,
        max_entities: int,
        cut_tick: int,
    ) -> None:
        self.journal = journal
        self._vocabulary = vocabulary
        self._next_seq = next_seq
        self._next_entity_id = next_entity_id
        self._max_entities = max_entities
        self.queue = DueQueue(vocabulary, cut_tick=cut_tick)
        self.known = KnownCommands(journal)
        self._cancelling = Cancelling(
            journal=journal, queue=self.queue, known=self.known, cancelled=self._cancelled
        )
        self._pending = 0
        self._reserved = 0
        self.on_cancelled: Callable[[DecidedCommand], None] = lambda _: None
        """Called once a command is cancelled for good."""
        self.entities = 0
        """Active entities in the durable state; the world keeps it current."""

    @property
    def pending(self) -> int:
        """Commands accepted and in no durable tick."""
        return self._pending

    @property
    def next_entity_id(self) -> int:
        """The id that the next spawned entity gets."""
        return self._next_entity_id

    def recover(
        self, pending: Sequence[CommandRow], settled: Sequence[tuple[CommandRow, int, Outcome]]
    ) -> None:
        """Take back what the journal held at start-up."""
        self.known.recover(settled)
        for row in pending:
            self.known.by_id[row.id] = Accepted.of(row)
            self._pending += 1
            self._reserved += row.entity_count
            self.queue.push(row, read_pending(row, self._vocabulary))

    async def submit(
        self,
        submissions: Sequence[Submission],
        *,
        partial: bool = False,
        guard: Guard | None = None,
        pause: Pause | None = None,
    ) -> list[Receipt]:
        """Accept commands: checked, ordered, journaled as one, due.

        Args:
            submissions: In the order of their seqs.
            partial: Accept what can be accepted; otherwise one bad command refuses all.
            guard: Judges each command that is no retry, before anything else looks at it; None: all is allowed.
            pause: Gives others a turn in the midst of a large request; None: it is admitted before this first waits.

        Raises:
            TickwireError: One command is unacceptable, `field` says ``commands[i]...``; nothing was accepted.
        """
        prepared: Sequence[Prepared] = ()
        if pause is not None and len(submissions) > PART:
            prepared = await prepare(submissions, self._vocabulary, self.known.by_id, pause)
        journaled: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        receipts, fresh = self._admit(submissions, prepared, guard, journaled, partial=partial)
        if fresh:
            self._pending += len(fresh)
            durable: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            # Whoever sent it may give up waiting; the journal does not, and what it took is due.
            generation = self._vocabulary.components.generation
            self.journal.accept(
                [row for row, _, _ in fresh],
                lambda error: self._journaled(fresh, (journaled, durable), error, generation),
            )
            await durable
        if len(fresh) < len(receipts):
            await _journaled_before(receipts)
        return receipts

    def take_issued(self, issued: Sequence[IssuedCommand], *, tick: int) -> list[CommandRow]:
        """Take what processors sent in `tick`: due from the next, and journaled with the tick's commit."""
        rows = []
        now_us = self.journal.now_us()
        for command in issued:
            sent = command.submission
            payload, table, digest = command.encoded
            row = CommandRow(
                seq=self._next_seq,
                id=command.id.bytes,
                tick=max(tick + 1, sent.tick or 0),
                priority=sent.priority,
                type=sent.type.value,
                actor=sent.actor,
                payload=payload,
                table=table,
                version=sent.version,
                accepted_at_us=now_us,
                content_hash=digest,
                first_entity_id=command.first_entity_id,
                entity_count=command.operation.entity_count,
            )
            self._next_seq += 1
            self._pending += 1
            self._reserved += row.entity_count
            self.known.by_id[row.id] = Accepted.of(row)
            self.queue.push(row, command.operation)
            rows.append(row)
        return rows

    def settle(
        self, rows: Sequence[CommandRow], outcomes: Sequence[Outcome], *, tick: int, first_seq: int
    ) -> None:
        """Note what a durable tick did with its commands, and tell who waits."""
        known = self.known
        for offset, (row, outcome) in enumerate(zip(rows, outcomes, strict=True)):
            self._pending -= 1
            self._reserved -= row.entity_count
            entry = known.by_id.get(row.id)
            if entry is None:
                continue
            known.decide(entry, Settled(tick, outcome, first_seq + offset))
        self.queue.over()

    async def cancel(self, command_id: UUID) -> Settled:
        """Withdraw a pending command for good; one that a tick has drained is not pending, and waits for its result.

        Again: the same answer.

        Raises:
            CommandNotFoundError: There is none of that id.
            CommandNotPendingError: A tick has applied or rejected it.
        """
        return await self._cancelling.cancel(command_id)

    def find(self, command_id: UUID) -> Accepted | None:
        """Return a command that this world has taken, however long ago."""
        return self.known.find([command_id.bytes]).get(command_id.bytes)

    def _admit(
        self,
        submissions: Sequence[Submission],
        prepared: Sequence[Prepared],
        guard: Guard | None,
        journaled: asyncio.Future[None],
        *,
        partial: bool,
    ) -> tuple[list[Receipt], list[tuple[CommandRow, Operation, Accepted]]]:
        known = self.known.find([s.id for s in submissions if s.id is not None])
        receipts: list[Receipt] = []
        fresh: list[tuple[CommandRow, Operation, Accepted]] = []
        seq, entity_id, reserved = self._next_seq, self._next_entity_id, 0
        refused: list[TickwireError] = []
        now_us, cut_tick = self.journal.now_us(), self.queue.cut_tick
        for index, submission in enumerate(submissions):
            try:
                ready = prepared[index] if prepared else Prepared(submission.encode())
                payload, table, digest = ready.encoded
                command_id = submission.id or uuid7(now_us // 1000).bytes
                earlier = known.get(command_id)
                if earlier is not None:
                    require_same(earlier, digest, submission.actor, command_id)
                    receipts.append(Receipt(earlier, duplicate=True))
                    continue
                if guard is not None:
                    guard.check(submission, submission.tick or cut_tick)
                self._check(submission, now_us, len(fresh))
                operation = ready.operation(submission, self._vocabulary)
                count = operation.entity_count
                self._require_room(reserved + count)
            except TickwireError as error:
                error.at(f"commands[{index}]")
                if not partial:
                    if not refused and not isinstance(error, InvalidRequestError):
                        raise
                    # What is wrong with the others is told at once, as far as it is their own fault.
                    refused += [error] if isinstance(error, InvalidRequestError) else []
                    continue
                receipts.append(Receipt(None, error=error))
                continue
            row = CommandRow(
                seq,
                command_id,
                cut_tick if submission.tick is None else submission.tick,
                submission.priority,
                submission.type.value,
                submission.actor,
                payload,
                table,
                submission.version,
                now_us,
                digest,
                entity_id if count else 0,
                count,
                submission.sender,
            )
            seq += 1
            entity_id += count
            reserved += count
            entry = Accepted.of(row, journaled=journaled)
            known[command_id] = entry
            fresh.append((row, operation, entry))
            receipts.append(Receipt(entry))
        if refused:
            raise together(refused)
        if guard is not None:
            guard.admitted([row for row, _, _ in fresh])
        self._next_seq, self._next_entity_id = seq, entity_id
        self._reserved += reserved
        self.known.by_id.update((entry.id, entry) for _, _, entry in fresh)
        return receipts, fresh

    def _journaled(
        self,
        fresh: list[tuple[CommandRow, Operation, Accepted]],
        waiting: Sequence[asyncio.Future[None]],
        error: BaseException | None,
        generation: int,
    ) -> None:
        if error is None:
            if generation != self._vocabulary.components.generation:
                # A component may have grown meanwhile.
                fresh = [(row, read_pending(row, self._vocabulary), entry) for row, _, entry in fresh]
            queue = self.queue
            for row, operation, _ in fresh:
                queue.push(row, operation)
        else:
            self._pending -= len(fresh)
            for row, _, _ in fresh:
                self._reserved -= row.entity_count
                self.known.by_id.pop(row.id, None)
        for future in waiting:
            if future.done():
                continue  # Whoever waited gave up.
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(error)
                future.exception()  # seen: nobody need wait for it

    def end(self, error: TickwireError, outcome_seq: int) -> None:
        """Note that the world has ended, durably: what is pending is cancelled by that.

        Args:
            error: Told to whoever waits for anything else.
            outcome_seq: The number of the first of these outcomes, which only those learn who wait or watch.
        """
        for number, entry in enumerate(self.known.unsettled(), outcome_seq):
            self._cancelled(entry, Outcome(entry.seq, applied=False, cancelled=True, outcome_seq=number))
        self.known.fail(error)

    def _cancelled(self, entry: Accepted, outcome: Outcome) -> None:
        self._pending -= 1
        self._reserved -= entry.entity_count
        self.known.decide(entry, Settled(-1, outcome, outcome.outcome_seq))
        self.on_cancelled(DecidedCommand(entry.id, entry.actor, outcome.outcome_seq, -1, outcome))

    def _check(self, submission: Submission, now_us: int, waiting: int) -> None:
        if submission.id is not None:
            _require_usable_id(submission.id, now_us)
            require_remembered(submission.id, self.journal.id_floor_ms)
        if submission.tick is not None and not 0 <= submission.tick <= MAX_ID:
            raise InvalidCommandError("tick must lie in [0, 2^53)", field="tick")
        cut_tick = self.queue.cut_tick
        if submission.tick is not None and submission.tick < cut_tick:
            raise TickInThePastError(
                f"tick {submission.tick} is past: the next one is {cut_tick}; leave tick out to mean the next",
                field="tick",
                tick=submission.tick,
                next_tick=cut_tick,
            )
        if not -(1 << 15) <= submission.priority < 1 << 15:
            raise InvalidCommandError("priority must fit 16 bits", field="priority")
        if submission.version != 1:
            raise InvalidCommandError(
                f"payload version {submission.version} is unknown (1 is known)", field="version"
            )
        most = self._vocabulary.limits.pending_commands
        if self._pending + waiting >= most:
            raise QueueFullError(
                f"{self._pending + waiting} commands wait in this world, as many as may (pending_commands): let it step",
                limit=most,
            )

    def _require_room(self, more: int) -> None:
        if more and self.entities + self._reserved + more > self._max_entities:
            raise WorldFullError(
                f"the world may hold {self._max_entities} entities, and has or awaits "
                f"{self.entities + self._reserved}: despawn some, or raise max_entities",
                limit=self._max_entities,
                entities=self.entities + self._reserved,
            )


async def _journaled_before(receipts: Sequence[Receipt]) -> None:
    """Wait until the retried commands among `receipts` are durable: requests before may be on their way still."""
    waits = {r.command.journaled for r in receipts if r.command is not None and r.duplicate}
    for waiting in waits:
        if waiting is not None:
            await asyncio.shield(waiting)


def _require_usable_id(command_id: bytes, now_us: int) -> None:
    if not is_uuid7(command_id):
        raise InvalidCommandError(f"command id {UUID(bytes=command_id)} is no UUIDv7", field="id")
    if uuid7_ms(command_id) > now_us // 1000 + MAX_CLOCK_AHEAD_MS:
        raise InvalidCommandError(
            f"command id {UUID(bytes=command_id)} is dated more than 5 minutes ahead: check the sender's clock",
            field="id",
        )
