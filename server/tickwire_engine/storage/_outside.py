"""Readers in other processes (verify, doctor, backup): while one reads, nothing that it may look at is deleted.

They hold a shared lock on `<data>/READERS`. The server deletes only while it holds it alone; what it cannot delete now
waits, and is tried again. The system lets a lock go when its process ends, however it ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class OutsideReaders:
    """The lock, seen from both sides."""

    def __init__(self, path: Path) -> None:
        """Name its file; it is made where it is not."""
        self._path = path

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """Keep the server from deleting anything."""
        file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(file, fcntl.LOCK_SH)
            yield
        finally:
            os.close(file)

    @contextlib.contextmanager
    def deleting(self) -> Iterator[bool]:
        """Keep readers waiting while something is deleted; False: some are there, delete nothing."""
        file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True
        finally:
            os.close(file)
