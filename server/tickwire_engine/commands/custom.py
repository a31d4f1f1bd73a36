"""CUSTOM: a handler of the application, called inside the tick, in the command's place among the others.

What the handler sends is due in the next tick, as if a processor had sent it: with ids derived from the command's own, and
journaled with the tick. If it raises, the command is rejected alone and nothing that it sent is kept.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tickwire_engine.command import canonical_json
from tickwire_engine.commands.operation import (
    Applied,
    HandledOperation,
    Operation,
    TickDraft,
    Vocabulary,
    refuse_unknown,
)
from tickwire_engine.errors import InvalidCommandError, StorageError, TickwireError, WorldFaultedError
from tickwire_engine.failures import internal
from tickwire_engine.handlers import CommandHandler, sender_of, value_of
from tickwire_engine.tick.context import CallPlace, ProcessorCall, TickContext, current_call

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tickwire_engine.storage.rows import CommandRow

_BEFORE_PROCESSORS = -(1 << 40)
"""Handlers run before processors, one after another: their places come first, in that order."""


@dataclass(frozen=True, slots=True)
class CustomCommand(HandledOperation):
    """A call of a handler; its body is kept as plain values, and becomes the handler's model anew for every call."""

    handler: CommandHandler
    body: dict[str, Any]
    answers = True

    async def handle(
        self,
        draft: TickDraft,
        row: CommandRow,
        position: int,
        context: TickContext,
        keywords: Mapping[str, Any],
    ) -> Applied:
        """Call the handler."""
        name = self.handler.name
        place = CallPlace(_BEFORE_PROCESSORS + position, f"command:{name}", row.id.hex())
        given = {
            **keywords,
            "ctx": sender_of(row.sender, row.actor),
            "broker": keywords["world"].broker,
        }
        resources = keywords["resources"]
        before = resources.snapshots()
        token = current_call.set(ProcessorCall(context, place, sender=f"command:{name}"))
        try:
            result = await self.handler.call(self.handler.body(self.body), given)
            return Applied(value=value_of(name, result))
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # Nobody cancels this tick: the handler awaited something that somebody cancelled.
            undone: TickwireError = internal(f"custom command {name!r} failed", error, field="custom")
        except (StorageError, WorldFaultedError) as error:
            undone = internal(f"custom command {name!r} failed", error, field="custom")
        except TickwireError as error:
            undone = error.at("custom")
            undone.metadata.setdefault("name", name)
        except Exception as error:
            undone = internal(f"custom command {name!r} failed", error, field="custom")
        finally:
            current_call.reset(token)
        context.withdraw(place)
        resources.restore(before)
        raise undone


def parse(payload: Mapping[str, Any], table: bytes, vocabulary: Vocabulary) -> Operation:
    """Validate: the name of a handler, and a body that its model takes."""
    refuse_unknown(payload, table, type_name="custom", known=("name", "body"))
    name = payload.get("name")
    if not name or not isinstance(name, str):
        raise InvalidCommandError("custom needs the name of a handler", field="custom.name")
    body = payload.get("body") or {}
    if not isinstance(body, dict):
        raise InvalidCommandError("custom.body: expected an object", field="custom.body")
    # As the journal gives it back, so that the first call and a replay are given the same.
    body = json.loads(canonical_json(body))
    try:
        handler = vocabulary.handlers.require(name)
        handler.body(body)
    except TickwireError as error:
        raise error.at("custom") from None
    return CustomCommand(handler, body)
