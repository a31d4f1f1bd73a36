"""Putting worlds together: new ones, forks, those of the journal, and those that only compute.

What is made here is no world of the engine yet: `WorldMaking` lets it live. Lives as long as its engine.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, TypeVar
from uuid import UUID

import structlog

from tickwire_engine.acceptance import Acceptance
from tickwire_engine.archetype import FIRST_ENTITY_ID
from tickwire_engine.broker import CommandBroker
from tickwire_engine.command_journal import CommandJournal
from tickwire_engine.configuration import WorldConfiguration
from tickwire_engine.errors import WorldFaultedError, WorldNotFoundError
from tickwire_engine.evolution import require_growth
from tickwire_engine.ids import uuid7
from tickwire_engine.mailbox import Mailbox
from tickwire_engine.past import state_after, tables_after
from tickwire_engine.randomness import TickRandom
from tickwire_engine.rehydration import rehydrate
from tickwire_engine.results import CommandResults
from tickwire_engine.rollouts.branch import BranchWorld
from tickwire_engine.state import WorldState
from tickwire_engine.world import AsyncWorld

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tickwire_engine.engine import Engine
    from tickwire_engine.errors import TickwireError
    from tickwire_engine.storage.rows import CommandRow, RecoveredWorld, WorldRow

_log = structlog.get_logger(__name__)
_World = TypeVar("_World", bound=AsyncWorld)


class WorldAssembly:
    """Puts the worlds of one engine together."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._store = engine.store
        self._setup = engine.setup

    def new(self, row: WorldRow) -> AsyncWorld:
        """Return an empty world."""
        state = WorldState(UUID(bytes=row.id), 0, WorldConfiguration.of())
        return self._assemble(
            row,
            state,
            kind=AsyncWorld,
            next_seq=1,
            next_entity_id=FIRST_ENTITY_ID,
            run_id=uuid7(),
        )

    def forked(
        self, row: WorldRow, state: WorldState, pending: Sequence[CommandRow], *, next_entity_id: int
    ) -> AsyncWorld:
        """Return a world that goes on from `state`, with commands that wait in it from the start."""
        world = self._assemble(
            row,
            state,
            kind=AsyncWorld,
            next_seq=len(pending) + 1,
            next_entity_id=next_entity_id,
            run_id=uuid7(),
        )
        world.acceptance.recover(pending, ())
        world.fault = _fault_of(world, state)
        return world

    def loaded(self, recovered: RecoveredWorld, state: WorldState) -> AsyncWorld:
        """Return a world that the journal has, as of `state`: see `state_of`.

        Raises:
            ComponentExistsError: A component is not what the world holds, nor grown from it.
        """
        require_growth(recovered.row.name, recovered.streams, self._setup.vocabulary.components)
        world = self._assemble(
            recovered.row,
            state,
            kind=AsyncWorld,
            next_seq=recovered.next_seq,
            next_entity_id=recovered.next_entity_id,
            run_id=UUID(bytes=recovered.run_id) if recovered.run_id else uuid7(),
        )
        world.acceptance.recover(recovered.pending, recovered.settled)
        world.fault = _fault_of(world, state)
        if world.fault is not None:
            _log.error("world waits", world=world.name, reason=world.fault.reason, error=world.fault.message)
        return world

    def state_of(self, recovered: RecoveredWorld) -> WorldState:
        """Read the state that a world goes on from. Blocks."""
        row = recovered.row
        if row.parent_key:
            last = recovered.next_tick - 1
            return state_after(self._store.history, row, last, self._setup.vocabulary)
        return WorldState(
            world_id=UUID(bytes=row.id),
            tick=recovered.next_tick,
            configuration=self._configuration_of(recovered),
            tables=tables_after(self._store.history, row.key, recovered.next_tick - 1, recovered.streams),
            streams=MappingProxyType({stream.components: stream for stream in recovered.streams}),
            next_entity_id=recovered.applied_entity_id,
            next_issued_id=recovered.next_issued_id,
            snapshots=MappingProxyType(dict(recovered.snapshots)),
        )

    def replica(self, row: WorldRow, state: WorldState) -> AsyncWorld:
        """Return the world of `row` as of `state`, apart from the engine's own: to compute ticks again with."""
        return self._assemble(
            row, state, next_seq=1, next_entity_id=state.next_entity_id, run_id=uuid7(), kind=AsyncWorld
        )

    def branch(self, row: WorldRow, state: WorldState) -> BranchWorld:
        """Return a world that goes on from `state` in memory, apart from the engine's own; on any thread's loop."""
        run_id = uuid7()
        world = self._assemble(
            row, state, next_seq=1, next_entity_id=state.next_entity_id, run_id=run_id, kind=BranchWorld
        )
        world.base_tick = state.tick - 1
        # What it takes is staged, and never written; what its processors send stays in it.
        world.acceptance.journal.world_key = 0

        def find(ref: UUID) -> AsyncWorld:
            if ref != world.world_id:
                raise WorldNotFoundError("a branch reaches no other world", world=ref)
            return world

        world.broker = CommandBroker(find)
        world.resources.insert(world.broker)
        return world

    def _assemble(
        self,
        row: WorldRow,
        state: WorldState,
        *,
        next_seq: int,
        next_entity_id: int,
        run_id: UUID,
        kind: type[_World],
    ) -> _World:
        acceptance = Acceptance(
            journal=CommandJournal(self._store, row.key),
            vocabulary=self._setup.vocabulary,
            next_seq=next_seq,
            next_entity_id=next_entity_id,
            max_entities=row.max_entities,
            cut_tick=state.tick,
        )
        acceptance.entities = state.entities
        world = kind(
            row=row,
            store=self._store,
            vocabulary=self._setup.vocabulary,
            acceptance=acceptance,
            state=state,
            run_id=run_id,
            max_message_bytes=self._engine.max_message_bytes,
        )
        world.reach(self._engine)
        world.resources.insert(self._engine.broker)
        world.resources.insert(CommandResults())
        world.resources.insert(TickRandom())
        world.resources.insert(Mailbox())
        self._setup.bootstrap(world)
        world.resources.configure(state.configuration.resources_by_type)
        world.resources.keep(state.snapshots)
        world.resources.restore(state.snapshots)
        return world

    def _configuration_of(self, recovered: RecoveredWorld) -> WorldConfiguration:
        if recovered.configuration is None:
            return WorldConfiguration.of()
        return rehydrate(recovered.configuration, self._setup.vocabulary)


def _fault_of(world: AsyncWorld, state: WorldState) -> TickwireError | None:
    """Return why a world that was just loaded cannot compute its next tick, or None."""
    try:
        state.configuration.require_whole()
    except WorldFaultedError as error:
        return error
    unreadable = world.acceptance.queue.unreadable()
    if unreadable:
        return WorldFaultedError(
            f"commands that wait in this world cannot be read: {'; '.join(unreadable)[:1000]}. "
            "Bring back what they name and start again, or cancel them"
        )
    return None
