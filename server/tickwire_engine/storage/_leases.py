"""Readers' leases: nothing that a reader may still look at is deleted.

A reader takes a lease before it learns where things are. What becomes garbage is handed in after the journal
stopped naming it, and goes once every lease that was taken before that has ended: leases taken later cannot
know of it.
"""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tickwire_engine.storage._outside import OutsideReaders


class Leases:
    """The open leases, and the deletions that wait for them; any thread."""

    def __init__(self, outside: OutsideReaders | None = None) -> None:
        """Begin without leases.

        Args:
            outside: Readers in other processes, who hold up all deletions.
        """
        self._outside = outside
        self._lock = threading.Lock()
        self._epoch = 0
        self._open: dict[int, int] = {}
        self._waiting: list[tuple[int, Callable[[], None]]] = []

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """Hold a lease."""
        with self._lock:
            self._epoch += 1
            mine = self._epoch
            self._open[mine] = mine
        try:
            yield
        finally:
            with self._lock:
                del self._open[mine]

    def defer(self, delete: Callable[[], None]) -> None:
        """Hand in a deletion; `collect` runs it when nobody can be looking any more."""
        with self._lock:
            self._waiting.append((self._epoch, delete))

    @property
    def waiting(self) -> bool:
        """Whether deletions wait for readers."""
        return bool(self._waiting)

    def nobody_outside(self) -> contextlib.AbstractContextManager[bool]:
        """Keep readers in other processes waiting; False: some are there, and nothing may go for now."""
        return contextlib.nullcontext(True) if self._outside is None else self._outside.deleting()

    def collect(self) -> None:
        """Run the deletions whose time has come, in the order they were handed in."""
        if not self._waiting:
            return
        with self.nobody_outside() as alone:
            if alone:
                self._collect()

    def _collect(self) -> None:
        with self._lock:
            oldest = min(self._open, default=self._epoch + 1)
            due = [delete for epoch, delete in self._waiting if epoch < oldest]
            self._waiting = [waiting for waiting in self._waiting if waiting[0] >= oldest]
        for delete in due:
            delete()
