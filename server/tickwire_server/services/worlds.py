"""WorldService: which worlds there are, and what they look like now."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from tickwire_engine import ForkConfig
from tickwire_engine.archetype import archetype_name
from tickwire_engine.errors import (
    EtagMismatchError,
    InvalidNameError,
    InvalidPageTokenError,
    InvalidRequestError,
    WorldExistsError,
    WorldNotFoundError,
)
from tickwire_engine.storage.retention import Retention
from tickwire_server.auth import caller
from tickwire_server.auth.actor import as_id
from tickwire_server.services.simulation import RunState

if TYPE_CHECKING:
    from collections.abc import Mapping
    from uuid import UUID

    from tickwire_engine import AsyncWorld, ComponentType, StorageConfig, TickwireError, WorldConfig
    from tickwire_engine.storage.rows import WorldRow
    from tickwire_server.services.simulation import SimulationService
    from tickwire_server.storages import Storages

DEFAULT_PAGE = 100
MAX_PAGE = 1_000


@dataclass(frozen=True, slots=True)
class ArchetypeView:
    """One archetype as it is now."""

    name: str
    components: tuple[str, ...]
    entities: int
    schema: bytes


@dataclass(frozen=True, slots=True)
class ResourceView:
    """One resource; the value of one that is no pydantic model is not shown."""

    name: str
    type: str
    value: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class WorldChanges:
    """What is to be changed of a world; None: that stays as it is."""

    name: str | None = None
    labels: Mapping[str, str] | None = None
    retention: Mapping[str, int] | None = None
    """The fields of `Retention` that change."""


@dataclass(frozen=True, slots=True)
class WorldView:
    """A world as it is now: durable facts only."""

    world_id: UUID
    name: str
    tick: int
    run_id: UUID
    state: RunState
    hz: float
    entities: int
    archetypes: tuple[ArchetypeView, ...]
    seed: int
    created_at_us: int
    fault: TickwireError | None
    labels: Mapping[str, str]
    retention: Mapping[str, int]
    pending_commands: int
    earliest_tick: int
    archived_tick: int
    max_entities: int
    parent_id: UUID | None
    fork_tick: int
    etag: str


class WorldService:
    """Makes and finds worlds."""

    def __init__(self, storages: Storages, simulation: SimulationService) -> None:
        self._storages = storages
        self._simulation = simulation

    async def create_world(
        self, world_config: WorldConfig, storage_config: StorageConfig | None = None
    ) -> AsyncWorld:
        """Make a world; the same id with the same configuration returns the world that there is.

        Args:
            world_config: Its identity, its limits and the template that fills it.
            storage_config: Where it lies; None: in the container's own directory.

        Raises:
            WorldForbiddenError: The name is outside of the caller's globs.
            InvalidNameError: The name does not fit the pattern.
            WorldExistsError: The name is taken, or the id with another configuration.
            TemplateNotFoundError: The application has no such template.
            FeatureOffError: The storage is not local.
        """
        name = world_config.name or f"world-{world_config.world_id.hex[-12:]}"
        caller().require_name(name, field="name")
        return await self._storages.create_world(world_config, storage_config)

    async def fork_world(self, world_id: UUID | str, fork_config: ForkConfig | None = None) -> AsyncWorld:
        """Make a world whose history up to a tick is that of another; no rows are copied.

        The same id with the same request returns the fork that there is.

        Args:
            world_id: The parent, by id or name.
            fork_config: What is the fork's own; None: all of it made or drawn, at the last committed tick.

        Raises:
            WorldForbiddenError: The name is outside of the caller's globs.
            WorldNotFoundError: There is no such parent.
            TickNotKeptError: The tick is no longer kept.
            TickInTheFutureError: The tick is not durable yet.
            InvalidNameError: The name does not fit the pattern.
            WorldExistsError: The name is taken, or the id by another request.
        """
        config = fork_config or ForkConfig()
        name = config.name or f"world-{config.world_id.hex[-12:]}"
        caller().require_name(name, field="name")
        return await self._storages.fork_world(world_id, config)

    def get_world(self, world_id: UUID | str) -> AsyncWorld:
        """Return a world by id.

        Raises:
            WorldNotFoundError: There is none.
        """
        return self._storages.world(world_id)

    def get_world_by_name(self, name: str) -> AsyncWorld:
        """Return a world by name.

        Raises:
            WorldNotFoundError: There is none.
        """
        return self._storages.world(name)

    def list_worlds(self) -> list[AsyncWorld]:
        """Return the living worlds, oldest first."""
        return self._storages.worlds

    async def remove_world(self, world_id: UUID | str) -> None:
        """Destroy a world after the tick in hand: its pending commands are void, its name is free again.

        Raises:
            WorldNotFoundError: There is none.
        """
        world = self._storages.world(world_id)
        await self._simulation.forget(world)
        await self._storages.engine_of(world.world_id).destroy_world(world.world_id)

    def find(self, ref: str) -> AsyncWorld:
        """Return a world by id or name.

        Raises:
            InvalidRequestError: `ref` is empty.
            WorldForbiddenError: The name is outside of the caller's globs.
            WorldNotFoundError: There is none, or the caller may not know.
        """
        if not ref:
            raise InvalidRequestError("world must be given: an id or a name", field="world")
        actor = caller()
        if actor.worlds.everything:
            return self._storages.world(ref)
        if as_id(ref) is None:
            actor.require_name(ref)
        world = self._storages.world(ref)
        actor.require_found(ref, world.name)
        return world

    def parent(self, ref: str, fork_id: UUID) -> UUID:
        """Return the id of the world to be forked, as `find`; of one that is gone too, if that fork of it is there.

        Raises:
            TickwireError: As `find`.
        """
        try:
            return self.find(ref).world_id
        except WorldNotFoundError:
            parent_id = as_id(ref)
            if parent_id is None or self.name_of(fork_id) is None:
                raise
            if self._storages.world(fork_id).parent_id != parent_id:
                raise
            self.find(str(fork_id))
            return parent_id

    def name_of(self, world_id: UUID) -> str | None:
        """Return a world's name, whoever asks; None where there is none of that id."""
        try:
            return self._storages.world(world_id).name
        except WorldNotFoundError:
            return None

    def page(
        self, labels: Mapping[str, str], *, page_size: int, page_token: str
    ) -> tuple[list[WorldView], str]:
        """Return a page of the worlds that the caller may reach, oldest first, and the next page's token.

        Args:
            labels: Only worlds that carry them all.
            page_size: At most so many; 0: 100.
            page_token: Of the page before.
        """
        if page_size < 0:
            raise InvalidRequestError("page_size must not be negative", field="page_size")
        size = min(page_size or DEFAULT_PAGE, MAX_PAGE)
        after = _read_token(page_token, labels)
        actor = caller()
        wanted = [
            world
            for world in sorted(self._storages.home.worlds, key=lambda world: world.row.key)
            if world.row.key > after
            and actor.may_enter(world.name)
            and all(world.row.labels.get(k) == v for k, v in labels.items())
        ]
        page = wanted[:size]
        token = _make_token(page[-1].row.key, labels) if len(wanted) > size else ""
        return [self.view(world) for world in page], token

    async def register_component(self, entry: ComponentType, *, with_defaults: bool) -> ComponentType:
        """Define a component for all worlds, or let it grow; see `Engine.register_component`."""
        return await self._storages.home.register_component(entry, with_defaults=with_defaults)

    def resources(self, world: AsyncWorld) -> list[ResourceView]:
        """Describe the resources in force at the last committed tick that the app registered or a command set."""
        configured = {entry.name: entry for entry in world.state.configuration.resources}
        views = {
            name: ResourceView(name, name, entry.value)
            for name, entry in configured.items()
            if entry.value is not None
        }
        for name, kind in self._storages.setup.vocabulary.resources:
            found = world.resources.inserted(kind)
            if found is not None and name not in configured:
                value = found.model_dump(mode="json") if isinstance(found, BaseModel) else {}
                views[name] = ResourceView(name, kind.__name__, value)
        return [views[name] for name in sorted(views)]

    async def update(self, ref: str, changes: WorldChanges, *, etag: str = "") -> WorldView:
        """Change a world's name, labels or retention: all of them or none, durably.

        Args:
            ref: Its id or name.
            changes: What to change.
            etag: As the caller saw it last; "": whatever it is.

        Raises:
            EtagMismatchError: The world was changed since.
            WorldForbiddenError: The world, or its new name, is outside of the caller's globs.
            TickwireError: As `find`, and `Engine.update_world`.
        """
        world = self.find(ref)
        if changes.name is not None:
            caller().require_name(changes.name, field="changes.name")

        def check(row: WorldRow) -> None:
            now = _etag(row)
            if etag and etag != now:
                raise EtagMismatchError(
                    f"world {row.name} was changed since you looked at it: look again, and send its etag",
                    field="etag",
                    world=row.name,
                    etag=now,
                )

        engine = self._storages.engine_of(world.world_id)
        retention = None
        if changes.retention is not None:
            retention = replace(Retention.of(world.row.retention), **changes.retention)
        try:
            await engine.update_world(
                world,
                name=changes.name,
                labels=changes.labels,
                retention=retention,
                check=check,
            )
        except (InvalidNameError, WorldExistsError) as error:
            error.field = "changes.name"
            raise
        return self.view(world)

    async def destroy(self, ref: str) -> WorldView:
        """Destroy a world after the tick in hand, and describe it at its end; one that was destroyed, by its id, too.

        Raises:
            TickwireError: As `find`.
        """
        try:
            world = self.find(ref)
        except WorldNotFoundError:
            ended = self._ended(ref)
            if ended is None:
                raise
            return ended
        await self.remove_world(world.world_id)
        ended = self._ended(str(world.world_id))
        assert ended is not None
        return ended

    def look(self, ref: str) -> WorldView:
        """Describe a world; one that was destroyed is found by its id.

        Raises:
            TickwireError: As `find`.
        """
        try:
            return self.view(self.find(ref))
        except WorldNotFoundError:
            ended = self._ended(ref)
            if ended is None:
                raise
            return ended

    def _ended(self, ref: str) -> WorldView | None:
        world_id = as_id(ref)
        if world_id is None:
            return None
        found = (engine.ended(world_id) for engine in self._storages.engines)
        ended = next((each for each in found if each is not None), None)
        if ended is None or not caller().may_enter(ended.row.name):
            return None
        row = ended.row
        return WorldView(
            world_id=world_id,
            name=row.name,
            tick=ended.next_tick,
            run_id=ended.run_id,
            state=RunState.DESTROYED,
            hz=0.0,
            entities=0,
            archetypes=(),
            seed=row.seed,
            created_at_us=row.created_at_us,
            fault=None,
            labels=row.labels,
            retention=row.retention,
            pending_commands=0,
            earliest_tick=ended.next_tick,
            archived_tick=-1,
            max_entities=row.max_entities,
            parent_id=None,
            fork_tick=-1,
            etag=_etag(row),
        )

    def view(self, world: AsyncWorld) -> WorldView:
        """Describe a world."""
        mover = self._simulation.mover(world)
        state = world.state
        return WorldView(
            world_id=world.world_id,
            name=world.name,
            tick=state.tick,
            run_id=world.run_id,
            state=mover.state,
            hz=mover.hz,
            entities=state.entities,
            archetypes=tuple(
                ArchetypeView(archetype_name(sig), sig, entities, state.streams[sig].schema)
                for sig, entities in sorted(state.entity_counts.items())
            ),
            seed=world.row.seed,
            created_at_us=world.row.created_at_us,
            fault=mover.fault,
            labels=world.row.labels,
            retention=world.row.retention,
            pending_commands=world.acceptance.pending,
            earliest_tick=world.history.earliest_tick(world.row.key),
            archived_tick=world.history.archived_tick(world.row.key),
            max_entities=world.row.max_entities,
            parent_id=world.parent_id,
            fork_tick=world.row.fork_tick,
            etag=_etag(world.row),
        )


def _etag(row: WorldRow) -> str:
    facts = f"{row.name} {sorted(row.labels.items())} {sorted(row.retention.items())}"
    return hashlib.blake2b(facts.encode(), digest_size=8).hexdigest()


def _make_token(after: int, filters: Mapping[str, str]) -> str:
    return base64.urlsafe_b64encode(json.dumps([after, sorted(filters.items())]).encode()).decode()


def _read_token(token: str, filters: Mapping[str, str]) -> int:
    if not token:
        return 0
    try:
        after, bound = json.loads(base64.urlsafe_b64decode(token.encode()))
        if bound == [list(item) for item in sorted(filters.items())]:
            return int(after)
    except (ValueError, TypeError):
        pass
    raise InvalidPageTokenError(
        "this page_token was not made for this request: start over without one", field="page_token"
    )
