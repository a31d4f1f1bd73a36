"""The life of a subscription over any number of connections: what to ask, what has come, when to resume.

Pure: a stream (`_tick_stream`, `_aio_tick_stream`) asks it what to do, and does the waiting. It promises
that ticks come out whole, in order, once, and (unless ticks are left out on request) without gaps, whatever
happens to connections.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias, TypedDict

import grpc

from tickwire._assembler import TickAssembler
from tickwire._calls import COMPRESSIONS, CompressionName
from tickwire._errors import ProtocolError, TickwireError, UnavailableError
from tickwire._received import Received
from tickwire._retry import Attempts, RetryPolicy, is_disconnect
from tickwire._values import to_duration
from tickwire.v1 import tick_service_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tickwire._tick import Tick

StartName: TypeAlias = Literal["latest", "snapshot", "earliest"]
ModeName: TypeAlias = Literal["full", "changes"]
LagName: TypeAlias = Literal["catch_up", "skip_to_latest", "disconnect"]
OutcomesName: TypeAlias = Literal["none", "mine", "all"]

_STARTS: dict[str, pb.StartAt.ValueType] = {
    "latest": pb.START_AT_LATEST,
    "snapshot": pb.START_AT_SNAPSHOT,
    "earliest": pb.START_AT_EARLIEST,
}
_MODES: dict[str, pb.TickMode.ValueType] = {"full": pb.TICK_MODE_FULL, "changes": pb.TICK_MODE_CHANGES}
_LAGS: dict[str, pb.LagPolicy.ValueType] = {
    "catch_up": pb.LAG_POLICY_CATCH_UP,
    "skip_to_latest": pb.LAG_POLICY_SKIP_TO_LATEST,
    "disconnect": pb.LAG_POLICY_DISCONNECT,
}
_SCOPES: dict[str, pb.OutcomeScope.ValueType] = {
    "none": pb.OUTCOME_SCOPE_UNSPECIFIED,
    "mine": pb.OUTCOME_SCOPE_MINE,
    "all": pb.OUTCOME_SCOPE_ALL,
}

MISSED_HEARTBEATS = 3
# A connection that lived so long was a good one, even if the world had nothing to say.
_STEADY_S = 5.0


class ChangesOptions(TypedDict, total=False):
    """The keywords of `changes` and `state`: what of a world's ticks to stream.

    Attributes:
        from_tick: the first tick; a future one is waited for. Absent: where `at` says.
        at: "latest" (the next tick to be committed, the default), "snapshot" (the last committed tick, then
            on) or "earliest" (the oldest that is kept without gaps).
        until_tick: the last tick, after which the iteration ends; absent: no end.
        components: only archetypes that have all of these, and of them only these columns; empty: everything.
        where: a SQL condition over `component__field` and `entity_id`; only rows for which it is true.
        every: only ticks that it divides.
        lag: when this reader is too slow: "catch_up" (every tick, later; the default), "skip_to_latest" (see
            Tick.skipped) or "disconnect" (SubscriberTooSlowError).
        outcomes: of the commands each tick decided: "none" (the default), "mine" or "all" (takes the role
            operator).
        compression: of what goes over the wire.
        max_message_bytes: the size that messages aim to stay below; 0: the server's default.
        heartbeat_s: the silence after which the server sends a sign of life, 1 to 60; after three times as
            long the stream takes the connection for dead and resumes over another. Default 15.
    """

    from_tick: int | None
    at: StartName
    until_tick: int | None
    components: Sequence[str]
    where: str
    every: int
    lag: LagName
    outcomes: OutcomesName
    compression: CompressionName
    max_message_bytes: int
    heartbeat_s: float


class ViewOptions(ChangesOptions, total=False):
    """The keywords of `ticks`: those of `changes`, and what of each tick.

    Attributes:
        mode: "full" (every row, the default) or "changes" (rows that changed; see Tick.snapshot).
    """

    mode: ModeName


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What of a world's ticks to stream: `ViewOptions` with its defaults."""

    from_tick: int | None = None
    at: StartName = "latest"
    components: Sequence[str] = ()
    where: str = ""
    until_tick: int | None = None
    mode: ModeName = "full"
    every: int = 1
    lag: LagName = "catch_up"
    outcomes: OutcomesName = "none"
    compression: CompressionName = "none"
    max_message_bytes: int = 0
    heartbeat_s: float = 15.0

    def request(self, world: str, from_tick: int | None) -> pb.SubscribeRequest:
        """Asks for the view from a tick on; None: from where the view says."""
        request = pb.SubscribeRequest(
            world=world,
            components=self.components,
            where=self.where,
            mode=_MODES[self.mode],
            compression=COMPRESSIONS[self.compression],
            max_message_bytes=self.max_message_bytes,
            lag=_LAGS[self.lag],
            every=self.every,
            with_outcomes=self.outcomes != "none",
            outcome_scope=_SCOPES[self.outcomes],
            heartbeat=to_duration(self.heartbeat_s),
            until_tick=self.until_tick,
        )
        start = self.from_tick if from_tick is None else from_tick
        if start is None:
            request.at = _STARTS[self.at]
        else:
            request.from_tick = start
        return request

    @property
    def is_dense(self) -> bool:
        """Whether every tick must come."""
        return self.every <= 1 and self.lag != "skip_to_latest"


