"""Delivery: commands that ticks send to other worlds, once those ticks are durable.

They are journaled in their tick's own transaction, and stay in an outbox until the other world has accepted them: a crash in
between repeats the delivery, and their derived ids keep it from happening twice. What the other world refuses is logged
and dropped: the tick that sent it is history.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING
from uuid import UUID

import structlog

from tickwire_engine.command import TABLE_KEY, CommandType
from tickwire_engine.errors import StorageError, TickwireError, WorldDestroyedError
from tickwire_engine.submission import Submission

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tickwire_engine.engine import Engine
    from tickwire_engine.storage.rows import Letter

_log = structlog.get_logger(__name__)


async def deliver(engine: Engine, letters: Sequence[Letter]) -> None:
    """Have letters accepted by their worlds, in order, and take them out of the outbox."""
    done: list[bytes] = []
    try:
        for letter in letters:
            try:
                world = engine.world(UUID(bytes=letter.target))
                await world.submit([_submission(letter)])
            except StorageError:
                # The next start tries again.
                return
            except (TickwireError, WorldDestroyedError) as error:
                _log.warning(
                    "a command sent to another world was refused",
                    world_id=str(UUID(bytes=letter.target)),
                    command_id=str(UUID(bytes=letter.id)),
                    sender=letter.actor,
                    reason=error.reason,
                    error=error.message,
                )
            done.append(letter.id)
    finally:
        if done:
            await engine.store.posted(done)


def _submission(letter: Letter) -> Submission:
    payload = json.loads(letter.payload)
    if letter.table:
        payload[TABLE_KEY] = letter.table
    return Submission(
        CommandType(letter.type),
        payload,
        letter.id,
        letter.tick,
        letter.priority,
        letter.version,
        letter.actor,
    )
