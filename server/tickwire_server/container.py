"""The wiring: the worlds' storage, the services over it and their hubs, made once and closed once.

The gRPC server serves one container; a program that needs no network uses one as it is. Lives on one event loop.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Self

from tickwire_engine import CommandBroker
from tickwire_engine.errors import InvalidRequestError
from tickwire_engine.limits import DEFAULTS, Limits
from tickwire_engine.sql import SqlLimits
from tickwire_server.app import App
from tickwire_server.hub import HubThreads, TickHub
from tickwire_server.services import (
    CommandService,
    QueryService,
    RolloutService,
    SimulationService,
    WorldService,
)
from tickwire_server.storages import Storages

if TYPE_CHECKING:
    from pathlib import Path
    from uuid import UUID

    from tickwire_engine import AsyncWorld, Engine
    from tickwire_engine.storage.store import StoreOptions
    from tickwire_server.hub import TickEncoder
    from tickwire_server.services.simulation import Mover


class ServiceContainer:
    """Everything that serves one data directory.

    Attributes:
        limits: How much may be sent to it.
        broker: Sends commands to any of the worlds.
        stopping: Set once the container is on its way out: streams end, nothing new begins.
    """

    def __init__(
        self,
        registry_path: str | Path | None = None,
        *,
        app: App | None = None,
        encoder: TickEncoder | None = None,
        ring_bytes: int = 64 << 20,
        limits: Limits = DEFAULTS,
        sql_limits: SqlLimits | None = None,
        options: StoreOptions | None = None,
    ) -> None:
        """Wire the services; the directory is opened at first use, and its worlds are found there.

        Args:
            registry_path: The data directory. None: worlds that name no storage of their own lie in a temporary
                directory, which `shutdown` removes.
            app: Components, processors, resources and templates; None: every component and processor class
                that is defined by now.
            encoder: Makes the messages of tick streams; a container without one has none.
            ring_bytes: Newest ticks of a world kept in memory for its subscribers.
            limits: How much may be sent to it.
            sql_limits: What a SQL query may take.
            options: How each directory's store behaves.
        """
        self.limits = limits
        setup = replace((app or App.of_defined_classes()).setup(limits), sql_limits=sql_limits or SqlLimits())
        self.storages = Storages(registry_path, setup, options)
        self.stopping = asyncio.Event()
        self.broker = CommandBroker(self.storages.world)
        self.simulation_service = SimulationService(self.storages, self._world_changed)
        self.world_service = WorldService(self.storages, self.simulation_service)
        self.command_service = CommandService(self.storages, self.stopping)
        self.query_service = QueryService(self.storages)
        self.rollout_service = RolloutService(self.storages, self.world_service, self.stopping)
        self._encoder = encoder
        self._ring_bytes = ring_bytes
        self._hubs: dict[UUID, TickHub] = {}
        self._hub_threads: HubThreads | None = None

    @classmethod
    async def open(
        cls,
        data: str | Path,
        app: App,
        encoder: TickEncoder,
        *,
        ring_bytes: int = 64 << 20,
        limits: Limits = DEFAULTS,
        sql_limits: SqlLimits | None = None,
        options: StoreOptions | None = None,
    ) -> Self:
        """Return a container whose worlds are loaded."""
        container = cls(
            data,
            app=app,
            encoder=encoder,
            ring_bytes=ring_bytes,
            limits=limits,
            sql_limits=sql_limits,
            options=options,
        )
        await container.storages.open()
        return container

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.shutdown()

    @property
    def engine(self) -> Engine:
        """The engine of the home directory."""
        return self.storages.home

    def hub(self, world: AsyncWorld) -> TickHub:
        """Return the hub of `world`, made at first use."""
        found = self._hubs.get(world.world_id)
        if found is None:
            if self._encoder is None:
                raise InvalidRequestError("this container was made without an encoder: it streams nothing")
            if self._hub_threads is None:
                self._hub_threads = HubThreads()
            found = self._hubs[world.world_id] = TickHub(
                world,
                world.history,
                self._encoder,
                ring_bytes=self._ring_bytes,
                threads=self._hub_threads,
            )
            # Its streams end by themselves, after the last tick.
            world.on_ended(lambda _: self._forget_hub(world))
        return found

    def hub_if_any(self, world: AsyncWorld) -> TickHub | None:
        """Return the hub of `world` where somebody needed one before: who only looks makes none."""
        return self._hubs.get(world.world_id)

    def mover(self, world: AsyncWorld) -> Mover:
        """Return what moves `world`; its changes wake the world's subscribers."""
        if self._encoder is not None:
            self.hub(world)
        return self.simulation_service.mover(world)

    def stop(self) -> None:
        """Tell every stream to end."""
        self.stopping.set()
        self.storages.stop_waiting()
        for hub in self._hubs.values():
            hub.notify()
        self.command_service.wake()

    async def shutdown(self) -> None:
        """Stop playing, make the last ticks durable and give the directories up."""
        self.stop()
        await self.simulation_service.close()
        await asyncio.to_thread(self.query_service.close)
        if self._hub_threads is not None:
            await asyncio.to_thread(self._hub_threads.close)
        await self.storages.close()

    def _forget_hub(self, world: AsyncWorld) -> None:
        self._hubs.pop(world.world_id, None)

    def _world_changed(self, world: AsyncWorld) -> None:
        hub = self._hubs.get(world.world_id)
        if hub is not None:
            hub.notify()
