"""How far the archive is behind each world; past a limit the world's ticks wait, so that the journal stays bounded.

Counted up on the journal's thread, down on the archiver's; asked and waited for on event loops.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from collections.abc import Iterable

_log = structlog.get_logger(__name__)

ROW_BYTES = 512
"""What a tick or a command weighs besides the bytes of its records."""


class ArchiveLag:
    """Bytes that are committed and not archived, by world."""

    def __init__(self, limit_bytes: int) -> None:
        """Begin without any.

        Args:
            limit_bytes: A world that has more has to wait; about, as ticks under way are not held up.
        """
        self._limit = limit_bytes
        self._lock = threading.Lock()
        self._bytes: dict[int, int] = {}
        self._over: set[int] = set()
        self._waiting: dict[int, list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]]] = {}

    def is_over(self, world: int) -> bool:
        """Whether a world's ticks have to wait; takes no lock."""
        return world in self._over

    async def room(self, world: int) -> None:
        """Wait until a world may go on."""
        loop = asyncio.get_running_loop()
        while world in self._over:
            woken: asyncio.Future[None] = loop.create_future()
            with self._lock:
                if world not in self._over:
                    return
                self._waiting.setdefault(world, []).append((loop, woken))
            await woken

    def add(self, world: int, nbytes: int) -> None:
        """Count what a world has committed."""
        with self._lock:
            total = self._bytes[world] = self._bytes.get(world, 0) + nbytes
            if total <= self._limit or world in self._over:
                return
            self._over.add(world)
        _log.warning("ticks wait for the archive", world=world, lag_bytes=total, limit_bytes=self._limit)

    def take(self, world: int, nbytes: int) -> None:
        """Count what was archived of a world."""
        with self._lock:
            self._bytes[world] = max(0, self._bytes.get(world, 0) - nbytes)
            if self._bytes[world] > self._limit:
                return
            self._over.discard(world)
            woken = self._waiting.pop(world, ())
        _wake(woken)

    def forget(self, world: int) -> None:
        """Count a world no more: it is destroyed."""
        with self._lock:
            self._bytes.pop(world, None)
            self._over.discard(world)
            woken = self._waiting.pop(world, ())
        _wake(woken)

    def close(self) -> None:
        """Let all go on, into whatever stops them then."""
        for world in [*self._over]:
            self.forget(world)


def _wake(waiting: Iterable[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]]) -> None:
    for loop, woken in waiting:
        # A loop that was closed meanwhile has nobody left to tell.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(_resolve, woken)


def _resolve(woken: asyncio.Future[None]) -> None:
    if not woken.done():
        woken.set_result(None)
