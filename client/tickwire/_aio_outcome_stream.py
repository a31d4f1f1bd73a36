"""The asyncio stream of outcomes. Iterate in one task, on the loop of its client."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Self

import grpc
from grpc.aio import EOF  # type: ignore[attr-defined]  # the stubs leave it out

from tickwire import _methods as methods
from tickwire._aio_transport import is_cancelling
from tickwire._error_translation import from_rpc_error

if TYPE_CHECKING:
    from types import TracebackType

    from tickwire._aio_transport import AsyncTransport
    from tickwire._models import Outcome
    from tickwire._outcome_watch import OutcomeWatch


class AsyncOutcomeStream:
    """Iterates over the outcomes of a world's commands, resuming by itself; made by `AsyncWorld.outcomes`."""

    def __init__(self, transport: AsyncTransport, watch: OutcomeWatch) -> None:
        self._transport = transport
        self._watch = watch
        self._call: Any = None
        self._closed = asyncio.Event()

    @property
    def after(self) -> int | None:
        """The outcome_seq that the next outcome follows: what `AsyncWorld.outcomes(after=...)` goes on from."""
        return self._watch.after

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Outcome:
        """Waits for the next outcome.

        Raises:
            TickwireError: the stream cannot go on; see `AsyncWorld.outcomes`.
        """
        while not self._closed.is_set():
            try:
                outcome = await self._read()
            except asyncio.CancelledError:
                # Giving up the wait (`asyncio.timeout`) costs the connection, not the place: the next resumes.
                self._hang_up()
                if self._closed.is_set() and not is_cancelling():
                    break
                raise
            except BaseException:
                await self.aclose()
                raise
            if outcome is not None:
                return outcome
        raise StopAsyncIteration

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

    async def _read(self) -> Outcome | None:
        try:
            if self._call is None:
                self._call = self._transport.open_stream(methods.WATCH_OUTCOMES, self._watch.connect())
                self._watch.began(await self._call.initial_metadata())
            message = await self._call.read()
        except grpc.RpcError as rpc_error:
            error = from_rpc_error(rpc_error)
            error.__cause__ = rpc_error
            await self._resume(self._watch.failed(error))
        else:
            if message is not EOF:
                return self._watch.receive(message)
            await self._resume(self._watch.ended())
        return None

    async def _resume(self, pause_s: float) -> None:
        self._hang_up()
        try:
            async with asyncio.timeout(pause_s):
                await self._closed.wait()
        except TimeoutError:
            pass

    def _hang_up(self) -> None:
        call, self._call = self._call, None
        if call is not None:
            call.cancel()
