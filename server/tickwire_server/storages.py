"""Where a container's worlds lie: its home directory, and further ones that worlds were told to lie in.

The home remembers the others, so that they are found again at the next start. A home of its own making is a temporary
directory, gone with the container. Lives on one event loop.
"""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from tickwire_engine import Engine
from tickwire_engine.errors import (
    FeatureOffError,
    InvalidRequestError,
    StorageError,
    WorldExistsError,
    WorldNotFoundError,
)
from tickwire_engine.storage.store import StoreOptions

if TYPE_CHECKING:
    from uuid import UUID

    from tickwire_engine import AsyncWorld, EngineSetup, ForkConfig, StorageConfig, WorldConfig
    from tickwire_engine.errors import StorageFailedError

REGISTRY = "storages.json"
"""In the home: the other directories, as a JSON list of absolute paths."""


class Storages:
    """The engines of one container, opened at first use."""

    def __init__(
        self, home: str | Path | None, setup: EngineSetup, options: StoreOptions | None = None
    ) -> None:
        """Name the home; nothing is opened yet.

        Args:
            home: A data directory; None means a temporary one.
            setup: What the application brings.
            options: How each directory's store behaves.
        """
        self._given_home = None if home is None else Path(home).resolve()
        self._setup = setup
        self._options = options or StoreOptions()
        self._listen = ""
        self.failed = asyncio.Event()
        """Set when storage failed for good in one of the directories."""
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._engines: dict[Path, Engine] = {}
        self._opening = asyncio.Lock()
        self._closed = False

    @property
    def setup(self) -> EngineSetup:
        """What the application brings."""
        return self._setup

    @property
    def home(self) -> Engine:
        """The home's engine; the first use opens everything, and holds up the event loop meanwhile."""
        if not self._engines:
            for path in self._paths():
                self._engines[path] = Engine.open_blocking(path, self._setup, self._store_options())
        return next(iter(self._engines.values()))

    @property
    def engines(self) -> list[Engine]:
        """All of them, the home's first."""
        return [self.home, *list(self._engines.values())[1:]]

    @property
    def worlds(self) -> list[AsyncWorld]:
        """The living worlds, oldest first in each directory."""
        return [world for engine in self.engines for world in engine.worlds]

    async def open(self) -> None:
        """Open everything without holding up the event loop; before the first use of anything else."""
        for path in self._paths():
            self._engines[path] = await self._open(path)

    def world(self, ref: str | UUID) -> AsyncWorld:
        """Return a world by id or by name.

        Raises:
            WorldNotFoundError: There is none in any directory.
        """
        if len(self._engines) == 1:
            return self.home.world(ref)
        return self.engine_of(ref).world(ref)

    def engine_of(self, ref: str | UUID) -> Engine:
        """Return the engine that has a world.

        Raises:
            WorldNotFoundError: None has.
        """
        for engine in self.engines[1:]:
            try:
                engine.world(ref)
            except WorldNotFoundError:
                continue
            return engine
        self.home.world(ref)
        return self.home

    async def create_world(self, config: WorldConfig, storage: StorageConfig | None) -> AsyncWorld:
        """Make a world where `storage` says, in the home without it; see `Engine.create_world`."""
        try:
            engine = self.engine_of(config.world_id)
        except WorldNotFoundError:
            engine = self.home if storage is None else await self._engine_at(storage)
            self._require_free_elsewhere(config.name, engine)
        return await engine.create_world(config)

    async def fork_world(self, ref: str | UUID, config: ForkConfig) -> AsyncWorld:
        """Fork a world, where it lies; see `Engine.fork_world`."""
        try:
            engine = self.engine_of(config.world_id)
        except WorldNotFoundError:
            engine = self.engine_of(ref)
            self._require_free_elsewhere(config.name, engine)
        return await engine.fork_world(ref, config)

    def announce(self, listen: str) -> None:
        """Tell whoever wants to serve these directories too on which address they are served."""
        self._listen = listen
        for engine in self.engines:
            engine.store.announce(listen)

    def stop_waiting(self) -> None:
        """Let ticks that wait for room on a disk fail: the container closes."""
        for engine in self._engines.values():
            engine.store.stop_waiting()

    async def close(self) -> None:
        """Make every computed tick durable and give the directories up; a temporary home is removed."""
        self._closed = True
        for engine in reversed(self._engines.values()):
            await engine.close()
        self._engines.clear()
        if self._temporary is not None:
            await asyncio.to_thread(self._temporary.cleanup)

    def _require_free_elsewhere(self, name: str, engine: Engine) -> None:
        for other in self.engines:
            if name and other is not engine and any(world.name == name for world in other.worlds):
                raise WorldExistsError(f"a world called {name!r} exists already", field="name", world=name)

    def _paths(self) -> list[Path]:
        if self._closed:
            raise InvalidRequestError("this container was shut down: make another one")
        if self._given_home is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="tickwire-")
            return [Path(self._temporary.name).resolve()]
        registry = self._given_home / REGISTRY
        others = [Path(text) for text in json.loads(registry.read_text())] if registry.exists() else []
        for path in others:
            if not path.is_dir():
                raise StorageError(
                    f"worlds of this registry lie in {path}, which is not there: bring it back, "
                    f"or take it out of {registry}"
                )
        return [self._given_home, *others]

    async def _engine_at(self, storage: StorageConfig) -> Engine:
        if "://" in storage.uri and not storage.uri.startswith("file://"):
            raise FeatureOffError(
                f"storage at {storage.uri} is not served by this version: name a local folder", field="uri"
            )
        path = (Path(storage.uri.removeprefix("file://")) / storage.namespace).resolve()
        home = self.home
        async with self._opening:
            if path in self._engines:
                return self._engines[path]
            engine = await self._open(path)
            self._engines[path] = engine
            if self._temporary is None:
                await asyncio.to_thread(self._remember, home)
            return engine

    async def _open(self, path: Path) -> Engine:
        engine = await Engine.open(path, self._setup, options=self._store_options())
        if self._listen:
            engine.store.announce(self._listen)
        return engine

    def _store_options(self) -> StoreOptions:
        loop = asyncio.get_running_loop()

        def note_failure(_: StorageFailedError) -> None:
            loop.call_soon_threadsafe(self.failed.set)

        return replace(self._options, on_failure=note_failure)

    def _remember(self, home: Engine) -> None:
        paths = [str(path) for path, engine in self._engines.items() if engine is not home]
        assert self._given_home is not None
        target = self._given_home / REGISTRY
        copy = target.with_suffix(".new")
        with copy.open("w") as file:
            json.dump(paths, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        copy.replace(target)
        directory = os.open(self._given_home, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
