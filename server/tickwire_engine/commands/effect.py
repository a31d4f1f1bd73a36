"""Commands that reach beyond their world: they make, end or fork worlds, or try futures on branches.

A tick is a pure step, and replay must neither see other worlds nor make any. So such a command is *decided* before its tick
is computed, by whoever knows the other worlds; the tick applies what was decided, as an input that the journal keeps;
and what is to be done is written in the very transaction that makes the tick durable. A tick that is aborted has done
nothing, one that is durable has done everything, once, and replay reads the decisions back.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import xxhash

from tickwire_engine.commands.operation import Applied, Operation, TickDraft
from tickwire_engine.errors import InvalidCommandError, TickwireError
from tickwire_engine.ids import uuid7_from
from tickwire_engine.rejection import rejection_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from uuid import UUID

    from tickwire_engine.engine import Engine
    from tickwire_engine.state import WorldState
    from tickwire_engine.storage.journal import Write
    from tickwire_engine.storage.rows import CommandRow, Outcome
    from tickwire_engine.world import AsyncWorld


def _nothing() -> None:
    pass


@dataclass(frozen=True, slots=True)
class EffectScope:
    """What a decision may look at.

    Attributes:
        engine: The worlds of this data directory.
        world: The one that the command was sent to.
        state: That world before the tick; it may not be durable yet.
    """

    engine: Engine
    world: AsyncWorld
    state: WorldState

    def derived_world_id(self, row: CommandRow) -> UUID:
        """Return the id of a world that the command makes: the same, however often it is decided."""
        digest = xxhash.xxh3_128_digest(self.state.world_id.bytes + row.id)
        return uuid7_from(row.accepted_at_us // 1000, digest)


@dataclass(frozen=True, slots=True)
class Decision:
    """What an effect will have done once its tick is durable.

    Attributes:
        applied: What the command tells its sender, and the processors of its tick.
        writes: Go into the tick's own transaction, in order; they must not fail where the decision holds.
        carried_out: Called on the event loop once they are durable.
        dropped: Called if the tick is aborted: gives back what was reserved.
    """

    applied: Applied
    writes: Sequence[Write[object]] = ()
    carried_out: Callable[[], None] = _nothing
    dropped: Callable[[], None] = _nothing


def recorded_decision(outcome: Outcome, table: bytes) -> Decision | TickwireError:
    """Return what was decided when a tick was computed first, from what the journal says came of it."""
    if not outcome.applied:
        return rejection_of(outcome)
    return Decision(
        Applied(
            outcome.first_entity_id,
            outcome.entity_count,
            outcome.missing,
            outcome.world_id,
            outcome.value,
            table,
        )
    )


class Effect(Operation):
    """An operation that is decided before its tick; see the module."""

    __slots__ = ()
    reaches_out: ClassVar[bool] = True
    answers: ClassVar[bool] = True
    detached: ClassVar[bool] = False
    """It takes long. A world that plays to a beat goes on meanwhile: the command is applied in the first tick that
    finds it decided. Without a beat to keep, the tick that it is due at waits for it."""

    @abstractmethod
    async def decide(self, row: CommandRow, scope: EffectScope) -> Decision:
        """Find out what the command will do; change nothing that the tick's transaction would not.

        It may be asked again, after an abort or a restart.

        Raises:
            TickwireError: The command is rejected, alone.
        """

    def apply(self, draft: TickDraft, row: CommandRow) -> Applied:
        """Apply what was decided."""
        decision = draft.decisions.get(row.seq)
        if decision is None:
            raise InvalidCommandError(
                f"{row.type} reaches beyond its world, and nothing in this one does", field=row.type
            )
        if isinstance(decision, TickwireError):
            raise decision
        return decision.applied