class Subscription:
    """Where a stream of ticks is. Lives as long as the stream; one caller at a time."""

    def __init__(
        self,
        world: str,
        view: View,
        policy: RetryPolicy,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._world = world
        self._view = view
        self._clock = clock
        self._attempts = Attempts(policy, clock=clock)
        self._assembler = TickAssembler(_MODES[view.mode])
        self._connected_at: float | None = None
        self.next_tick: int | None = None
        """The tick to come next; None until the server has said where the stream begins."""
        self.committed_tick = -1
        """The last durable tick that the server told of."""

    @property
    def world(self) -> str:
        """The world's id, once the server has told it; until then what the caller named it by."""
        return self._world

    @property
    def silence_limit_s(self) -> float:
        """Silence that is longer means that the connection is dead: so many heartbeats have not come."""
        return MISSED_HEARTBEATS * min(max(self._view.heartbeat_s, 1.0), 60.0)

    def connect(self) -> pb.SubscribeRequest:
        """Begins a connection: an unfinished tick is dropped, and asked for again."""
        self._assembler = TickAssembler(_MODES[self._view.mode])
        self._connected_at = None
        return self._view.request(self._world, self.next_tick)

    def receive(self, received: Received | pb.SubscribeResponse) -> list[Tick]:
        """Takes a message; answers the ticks that are whole now."""
        message, rows = received if isinstance(received, Received) else (received, None)
        if message.HasField("started"):
            self._started(message.started)
        if message.HasField("heartbeat"):
            self.committed_tick = max(self.committed_tick, message.heartbeat.committed_tick)
            self._attempts.succeeded()
        ticks = self._assembler.feed(message.chunks, rows)
        for tick in ticks:
            self._advance(tick)
        return ticks

    def ended(self) -> float | None:
        """The connection ended OK: None if the stream is done, or the seconds to wait before resuming."""
        if self._view.until_tick is not None and not self._view.is_dense:
            return None
        # The contract ends OK only after until_tick: otherwise it was something in between that ended it.
        return self.failed(_lost("the stream ended before its time"))

    def silent(self) -> float | None:
        """Heartbeats were missed: the seconds to wait before resuming."""
        return self.failed(_lost(f"nothing came for {self.silence_limit_s:g} s"))

    def failed(self, error: TickwireError) -> float | None:
        """The connection ended with an error.

        Returns:
            The seconds to wait before resuming; None: everything asked for had come already.

        Raises:
            TickwireError: the error itself, if it is not one of the connection or has lasted too long.
        """
        if self._is_complete:
            return None
        if not is_disconnect(error):
            raise error
        if self._connected_at is not None and self._clock() - self._connected_at >= _STEADY_S:
            self._attempts.succeeded()
        pause_s = self._attempts.pause_s(error)
        if pause_s is None:
            raise error
        return pause_s

    @property
    def _is_complete(self) -> bool:
        until_tick = self._view.until_tick
        return until_tick is not None and self.next_tick is not None and self.next_tick > until_tick

    def _started(self, started: pb.Started) -> None:
        self._connected_at = self._clock()
        self._world = started.world_id or self._world
        if self.next_tick is None:
            self.next_tick = started.first_tick

    def _advance(self, tick: Tick) -> None:
        expected = self.next_tick
        if expected is not None:
            if tick.tick < expected:
                raise ProtocolError(f"tick {tick.tick} came again; {expected} was to be next")
            if tick.tick > expected and self._view.is_dense:
                raise ProtocolError(f"tick {tick.tick} came where {expected} was to be next")
        self.next_tick = tick.tick + 1
        self.committed_tick = max(self.committed_tick, tick.tick)
        self._attempts.succeeded()


def _lost(what: str) -> UnavailableError:
    return UnavailableError(f"lost the connection: {what}", code=grpc.StatusCode.UNAVAILABLE)
