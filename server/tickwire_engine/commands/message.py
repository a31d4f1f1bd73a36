"""MESSAGE: from one entity to another, read by the processors of the tick that applies it (`Mailbox`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tickwire_engine.commands.operation import Applied, Operation, TickDraft, Vocabulary, refuse_unknown
from tickwire_engine.errors import InvalidCommandError
from tickwire_engine.tick.context import Message

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tickwire_engine.storage.rows import CommandRow


@dataclass(frozen=True, slots=True)
class EntityMessage(Operation):
    """A message on its way."""

    sender_id: int
    receiver_id: int
    channel: str
    content: dict[str, Any]

    def apply(self, draft: TickDraft, row: CommandRow) -> Applied:
        """Put it into the mailbox of the tick."""
        draft.messages.append(
            Message(self.sender_id, self.receiver_id, self.channel, self.content, row.actor)
        )
        return Applied()


def parse(payload: Mapping[str, Any], table: bytes, vocabulary: Vocabulary) -> Operation:
    """Validate a message: ids are entity ids or 0 for nobody; whether they exist is for the processors to judge."""
    known = ("sender_id", "receiver_id", "channel", "content")
    refuse_unknown(payload, table, type_name="message", known=known)
    ids = {name: payload.get(name, 0) for name in ("sender_id", "receiver_id")}
    for name, value in ids.items():
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 53:
            raise InvalidCommandError(f"message.{name}: {value!r} is no entity id", field=f"message.{name}")
    content = payload.get("content") or {}
    if not isinstance(content, dict):
        raise InvalidCommandError("message.content: expected an object", field="message.content")
    return EntityMessage(ids["sender_id"], ids["receiver_id"], str(payload.get("channel", "")), content)
