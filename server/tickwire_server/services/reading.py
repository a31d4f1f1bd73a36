"""The threads that queries are read on: a page at a time, in turns, and none longer than its reader stays.

They are apart from the threads that ticks compute on, so that no query delays a tick.
"""

from __future__ import annotations

import asyncio
import contextlib
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterator

T = TypeVar("T")
_DONE: Any = object()


class ReadThreads:
    """Reads blocking iterators for coroutines."""

    def __init__(self, count: int, name: str) -> None:
        self._pool = ThreadPoolExecutor(count, thread_name_prefix=name)

    async def call(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call a function that blocks."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, function, *arguments)

    async def each(
        self, items: Iterator[T], *, cancel: Callable[[], None] = lambda: None
    ) -> AsyncGenerator[T, None]:
        """Yield what a blocking generator yields, and close it on a thread of its own.

        Args:
            items: It is asked for one item at a time.
            cancel: Called if nobody waits for the next item any more: the generator should end soon.
        """
        running: Future[T] | None = None
        try:
            while True:
                running = self._pool.submit(next, items, _DONE)
                item = await asyncio.wrap_future(running)
                if item is _DONE:
                    return
                yield item
        finally:
            if running is not None and not running.done():
                running.cancel()
                cancel()
            self._close_after(running, items)

    def close(self) -> None:
        """Begin nothing more, and wait for what runs."""
        self._pool.shutdown(cancel_futures=True)

    def _close_after(self, running: Future[T] | None, items: Iterator[T]) -> None:
        def close(_: object = None) -> None:
            # While the pool shuts down, the collector closes it.
            with contextlib.suppress(RuntimeError):
                self._pool.submit(items.close)  # type: ignore[attr-defined]

        if running is None or running.done():
            close()
        else:
            running.add_done_callback(close)
