"""Ticks in flight: computed one after another, made durable behind, published in order.

While tick N is being synced, N+1 may compute, within a window bounded in ticks and bytes. The *head* is the state that
the next tick starts from; the *durable* state is the last one that outsiders may see. Runs on the world's event loop.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from contextvars import Context
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from tickwire_engine import failpoints
from tickwire_engine.errors import WorldFaultedError
from tickwire_engine.storage.rows import DecidedCommand, TickCommit, TickSummary
from tickwire_engine.tick.compute import ComputedTick, compute_tick
from tickwire_engine.tick.context import TickContext
from tickwire_engine.tick.effects import carried_out, writes_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tickwire_engine.acceptance import Acceptance
    from tickwire_engine.commands import Decision, Vocabulary
    from tickwire_engine.errors import TickwireError
    from tickwire_engine.resources import Resources
    from tickwire_engine.state import WorldState
    from tickwire_engine.storage.rows import CommandRow
    from tickwire_engine.storage.store import Store
    from tickwire_engine.tick.compute import DueCommand
    from tickwire_engine.tick.effects import Effects
    from tickwire_engine.tick.watching import TickWatch

WINDOW_TICKS = 16
WINDOW_BYTES = 64 << 20
_STALL_POLL_S = 0.1
"""How often it is looked whether ticks in flight wait for room on the disk."""


@dataclass(frozen=True, slots=True)
class CommittedTick:
    """A tick that is history.

    Attributes:
        state: The world after it: `state.tables` hold every archetype's rows and frames.
        computed: What the tick did.
        summary: Its small facts, as ListTicks tells them.
        commands: The commands that it drained, in the order of `computed.outcomes`.
    """

    state: WorldState
    computed: ComputedTick
    summary: TickSummary
    commands: tuple[CommandRow, ...]
    first_outcome_seq: int

    @property
    def decided(self) -> tuple[DecidedCommand, ...]:
        """What became of the commands, numbered."""
        first, tick = self.first_outcome_seq, self.summary.tick
        pairs = zip(self.commands, self.computed.outcomes, strict=True)
        return tuple(
            DecidedCommand(row.id, row.actor, first + position, tick, outcome)
            for position, (row, outcome) in enumerate(pairs)
        )


@dataclass(frozen=True, slots=True)
class TickInput:
    """What a tick is computed with, besides state and commands."""

    run_id: bytes
    inputs_json: bytes
    keywords: dict[str, Any]
    hz: float = 0.0
    watch: TickWatch | None = None


@dataclass(slots=True)
class TickPipeline:
    """The ticks of one world, from computing to published."""

    world_key: int
    store: Store
    vocabulary: Vocabulary
    seed: int
    """The world's: what `TickRandom` grows from."""
    acceptance: Acceptance
    resources: Resources
    head: WorldState
    max_message_bytes: int
    publish: Callable[[CommittedTick], None]
    """Called in tick order, on the loop, once a tick is durable."""
    base_interned: bytes
    """Id of the configuration that the journal already holds."""
    effects: Effects | None = None
    """Decides commands that reach beyond the world; without it they are refused."""
    durable: WorldState = field(init=False)
    computing: bool = field(init=False, default=False)
    _in_flight: deque[tuple[asyncio.Future[CommittedTick], int]] = field(init=False, default_factory=deque)
    _bytes: int = field(init=False, default=0)
    _last_time_us: int = field(init=False, default=0)
    _broken: BaseException | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.durable = self.head

    async def advance(
        self, given: TickInput, *, with_spawned_ids: bool = False
    ) -> asyncio.Future[CommittedTick]:
        """Compute the next tick and hand it to the journal.

        Returns:
            A future that is done once the tick is durable and published.

        Raises:
            ProcessorFailedError: The tick was aborted whole: its commands are pending again, resources as before.
            WorldFaultedError: A part of what the world runs with is missing; aborted as above.
            StorageFullError: The disk has no room for a tick: none was begun.
            StorageFailedError: The journal failed before; nothing goes on.
        """
        await self._wait_for_room()
        if self._broken is not None:
            raise self._broken
        state = self.head
        self._require_snapshots(state)
        before = self.resources.snapshots(kept=state.snapshots)
        due = self.acceptance.queue.drain(state.tick)
        try:
            due, decided = await self._decide(due, state, patient=not given.hz)
        except BaseException:
            self.acceptance.queue.put_back(due, tick=state.tick)
            raise
        self._last_time_us = max(self.store.now_us(), self._last_time_us + 1)
        context = TickContext(
            state.world_id, self.seed, state.tick, self._last_time_us, self.vocabulary, watch=given.watch
        )
        context.decisions = decided
        self.computing = True
        started = time.perf_counter_ns()
        try:
            computed = await compute_tick(
                state,
                due,
                context=context,
                keywords=given.keywords,
                resources=self.resources,
                max_message_bytes=self.max_message_bytes,
                with_spawned_ids=with_spawned_ids,
            )
        except BaseException:
            if self.effects is not None:
                self.effects.dropped(decided)
            self.acceptance.queue.put_back(due, tick=state.tick)
            self.resources.configure(state.configuration.resources_by_type)
            self.resources.restore(before)
            raise
        finally:
            self.computing = False
        commands = tuple(command.row for command in due)
        commit = self._commit(given, computed, compute_us=(time.perf_counter_ns() - started) // 1000)
        self.head = computed.state
        self.resources.keep(computed.state.snapshots)
        self.base_interned = commit.configuration_id
        return self._send(commit, computed, commands, decided)

    async def _decide(
        self, due: list[DueCommand], state: WorldState, *, patient: bool
    ) -> tuple[list[DueCommand], Mapping[int, Decision | TickwireError]]:
        """Return the commands of the tick, and what was decided for those that reach beyond the world."""
        if self.effects is None:
            return due, {}
        decided, waiting = await self.effects.decide(due, state, patient=patient)
        if waiting:
            self.acceptance.queue.hold(waiting)
            seqs = {command.row.seq for command in waiting}
            due = [command for command in due if command.row.seq not in seqs]
        return due, decided

    def _require_snapshots(self, state: WorldState) -> None:
        lacking = self.resources.lacking(state.snapshots) if state.snapshots else ()
        if lacking:
            raise WorldFaultedError(
                f"this world keeps the state of {', '.join(lacking)}, and no such resource is there: insert it, "
                "or register it with @app.resource and start again"
            )

    async def reread(self) -> None:
        """Take the head's rows from the store instead of memory: the tick before must be durable for that."""
        await self.settle()
        state = self.head
        if not state.tables:
            return
        history = self.store.history
        stored = await asyncio.to_thread(history.state_at, self.world_key, state.tick - 1)
        tables = {
            sig: replace(table, batch=stored[table.stream.number][1]) for sig, table in state.tables.items()
        }
        self.head = replace(state, tables=MappingProxyType(tables))

    def end(self, error: Exception) -> None:
        """Compute no further tick: whoever asks for one, or waits for one in flight, is told `error`."""
        self._broken = self._broken or error
        for published, _ in self._in_flight:
            published.set_exception(error)
            published.exception()  # seen: nobody need wait for it

    async def settle(self) -> None:
        """Wait until every computed tick is durable."""
        while self._in_flight:
            await asyncio.wait([self._in_flight[-1][0]])

    async def settle_or_stall(self) -> None:
        """Wait until every computed tick is durable, or until they wait for room on the disk."""
        while self._in_flight and not self.store.lacks_room:
            await asyncio.wait([self._in_flight[-1][0]], timeout=_STALL_POLL_S)

    async def settle_tick(self, tick: int) -> None:
        """Wait until a computed tick is durable, whatever is computed meanwhile."""
        while self._in_flight and self.durable.tick <= tick:
            await asyncio.wait([self._in_flight[0][0]])

    async def _wait_for_room(self) -> None:
        while self._in_flight and (len(self._in_flight) >= WINDOW_TICKS or self._bytes >= WINDOW_BYTES):
            await asyncio.wait([self._in_flight[0][0]], timeout=_STALL_POLL_S)
            self.store.require_room()

    def _commit(self, given: TickInput, computed: ComputedTick, *, compute_us: int) -> TickCommit:
        now_us = self.store.now_us()
        applied = sum(outcome.applied for outcome in computed.outcomes)
        state = computed.state
        interned = state.configuration.interned
        summary = TickSummary(
            tick=state.tick - 1,
            run_id=given.run_id,
            entities=computed.entities,
            rows=computed.rows,
            spawned=computed.spawned,
            despawned=len(computed.despawned),
            commands_applied=applied,
            commands_rejected=len(computed.outcomes) - applied,
            state_hash=computed.state_hash,
            committed_at_us=now_us,
            compute_us=compute_us,
            hz=given.hz,
        )
        return TickCommit(
            world=self.world_key,
            summary=summary,
            tick_time_us=self._last_time_us,
            inputs=given.inputs_json,
            frames=computed.frames,
            despawned=computed.despawned,
            outcomes=computed.outcomes,
            next_entity_id=state.next_entity_id,
            next_issued_id=state.next_issued_id,
            configuration_id=interned.id,
            new_streams=computed.new_streams,
            issued=tuple(self.acceptance.take_issued(computed.issued, tick=state.tick - 1)),
            snapshots={
                name: body for name, body in state.snapshots.items() if self.head.snapshots.get(name) != body
            },
            new_configuration=None if interned.id == self.base_interned else interned,
            results=computed.results,
        )

    def _send(
        self,
        commit: TickCommit,
        computed: ComputedTick,
        commands: tuple[CommandRow, ...],
        decided: Mapping[int, Decision | TickwireError],
    ) -> asyncio.Future[CommittedTick]:
        size = sum(frame.nbytes for frame in commit.frames)
        published: asyncio.Future[CommittedTick] = asyncio.get_running_loop().create_future()
        self._in_flight.append((published, size))
        self._bytes += size

        def durable(written: asyncio.Future[int]) -> None:
            self._in_flight.popleft()
            self._bytes -= size
            error = written.exception()
            if published.done():
                # The world was destroyed while this waited for room on the disk.
                return
            if isinstance(error, Exception):
                self._broken = self._broken or error
                self.acceptance.known.fail(error)
                published.set_exception(error)
                published.exception()  # seen: the next advance raises it
                return
            first_seq = written.result()
            committed = CommittedTick(computed.state, computed, commit.summary, commands, first_seq)
            self.durable = computed.state
            self.acceptance.entities = computed.entities
            self.acceptance.settle(commands, computed.outcomes, tick=commit.summary.tick, first_seq=first_seq)
            self.publish(committed)
            carried_out(decided)
            if computed.letters and self.effects is not None:
                self.effects.deliver(computed.letters)
            failpoints.reach("tick_publish.after")
            published.set_result(committed)

        # An empty context: this one is inside a tick, and whoever is told of the result is not.
        along = writes_of(decided)
        if computed.letters and self.effects is not None:
            along.append(self.effects.posting(computed.letters))
        self.store.commit_tick(commit, along=along).add_done_callback(durable, context=Context())
        return published
