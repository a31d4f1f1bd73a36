"""The engine: the worlds of one data directory, in this process.

``async with await Engine.open(path) as engine`` takes the directory for itself, brings every world back to its last
durable tick, and gives it up again. Usable alone; the server wires it to the network. Lives on one event loop.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Self, TypeVar

from tickwire_engine.assembly import WorldAssembly
from tickwire_engine.broker import CommandBroker
from tickwire_engine.commands import Vocabulary
from tickwire_engine.component import Component, ComponentCatalog
from tickwire_engine.config import ForkConfig
from tickwire_engine.delivery import deliver
from tickwire_engine.living import LivingWorlds
from tickwire_engine.making import WorldMaking
from tickwire_engine.processor import ProcessorRegistry
from tickwire_engine.registering import ComponentRegistration
from tickwire_engine.rollouts.limits import RolloutLimits
from tickwire_engine.rollouts.runner import Rollouts
from tickwire_engine.sql import SqlLimits, SqlSandbox
from tickwire_engine.storage.store import Store, StoreOptions

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
    from uuid import UUID

    from tickwire_engine.component import ComponentType
    from tickwire_engine.config import WorldConfig
    from tickwire_engine.errors import StorageFailedError
    from tickwire_engine.living import EndedWorld
    from tickwire_engine.storage.retention import Retention
    from tickwire_engine.storage.rows import Letter, WorldRow
    from tickwire_engine.world import AsyncWorld

_T = TypeVar("_T")

MAX_MESSAGE_BYTES = (1 << 20) - (32 << 10)
"""Bound of one encoded batch: a wire message of 1 MiB holds it, its envelope and its schema."""


@dataclass(frozen=True, slots=True)
class EngineSetup:
    """What an application brings: its vocabulary, and the templates that fill new worlds."""

    vocabulary: Vocabulary = field(
        default_factory=lambda: Vocabulary(ComponentCatalog(), ProcessorRegistry())
    )
    templates: Mapping[str, Callable[[AsyncWorld], Awaitable[None]]] = field(default_factory=dict)
    bootstrap: Callable[[AsyncWorld], None] = lambda _: None
    """Called with every world before its first tick in this process: inserts resources."""
    sql_limits: SqlLimits = field(default_factory=SqlLimits)
    """What a SQL query may take."""


class Engine:
    """Worlds by id and by name, over one store."""

    def __init__(
        self, store: Store, setup: EngineSetup, failed: asyncio.Event, *, max_message_bytes: int
    ) -> None:
        self.store = store
        self.setup = setup
        self.failed = failed
        """Set when storage failed for good: nothing more is acknowledged, and only a new start recovers."""
        self.max_message_bytes = max_message_bytes
        self.broker = CommandBroker(self.world)
        self.sandbox = SqlSandbox(setup.sql_limits)
        """Runs SQL queries, each in a process of its own; it starts none before the first."""
        self.rollouts = Rollouts(self, RolloutLimits.of(setup.vocabulary.limits))
        """Tries futures of worlds; it starts no thread before the first."""
        self.assembly = WorldAssembly(self)
        """Puts worlds together that do not live yet, or never will."""
        self._living = LivingWorlds(store, setup.vocabulary.limits)
        self.making = WorldMaking(store, setup, self._living, self.assembly)
        """Makes worlds in two halves, for what stores them along with a tick."""
        self._registration = ComponentRegistration(store, setup.vocabulary.components, lambda: self.worlds)
        self._delivering: asyncio.Future[None] | None = None
        """The last delivery of commands between worlds; each waits for the one before."""

    @classmethod
    async def open(
        cls,
        path: str | Path,
        setup: EngineSetup | None = None,
        *,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
        options: StoreOptions | None = None,
    ) -> Self:
        """Take the data directory `path`, making it where it does not exist, and load its worlds.

        Args:
            path: The data directory.
            setup: What the application brings.
            max_message_bytes: Bound of one encoded batch.
            options: How the store behaves.

        Raises:
            DataDirectoryLockedError: Another process has it.
            StorageError: What lies there cannot be read.
        """
        options, failed = _store_options(options or StoreOptions())
        store = await asyncio.to_thread(Store.open, Path(path), options=options)
        engine = cls(store, setup or EngineSetup(), failed, max_message_bytes=max_message_bytes)
        try:
            engine._registration.take_back(store.components())
            for recovered in await asyncio.to_thread(store.recover):
                if recovered.row.destroyed_at_us:
                    engine._living.remember(recovered)
                else:
                    state = await asyncio.to_thread(engine.assembly.state_of, recovered)
                    engine._living.add(engine.assembly.loaded(recovered, state))
            engine._deliver_left()
        except BaseException:
            await asyncio.to_thread(store.close)
            raise
        return engine

    @classmethod
    def open_blocking(
        cls, path: str | Path, setup: EngineSetup | None = None, options: StoreOptions | None = None
    ) -> Self:
        """Do what `open` does, holding up the event loop that calls; for programs that have nothing else to do yet."""
        options, failed = _store_options(options or StoreOptions())
        store = Store.open(Path(path), options=options)
        engine = cls(store, setup or EngineSetup(), failed, max_message_bytes=MAX_MESSAGE_BYTES)
        try:
            engine._registration.take_back(store.components())
            for recovered in store.recover():
                if recovered.row.destroyed_at_us:
                    engine._living.remember(recovered)
                else:
                    state = engine.assembly.state_of(recovered)
                    engine._living.add(engine.assembly.loaded(recovered, state))
            engine._deliver_left()
        except BaseException:
            store.close()
            raise
        return engine

    @classmethod
    def over(cls, store: Store, setup: EngineSetup) -> Self:
        """Return an engine over a store that is open, for reading only perhaps; it loads no world."""
        engine = cls(store, setup, asyncio.Event(), max_message_bytes=MAX_MESSAGE_BYTES)
        engine._registration.take_back(store.components())
        return engine

    def speaking(self, vocabulary: Vocabulary) -> Engine:
        """Return an engine over the same store that knows other names; it loads no world."""
        setup = replace(self.setup, vocabulary=vocabulary)
        return Engine(self.store, setup, self.failed, max_message_bytes=self.max_message_bytes)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Make every computed tick durable and give the directory up."""
        self.store.stop_waiting()
        for world in self._living.by_id.values():
            await world.settled()
            await world.hooks_done()
            world.decide_no_more()
        await self.delivered()
        await asyncio.to_thread(self.sandbox.close)
        await asyncio.to_thread(self.rollouts.close)
        await asyncio.to_thread(self.store.close)

    def _deliver_left(self) -> None:
        left = self.store.outbox()
        if left:
            self.deliver(left)

    def deliver(self, letters: Sequence[Letter]) -> None:
        """Have commands accepted that ticks sent to other worlds and that are in the outbox, after those before them."""
        self._delivering = asyncio.ensure_future(self._deliver(letters, self._delivering))

    async def delivered(self) -> None:
        """Wait until what ticks have sent to other worlds so far is accepted there, or refused."""
        while self._delivering is not None and not self._delivering.done():
            await asyncio.wait([self._delivering])

    async def _deliver(self, letters: Sequence[Letter], earlier: asyncio.Future[None] | None) -> None:
        if earlier is not None:
            await asyncio.wait([earlier])
        await deliver(self, letters)

    def register(self, *models: type[Component]) -> None:
        """Make components known that commands may name."""
        for model in models:
            self.setup.vocabulary.components.register(model)

    async def register_component(self, entry: ComponentType, *, with_defaults: bool = True) -> ComponentType:
        """Define a component for all worlds, durably, or let it grow by new fields; they appear in the next ticks.

        Args:
            entry: The component with all its fields; the same shape again changes nothing.
            with_defaults: Whether its defaults were given: if not, those that there are stay.

        Returns:
            The component as it is now.

        Raises:
            ComponentExistsError: One of that name, ignoring case, has another shape, and not by growth.
        """
        return await _to_the_end(self._registration.register(entry, with_defaults=with_defaults))

    @property
    def worlds(self) -> list[AsyncWorld]:
        """The living worlds, oldest first."""
        return list(self._living.by_id.values())

    def world(self, ref: str | UUID) -> AsyncWorld:
        """Return a world by id or by name.

        Raises:
            WorldNotFoundError: There is none.
        """
        return self._living.world(ref)

    async def create_world(self, config: WorldConfig) -> AsyncWorld:
        """Make a world, filled by its template; durable when this returns.

        The same id with the same configuration returns the world that there is.

        Raises:
            InvalidNameError: The name does not fit the pattern.
            WorldExistsError: The name is taken, or the id with another configuration.
            TemplateNotFoundError: The application has no such template.
            WorldLimitError: There are as many worlds as may be.
        """
        return await _to_the_end(self.making.create(config))

    async def fork_world(self, ref: str | UUID, config: ForkConfig | None = None) -> AsyncWorld:
        """Make a world whose history up to a tick is that of another; durable when this returns.

        No rows are copied: they are read at first use. The same id with the same request returns the fork that there is.

        Raises:
            WorldNotFoundError: There is no such world.
            TickNotKeptError: The tick is no longer kept.
            TickInTheFutureError: The tick is not durable yet.
            InvalidNameError: The name does not fit the pattern.
            WorldExistsError: The name is taken, or the id by another request.
        """
        return await _to_the_end(self.making.fork(ref, config or ForkConfig()))

    async def destroy_world(self, ref: str | UUID) -> None:
        """Destroy a world after the tick in hand: its pending commands are void, its name is free again.

        Raises:
            WorldNotFoundError: There is none.
        """
        await _to_the_end(self.making.destroy(self.world(ref)))

    def ended(self, world_id: UUID) -> EndedWorld | None:
        """Return a world that was destroyed, by its id, or None."""
        return self._living.ended.get(world_id)

    async def update_world(
        self,
        world: AsyncWorld,
        *,
        name: str | None = None,
        labels: Mapping[str, str] | None = None,
        retention: Retention | None = None,
        check: Callable[[WorldRow], None] = lambda _: None,
    ) -> None:
        """Change a world's name, labels or retention, all that are given in one transaction; None: as it is.

        Args:
            world: The world.
            name: Unique among the living worlds.
            labels: All of them.
            retention: What to keep from now on; the floor moves when the archiver comes around.
            check: Called with the row before the change, while nobody else can change it; it may refuse.

        Raises:
            InvalidNameError: The name does not fit the pattern.
            WorldExistsError: Another world has the name.
            WorldDestroyedError: The world ended meanwhile.
        """
        await _to_the_end(self.making.update(world, name, labels, retention, check))


def _store_options(options: StoreOptions) -> tuple[StoreOptions, asyncio.Event]:
    """Return the options, made to tell this loop when storage failed, and the event that they set."""
    loop = asyncio.get_running_loop()
    failed = asyncio.Event()

    def note_failure(error: StorageFailedError) -> None:
        loop.call_soon_threadsafe(failed.set)
        if options.on_failure is not None:
            options.on_failure(error)

    return replace(options, on_failure=note_failure), failed


async def _to_the_end(what: Coroutine[None, None, _T]) -> _T:
    """Do what must not stop half-way, in the journal and not in memory, although whoever asked for it gives up."""
    return await asyncio.shield(asyncio.ensure_future(what))
