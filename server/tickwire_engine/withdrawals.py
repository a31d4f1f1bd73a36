"""Commands that are withdrawn while the queue of their world still holds them.

The queue is a heap: what is withdrawn stays in it, and is passed over when it comes up. Used on the world's event loop.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tickwire_engine.tick.compute import DueCommand


class Withdrawals:
    """By seq: those that the journal is about to settle, and those that it has settled."""

    def __init__(self) -> None:
        self._undecided: dict[int, DueCommand | None] = {}
        self._void: set[int] = set()

    def __bool__(self) -> bool:
        return bool(self._undecided or self._void)

    def __contains__(self, seq: int) -> bool:
        return seq in self._undecided or seq in self._void

    def begin(self, seq: int) -> None:
        """Let no tick have a command of the queue from now on."""
        self._undecided[seq] = None

    def passed(self, command: DueCommand) -> None:
        """Note that a command left the queue, and no tick got it."""
        seq = command.row.seq
        if seq in self._undecided:
            self._undecided[seq] = command
        else:
            self._void.discard(seq)

    def done(self, seq: int) -> None:
        """Note that a command is cancelled for good."""
        if self._undecided.pop(seq) is None:
            self._void.add(seq)

    def failed(self, seq: int) -> DueCommand | None:
        """Note that a command is not cancelled; returns it if the queue has to be given it back."""
        return self._undecided.pop(seq)
