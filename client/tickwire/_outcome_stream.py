"""The blocking stream of outcomes. Iterate on one thread; `close` may be called from another."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Self

import grpc

from tickwire import _methods as methods
from tickwire._error_translation import from_rpc_error

if TYPE_CHECKING:
    from types import TracebackType

    from tickwire._models import Outcome
    from tickwire._outcome_watch import OutcomeWatch
    from tickwire._transport import Transport


class OutcomeStream:
    """Iterates over the outcomes of a world's commands, resuming by itself; made by `World.outcomes`."""

    def __init__(self, transport: Transport, watch: OutcomeWatch) -> None:
        self._transport = transport
        self._watch = watch
        self._call: Any = None
        self._closed = threading.Event()

    @property
    def after(self) -> int | None:
        """The outcome_seq that the next outcome follows: what `World.outcomes(after=...)` goes on from."""
        return self._watch.after

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Outcome:
        """Waits for the next outcome.

        Raises:
            TickwireError: the stream cannot go on; see `World.outcomes`.
        """
        while not self._closed.is_set():
            try:
                outcome = self._read()
            except BaseException:
                self.close()
                raise
            if outcome is not None:
                return outcome
        raise StopIteration

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

    def _read(self) -> Outcome | None:
        try:
            if self._call is None:
                self._call = self._transport.open_stream(methods.WATCH_OUTCOMES, self._watch.connect())
                self._watch.began(self._call.initial_metadata())
            message = next(self._call)
        except StopIteration:
            self._resume(self._watch.ended())
        except grpc.RpcError as rpc_error:
            if self._closed.is_set():
                return None
            error = from_rpc_error(rpc_error)
            error.__cause__ = rpc_error
            self._resume(self._watch.failed(error))
        else:
            return self._watch.receive(message)
        return None

    def _resume(self, pause_s: float) -> None:
        self._hang_up()
        self._closed.wait(pause_s)

    def _hang_up(self) -> None:
        call, self._call = self._call, None
        if call is not None:
            call.cancel()
