"""The asyncio stream of ticks. Iterate in one task, on the loop of its client."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, Self

import grpc
from grpc.aio import EOF  # type: ignore[attr-defined]  # the stubs leave it out

from tickwire import _methods as methods
from tickwire._aio_transport import is_cancelling
from tickwire._error_translation import from_rpc_error

if TYPE_CHECKING:
    from types import TracebackType

    from tickwire._aio_transport import AsyncTransport
    from tickwire._subscription import Subscription
    from tickwire._tick import Tick


class AsyncTickStream:
    """Iterates over the ticks of a world, resuming by itself; made by `AsyncWorld.ticks`."""

    def __init__(self, transport: AsyncTransport, subscription: Subscription) -> None:
        self._transport = transport
        self._subscription = subscription
        self._ready: deque[Tick] = deque()
        self._call: Any = None
        self._closed = asyncio.Event()

    @property
    def next_tick(self) -> int | None:
        """The tick that the server will send next; None until it has said where the stream begins."""
        return self._subscription.next_tick

    @property
    def committed_tick(self) -> int:
        """The world's last durable tick, as far as the stream has heard: how far this reader is behind."""
        return self._subscription.committed_tick

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Tick:
        """Waits for the next tick.

        Raises:
            TickwireError: the stream cannot go on; see `AsyncWorld.ticks`.
        """
        while not self._ready:
            if self._closed.is_set():
                raise StopAsyncIteration
            try:
                await self._read()
            except asyncio.CancelledError:
                # Giving up the wait (`asyncio.timeout`) costs the connection, not the place: the next resumes.
                self._hang_up()
                if self._closed.is_set() and not is_cancelling():
                    raise StopAsyncIteration from None
                raise
            except BaseException:
                await self.aclose()
                raise
        return self._ready.popleft()

    async def aclose(self) -> None:
        """Ends the stream; a read that waits in another task ends too."""
        self._closed.set()
        self._hang_up()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _read(self) -> None:
        if self._call is None:
            self._call = self._transport.open_stream(methods.SUBSCRIBE, self._subscription.connect())
        try:
            async with asyncio.timeout(self._subscription.silence_limit_s):
                message = await self._call.read()
        except TimeoutError:
            await self._resume(self._subscription.silent())
        except grpc.RpcError as rpc_error:
            error = from_rpc_error(rpc_error)
            error.__cause__ = rpc_error
            await self._resume(self._subscription.failed(error))
        else:
            if message is EOF:
                await self._resume(self._subscription.ended())
            else:
                self._ready.extend(self._subscription.receive(message))

    async def _resume(self, pause_s: float | None) -> None:
        self._hang_up()
        if pause_s is None:
            self._closed.set()
            return
        try:
            async with asyncio.timeout(pause_s):
                await self._closed.wait()
        except TimeoutError:
            pass

    def _hang_up(self) -> None:
        call, self._call = self._call, None
        if call is not None:
            call.cancel()
