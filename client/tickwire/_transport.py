"""Carries calls out over a blocking channel: serialise, try, translate errors, try again where that is safe.

Thread-safe, as gRPC channels are. Not fork-safe: make clients after forking.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import grpc

from tickwire._channel import CHANNEL_OPTIONS, ConnectionConfig
from tickwire._error_translation import from_rpc_error
from tickwire._retry import Attempts, is_retryable

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from tickwire._calls import ResultT, Streamed, Unary
    from tickwire._errors import TickwireError
    from tickwire._methods import Method, RequestT, ResponseT


class Transport:
    """A channel and how to use it. Closes the channel if it made it."""

    def __init__(self, config: ConnectionConfig, channel: grpc.Channel | None) -> None:
        self.config = config
        self._owns_channel = channel is None
        self._channel = channel if channel is not None else _open_channel(config)

    def close(self) -> None:
        """Ends what is under way, and the connection; a channel that was passed in stays open."""
        if self._owns_channel:
            self._channel.close()

    def unary(self, call: Unary[Any, Any, ResultT]) -> ResultT:
        """Carries out a call with one answer."""
        method = call.method
        invoke: Callable[..., Any] = self._channel.unary_unary(
            method.path,
            request_serializer=method.request.SerializeToString,
            response_deserializer=method.parse,
        )
        attempts = Attempts(self.config.retry)
        timeout_s = self.config.deadline_s(call.extra_s)
        while True:
            try:
                response = invoke(call.request, timeout=timeout_s, metadata=self.config.metadata)
                return call.parse(response)
            except grpc.RpcError as rpc_error:
                error = from_rpc_error(rpc_error)
                self._pause_or_raise(error, attempts, retry=call.retry, cause=rpc_error)

    def stream(self, call: Streamed[Any, Any, ResultT]) -> Generator[ResultT, None, None]:
        """Yields the answers as they come; closing the iterator cancels the call."""
        attempts = Attempts(self.config.retry)
        untouched = True
        while True:
            responses = self.open_stream(call.method, call.request)
            try:
                for response in responses:
                    untouched = False
                    yield call.parse(response)
                return
            except grpc.RpcError as rpc_error:
                error = from_rpc_error(rpc_error)
                self._pause_or_raise(error, attempts, retry=call.retry and untouched, cause=rpc_error)
            finally:
                responses.cancel()

    def collect(self, call: Streamed[Any, Any, ResultT]) -> list[ResultT]:
        """Gathers all answers; a read that breaks off half-way begins again from the start."""
        attempts = Attempts(self.config.retry)
        while True:
            try:
                return [call.parse(response) for response in self.open_stream(call.method, call.request)]
            except grpc.RpcError as rpc_error:
                error = from_rpc_error(rpc_error)
                self._pause_or_raise(error, attempts, retry=call.retry, cause=rpc_error)

    def open_stream(self, method: Method[RequestT, ResponseT], request: RequestT) -> Any:
        """Begins one try of a call with a stream of answers, without a time limit."""
        invoke: Callable[..., Any] = self._channel.unary_stream(
            method.path,
            request_serializer=method.request.SerializeToString,
            response_deserializer=method.parse,
        )
        return invoke(request, metadata=self.config.metadata)

    def _pause_or_raise(
        self, error: TickwireError, attempts: Attempts, *, retry: bool, cause: grpc.RpcError
    ) -> None:
        pause_s = attempts.pause_s(error) if retry and is_retryable(error) else None
        if pause_s is None:
            raise error from cause
        time.sleep(pause_s)


def _open_channel(config: ConnectionConfig) -> grpc.Channel:
    if config.credentials is None:
        return grpc.insecure_channel(config.target, options=CHANNEL_OPTIONS)
    return grpc.secure_channel(config.target, config.credentials, options=CHANNEL_OPTIONS)
