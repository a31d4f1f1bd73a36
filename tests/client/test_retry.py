"""The arithmetic of retries."""

from __future__ import annotations

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tickwire import CallCancelledError, InternalError, QuotaDayError, RetryPolicy, UnavailableError
from tickwire._retry import Attempts, is_disconnect, is_retryable

UNAVAILABLE = UnavailableError("gone", code=grpc.StatusCode.UNAVAILABLE)


class Clock:
    """A clock that pauses move."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@given(st.floats(0, 100), st.floats(0, 1))
def test_tries_never_begin_after_the_time_to_retry(retry_for_s: float, jitter: float) -> None:
    clock = Clock()
    attempts = Attempts(RetryPolicy(retry_for_s=retry_for_s), clock=clock, uniform=lambda: jitter)
    while (pause_s := attempts.pause_s(UNAVAILABLE)) is not None:
        clock.now += pause_s
        assert clock.now - 100 <= retry_for_s + 1e-6


def test_pauses_grow_to_their_limit() -> None:
    policy = RetryPolicy(retry_for_s=1e9, initial_backoff_s=1, max_backoff_s=10, multiplier=3)
    attempts = Attempts(policy, clock=Clock(), uniform=lambda: 1.0)
    assert [attempts.pause_s(UNAVAILABLE) for _ in range(4)] == [1, 3, 9, 10]


def test_the_server_is_not_asked_before_it_wants_to_be() -> None:
    busy = UnavailableError("busy", code=grpc.StatusCode.UNAVAILABLE, retry_delay_s=7)
    attempts = Attempts(RetryPolicy(), clock=Clock(), uniform=lambda: 0.0)
    pause_s = attempts.pause_s(busy)
    assert pause_s is not None
    assert pause_s >= 7


def test_progress_starts_the_count_anew() -> None:
    clock = Clock()
    attempts = Attempts(RetryPolicy(retry_for_s=5), clock=clock)
    assert attempts.pause_s(UNAVAILABLE) is not None
    clock.now += 60
    assert attempts.pause_s(UNAVAILABLE) is None
    attempts.succeeded()
    assert attempts.pause_s(UNAVAILABLE) is not None


@pytest.mark.parametrize(
    ("error", "retryable", "disconnect"),
    [
        (UNAVAILABLE, True, True),
        (CallCancelledError("by a server that stops", code=grpc.StatusCode.CANCELLED), True, True),
        (InternalError("reset", code=grpc.StatusCode.INTERNAL), False, True),
        (InternalError("bug", code=grpc.StatusCode.INTERNAL, reason="INTERNAL"), False, False),
        (QuotaDayError("wait", code=grpc.StatusCode.RESOURCE_EXHAUSTED, retry_delay_s=1), False, True),
        (QuotaDayError("never", code=grpc.StatusCode.RESOURCE_EXHAUSTED), False, False),
    ],
)
def test_what_may_be_tried_again(error: UnavailableError, retryable: bool, disconnect: bool) -> None:
    assert is_retryable(error) is retryable
    assert is_disconnect(error) is disconnect
