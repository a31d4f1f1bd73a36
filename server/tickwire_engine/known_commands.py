"""The commands that a world has taken, by id: a retry is told from a new command, however long ago it was.

Those of late are in memory; the journal looks older ones up. Used on the world's event loop only.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING
from uuid import UUID

from tickwire_engine.errors import CommandIdReusedError
from tickwire_engine.submission import Accepted, Settled

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tickwire_engine.command_journal import CommandJournal
    from tickwire_engine.storage.rows import CommandRow, Outcome

KEPT_SETTLED = 65_536
"""Settled commands kept in memory for their retries; older ones are looked up in the store."""


class KnownCommands:
    """What a world knows of its commands: what was taken, what became of it, and who waits for that."""

    def __init__(self, journal: CommandJournal) -> None:
        self.by_id: dict[bytes, Accepted] = {}
        """Those in memory; all that no durable tick has decided are."""
        self.failure: Exception | None = None
        """Why no outcome will be known here any more."""
        self._journal = journal
        self._recent: OrderedDict[bytes, None] = OrderedDict()
        self._greatest_forgotten = b""
        """No command of the journal that is not in `by_id` has a greater id: later ids need no look-up."""

    def recover(self, settled: Sequence[tuple[CommandRow, int, Outcome]]) -> None:
        """Take back what the journal held at start-up of commands that were decided."""
        self._greatest_forgotten = self._journal.greatest_archived_id()
        for row, tick, outcome in settled:
            entry = Accepted.of(row)
            entry.settled = Settled(tick, outcome, outcome.outcome_seq)
            self.by_id[row.id] = entry
            self._remember(row.id)

    def find(self, ids: Sequence[bytes]) -> dict[bytes, Accepted]:
        """Return those of `ids` that the world has taken; blocks where one may be older than what memory holds."""
        found = {i: self.by_id[i] for i in ids if i in self.by_id}
        unknown = [i for i in ids if i <= self._greatest_forgotten and i not in found]
        if unknown:
            for command_id, stored in self._journal.find(unknown).items():
                entry = Accepted.of(stored.row)
                if stored.outcome is not None:
                    entry.settled = Settled(stored.tick, stored.outcome, stored.outcome.outcome_seq)
                found[command_id] = entry
        return found

    def decide(self, entry: Accepted, settled: Settled) -> None:
        """Note what became of a command, durably, and tell who waits for it."""
        entry.settled = settled
        for waiter in entry.waiters:
            if not waiter.done():
                waiter.set_result(settled)
        entry.waiters.clear()
        self._remember(entry.id)

    def fail(self, error: Exception) -> None:
        """Tell everybody who waits that the outcome will not be known here."""
        self.failure = error
        for entry in self.by_id.values():
            for waiter in entry.waiters:
                if not waiter.done():
                    waiter.set_exception(error)
            entry.waiters.clear()

    def unsettled(self, after_tick: int = -1) -> list[Accepted]:
        """Return the journaled commands that are in no durable tick and due after a tick, by seq."""
        found = [
            entry
            for entry in self.by_id.values()
            if entry.settled is None
            and entry.tick > after_tick
            and (entry.journaled is None or entry.journaled.done())
        ]
        return sorted(found, key=lambda entry: entry.seq)

    def _remember(self, command_id: bytes) -> None:
        self._recent[command_id] = None
        if len(self._recent) > KEPT_SETTLED:
            oldest, _ = self._recent.popitem(last=False)
            self.by_id.pop(oldest, None)
            self._greatest_forgotten = max(self._greatest_forgotten, oldest)


def require_same(earlier: Accepted, digest: bytes, actor: str, command_id: bytes) -> None:
    """Refuse a command that bears the id of another.

    Raises:
        CommandIdReusedError: `earlier` had other content, or another sender.
    """
    if earlier.content_hash != digest or earlier.actor != actor:
        raise CommandIdReusedError(
            f"command id {UUID(bytes=command_id)} was accepted before with other content: "
            "a new command needs a new id",
            field="id",
            command_id=UUID(bytes=command_id),
        )
