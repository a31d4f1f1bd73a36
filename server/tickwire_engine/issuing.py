"""Sending from inside a tick: commands of processors and handlers, buffered and accepted with the tick, due in the next."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from tickwire_engine.command import TABLE_KEY
from tickwire_engine.commands import parse
from tickwire_engine.submission import Submission

if TYPE_CHECKING:
    from uuid import UUID

    from tickwire_engine.command import Command
    from tickwire_engine.tick.context import ProcessorCall


class Sent(NamedTuple):
    """A command that was sent from inside a tick.

    Attributes:
        id: Derived from where it was sent: the same tick sends the same commands, however often it is computed.
        first_entity_id: Of what it spawns; 0 where that is known only once the tick has been computed.
    """

    id: UUID
    submission: Submission
    first_entity_id: int
    entity_count: int


def send(call: ProcessorCall, submission: Submission) -> Sent:
    """Buffer a command of `call`; its id and its sender are those of the call.

    Raises:
        TickwireError: It could never be applied.
    """
    context = call.context
    table = submission.payload.get(TABLE_KEY, b"")
    operation = parse(submission.type, submission.payload, table, context.vocabulary)
    sent = submission._replace(id=None, actor=call.actor, sender="")
    first = context.next_entity_id() if call.knows_ids and operation.entity_count else 0
    command_id = context.add(call.place, sent, operation)
    return Sent(command_id, sent, first, operation.entity_count)


def post(call: ProcessorCall, target: UUID, command: Command) -> Command:
    """Buffer a command of `call` to another world; nothing is asked of that world, which replay does not see.

    Raises:
        TickwireError: It could never be applied.
    """
    table = command.payload.get(TABLE_KEY, b"")
    parse(command.type, command.payload, table, call.context.vocabulary)
    how = (command.tick, command.priority, command.version, call.actor)
    sent = Submission(command.type, command.payload, None, *how)
    command_id = call.context.post(call.place, target, sent)
    return command.model_copy(update={"id": command_id})
