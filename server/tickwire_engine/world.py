"""A world: entities in archetypes, processors over them, one tick after another.

Every change is a command, in-process calls included; a call that makes one returns once the command is journaled, and
the next tick applies it. Reads from inside a tick see exactly the tick before; reads from outside see durable ticks
only. A world lives on one event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pyarrow as pa
import structlog

from tickwire_engine.command import CommandType
from tickwire_engine.deferred import DeferredTables
from tickwire_engine.errors import (
    InvalidRequestError,
    ProcessorNotFoundError,
    TickMismatchError,
    TickwireError,
    WorldDestroyedError,
)
from tickwire_engine.hooks import HookEvent, Hooks
from tickwire_engine.issuing import Sent, send
from tickwire_engine.reading import (
    active_rows,
    entity_values,
    rows_having,
)
from tickwire_engine.recorded import RecordedDataFrame
from tickwire_engine.resources import Resources
from tickwire_engine.sql import SqlProcessor
from tickwire_engine.submission import Accepted, Receipt, Settled, Submission
from tickwire_engine.tick.context import current_call
from tickwire_engine.tick.effects import Effects
from tickwire_engine.tick.pipeline import CommittedTick, TickPipeline
from tickwire_engine.ticking import Ticking, inside
from tickwire_engine.values import to_json
from tickwire_engine.world_reads import WorldReads

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Sequence

    import daft
    from pydantic import BaseModel

    from tickwire_engine.acceptance import Acceptance
    from tickwire_engine.archetype import Signature
    from tickwire_engine.broker import CommandBroker
    from tickwire_engine.commands import Vocabulary
    from tickwire_engine.component import Component
    from tickwire_engine.config import RunConfig
    from tickwire_engine.configuration import ProcessorEntry
    from tickwire_engine.engine import Engine
    from tickwire_engine.preparing import Pause
    from tickwire_engine.processor import BaseProcessor
    from tickwire_engine.sql import SqlSandbox
    from tickwire_engine.state import WorldState
    from tickwire_engine.storage.command_history import CommandHistory
    from tickwire_engine.storage.history import History
    from tickwire_engine.storage.rows import DecidedCommand, WorldRow
    from tickwire_engine.storage.store import Store
    from tickwire_engine.submission import Guard
    from tickwire_engine.tick.processing import ProcessorRun

_log = structlog.get_logger(__name__)


class AsyncWorld:
    """One world; made by `Engine.create_world`, found by `Engine.world`."""

    def __init__(
        self,
        *,
        row: WorldRow,
        store: Store,
        vocabulary: Vocabulary,
        acceptance: Acceptance,
        state: WorldState,
        run_id: UUID,
        max_message_bytes: int,
    ) -> None:
        self.row = row
        self.run_id = run_id
        self.resources = Resources()
        self.hooks = Hooks()
        self.acceptance = acceptance
        self.fault: TickwireError | None = None
        """Why the last tick was aborted; None once a tick succeeded."""
        self.destroyed = False
        self.broker: CommandBroker | None = None
        self.sandbox: SqlSandbox | None = None
        self.processor_runs: dict[str, ProcessorRun] = {}
        self._store = store
        self._vocabulary = vocabulary
        self._turn = asyncio.Lock()
        self._listeners: list[Callable[[CommittedTick], None]] = []
        self._end_listeners: list[Callable[[TickwireError], None]] = []
        self._cancel_listeners: list[Callable[[DecidedCommand], None]] = []
        acceptance.on_cancelled = self._tell_cancelled
        self._pipeline = TickPipeline(
            world_key=row.key,
            store=store,
            vocabulary=vocabulary,
            seed=row.seed,
            acceptance=acceptance,
            resources=self.resources,
            head=state,
            max_message_bytes=max_message_bytes,
            publish=self._publish,
            base_interned=b"" if state.tick == 0 else state.configuration.interned.id,
        )
        self.ticking = Ticking(self, store=store, vocabulary=vocabulary, pipeline=self._pipeline)
        self._reads = WorldReads(self, vocabulary)

    def born(self, row: WorldRow) -> None:
        """Note that the journal has the world now, and the commands that were staged for it."""
        self.row = row
        self.acceptance.journal.world_key = row.key
        self.acceptance.journal.staged.clear()
        self._pipeline.world_key = row.key

    def reach(self, engine: Engine) -> None:
        """Let commands reach the other worlds of `engine`."""
        self.broker = engine.broker
        self.sandbox = engine.sandbox
        self._pipeline.effects = Effects(engine, self)

    # Identity and state

    @property
    def world_id(self) -> UUID:
        """The world's id, for ever."""
        return UUID(bytes=self.row.id)

    @property
    def name(self) -> str:
        """The world's name."""
        return self.row.name

    @property
    def parent_id(self) -> UUID | None:
        """The world that this one was forked from, after `row.fork_tick`; None: from none."""
        return UUID(bytes=self.history.world_id(self.row.parent_key)) if self.row.parent_key else None

    @property
    def history(self) -> History:
        """Reads of this world's past ticks, by `row.key`; they block."""
        return self._store.history

    @property
    def command_history(self) -> CommandHistory:
        """Reads of this world's commands, by `row.key`; they block."""
        return self._store.command_history

    def archived(self, tick: int) -> asyncio.Future[None]:
        """Wait until LanceDB keeps a tick durably; see `Archiver.wait_archived`."""
        return self._store.archiver.wait_archived(self.row.key, tick)

    @property
    def state(self) -> WorldState:
        """The state that the caller may see: the tick before, inside one; the last durable tick outside."""
        within = inside.get()
        if within is not None and within.world_id == self.world_id:
            return within
        return self._pipeline.durable

    @property
    def tick(self) -> int:
        """The next tick to compute."""
        return self.state.tick

    @property
    def processors(self) -> tuple[ProcessorEntry, ...]:
        """The processors in force, in the order they run."""
        return self.state.configuration.processors

    # Entities

    async def create_entity(self, components: Sequence[Component]) -> int:
        """Spawn one entity in the next tick and return its id."""
        return (await self.create_entities([components]))[0]

    async def create_entities(self, entities: Sequence[Sequence[Component]]) -> list[int]:
        """Spawn entities in the next tick, in one journal write, and return their ids.

        Raises:
            InvalidRequestError: A processor calls: processors run side by side, and no id is known before their end.
        """
        self._require_known_ids()
        receipts = await self.submit(
            [Submission(CommandType.SPAWN, {"components": self._values(entity)}) for entity in entities]
        )
        return [receipt.command.first_entity_id for receipt in receipts if receipt.command is not None]

    async def create_entities_from_arrow(self, table: pa.Table | pa.RecordBatch) -> range:
        """Spawn an entity for each row of `table` (columns ``component__field``) in the next tick; return their ids.

        Raises:
            InvalidRequestError: As `create_entities`.
        """
        self._require_known_ids()
        (receipt,) = await self.submit([Submission(CommandType.SPAWN, {"table": ipc_stream(table)})])
        assert receipt.command is not None
        first = receipt.command.first_entity_id
        return range(first, first + receipt.command.entity_count)

    async def update_entity(self, entity_id: int, components: Sequence[Component]) -> None:
        """Write whole components of an entity in the next tick."""
        payload = {"entity_ids": [entity_id], "components": self._values(components)}
        await self.submit([Submission(CommandType.UPDATE, payload)])

    async def remove_entity(self, entity_id: int) -> None:
        """Despawn an entity in the next tick, where it has its last row."""
        await self.submit([Submission(CommandType.DESPAWN, {"entity_ids": [entity_id]})])

    async def add_components(self, entity_id: int, components: Sequence[Component]) -> None:
        """Give an entity further components in the next tick; those that it has already are overwritten."""
        payload = {"entity_ids": [entity_id], "components": self._values(components)}
        await self.submit([Submission(CommandType.ADD_COMPONENT, payload)])

    async def remove_components(self, entity_id: int, components: Sequence[type[Component]]) -> None:
        """Take components from an entity in the next tick; those that it does not have are passed over."""
        names = [self._vocabulary.components.register(component).name for component in components]
        payload = {"entity_ids": [entity_id], "components": names}
        await self.submit([Submission(CommandType.REMOVE_COMPONENT, payload)])

    async def submit(
        self,
        submissions: Sequence[Submission],
        *,
        partial: bool = False,
        guard: Guard | None = None,
        pause: Pause | None = None,
    ) -> list[Receipt]:
        """Accept commands: see `Acceptance.submit`.

        Inside a tick of this world they are buffered and accepted with it, due in the next one.
        """
        call = current_call.get()
        if call is not None and call.context.world_id == self.world_id:
            return [self._sent(send(call, submission)) for submission in submissions]
        return await self.acceptance.submit(submissions, partial=partial, guard=guard, pause=pause)

    async def cancel(self, command_id: UUID) -> Settled:
        """Withdraw a pending command: see `Acceptance.cancel`."""
        return await self.acceptance.cancel(command_id)

    def _require_known_ids(self) -> None:
        call = current_call.get()
        if call is not None and call.context.world_id == self.world_id and not call.knows_ids:
            raise InvalidRequestError(
                "inside a tick, a processor is not told the ids of what it spawns: "
                "resources.require(CommandBroker).issue(CommandType.SPAWN, ...)"
            )

    def _sent(self, sent: Sent) -> Receipt:
        submission = sent.submission
        entry = Accepted(
            id=sent.id.bytes,
            content_hash=submission.encode()[2],
            actor=submission.actor,
            seq=0,
            tick=max(self.tick + 1, submission.tick or 0),
            first_entity_id=sent.first_entity_id,
            entity_count=sent.entity_count,
            journaled=None,
        )
        return Receipt(entry)

    # Processors, hooks

    async def add_processor(self, processor: BaseProcessor, *, name: str | None = None) -> None:
        """Run `processor` from the next tick on; its class is registered under its name."""
        kind = type(processor)
        processor.bind(self._vocabulary.components)
        payload: dict[str, Any] = {"name": name or kind.__name__, "priority": processor.priority}
        if isinstance(processor, SqlProcessor):
            payload["sql"] = processor.plain_params
        else:
            self._vocabulary.processors.register(kind)
            payload |= {"type": kind.__name__, "params": processor.plain_params}
        await self.submit([Submission(CommandType.ADD_PROCESSOR, payload)])

    async def remove_processor(self, kind: type[BaseProcessor]) -> None:
        """Run no processor of the class `kind` from the next tick on.

        Raises:
            ProcessorNotFoundError: None runs.
        """
        names = [entry.name for entry in self.processors if isinstance(entry.instance, kind)]
        if not names:
            raise ProcessorNotFoundError(
                f"no {kind.__name__} runs in world {self.name}", processor=kind.__name__
            )
        await self.submit([Submission(CommandType.REMOVE_PROCESSOR, {"name": name}) for name in names])

    async def set_resource(self, resource: BaseModel) -> None:
        """Give processors `resource` from the next tick on; its class is registered under its name."""
        kind = type(resource)
        self._vocabulary.resources.register(kind)
        payload = {"name": kind.__name__, "value": resource.model_dump(mode="json")}
        await self.submit([Submission(CommandType.SET_RESOURCE, payload)])

    async def remove_resource(self, kind: type[BaseModel]) -> None:
        """Give processors no resource of the class `kind` from the next tick on."""
        await self.submit([Submission(CommandType.REMOVE_RESOURCE, {"name": kind.__name__})])

    def add_hook(self, event: HookEvent, fn: Callable[..., Any]) -> None:
        """Call `fn` at every `event` from now on."""
        self.hooks.add(event, fn)

    def remove_hook(self, event: HookEvent, fn: Callable[..., Any]) -> None:
        """Stop calling `fn`."""
        self.hooks.remove(event, fn)

    def on_committed(self, listener: Callable[[CommittedTick], None]) -> None:
        """Call `listener` with every tick once it is durable, in order, on the loop; it must return quickly."""
        self._listeners.append(listener)

    def on_cancelled(self, listener: Callable[[DecidedCommand], None]) -> None:
        """Call `listener` with every command that is cancelled, once it is for good, on the loop."""
        self._cancel_listeners.append(listener)

    def on_ended(self, listener: Callable[[TickwireError], None]) -> None:
        """Call `listener` once the world is destroyed and its last tick published, on the loop."""
        self._end_listeners.append(listener)

    # Ticks

    async def step(self, run_config: RunConfig | None = None, **input_kwargs: Any) -> CommittedTick:
        """Compute one tick and wait until it is durable.

        Raises:
            ProcessorFailedError: The tick was aborted whole; the next step tries it again.
            StorageFullError: The disk has no room for a tick: none was begun, and nothing has changed.
        """
        await self._archive_room()
        async with self._turn:
            published = await self.ticking.advance(run_config, input_kwargs)
        return await asyncio.shield(published)

    async def run(self, run_config: RunConfig, **input_kwargs: Any) -> CommittedTick | None:
        """Compute `run_config.num_steps` ticks, pipelined; return the last once all are durable."""
        published: asyncio.Future[CommittedTick] | None = None
        for _ in range(run_config.num_steps):
            published = await self.advance(run_config, **input_kwargs)
        return None if published is None else await asyncio.shield(published)

    async def advance(
        self,
        run_config: RunConfig | None = None,
        *,
        expected_tick: int | None = None,
        hz: float = 0.0,
        **input_kwargs: Any,
    ) -> asyncio.Future[CommittedTick]:
        """Compute one tick; the future is done once it is durable.

        Raises:
            TickMismatchError: The next tick is not `expected_tick`; nothing was computed.
        """
        await self._archive_room()
        async with self._turn:
            if expected_tick is not None and expected_tick != self._pipeline.head.tick:
                raise TickMismatchError(
                    f"world {self.name} is at tick {self._pipeline.head.tick}, not {expected_tick}",
                    field="expected_tick",
                    expected=expected_tick,
                    actual=self._pipeline.head.tick,
                )
            return await self.ticking.advance(run_config, input_kwargs, hz=hz)

    async def end(self) -> None:
        """Destroy the world in the journal after the tick in hand; no tick and no command comes after.

        Use `Engine.destroy_world`, which forgets the world too.
        """
        async with self._turn:
            await self._pipeline.settle_or_stall()
            if self.destroyed:
                return
            await self._store.destroy_world(self.row.key, self._store.now_us())
        self.ended()

    def ended(self) -> None:
        """Note that the journal has marked the world destroyed, which cancels what is pending; whoever waits is told."""
        if self.destroyed:
            return
        self.destroyed = True
        error = WorldDestroyedError(f"world {self.name} was destroyed", world_id=self.world_id)
        self._pipeline.end(error)
        self.acceptance.end(error, self.command_history.last_outcome_seq(self.row.key) + 1)
        for listener in self._end_listeners:
            listener(error)

    @property
    def lacks_room(self) -> bool:
        """Whether there is too little free space on the disk for another tick."""
        return self._store.lacks_room

    @property
    def archive_is_behind(self) -> bool:
        """Whether ticks wait for the archive, so that the journal stays bounded; a step waits by itself."""
        return self._store.archiver.lag.is_over(self.row.key)

    def decide_no_more(self) -> None:
        """Give up what is being decided beside the ticks: its commands wait, and are decided anew."""
        if self._pipeline.effects is not None:
            self._pipeline.effects.close()

    @contextlib.asynccontextmanager
    async def between_ticks(self) -> AsyncIterator[None]:
        """Hold the next tick back, once the one in hand is computed."""
        async with self._turn:
            yield

    async def settled(self) -> None:
        """Wait until every computed tick is durable."""
        await self._pipeline.settle()

    async def load(self) -> None:
        """Read the rows of a fork, unless somebody has; otherwise whoever looks at them first blocks.

        Raises:
            CorruptRecordError: Stored bytes are not what was committed.
        """
        tables = self._pipeline.head.tables
        if isinstance(tables, DeferredTables) and not tables.loaded:
            await asyncio.to_thread(tables.load)

    async def settled_tick(self, tick: int) -> None:
        """Wait until a computed tick is durable, whatever is computed meanwhile."""
        await self._pipeline.settle_tick(tick)

    async def hooks_done(self) -> None:
        """Wait until the hooks of every durable tick have run."""
        await self.ticking.hooks_done()

    # Reads

    def read(
        self, components: Iterable[type[Component]], entity_ids: Sequence[int] | None = None
    ) -> pa.RecordBatch:
        """Return the active rows of every entity that has all `components`, as one batch in entity order.

        Columns: entity_id, is_active, then the components' fields in (component, field) order. Inside a tick this
        is the tick before; plain, so that an `ArrowProcessor` can call it.
        """
        kinds = [self._vocabulary.components.register(component) for component in components]
        return rows_having(self._reads.live_tables(), kinds, entity_ids)

    async def get_components(
        self,
        components: Iterable[type[Component]],
        entity_ids: Sequence[int] | None = None,
        *,
        at_tick: int | None = None,
    ) -> daft.DataFrame:
        """Return what `read` does, as a Daft data frame; at any kept tick, if asked.

        Raises:
            TickNotKeptError: `at_tick` is no longer kept.
            TickInTheFutureError: `at_tick` is not there yet.
        """
        kinds = [self._vocabulary.components.register(component) for component in components]
        return RecordedDataFrame.over(rows_having(await self.tables_at(at_tick), kinds, entity_ids))

    async def tables_at(self, at_tick: int | None = None) -> dict[Signature, pa.RecordBatch]:
        """Return the rows of every archetype at a kept tick, just despawned ones included; None: now.

        Raises:
            TickNotKeptError: `at_tick` is no longer kept.
            TickInTheFutureError: `at_tick` is not there yet.
        """
        return await self._reads.tables_at(at_tick)

    async def query_archetype(
        self,
        sig: Iterable[type[Component] | str],
        ticks: Iterable[int] | int | None = None,
        entity_ids: Sequence[int] | None = None,
        components: Iterable[type[Component] | str] | None = None,
        run_id: UUID | str | None = None,
    ) -> daft.DataFrame:
        """Return the history of one archetype: its active rows at each tick, ordered by (tick, entity_id).

        Inside a tick the last one is the tick before, as for every read.

        Args:
            sig: The archetype's component types, all of them, in any order.
            ticks: Kept ticks; None means all of them.
            entity_ids: Only these; None means all.
            components: Columns of these only; None means all of `sig`.
            run_id: Only ticks of this run; None means every run.

        Raises:
            TickNotKeptError: A tick is no longer kept.
            TickInTheFutureError: A tick is not there yet.
            UnknownComponentError: A component is not registered.
        """
        return await self._reads.query_archetype(sig, ticks, entity_ids, components, run_id)

    def entity(self, entity_id: int) -> dict[str, dict[str, Any]]:
        """Return an active entity's values by component and field.

        Raises:
            EntityNotFoundError: There is none of that id.
        """
        return entity_values(map(active_rows, self._reads.live_tables().values()), entity_id)

    async def _archive_room(self) -> None:
        """Wait while the archive is too far behind: the journal is to stay bounded."""
        lag = self._store.archiver.lag
        if lag.is_over(self.row.key):
            await lag.room(self.row.key)

    def _tell_cancelled(self, cancelled: DecidedCommand) -> None:
        for listener in self._cancel_listeners:
            listener(cancelled)

    def _publish(self, committed: CommittedTick) -> None:
        self.processor_runs.update(committed.computed.runs)
        for listener in self._listeners:
            try:
                listener(committed)
            except Exception:
                # The tick is history, and whoever waits for it must be told.
                _log.exception("a listener failed", world=self.name, tick=committed.summary.tick)

    def _values(self, components: Sequence[Component]) -> dict[str, dict[str, Any]]:
        for component in components:
            self._vocabulary.components.register(type(component))
        return {
            type(component).__name__: {
                name: to_json(getattr(value, "value", value))
                for name, value in component.model_dump().items()
            }
            for component in components
        }


def ipc_stream(table: pa.Table | pa.RecordBatch) -> bytes:
    """Return `table` as an Arrow IPC stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write(table)
    return sink.getvalue().to_pybytes()
