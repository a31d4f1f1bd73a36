"""When a call is tried again, and after how long: pure arithmetic, shared by both clients.

Only calls that the contract calls safe are ever retried (reads, submits with ids, CreateWorld with an id,
Step, Run and Play with `expected_tick`), and only on UNAVAILABLE, or on CANCELLED by nobody. What a server asks for in
RetryInfo is honoured.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc

if TYPE_CHECKING:
    from collections.abc import Callable

    from tickwire._errors import TickwireError

_BROKEN_CONNECTION = frozenset(
    {
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNKNOWN,
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How long and how often safe calls are retried.

    Attributes:
        retry_for_s: seconds after the first failure within which tries may begin; 0: no retries. A stream of
            ticks counts anew after each message.
        initial_backoff_s: seconds before the second try.
        max_backoff_s: the longest pause that backoff grows to; RetryInfo may ask for longer.
        multiplier: growth of the pause from one try to the next.
    """

    retry_for_s: float = 30.0
    initial_backoff_s: float = 0.1
    max_backoff_s: float = 5.0
    multiplier: float = 2.0


class Attempts:
    """The tries of one call. Lives as long as the call; belongs to the thread or task that makes it."""

    def __init__(
        self,
        policy: RetryPolicy,
        *,
        clock: Callable[[], float] = time.monotonic,
        # Jitter against herds, not a secret.
        uniform: Callable[[], float] = random.random,
    ) -> None:
        self._policy = policy
        self._clock = clock
        self._uniform = uniform
        self._failures = 0
        self._first_failure_at = 0.0

    @property
    def failures(self) -> int:
        """How many tries have failed since the last progress."""
        return self._failures

    def succeeded(self) -> None:
        """Forgets the failures so far: the next one is a first one."""
        self._failures = 0

    def pause_s(self, error: TickwireError) -> float | None:
        """Counts a failure that may be retried, and says how long to wait.

        Returns:
            Seconds, between half and the whole of the backoff, after what RetryInfo asks for; None: the time
            to retry is over, so raise the error.
        """
        now = self._clock()
        if self._failures == 0:
            self._first_failure_at = now
        grown = self._policy.initial_backoff_s * self._policy.multiplier ** min(self._failures, 60)
        self._failures += 1
        backoff = min(grown, self._policy.max_backoff_s) * (0.5 + 0.5 * self._uniform())
        pause = backoff + (error.retry_delay_s or 0.0)
        if now - self._first_failure_at + pause > self._policy.retry_for_s:
            return None
        return pause


def is_retryable(error: TickwireError) -> bool:
    """Whether a safe call may be tried again after this error.

    A server that stops cancels calls that reached it too late, without a reason: nobody else cancels a call that its
    caller still waits for.
    """
    return error.code is grpc.StatusCode.UNAVAILABLE or (
        error.code is grpc.StatusCode.CANCELLED and not error.reason
    )


def is_disconnect(error: TickwireError) -> bool:
    """Whether a stream that ended so may be resumed: the connection is gone, the request is not at fault.

    A tickwire server names a reason with each error. Codes without one come from what lies between: a reset
    stream, a proxy's time limit, a dead connection.
    """
    if error.code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        return error.retry_delay_s is not None
    return is_retryable(error) or (error.code in _BROKEN_CONNECTION and not error.reason)
