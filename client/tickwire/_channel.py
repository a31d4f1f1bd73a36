"""How both clients connect: channel options, credentials, and the metadata of every call."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tickwire._calls import UNBOUNDED
from tickwire._retry import RetryPolicy

if TYPE_CHECKING:
    import grpc

DEFAULT_TARGET = "127.0.0.1:7601"
DEFAULT_TIMEOUT_S = 30.0

CHANNEL_OPTIONS: tuple[tuple[str, int], ...] = (
    # Ticks, and commands with tables, outgrow gRPC's default of 4 MiB; the server has the limits.
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    # Calls without a time limit (ticks, steps) must notice a dead peer.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.http2.max_pings_without_data", 0),
    # By default the pause between connection attempts grows to two minutes: longer than a restart, by far.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 2_000),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionConfig:
    """What a client was told about its connection.

    Attributes:
        token: sent as `authorization: Bearer`; kept out of the repr.
        timeout_s: the time limit of a try of a call that does not wait for the world.
    """

    target: str = DEFAULT_TARGET
    token: str | None = field(default=None, repr=False)
    credentials: grpc.ChannelCredentials | None = field(default=None, repr=False)
    timeout_s: float = DEFAULT_TIMEOUT_S
    retry: RetryPolicy = field(default_factory=RetryPolicy)

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """The metadata of every call."""
        return (("authorization", f"Bearer {self.token}"),) if self.token else ()

    def deadline_s(self, extra_s: float) -> float | None:
        """The time limit of one try, None for none."""
        return None if extra_s == UNBOUNDED else self.timeout_s + extra_s
