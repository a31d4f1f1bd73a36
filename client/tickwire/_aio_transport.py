"""Carries calls out over an asyncio channel: as `_transport`, on the event loop of the caller.

The channel is opened by the first call, on whose loop the client then lives.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from tickwire._channel import CHANNEL_OPTIONS, ConnectionConfig
from tickwire._error_translation import from_rpc_error
from tickwire._retry import Attempts, is_retryable

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from tickwire._calls import ResultT, Streamed, Unary
    from tickwire._errors import TickwireError
    from tickwire._methods import Method, RequestT, ResponseT


class AsyncTransport:
    """A channel and how to use it. Closes the channel if it made it."""

    def __init__(self, config: ConnectionConfig, channel: grpc.aio.Channel | None) -> None:
        self.config = config
        self._owns_channel = channel is None
        self._open_channel = channel

    async def close(self) -> None:
        """Ends what is under way, and the connection; a channel that was passed in stays open."""
        if self._owns_channel and self._open_channel is not None:
            await self._open_channel.close(None)

    async def unary(self, call: Unary[Any, Any, ResultT]) -> ResultT:
        """Carries out a call with one answer."""
        method = call.method
        invoke = self._channel.unary_unary(
            method.path,
            request_serializer=method.request.SerializeToString,
            response_deserializer=method.parse,
        )
        attempts = Attempts(self.config.retry)
        timeout_s = self.config.deadline_s(call.extra_s)
        while True:
            try:
                response = await invoke(call.request, timeout=timeout_s, metadata=self.config.metadata)
                return call.parse(response)
            except grpc.RpcError as rpc_error:
                error = from_rpc_error(rpc_error)
                await self._pause_or_raise(error, attempts, retry=call.retry, cause=rpc_error)

    async def stream(self, call: Streamed[Any, Any, ResultT]) -> AsyncGenerator[ResultT, None]:
        """Yields the answers as they come; closing the iterator cancels the call."""
        attempts = Attempts(self.config.retry)
        untouched = True
        while True:
            responses = self.open_stream(call.method, call.request)
            try:
                async for response in responses:
                    untouched = False
                    yield call.parse(response)
                return
            except grpc.RpcError as rpc_error:
                error = from_rpc_error(rpc_error)
                await self._pause_or_raise(error, attempts, retry=call.retry and untouched, cause=rpc_error)
            finally:
                responses.cancel()

    async def collect(self, call: Streamed[Any, Any, ResultT]) -> list[ResultT]:
        """Gathers all answers; a read that breaks off half-way begins again from the start."""
        attempts = Attempts(self.config.retry)
        while True:
            responses = self.open_stream(call.method, call.request)
            try:
                return [call.parse(response) async for response in responses]
            except grpc.RpcError as rpc_error:
                error = from_rpc_error(rpc_error)
                await self._pause_or_raise(error, attempts, retry=call.retry, cause=rpc_error)
            finally:
                responses.cancel()

    def open_stream(self, method: Method[RequestT, ResponseT], request: RequestT) -> Any:
        """Begins one try of a call with a stream of answers, without a time limit."""
        invoke: Any = self._channel.unary_stream(
            method.path,
            request_serializer=method.request.SerializeToString,
            response_deserializer=method.parse,
        )
        return invoke(request, metadata=self.config.metadata)

    def open_duplex(self, method: Method[RequestT, ResponseT]) -> Any:
        """Begins one try of a call with streams both ways, without a time limit."""
        invoke: Any = self._channel.stream_stream(
            method.path,
            request_serializer=method.request.SerializeToString,
            response_deserializer=method.parse,
        )
        return invoke(metadata=self.config.metadata)

    @property
    def _channel(self) -> grpc.aio.Channel:
        if self._open_channel is None:
            self._open_channel = _open_channel(self.config)
        return self._open_channel

    async def _pause_or_raise(
        self, error: TickwireError, attempts: Attempts, *, retry: bool, cause: grpc.RpcError
    ) -> None:
        pause_s = attempts.pause_s(error) if retry and is_retryable(error) else None
        if pause_s is None:
            raise error from cause
        await asyncio.sleep(pause_s)


def _open_channel(config: ConnectionConfig) -> grpc.aio.Channel:
    if config.credentials is None:
        return grpc.aio.insecure_channel(config.target, options=CHANNEL_OPTIONS)
    return grpc.aio.secure_channel(config.target, config.credentials, options=CHANNEL_OPTIONS)


def is_cancelling() -> bool:
    """Tell whether the task that asks was cancelled, and not only the call that it waits for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
