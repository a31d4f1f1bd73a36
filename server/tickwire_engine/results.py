"""CommandResults: what came of this tick's commands that answer something, for the processors of the tick.

A processor that sends a query, a rollout, or a command that makes a world, reads here what came of it, in the tick that
applies it: the next one, or a later one where it takes its time. Custom commands and effects of other senders are
here too. It is gone with the tick; what must be remembered belongs into components.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa

from tickwire_engine.tick.context import CommandResult, current_call

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from tickwire_engine.command import CommandType


class CommandResults:
    """A resource of every world; empty outside ticks."""

    def results(
        self,
        *,
        command_id: UUID | None = None,
        type: CommandType | str | None = None,  # noqa: A002  (the name of a command's type everywhere)
        actor_id: str | None = None,
    ) -> Sequence[CommandResult]:
        """Return this tick's results in the order the commands were applied; only those asked for."""
        call = current_call.get()
        found = () if call is None else call.context.results
        return [
            result
            for result in found
            if (command_id is None or result.command_id == command_id)
            and (type is None or result.type == type)
            and (actor_id is None or result.actor_id == actor_id)
        ]

    @staticmethod
    def table(result: CommandResult) -> pa.Table | None:
        """Return the rows that a command answered, or None."""
        if not result.table:
            return None
        with pa.ipc.open_stream(result.table) as reader:
            return reader.read_all()
