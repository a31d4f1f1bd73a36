"""The blocking stream of ticks.

Iterate on one thread; `close` may be called from another. A watchdog thread ends a connection on which
heartbeats are missing; it counts only while the iterator waits, so that a slow reader is not mistaken for a
dead server.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Self, cast

import grpc

from tickwire import _methods as methods
from tickwire._error_translation import from_rpc_error

if TYPE_CHECKING:
    from types import TracebackType

    from tickwire._subscription import Subscription
    from tickwire._tick import Tick
    from tickwire._transport import Transport


class TickStream:
    """Iterates over the ticks of a world, resuming by itself; made by `World.ticks`."""

    def __init__(self, transport: Transport, subscription: Subscription) -> None:
        self._transport = transport
        self._subscription = subscription
        self._ready: deque[Tick] = deque()
        self._call: Any = None
        self._watchdog: _Watchdog | None = None
        self._closed = threading.Event()

    @property
    def next_tick(self) -> int | None:
        """The tick that the server will send next; None until it has said where the stream begins."""
        return self._subscription.next_tick

    @property
    def committed_tick(self) -> int:
        """The world's last durable tick, as far as the stream has heard: how far this reader is behind."""
        return self._subscription.committed_tick

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Tick:
        """Waits for the next tick.

        Raises:
            TickwireError: the stream cannot go on; see `World.ticks`.
        """
        while not self._ready:
            if self._closed.is_set():
                raise StopIteration
            try:
                self._read()
            except BaseException:
                self.close()
                raise
        return self._ready.popleft()

    def close(self) -> None:
        """Ends the stream; a `next` that waits on another thread ends too."""
        self._closed.set()
        self._hang_up()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    def _read(self) -> None:
        if self._call is None:
            self._call = self._transport.open_stream(methods.SUBSCRIBE, self._subscription.connect())
            self._watchdog = _Watchdog(self._call, self._subscription.silence_limit_s)
        watchdog = cast("_Watchdog", self._watchdog)
        try:
            with watchdog:
                message = next(self._call)
        except StopIteration:
            self._resume(self._subscription.ended())
        except grpc.RpcError as rpc_error:
            if self._closed.is_set():
                return
            if watchdog.has_barked:
                pause_s = self._subscription.silent()
            else:
                error = from_rpc_error(rpc_error)
                error.__cause__ = rpc_error
                pause_s = self._subscription.failed(error)
            self._resume(pause_s)
        else:
            self._ready.extend(self._subscription.receive(message))

    def _resume(self, pause_s: float | None) -> None:
        self._hang_up()
        if pause_s is None:
            self._closed.set()
        else:
            self._closed.wait(pause_s)

    def _hang_up(self) -> None:
        call, self._call = self._call, None
        watchdog, self._watchdog = self._watchdog, None
        if watchdog is not None:
            watchdog.stop()
        if call is not None:
            call.cancel()


class _Watchdog:
    """Cancels a call on which a read waits for too long. Its thread lives as long as the call is in use."""

    def __init__(self, call: Any, limit_s: float) -> None:
        self.has_barked = False
        self._call = call
        self._limit_s = limit_s
        self._waiting_since: float | None = None
        self._stopped = threading.Event()
        threading.Thread(target=self._watch, name="tickwire-heartbeats", daemon=True).start()

    def __enter__(self) -> None:
        self._waiting_since = time.monotonic()

    def __exit__(self, *_: object) -> None:
        self._waiting_since = None

    def stop(self) -> None:
        """Lets the thread end."""
        self._stopped.set()

    def _watch(self) -> None:
        while not self._stopped.wait(self._limit_s / 10):
            since = self._waiting_since
            if since is not None and time.monotonic() - since > self._limit_s:
                self.has_barked = True
                self._call.cancel()
                return
