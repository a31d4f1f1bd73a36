"""Metrics for Prometheus: what the worlds, their subscribers and the storage are doing, read when somebody asks.

Nothing is counted on the way of a tick or a command: a scrape looks at what the server keeps anyway, once, on the event
loop that owns it, while the HTTP server runs on a thread of its own. Calls are not counted here: proxies and meshes do
that, and channelz tells of connections.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Self

import structlog
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from tickwire_server.services.simulation import RunState

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterable
    from wsgiref.simple_server import WSGIServer

    from prometheus_client import Metric

    from tickwire_engine import AsyncWorld
    from tickwire_server.container import ServiceContainer

_log = structlog.get_logger(__name__)
_SCRAPE_S = 5.0
"""How long a scrape may wait for the event loop."""


class WorldsCollector(Collector):
    """Makes the metrics of one container when it is asked, from any thread but the container's own."""

    def __init__(self, container: ServiceContainer, loop: asyncio.AbstractEventLoop) -> None:
        self._container = container
        self._loop = loop

    def collect(self) -> Iterable[Metric]:
        """Return every metric as it is now."""
        return asyncio.run_coroutine_threadsafe(self._collect(), self._loop).result(_SCRAPE_S)

    def describe(self) -> Iterable[Metric]:
        """Name nothing in advance: that would ask the loop while it is registering this."""
        return []

    async def _collect(self) -> list[Metric]:
        worlds = Families()
        for world in self._container.storages.worlds:
            worlds.add(world, self._container)
        rows, nbytes = (sum(part) for part in zip(*self._backlogs(), strict=True))
        lacking = any(engine.store.lacks_room for engine in self._container.storages.engines)
        failed = any(engine.store.failed is not None for engine in self._container.storages.engines)
        return [
            *worlds.all,
            _gauge("archive_backlog_rows", "Committed rows that are not in LanceDB yet.", rows),
            _gauge("archive_backlog_bytes", "The same in bytes.", nbytes),
            _gauge("storage_lacks_room", "1 while ticks wait for free space on the disk.", lacking),
            _gauge("storage_failed", "1 once storage failed for good; nothing more is acknowledged.", failed),
        ]

    def _backlogs(self) -> list[tuple[int, int]]:
        return [engine.store.archiver.backlog for engine in self._container.storages.engines]


class Families:
    """One family for each fact of a world, a sample for each world."""

    def __init__(self) -> None:
        world, processor = ("world",), ("world", "processor", "path")
        self._tick = _counter("ticks", "Durable ticks.", world)
        self._entities = GaugeMetricFamily("tickwire_entities", "Active entities.", labels=world)
        self._pending = GaugeMetricFamily(
            "tickwire_pending_commands", "Commands that are accepted and in no durable tick.", labels=world
        )
        self._state = GaugeMetricFamily(
            "tickwire_world_state", "1 for the state that a world is in.", labels=("world", "state")
        )
        self._hz = GaugeMetricFamily(
            "tickwire_play_hz", "Ticks a second that Play was asked for.", labels=world
        )
        self._skipped = _counter(
            "skipped_beats", "Beats of Play that an overrun skipped, since the start.", world
        )
        self._hooks = _counter("hook_failures", "Calls of hooks that raised, since the start.", world)
        self._archived = GaugeMetricFamily(
            "tickwire_archive_lag_ticks", "Durable ticks that are not in LanceDB yet.", labels=world
        )
        self._subscribers = GaugeMetricFamily("tickwire_subscribers", "Open tick streams.", labels=world)
        self._ring = GaugeMetricFamily(
            "tickwire_ring_bytes",
            "Newest ticks in memory for subscribers, encoded copies included.",
            labels=world,
        )
        self._processor = GaugeMetricFamily(
            "tickwire_processor_seconds",
            "What a processor took in the last tick, by its path.",
            labels=processor,
        )

    @property
    def all(self) -> list[Metric]:
        """Every family."""
        return list(vars(self).values())

    def add(self, world: AsyncWorld, container: ServiceContainer) -> None:
        """Take the samples of one world."""
        label = (world.name,)
        mover = container.simulation_service.mover(world)
        state = world.state
        self._tick.add_metric(label, state.tick)
        self._entities.add_metric(label, state.entities)
        self._pending.add_metric(label, world.acceptance.pending)
        for each in RunState:
            self._state.add_metric((*label, each.value), mover.state is each)
        self._hz.add_metric(label, mover.hz)
        self._skipped.add_metric(label, mover.skipped_beats)
        self._hooks.add_metric(label, world.hooks.failures)
        archived = world.history.archived_tick(world.row.key)
        self._archived.add_metric(label, max(state.tick - 1 - archived, 0))
        hub = container.hub_if_any(world)
        self._subscribers.add_metric(label, 0 if hub is None else hub.subscribers)
        self._ring.add_metric(label, 0 if hub is None else hub.ring.held)
        for entry in state.configuration.processors:
            run = world.processor_runs.get(entry.name)
            if run is not None:
                self._processor.add_metric((*label, entry.name, run.path.lower()), run.seconds)


class MetricsServer:
    """The HTTP endpoint ``/metrics``; call `close` when its container goes."""

    def __init__(self, server: WSGIServer, thread: threading.Thread) -> None:
        self._server = server
        self._thread = thread
        self.port: int = server.server_port

    @classmethod
    def start(cls, address: str, container: ServiceContainer) -> Self | None:
        """Serve on ``host:port``; port 0 takes a free one.

        Returns:
            None where the address is taken: metrics are no reason not to serve worlds, so it is logged and that is all.
        """
        host, _, port = address.rpartition(":")
        registry = CollectorRegistry()
        registry.register(WorldsCollector(container, asyncio.get_running_loop()))
        try:
            server, thread = start_http_server(int(port), host.strip("[]"), registry)
        except OSError as error:
            _log.warning(
                "metrics are not served: set another address with --metrics or TICKWIRE_METRICS",
                address=address,
                error=error.strerror,
            )
            return None
        return cls(server, thread)

    def close(self) -> None:
        """Stop answering. Blocks until a scrape in hand is over, so call it on another thread than the loop's."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _gauge(name: str, documentation: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"tickwire_{name}", documentation, value=float(value))


def _counter(name: str, documentation: str, labels: tuple[str, ...]) -> CounterMetricFamily:
    return CounterMetricFamily(f"tickwire_{name}", documentation, labels=labels)
