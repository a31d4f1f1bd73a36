"""TickService over gRPC; Subscribe writes bytes that were encoded before, so its serializer passes them through."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from tickwire.v1 import tick_service_pb2 as pb
from tickwire.v1 import world_pb2
from tickwire_engine.archetype import MAX_ID
from tickwire_engine.errors import InvalidRequestError, RoleForbidsError, TickwireError
from tickwire_engine.sql import catalog_columns, parse_condition
from tickwire_engine.storage.retention import not_kept
from tickwire_server.auth import caller
from tickwire_server.grpc.convert import seconds, state_proto
from tickwire_server.grpc.errors import answers, writes
from tickwire_server.grpc.routing import encoded
from tickwire_server.grpc.wire import DEFAULT_MESSAGE_BYTES, MIN_MESSAGE_BYTES, summary_proto
from tickwire_server.hub import Compression, LagPolicy, Pulse, Selected, Subscription, TickMode, View
from tickwire_server.services.ticks import tick_page

if TYPE_CHECKING:
    from tickwire_engine import AsyncWorld
    from tickwire_engine.sql import SqlCondition
    from tickwire_server.container import ServiceContainer
    from tickwire_server.services.simulation import Mover

T = TypeVar("T")
DEFAULT_HEARTBEAT_S = 15.0
_MODES = {
    pb.TICK_MODE_UNSPECIFIED: TickMode.FULL,
    pb.TICK_MODE_FULL: TickMode.FULL,
    pb.TICK_MODE_CHANGES: TickMode.CHANGES,
}
_COMPRESSIONS = {
    world_pb2.COMPRESSION_UNSPECIFIED: Compression.NONE,
    world_pb2.COMPRESSION_NONE: Compression.NONE,
    world_pb2.COMPRESSION_LZ4: Compression.LZ4,
    world_pb2.COMPRESSION_ZSTD: Compression.ZSTD,
}
_LAGS = {
    pb.LAG_POLICY_UNSPECIFIED: LagPolicy.CATCH_UP,
    pb.LAG_POLICY_CATCH_UP: LagPolicy.CATCH_UP,
    pb.LAG_POLICY_SKIP_TO_LATEST: LagPolicy.SKIP_TO_LATEST,
    pb.LAG_POLICY_DISCONNECT: LagPolicy.DISCONNECT,
}
_SCOPES = {
    pb.OUTCOME_SCOPE_UNSPECIFIED: False,
    pb.OUTCOME_SCOPE_MINE: False,
    pb.OUTCOME_SCOPE_ALL: True,
}
"""Whether everybody's outcomes are meant."""


