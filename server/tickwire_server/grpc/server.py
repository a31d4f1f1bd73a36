"""The gRPC server: one event loop, the services of the contract, health, reflection and channelz.

It serves only once every world is loaded. On SIGTERM and SIGINT it answers NOT_SERVING, ends its streams with a status,
lets calls under way finish within the grace period, and closes the storage behind them.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
from typing import TYPE_CHECKING, Any, Self

import grpc
import grpc.aio
import structlog
from grpc_channelz.v1 import channelz, channelz_pb2_grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

from tickwire_engine.errors import InvalidRequestError, StorageFailedError, WorldNotFoundError
from tickwire_engine.sql import SqlLimits
from tickwire_engine.storage.archiver import ArchiveOptions
from tickwire_engine.storage.retention import Horizon
from tickwire_engine.storage.store import StoreOptions
from tickwire_server.auth.identities import Identities
from tickwire_server.container import ServiceContainer
from tickwire_server.grpc.gate import Gate, GatedServer, World
from tickwire_server.grpc.routing import SERVICES, method_handlers
from tickwire_server.grpc.servicers import (
    AuthServicer,
    CommandServicer,
    QueryServicer,
    ServerServicer,
    SimulationServicer,
    TickServicer,
    WorldServicer,
)
from tickwire_server.grpc.transport import bind
from tickwire_server.grpc.wire import WireEncoder
from tickwire_server.metrics import MetricsServer
from tickwire_server.services.auth import AuthService

if TYPE_CHECKING:
    from collections.abc import Callable

    from tickwire_server.app import App
    from tickwire_server.config import ServerConfig

_log = structlog.get_logger(__name__)

MAX_INT32 = (1 << 31) - 1
CHANNELZ = "grpc.channelz.v1.Channelz"
_OPTIONS = (
    # Clients may ping every 10 s, without calls too: proxies and laptops need it. The name is the library's, not that of its
    # documentation, which it passes over: a call that is silent for two minutes is lost by it.
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.so_reuseport", 0),
    ("grpc.max_send_message_length", -1),
)


class GrpcServer:
    """One listening server over one data directory.

    Attributes:
        port: The port it listens on.
        identities: Who may call, and what they did.
        metrics: The endpoint for Prometheus, if there is one.
    """

    def __init__(
        self, config: ServerConfig, container: ServiceContainer, identities: Identities, app_name: str
    ) -> None:
        self.config = config
        self.container = container
        self.identities = identities
        self.port = 0
        self.metrics: MetricsServer | None = None
        self._health = health.aio.HealthServicer()  # type: ignore[attr-defined]  # the stubs leave it out
        self._server = grpc.aio.server(
            options=(
                *_OPTIONS,
                ("grpc.keepalive_time_ms", int(config.keepalive_s * 1000)),
                ("grpc.keepalive_timeout_ms", int(config.keepalive_timeout_s * 1000)),
                # By itself it would be a minute, and the longer of the two counts.
                ("grpc.http2.ping_timeout_ms", int(config.keepalive_timeout_s * 1000)),
                # What gRPC refuses by itself has no reason and no details: it takes more, and the handlers refuse.
                ("grpc.max_receive_message_length", min(2 * config.max_receive_bytes, MAX_INT32)),
            )
        )
        self._add_services(app_name)
        self._stopped = asyncio.Event()

    @classmethod
    async def start(cls, config: ServerConfig, app: App) -> Self:
        """Load the worlds, bind and serve.

        Raises:
            InvalidRequestError: The address is taken, or off loopback without authentication or `insecure`.
            StorageError: The data directory cannot be served.
        """
        if not config.loopback and not config.insecure and not config.authenticates:
            raise InvalidRequestError(
                f"{config.listen} is reachable from other machines and no authentication is configured: "
                "ask for credentials with --auth, listen on 127.0.0.1, or pass --insecure to serve everybody "
                "as administrator"
            )
        container = await ServiceContainer.open(
            config.data,
            app,
            WireEncoder(),
            ring_bytes=config.ring_bytes,
            limits=config.limits,
            sql_limits=SqlLimits(
                seconds=config.sql_s,
                rows=config.sql_rows,
                memory_bytes=config.sql_memory_bytes,
                processes=config.sql_processes,
            ),
            options=_store_options(config),
        )
        try:
            server = cls(config, container, Identities(config, container.engine.store.identity), app.name)
            server.port = bind(server._server, config)
            container.storages.announce(f"{config.host}:{server.port}")
            server.identities.start()
            await server._server.start()
            if config.metrics:
                server.metrics = MetricsServer.start(config.metrics, container)
            await server._set_health(health_pb2.HealthCheckResponse.SERVING)
        except BaseException:
            await container.shutdown()
            raise
        _log.info(
            "serving",
            listen=f"{config.host}:{server.port}",
            metrics=server.metrics and server.metrics.port,
            tls=config.tls_cert is not None,
            auth=config.authenticates,
            worlds=len(container.storages.worlds),
        )
        return server

    async def stop(self) -> None:
        """End streams, finish calls, make everything durable, let go of the data directory."""
        if self._stopped.is_set():
            return
        _log.info("stopping", grace_s=self.config.grace_s)
        # First the event, then stop(): streaming handlers end on the event, and stop() waits for them.
        self.container.stop()
        await self._set_health(health_pb2.HealthCheckResponse.NOT_SERVING)
        await self.container.simulation_service.close()
        await self._server.stop(self.config.grace_s)
        if self.metrics is not None:
            await asyncio.to_thread(self.metrics.close)
        await self.identities.close()
        await self.container.shutdown()
        self._stopped.set()
        _log.info("stopped")

    async def _set_health(self, status: Any) -> None:
        await self._health.set("", status)
        for service in SERVICES:
            await self._health.set(service.full_name, status)

    def _add_services(self, app_name: str) -> None:
        config, container, identities = self.config, self.container, self.identities
        gate = Gate(
            identities,
            self._find_world,
            plaintext=config.tls_cert is None and not config.loopback and not config.insecure,
            certificates=config.client_ca is not None,
        )
        auth_service = AuthService(identities, container.engine.store.identity)
        servicers: dict[str, object] = {
            "AuthService": AuthServicer(auth_service),
            "CommandService": CommandServicer(container),
            "QueryService": QueryServicer(container),
            "ServerService": ServerServicer(config, app_name, auth_service),
            "SimulationService": SimulationServicer(container),
            "TickService": TickServicer(
                container,
                max_message_bytes=config.max_message_bytes,
                stalled_write_s=config.stalled_write_s,
            ),
            "WorldService": WorldServicer(container),
        }
        for service in SERVICES:
            handlers = dict(
                method_handlers(
                    service,
                    servicers.get(service.name),
                    gate,
                    max_request_bytes=config.max_receive_bytes,
                )
            )
            self._server.add_generic_rpc_handlers(
                (grpc.method_handlers_generic_handler(service.full_name, handlers),)
            )
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        gated: Any = GatedServer(self._server, gate)
        channelz_pb2_grpc.add_ChannelzServicer_to_server(channelz.aio.ChannelzServicer(), gated)  # type: ignore[attr-defined]
        names = [service.full_name for service in SERVICES]
        names += [health.SERVICE_NAME, CHANNELZ]
        reflected = reflection.aio.ReflectionServicer((*names, reflection.SERVICE_NAME))  # type: ignore[attr-defined]
        reflection_pb2_grpc.add_ServerReflectionServicer_to_server(reflected, gated)  # type: ignore[no-untyped-call]

    def _find_world(self, ref: str) -> World | None:
        try:
            world = self.container.storages.world(ref)
        except WorldNotFoundError:
            return None
        return World(str(world.world_id), world.name)


async def serve_until_signalled(
    config: ServerConfig, app: App, on_started: Callable[[GrpcServer], None] = lambda _: None
) -> None:
    """Serve until SIGTERM or SIGINT; returns once everything is closed.

    Raises:
        StorageFailedError: A sync or an I/O failed: what was acknowledged is safe, and the next start recovers.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    server = await GrpcServer.start(config, app)
    # What is loaded lives as long as the server: the collector need not look at it again and again.
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    gc.enable()
    failed = server.container.storages.failed
    ends = [asyncio.create_task(event.wait()) for event in (stop, failed)]
    try:
        on_started(server)
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in ends:
            task.cancel()
        for number in (signal.SIGTERM, signal.SIGINT):
            with contextlib.suppress(ValueError):
                loop.remove_signal_handler(number)
        await server.stop()
    if failed.is_set():
        raise StorageFailedError(
            f"storage under {config.data} failed: nothing more was acknowledged; look at the disk and start again"
        )


def _store_options(config: ServerConfig) -> StoreOptions:
    return StoreOptions(
        archive=ArchiveOptions(max_lag_bytes=config.archive_lag_bytes),
        horizon=Horizon(age_s=config.horizon_s, rows=config.horizon_commands),
        min_free_bytes=config.min_free_bytes,
        ballast_bytes=config.ballast_bytes,
    )
