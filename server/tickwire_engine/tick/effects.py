"""The effects that are due in a world's next tick: decided one after another, in the order they will be applied.

Those that take long are decided beside the ticks (see `Effect.detached`). Lives as long as its world, on its event loop.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from tickwire_engine.commands import Decision, Effect, EffectScope
from tickwire_engine.errors import StorageError, TickwireError
from tickwire_engine.failures import internal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tickwire_engine.engine import Engine
    from tickwire_engine.state import WorldState
    from tickwire_engine.storage.journal import Write
    from tickwire_engine.storage.rows import CommandRow, Letter
    from tickwire_engine.tick.compute import DueCommand
    from tickwire_engine.world import AsyncWorld


class Effects:
    """Decides the effects of one world."""

    def __init__(self, engine: Engine, world: AsyncWorld) -> None:
        self._engine = engine
        self._world = world
        self._detached: dict[int, asyncio.Task[Decision | TickwireError]] = {}
        self._taken: dict[int, asyncio.Task[Decision | TickwireError]] = {}
        """Those of `_detached` that went into the tick in hand."""

    async def decide(
        self, due: Sequence[DueCommand], state: WorldState, *, patient: bool
    ) -> tuple[Mapping[int, Decision | TickwireError], list[DueCommand]]:
        """Decide what of `due` reaches beyond the world.

        Args:
            due: The commands of the tick, in order.
            state: The world before it.
            patient: Wait for those that take long, too.

        Returns:
            The decisions by seq, and the commands that are not decided yet: they are for a later tick.
        """
        effects = [command for command in due if command.operation.reaches_out]
        decided: dict[int, Decision | TickwireError] = {}
        if not effects and not self._detached:
            return decided, []
        scope = EffectScope(self._engine, self._world, state)
        self._taken.clear()
        self._forget_others({command.row.seq for command in effects})
        for command in effects:
            operation, seq = command.operation, command.row.seq
            assert isinstance(operation, Effect)
            if operation.detached and seq not in self._detached:
                self._detached[seq] = asyncio.ensure_future(_decision(operation, command.row, scope))
        waiting = []
        try:
            for command in effects:
                operation, seq = command.operation, command.row.seq
                assert isinstance(operation, Effect)
                task = self._detached.get(seq)
                if task is None:
                    decided[seq] = await _decision(operation, command.row, scope)
                elif patient or task.done():
                    decided[seq] = await asyncio.shield(task)
                    self._taken[seq] = self._detached.pop(seq)
                else:
                    waiting.append(command)
        except BaseException:
            self.dropped(decided)
            raise
        return decided, waiting

    def dropped(self, decided: Mapping[int, Decision | TickwireError]) -> None:
        """Tell the decisions of the tick in hand that it was aborted; what took long is kept for the next try."""
        for seq, decision in decided.items():
            if seq in self._taken:
                self._detached[seq] = self._taken.pop(seq)
            elif isinstance(decision, Decision):
                decision.dropped()

    def posting(self, letters: Sequence[Letter]) -> Write[object]:
        """Return what puts commands for other worlds into the outbox."""
        return self._engine.store.posting(letters)

    def deliver(self, letters: Sequence[Letter]) -> None:
        """Have them accepted, now that they are durable."""
        self._engine.deliver(letters)

    def close(self) -> None:
        """Give up what is being decided."""
        self._forget_others(set())

    def _forget_others(self, wanted: set[int]) -> None:
        # A command that waits is due in every tick: one that is not was cancelled.
        for seq in self._detached.keys() - wanted:
            task = self._detached.pop(seq)
            if not task.done():
                task.cancel()
            elif not task.cancelled() and task.exception() is None:
                decision = task.result()
                if isinstance(decision, Decision):
                    decision.dropped()


def writes_of(decided: Mapping[int, Decision | TickwireError]) -> list[Write[object]]:
    """Return what goes into the tick's transaction, in order."""
    return [write for d in decided.values() if isinstance(d, Decision) for write in d.writes]


def carried_out(decided: Mapping[int, Decision | TickwireError]) -> None:
    """Tell the decisions of a tick that they are durable."""
    for decision in decided.values():
        if isinstance(decision, Decision):
            decision.carried_out()


async def _decision(operation: Effect, row: CommandRow, scope: EffectScope) -> Decision | TickwireError:
    try:
        return await operation.decide(row, scope)
    except StorageError:
        raise
    except TickwireError as error:
        return error
    except Exception as error:
        return internal(f"{row.type} failed in the application", error, field=row.type)
