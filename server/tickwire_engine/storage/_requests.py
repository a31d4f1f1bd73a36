"""Requests to the journal's writer thread, and how they are answered: on the event loop, or on the thread, that asked."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterable
    from concurrent.futures import Future as ThreadFuture

    import apsw

    from tickwire_engine.storage._writes import WhenFull

_T = TypeVar("_T")
_T_co = TypeVar("_T_co", covariant=True)


class Write(Protocol[_T_co]):
    """One request to the writer thread."""

    @property
    def when_full(self) -> WhenFull:
        """What becomes of it while the disk is full."""
        ...

    def prepare(self, *, alone: bool) -> bool:
        """Write what must lie in the tick log before the transaction begins; called anew where that found no room.

        Args:
            alone: No other request shares the transaction, and a sync of the log.

        Returns:
            Whether anything was written, and the log must be synced.
        """
        ...

    def apply(self, connection: apsw.Connection) -> _T_co:
        """Change the tables, inside the group's transaction; what it changed is undone where it raises.

        Called anew where the transaction was rolled back: the disk was full, or another of the group was refused.
        """
        ...

    def committed(self) -> None:
        """Do what follows once the transaction is durable, still on the writer thread: it must not fail."""
        ...


class Request(Generic[_T]):
    """One write, and who waits for it."""

    __slots__ = ("error", "future", "held", "loop", "result", "write")

    def __init__(
        self,
        write: Write[_T],
        future: asyncio.Future[_T] | ThreadFuture[_T],
        loop: asyncio.AbstractEventLoop | None,
    ) -> None:
        self.write = write
        self.future = future
        self.loop = loop
        self.result: _T | None = None
        self.error: BaseException | None = None
        self.held = False
        """It waits for room on the disk, and is not answered yet."""

    @property
    def is_live(self) -> bool:
        """Whether it belongs into the group's transaction."""
        return self.error is None and not self.held

    def resolve(self) -> None:
        """Answer; on the event loop that asked, where there is one."""
        if self.loop is not None and self.future.done():
            # Whoever waited was cancelled; the write stands all the same.
            return
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.result)  # type: ignore[arg-type]


def refuse(group: Iterable[Request[object]], error: BaseException) -> None:
    """Note what all that were not refused otherwise are refused with."""
    for request in group:
        if request.error is None:
            request.error = error


def deliver(group: Iterable[Request[object]]) -> None:
    """Answer a group: one wake-up for each event loop."""
    by_loop: dict[asyncio.AbstractEventLoop, list[Request[object]]] = {}
    for request in group:
        if request.held:
            continue
        if request.loop is None:
            request.resolve()
        else:
            by_loop.setdefault(request.loop, []).append(request)
    for loop, requests in by_loop.items():
        # A loop that was closed meanwhile has nobody left to tell.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(_resolve, requests)


def _resolve(requests: list[Request[object]]) -> None:
    for request in requests:
        request.resolve()
