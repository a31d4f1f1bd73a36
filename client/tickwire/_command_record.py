"""Commands as the server keeps them: what was asked, by whom, and what became of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from tickwire._models import Outcome, to_datetime

if TYPE_CHECKING:
    from datetime import datetime

    from tickwire.commands import Command
    from tickwire.v1 import command_service_pb2


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandRecord:
    """A command that a world has taken.

    Attributes:
        command: the contract's message, as it was submitted, with `actor_id`, `type` and `seq` set by the server.
        outcome: what became of it; its state is PENDING before a tick has decided it.
        accepted_at: when it was journaled.
    """

    command: Command
    outcome: Outcome
    accepted_at: datetime

    @property
    def id(self) -> str:
        """The command's id."""
        return self.command.id

    @property
    def type(self) -> str:
        """What it does, as "spawn"; empty: nothing that this version knows."""
        return self.command.WhichOneof("payload") or ""

    @classmethod
    def from_message(
        cls, message: command_service_pb2.GetCommandResponse | command_service_pb2.CommandRecord
    ) -> Self:
        """Reads the contract's message."""
        return cls(
            command=message.command,
            outcome=Outcome.from_message(message.outcome),
            accepted_at=to_datetime(message.accepted_at),
        )
