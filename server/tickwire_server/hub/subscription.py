"""One subscription from its first message to its end: ticks, heartbeats, lag. On the event loop; knows no gRPC."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tickwire_engine.errors import ShuttingDownError
from tickwire_server.hub.tick_hub import too_slow
from tickwire_server.hub.view import LagPolicy

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable

    from tickwire_server.hub.cursor import Cursor
    from tickwire_server.hub.tick_hub import Outgoing, TickHub


@dataclass(frozen=True, slots=True)
class Pulse:
    """When a subscription says that it lives.

    Attributes:
        interval_s: After so much silence.
        status: What it tells; when this changes, it says so at once.
        beat: Makes the message.
    """

    interval_s: float
    status: Callable[[], Hashable]
    beat: Callable[[], bytes]


class Subscription:
    """Follows a world's hub, and writes."""

    def __init__(
        self,
        hub: TickHub,
        cursor: Cursor,
        pulse: Pulse,
        *,
        write: Callable[[bytes], Awaitable[None]],
        stopping: asyncio.Event,
        stalled_write_s: float,
    ) -> None:
        """Prepare to follow.

        Args:
            stalled_write_s: A subscriber with the lag policy DISCONNECT that takes longer for one message is too slow.
        """
        self._hub = hub
        self._cursor = cursor
        self._pulse = pulse
        self._send = write
        self._stopping = stopping
        self._stalled_write_s = stalled_write_s
        self._told = pulse.status()
        self._last_sent = asyncio.get_running_loop().time()
        self._next_tick = cursor.next_tick
        self._stalled = False

    async def run(self) -> None:
        """Write until the last tick that was asked for is sent.

        Raises:
            ShuttingDownError: The server stops; metadata ``next_tick`` says where to go on.
            SubscriberTooSlowError: It reads too slowly, and asked to be told so.
            TickNotKeptError: Retention has overtaken it.
            TickwireError: The world ended, and its last tick is sent.
        """
        hub, cursor = self._hub, self._cursor
        while True:
            # What is taken counts as sent, so it is sent, even while the server stops.
            for message in await self._pulled():
                # A message that gRPC has is sent before anything that ends the stream.
                self._next_tick = message.next_tick
                await self._write(message.data)
            if self._stopping.is_set():
                raise ShuttingDownError(
                    "the server is stopping: resume at next_tick", next_tick=cursor.next_tick
                )
            if await self._told_change():
                continue
            if cursor.wanted <= cursor.newest(hub.committed_tick):
                continue
            if cursor.is_over(hub.committed_tick):
                return
            if hub.ended is not None:
                raise hub.ended
            # Nothing was awaited since the hub was asked: no tick can slip in between.
            await self._rest(cursor.wanted)

    async def _pulled(self) -> list[Outgoing]:
        if self._hub.is_near(self._cursor):
            return await self._hub.pull(self._cursor)
        reading = asyncio.ensure_future(self._hub.pull(self._cursor))
        try:
            while not reading.done():
                await asyncio.wait((reading,), timeout=self._silence_left_s())
                await self._beat_if_due()
            return reading.result()
        finally:
            reading.cancel()

    async def _rest(self, tick: int) -> None:
        await self._hub.wait(min(tick, self._cursor.last_tick), self._silence_left_s())
        await self._beat_if_due()

    async def _told_change(self) -> bool:
        status = self._pulse.status()
        if status == self._told:
            return False
        self._told = status
        await self._write(self._pulse.beat())
        return True

    async def _beat_if_due(self) -> None:
        if self._silence_left_s() <= 0.0:
            await self._write(self._pulse.beat())

    def _silence_left_s(self) -> float:
        silent_s = asyncio.get_running_loop().time() - self._last_sent
        return max(self._pulse.interval_s - silent_s, 0.0)

    async def _write(self, message: bytes) -> None:
        if self._cursor.lag is LagPolicy.DISCONNECT:
            await self._write_in_time(message)
        else:
            await self._send(message)
        self._last_sent = asyncio.get_running_loop().time()

    async def _write_in_time(self, message: bytes) -> None:
        """Write, or give up: gRPC itself waits for a reader for ever."""
        task = asyncio.current_task()
        assert task is not None
        timer = asyncio.get_running_loop().call_later(self._stalled_write_s, self._give_up, task)
        try:
            await self._send(message)
        except asyncio.CancelledError:
            if self._stalled and task.uncancel() == 0:
                raise too_slow(self._next_tick) from None
            raise
        finally:
            timer.cancel()

    def _give_up(self, task: asyncio.Task[object]) -> None:
        self._stalled = True
        task.cancel()