class TickServicer:
    """Every tick, in order, once, to whoever asks."""

    def __init__(
        self, container: ServiceContainer, *, max_message_bytes: int, stalled_write_s: float
    ) -> None:
        self._container = container
        self._max_message_bytes = max_message_bytes
        self._stalled_write_s = stalled_write_s

    @encoded
    @writes
    async def Subscribe(self, request: pb.SubscribeRequest, context: Any) -> None:
        """Follow a world's ticks; writes serialised `SubscribeResponse` messages."""
        container = self._container
        world = container.world_service.find(request.world)
        hub, mover = container.hub(world), container.mover(world)
        view = self._view(request)
        first_tick, last_tick = self._range(request, world)
        every = _at_least_zero(request.every, "every") or 1
        started = pb.Started(
            world_id=str(world.world_id),
            first_tick=-(-first_tick // every) * every,
            earliest_tick=world.history.earliest_tick(world.row.key),
            max_message_bytes=view.max_bytes,
            run_id=str(world.run_id) if world.state.tick else "",
        )
        cursor = hub.open(
            view,
            first_tick,
            last_tick,
            condition=self._condition(request.where),
            every=every,
            lag=_chosen(_LAGS, request.lag, "lag", "LagPolicy"),
            outcomes_of=_outcomes_of(request),
        )
        try:
            subscription = Subscription(
                hub,
                cursor,
                _pulse(world, mover, _heartbeat_s(request)),
                write=context.write,
                stopping=container.stopping,
                stalled_write_s=self._stalled_write_s,
            )
            await context.write(pb.SubscribeResponse(started=started).SerializeToString())
            await subscription.run()
        finally:
            hub.close(cursor)

    @answers
    async def ListTicks(self, request: pb.ListTicksRequest, context: Any) -> pb.ListTicksResponse:
        """List summaries, a page at a time."""
        summaries, token = await tick_page(
            self._container.world_service.find(request.world),
            request.from_tick if request.HasField("from_tick") else None,
            request.to_tick if request.HasField("to_tick") else None,
            size=request.page_size,
            token=request.page_token,
        )
        return pb.ListTicksResponse(ticks=map(summary_proto, summaries), next_page_token=token)

    def _view(self, request: pb.SubscribeRequest) -> View:
        asked = _at_least_zero(request.max_message_bytes, "max_message_bytes")
        catalog = self._container.engine.setup.vocabulary.components
        for index, name in enumerate(request.components):
            try:
                catalog.require(name)
            except TickwireError as error:
                error.field = f"components[{index}]"
                raise
        return View(
            Selected(tuple(sorted(set(request.components))), request.where),
            _chosen(_MODES, request.mode, "mode", "TickMode"),
            _chosen(_COMPRESSIONS, request.compression, "compression", "Compression"),
            min(max(asked or DEFAULT_MESSAGE_BYTES, MIN_MESSAGE_BYTES), self._max_message_bytes),
        )

    def _condition(self, where: str) -> SqlCondition | None:
        if not where:
            return None
        self._container.limits.require_sql(where, path="where")
        columns = catalog_columns(self._container.engine.setup.vocabulary.components)
        return parse_condition(where, columns, path="where")

    def _range(self, request: pb.SubscribeRequest, world: AsyncWorld) -> tuple[int, int]:
        first_tick = self._first_tick(request, world)
        last_tick = request.until_tick if request.HasField("until_tick") else MAX_ID
        if last_tick < first_tick:
            raise InvalidRequestError(
                f"until_tick {last_tick} is before the first tick {first_tick}", field="until_tick"
            )
        return first_tick, min(last_tick, MAX_ID)

    def _first_tick(self, request: pb.SubscribeRequest, world: AsyncWorld) -> int:
        if request.WhichOneof("start") == "from_tick":
            if not 0 <= request.from_tick <= MAX_ID:
                raise InvalidRequestError("from_tick must lie in [0, 2^53)", field="from_tick")
            # Also where it is in memory still: whether a stream begins is not to depend on that.
            earliest = world.history.earliest_tick(world.row.key)
            if request.from_tick < earliest:
                raise not_kept(request.from_tick, earliest, field="from_tick")
            return request.from_tick
        next_tick = world.state.tick
        if request.at == pb.START_AT_SNAPSHOT:
            return max(next_tick - 1, 0)
        if request.at == pb.START_AT_EARLIEST:
            return max(world.history.earliest_tick(world.row.key), 0)
        if request.at in (pb.START_AT_LATEST, pb.START_AT_UNSPECIFIED):
            return next_tick
        raise InvalidRequestError(f"at {request.at} is no StartAt", field="at")


def _pulse(world: AsyncWorld, mover: Mover, interval_s: float) -> Pulse:
    def status() -> tuple[object, str]:
        return mover.state, "" if mover.fault is None else mover.fault.message

    def beat() -> bytes:
        heartbeat = pb.Heartbeat(
            committed_tick=world.state.tick - 1,
            state=state_proto(mover.state),
            fault="" if mover.fault is None else mover.fault.message,
        )
        return pb.SubscribeResponse(heartbeat=heartbeat).SerializeToString()

    return Pulse(interval_s, status, beat)


def _heartbeat_s(request: pb.SubscribeRequest) -> float:
    if not request.HasField("heartbeat"):
        return DEFAULT_HEARTBEAT_S
    return min(max(seconds(request.heartbeat, field="heartbeat"), 1.0), 60.0)


def _at_least_zero(value: int, field: str) -> int:
    if value < 0:
        raise InvalidRequestError(f"{field} must not be negative", field=field)
    return value


def _chosen(table: dict[Any, T], value: int, field: str, enum: str) -> T:
    if value not in table:
        raise InvalidRequestError(f"{field} {value} is no {enum}", field=field)
    return table[value]


def _outcomes_of(request: pb.SubscribeRequest) -> str | None:
    """Return whose outcomes are asked for; "": everybody's, None: nobody's.

    Raises:
        RoleForbidsError: Everybody's, by one who may see its own only.
    """
    everybodys = _chosen(_SCOPES, request.outcome_scope, "outcome_scope", "OutcomeScope")
    if not request.with_outcomes:
        return None
    actor = caller()
    if everybodys and not actor.sees_others:
        raise RoleForbidsError(
            "you may see the outcomes of your own commands only: leave outcome_scope out",
            field="outcome_scope",
            needs="operator",
        )
    return "" if everybodys else actor.key
