"""Which worlds there are, by id and by name; those in the making, whose names are reserved; and those that have ended.

Lives as long as its engine, on its event loop.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from uuid import UUID

import structlog

from tickwire_engine.errors import (
    InvalidNameError,
    WorldExistsError,
    WorldLimitError,
    WorldNotFoundError,
)

if TYPE_CHECKING:
    from tickwire_engine.config import ForkConfig, WorldConfig
    from tickwire_engine.limits import Limits
    from tickwire_engine.storage.rows import RecoveredWorld, WorldRow
    from tickwire_engine.storage.store import Store
    from tickwire_engine.world import AsyncWorld

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class EndedWorld:
    """A world that was destroyed: what its mark in the journal tells."""

    row: WorldRow
    next_tick: int
    run_id: UUID


class LivingWorlds:
    """The worlds of one engine."""

    def __init__(self, store: Store, limits: Limits) -> None:
        self.by_id: dict[UUID, AsyncWorld] = {}
        """The living ones, oldest first."""
        self.ended: dict[UUID, EndedWorld] = {}
        self.reserved: dict[str, UUID] = {}
        """Worlds in the making, and new names of others: id by name."""
        self._store = store
        self._limits = limits
        self._named: dict[str, AsyncWorld] = {}
        """Those that were looked up by name, by the name they had."""

    def world(self, ref: str | UUID) -> AsyncWorld:
        """Return a world by id or by name.

        Raises:
            WorldNotFoundError: There is none.
        """
        found = self.by_id.get(ref) if isinstance(ref, UUID) else self._by_text(ref)
        if found is None:
            raise WorldNotFoundError(
                f"no world {str(ref)!r}; list the worlds to see which there are", world=ref
            )
        return found

    def add(self, world: AsyncWorld) -> None:
        """Let a world live that is durable."""
        self.reserved.pop(world.name, None)
        self.by_id[world.world_id] = world

    def made_before(self, world_id: UUID, name: str, request_hash: bytes) -> AsyncWorld | None:
        """Return the world that the same request made before.

        Raises:
            WorldExistsError: Another request did, or the name is taken.
            WorldLimitError: None did, and there is no room for another world.
        """
        existing = self.by_id.get(world_id)
        if existing is not None and existing.row.request_hash == request_hash:
            return existing
        if existing is not None or world_id in self.reserved.values():
            raise WorldExistsError(
                f"world {world_id} exists, made by another request", world=world_id, world_id=world_id
            )
        if self._store.has_world(world_id.bytes):
            raise WorldExistsError(
                f"world {world_id} was destroyed: a new world needs a new id",
                world=world_id,
                world_id=world_id,
            )
        if self.is_taken(name):
            raise self.name_taken(name)
        self._require_room(self._limits.worlds)
        return None

    def name_taken(self, name: str) -> WorldExistsError:
        """Return what is said to whoever wants a name that is taken."""
        living = (world.world_id for world in self.by_id.values() if world.name == name)
        return WorldExistsError(
            f"a world called {name!r} exists already",
            field="name",
            world=name,
            world_id=self.reserved.get(name) or next(living, ""),
        )

    def is_taken(self, name: str) -> bool:
        """Whether a living world has a name, or one in the making."""
        return name in self.reserved or any(world.name == name for world in self.by_id.values())

    def forget(self, world: AsyncWorld) -> None:
        """Let go of a world that is destroyed in the journal; whoever waits for something of it is told."""
        world.ended()
        self._named.clear()
        if self.by_id.pop(world.world_id, None) is not None:
            row = replace(world.row, destroyed_at_us=time.time_ns() // 1000)
            self.ended[world.world_id] = EndedWorld(row, world.tick, world.run_id)
            _log.info("world destroyed", world=world.name, world_id=str(world.world_id))

    def remember(self, recovered: RecoveredWorld) -> None:
        """Note a world of the journal that was destroyed."""
        world_id = UUID(bytes=recovered.row.id)
        run_id = UUID(bytes=recovered.run_id) if recovered.run_id else UUID(int=0)
        self.ended[world_id] = EndedWorld(recovered.row, recovered.next_tick, run_id)

    def _by_text(self, ref: str) -> AsyncWorld | None:
        found = self._named.get(ref)
        if found is not None and found.name == ref:
            return found
        world_id = _as_uuid(ref)
        if world_id is not None:
            return self.by_id.get(world_id)
        found = next((world for world in self.by_id.values() if world.name == ref), None)
        if found is not None:
            self._named[ref] = found
        return found

    def _require_room(self, most: int) -> None:
        # Those in the making count too.
        if len(self.by_id) + len(self.reserved) >= most:
            raise WorldLimitError(
                f"there are {most} worlds, as many as may be (worlds): destroy one that is not needed",
                limit=most,
            )


def _as_uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


def world_name(config: WorldConfig | ForkConfig) -> str:
    """Return the name that a new world gets.

    Raises:
        InvalidNameError: It is none.
    """
    name = config.name or f"world-{config.world_id.hex[-12:]}"
    require_name(name)
    return name


def require_name(name: str) -> None:
    """Refuse what is no world's name.

    Raises:
        InvalidNameError: It is none.
    """
    if not _NAME.fullmatch(name):
        raise InvalidNameError(
            f"{name!r} is no world name: a lower-case letter, then up to 62 of a-z, 0-9, _ and -",
            field="name",
            value=name,
        )
    if _as_uuid(name) is not None:
        raise InvalidNameError(
            f"{name!r} looks like an id: a world's name must not", field="name", value=name
        )
