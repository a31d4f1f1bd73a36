"""Pipelined submits over one stream that outlives its connections.

Requests are answered in order; what was not answered when a connection ends is sent again over the next,
with the same ids, so nothing is lost or applied twice.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import grpc
from grpc.aio import EOF  # type: ignore[attr-defined]  # the stubs leave it out

from tickwire import _calls as calls
from tickwire import _methods as methods
from tickwire._error_translation import from_rpc_error, from_status
from tickwire._errors import TickwireError, UnavailableError
from tickwire._retry import Attempts, is_disconnect

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType

    from tickwire._aio_transport import AsyncTransport
    from tickwire._calls import Wait
    from tickwire._models import Receipt
    from tickwire.commands import Command
    from tickwire.v1 import command_service_pb2 as pb


@dataclass(frozen=True, slots=True, eq=False)
class _InFlight:
    request: pb.SubmitStreamRequest
    answer: asyncio.Future[list[Receipt]]


class SubmitStream:
    """A pipeline of submits; made by `AsyncWorld.submit_stream`, for any tasks of its loop.

    async with world.submit_stream() as stream:
        answers = [await stream.send([command]) for command in commands]
        receipts = [await answer for answer in answers]
    """

    def __init__(self, transport: AsyncTransport, world: str, *, window: int) -> None:
        self._transport = transport
        self._world = world
        self._window = window
        self._unanswered: deque[_InFlight] = deque()
        self._changed = asyncio.Condition()
        self._closing = False
        self._failure: TickwireError | None = None
        self._written = 0
        self._driver: asyncio.Task[None] | None = None

    async def send(
        self,
        commands: Iterable[Command],
        *,
        allow_partial: bool = False,
        wait: Wait = "accepted",
        max_wait_s: float | None = None,
    ) -> asyncio.Future[list[Receipt]]:
        """Sends commands, atomic by themselves as in `submit`; waits only while the window is full.

        Args:
            commands: those without an id are given one.
            allow_partial: as in `submit`.
            wait: as in `submit`; it delays the answers behind this one, not their journaling.
            max_wait_s: the bound of that wait; None: none.

        Returns:
            A future of the receipts, or of the error with which this request failed whole.

        Raises:
            TickwireError: the stream has failed for good.
        """
        request = calls.submit_stream_request(
            self._world, commands, allow_partial=allow_partial, wait=wait, max_wait_s=max_wait_s
        )
        answer: asyncio.Future[list[Receipt]] = asyncio.get_running_loop().create_future()
        async with self._changed:
            await self._changed.wait_for(lambda: self._failure or len(self._unanswered) < self._window)
            if self._failure is not None:
                raise self._failure
            if self._closing:
                raise RuntimeError("the stream is closed")
            self._unanswered.append(_InFlight(request, answer))
            self._changed.notify_all()
        return answer

    async def aclose(self) -> None:
        """Waits for all answers, then ends the stream.

        Raises:
            TickwireError: the stream failed before everything was answered.
        """
        async with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._driver is not None:
            await self._driver
        if self._failure is not None:
            raise self._failure

    async def __aenter__(self) -> Self:
        self._driver = asyncio.create_task(self._drive(), name="tickwire-submit-stream")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            await self.aclose()
        elif self._driver is not None:
            self._driver.cancel()
            await asyncio.gather(self._driver, return_exceptions=True)

    async def _drive(self) -> None:
        attempts = Attempts(self._transport.config.retry)
        try:
            while await self._has_work():
                error = await self._connection(attempts)
                if error is None:
                    continue
                pause_s = attempts.pause_s(error) if is_disconnect(error) else None
                if pause_s is None:
                    await self._fail(error)
                    return
                await asyncio.sleep(pause_s)
        finally:
            for in_flight in self._unanswered:
                in_flight.answer.cancel()

    async def _has_work(self) -> bool:
        """Waits for a request that is not answered; False: the stream is closing, and there is none."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._unanswered or self._closing)
            return bool(self._unanswered)

    async def _connection(self, attempts: Attempts) -> TickwireError | None:
        """Sends and receives until the connection ends; answers how, None being well."""
        self._written = 0
        call = self._transport.open_duplex(methods.SUBMIT_STREAM)
        writer = asyncio.create_task(self._write(call), name="tickwire-submit-stream-writer")
        try:
            while (response := await call.read()) is not EOF:
                attempts.succeeded()
                await self._answer(response)
        except grpc.RpcError as rpc_error:
            error = from_rpc_error(rpc_error)
            error.__cause__ = rpc_error
            return error
        finally:
            writer.cancel()
            await asyncio.gather(writer, return_exceptions=True)
            call.cancel()
        if self._unanswered:
            return UnavailableError(
                "the stream ended with requests unanswered", code=grpc.StatusCode.UNAVAILABLE
            )
        return None

    async def _write(self, call: Any) -> None:
        while True:
            async with self._changed:
                await self._changed.wait_for(lambda: self._written < len(self._unanswered) or self._closing)
                if self._written == len(self._unanswered):
                    break
                in_flight = self._unanswered[self._written]
                self._written += 1
            await call.write(in_flight.request)
        await call.done_writing()

    async def _answer(self, response: pb.SubmitStreamResponse) -> None:
        async with self._changed:
            in_flight = self._unanswered.popleft()
            self._written -= 1
            self._changed.notify_all()
        if in_flight.answer.done():
            return
        if response.HasField("error"):
            in_flight.answer.set_exception(from_status(response.error))
        else:
            in_flight.answer.set_result(calls.receipts_of(response.receipts))

    async def _fail(self, error: TickwireError) -> None:
        async with self._changed:
            self._failure = error
            failed = [in_flight.answer for in_flight in self._unanswered]
            self._unanswered.clear()
            self._changed.notify_all()
        for answer in failed:
            if not answer.done():
                answer.set_exception(error)
