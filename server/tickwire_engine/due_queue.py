"""The queue of a world: journaled commands, in the order in which ticks take them.

Used on the world's event loop only.
"""

from __future__ import annotations

import asyncio
import heapq
import json
from collections import Counter, deque
from typing import TYPE_CHECKING
from uuid import UUID

from tickwire_engine.command import TABLE_KEY, Command, CommandType
from tickwire_engine.rehydration import UnreadableCommand, read_pending
from tickwire_engine.submission import asked_for_next
from tickwire_engine.tick.compute import DueCommand
from tickwire_engine.withdrawals import Withdrawals

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from tickwire_engine.commands import Operation, Vocabulary
    from tickwire_engine.storage.rows import CommandRow


class DueQueue:
    """What is due, by (tick, priority, seq), and what the ticks in flight have of it."""

    def __init__(self, vocabulary: Vocabulary, *, cut_tick: int) -> None:
        self.cut_tick = cut_tick
        """The tick that a command accepted now is applied in, at the earliest."""
        self._vocabulary = vocabulary
        self._due: list[tuple[int, int, int, DueCommand]] = []
        self._drained: deque[Sequence[DueCommand]] = deque()
        self._tick_over: asyncio.Future[None] | None = None
        self._withdrawals = Withdrawals()
        self._taken: dict[int, DueCommand] = {}
        """By seq: due commands that a consumer in the process has taken away from the ticks."""

    def push(self, row: CommandRow, operation: Operation) -> None:
        """Let a journaled command wait for its tick."""
        tick = row.tick
        if tick > self.cut_tick and asked_for_next(row):
            # Accepted while a later tick computed than the world came back to: still the next one.
            tick = self.cut_tick
        heapq.heappush(self._due, (tick, row.priority, row.seq, DueCommand(row, operation)))

    def drain(self, tick: int) -> list[DueCommand]:
        """Take what is due at `tick`, in (tick, priority, seq) order; the cut point of the tick."""
        self.cut_tick = tick + 1
        due: list[DueCommand] = []
        while self._due and self._due[0][0] <= tick:
            due.append(heapq.heappop(self._due)[3])
        if self._withdrawals:
            due = self._left(due)
        self._drained.append(due)
        return due

    def put_back(self, due: Sequence[DueCommand], *, tick: int) -> None:
        """Undo a drain: its tick was aborted, and what came meanwhile for "the next tick" is for this one too."""
        self.cut_tick = tick
        waiting = [entry[3] for entry in self._due]
        self._due.clear()
        for command in (*due, *waiting):
            self.push(command.row, command.operation)
        self._drained.pop()
        self._tell_tick_over()

    def take(self, tick: int, limit: int | None = None) -> list[Command]:
        """Take what is due at `tick` away from the ticks, in (tick, priority, seq) order.

        It stays pending: `cancel` settles it, `give_back` returns it, and a restart finds it due again.
        """
        taken: list[DueCommand] = []
        while self._due and self._due[0][0] <= tick and (limit is None or len(taken) < limit):
            taken += self._left([heapq.heappop(self._due)[3]])
        self._taken.update((command.row.seq, command) for command in taken)
        return [_as_command(command.row) for command in taken]

    def give_back(self, command_ids: Collection[UUID]) -> None:
        """Let ticks have taken commands again; others are passed over."""
        ids = {command_id.bytes for command_id in command_ids}
        for command in [each for each in self._taken.values() if each.row.id in ids]:
            del self._taken[command.row.seq]
            self.push(command.row, command.operation)

    def hold(self, waiting: Sequence[DueCommand]) -> None:
        """Keep drained commands for the next tick: what they ask for takes its time."""
        for command in waiting:
            self.push(command.row, command.operation)

    def read_again(self) -> None:
        """Read what waits once more: a component that it names has grown."""
        self._due = [
            (tick, priority, seq, DueCommand(due.row, read_pending(due.row, self._vocabulary)))
            for tick, priority, seq, due in self._due
        ]

    def unreadable(self) -> list[str]:
        """Return what of the waiting commands this application cannot read, and why."""
        waiting = (entry[3].operation for entry in self._due if entry[2] not in self._withdrawals)
        return [operation.why for operation in waiting if isinstance(operation, UnreadableCommand)]

    def waiting(self, limit: int | None = None) -> list[Command]:
        """Return the commands that wait, in the order they will be applied."""
        waiting = [entry for entry in self._due if entry[2] not in self._withdrawals]
        return [_as_command(entry[3].row) for entry in heapq.nsmallest(limit or len(waiting), waiting)]

    def waiting_of(self, actor: str) -> Counter[int]:
        """Return how many commands of `actor` wait, by the tick they are due at."""
        return Counter(
            tick for tick, _, seq, due in self._due if due.row.actor == actor and seq not in self._withdrawals
        )

    def is_drained(self, seq: int) -> bool:
        """Whether a tick in flight has a command."""
        return any(command.row.seq == seq for due in self._drained for command in due)

    def over(self) -> None:
        """Note that the oldest tick in flight is durable."""
        self._drained.popleft()
        self._tell_tick_over()

    def tick_over(self) -> asyncio.Future[None]:
        """Return what is done once a tick in flight is durable, or was aborted and has put its commands back."""
        if self._tick_over is None:
            self._tick_over = asyncio.get_running_loop().create_future()
        return self._tick_over

    def withdraw(self, seq: int) -> None:
        """Let no tick have a command from now on: the journal is about to cancel it."""
        self._withdrawals.begin(seq)
        taken = self._taken.pop(seq, None)
        if taken is not None:
            self._withdrawals.passed(taken)

    def withdrawn(self, seq: int) -> None:
        """Note that a command is cancelled for good."""
        self._withdrawals.done(seq)

    def not_withdrawn(self, seq: int) -> None:
        """Note that a command could not be cancelled: it waits again."""
        back = self._withdrawals.failed(seq)
        if back is not None:
            self.push(back.row, back.operation)

    def _left(self, due: Sequence[DueCommand]) -> list[DueCommand]:
        kept = []
        for command in due:
            if command.row.seq in self._withdrawals:
                self._withdrawals.passed(command)
            else:
                kept.append(command)
        return kept

    def _tell_tick_over(self) -> None:
        if self._tick_over is not None:
            self._tick_over.set_result(None)
            self._tick_over = None


def _as_command(row: CommandRow) -> Command:
    payload = json.loads(row.payload)
    if row.table:
        payload[TABLE_KEY] = row.table
    return Command(
        id=UUID(bytes=row.id),
        tick=row.tick,
        type=CommandType(row.type),
        payload=payload,
        priority=row.priority,
        version=row.version,
        seq=row.seq,
    )
