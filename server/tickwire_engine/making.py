"""Making worlds, changing them and ending them, each in one transaction of the journal.

`prepare` and `adopt` are the two halves of making one, for whoever stores it along with something else. Lives as long as
its engine, on its event loop.
"""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import replace
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

import structlog
import xxhash

from tickwire_engine.errors import TemplateNotFoundError
from tickwire_engine.forking import fork_hash, fork_row, fork_tick, next_entity_id, read_pending, read_point
from tickwire_engine.living import require_name, world_name
from tickwire_engine.past import state_from
from tickwire_engine.storage.rows import WorldRow

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from uuid import UUID

    from tickwire_engine.assembly import WorldAssembly
    from tickwire_engine.config import ForkConfig, WorldConfig
    from tickwire_engine.engine import EngineSetup
    from tickwire_engine.living import LivingWorlds
    from tickwire_engine.storage._forking import ForkWorld
    from tickwire_engine.storage.retention import Retention
    from tickwire_engine.storage.rows import CommandRow
    from tickwire_engine.storage.store import Store
    from tickwire_engine.world import AsyncWorld

_log = structlog.get_logger(__name__)


class WorldMaking:
    """Makes the worlds of one engine."""

    def __init__(
        self, store: Store, setup: EngineSetup, worlds: LivingWorlds, assembly: WorldAssembly
    ) -> None:
        self._store = store
        self._setup = setup
        self._worlds = worlds
        self._assembly = assembly
        # As long as somebody holds one or waits for it.
        self._making: WeakValueDictionary[UUID, asyncio.Lock] = WeakValueDictionary()

    async def create(self, config: WorldConfig) -> AsyncWorld:
        """Make a world: see `Engine.create_world`."""
        async with self._making.setdefault(config.world_id, asyncio.Lock()):
            world = await self.prepare(config)
            if world.row.key:
                return world
            try:
                # One transaction: a world is there with everything its template gave it, or not at all.
                stored = await self._store.create_world(world.row, world.acceptance.journal.staged)
            except BaseException:
                self.give_up(world)
                raise
            self.adopt(world, stored)
            return world

    async def fork(self, ref: str | UUID, config: ForkConfig) -> AsyncWorld:
        """Make a fork: see `Engine.fork_world`."""
        async with self._making.setdefault(config.world_id, asyncio.Lock()):
            world, forking = await self.prepare_fork(ref, config)
            if forking is None:
                return world
            try:
                stored = await self._store.write(forking)
            except BaseException:
                self.give_up(world)
                raise
            self.adopt(world, stored)
            return world

    async def prepare_fork(self, ref: str | UUID, config: ForkConfig) -> tuple[AsyncWorld, ForkWorld | None]:
        """Make a fork that is not stored yet, its name reserved: `adopt` it once it is, or `give_up`.

        Returns:
            The fork, and what stores it; None: it is there already, by the same request.

        Raises:
            TickwireError: As `Engine.fork_world`.
        """
        made = self._worlds.by_id.get(config.world_id)
        # A retry finds its fork after the parent's end too.
        parent_id = made.parent_id if made is not None and str(made.parent_id) == str(ref) else None
        parent_id = parent_id or self._worlds.world(ref).world_id
        name = world_name(config)
        existing = self._worlds.made_before(config.world_id, name, fork_hash(parent_id, config))
        if existing is not None:
            return existing, None
        parent = self._worlds.world(parent_id)
        self._worlds.reserved[name] = config.world_id
        try:
            return await self._prepare_fork(parent, config, name)
        except BaseException:
            self._worlds.reserved.pop(name, None)
            raise

    async def _prepare_fork(
        self, parent: AsyncWorld, config: ForkConfig, name: str
    ) -> tuple[AsyncWorld, ForkWorld]:
        history = self._store.history
        row = fork_row(parent, config, name, fork_tick(parent, config.at_tick))
        point = await asyncio.to_thread(read_point, history, row)
        pending: list[CommandRow] = []
        if config.with_pending:
            ids = [entry.id for entry in parent.acceptance.known.unsettled(row.fork_tick)]
            pending = await asyncio.to_thread(
                read_pending, self._store.command_history, row.parent_key, ids, point
            )
        state = await asyncio.to_thread(state_from, history, row, point, self._setup.vocabulary)
        world = self._assembly.forked(row, state, pending, next_entity_id=next_entity_id(pending, point))
        return world, self._store.forking(row, point, pending)

    async def prepare(self, config: WorldConfig, *, seed: int | None = None) -> AsyncWorld:
        """Make a world that is not stored yet, its name reserved: `adopt` it once it is, or `give_up`.

        Args:
            config: What it is made with. The same id with the same configuration returns the world that there is.
            seed: For a world whose configuration names none; None: drawn.

        Raises:
            TickwireError: As `Engine.create_world`.
        """
        name = world_name(config)
        request_hash = _request_hash(config)
        existing = self._worlds.made_before(config.world_id, name, request_hash)
        if existing is not None:
            return existing
        template = self._template(config.template)
        if config.seed is not None:
            seed = config.seed
        row = WorldRow(
            key=0,
            id=config.world_id.bytes,
            name=name,
            seed=secrets.randbits(52) if seed is None else seed,
            created_at_us=self._store.now_us(),
            template=config.template,
            labels=config.labels,
            retention=config.retention.stored,
            max_entities=config.max_entities or self._setup.vocabulary.limits.world_entities,
            request_hash=request_hash,
        )
        world = self._assembly.new(row)
        self._worlds.reserved[name] = config.world_id
        try:
            if template is not None:
                await template(world)
        except BaseException:
            self.give_up(world)
            raise
        return world

    def adopt(self, world: AsyncWorld, stored: WorldRow) -> None:
        """Let a world live that `prepare` made, and that is durable now."""
        world.born(stored)
        self._worlds.add(world)
        facts = {"template": stored.template} if not stored.parent_key else {"fork_tick": stored.fork_tick}
        _log.info("world made", world=world.name, world_id=str(world.world_id), **facts)

    def give_up(self, world: AsyncWorld) -> None:
        """Forget a world that `prepare` made: its name is free."""
        self._worlds.reserved.pop(world.name, None)

    async def destroy(self, world: AsyncWorld) -> None:
        """Destroy a world: see `Engine.destroy_world`."""
        await world.end()
        self.forget(world)

    async def update(
        self,
        world: AsyncWorld,
        name: str | None,
        labels: Mapping[str, str] | None,
        retention: Retention | None,
        check: Callable[[WorldRow], None],
    ) -> None:
        """Change a world's row: see `Engine.update_world`."""
        async with self._making.setdefault(world.world_id, asyncio.Lock()):
            row = world.row
            check(row)
            if name is not None and name != row.name:
                require_name(name)
                if self._worlds.is_taken(name):
                    raise self._worlds.name_taken(name)
                row = replace(row, name=name)
                self._worlds.reserved[name] = world.world_id
            if labels is not None:
                row = replace(row, labels=dict(labels))
            if retention is not None:
                row = replace(row, retention=retention.stored)
            try:
                if row != world.row:
                    world.row = await self._store.update_world(row)
            finally:
                if name is not None and self._worlds.reserved.get(name) == world.world_id:
                    self._worlds.reserved.pop(name)

    def forget(self, world: AsyncWorld) -> None:
        """Let go of a world that is destroyed in the journal; whoever waits for something of it is told."""
        self._worlds.forget(world)

    def _template(self, name: str) -> Callable[[AsyncWorld], Awaitable[None]] | None:
        if not name:
            return None
        if name not in self._setup.templates:
            known = ", ".join(sorted(self._setup.templates)) or "none"
            raise TemplateNotFoundError(
                f"no world template {name!r} in the app (there are: {known})", field="template", template=name
            )
        return self._setup.templates[name]


def _request_hash(config: WorldConfig) -> bytes:
    return xxhash.xxh3_128_digest(config.model_dump_json(exclude={"world_id"}).encode())
