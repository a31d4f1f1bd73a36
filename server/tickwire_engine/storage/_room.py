"""Room on the disk: a floor of free space that pauses what makes data, and a ballast for what makes room.

Below the floor no tick begins and no command is accepted: what is on its way by then uses the space that is left. The
ballast is a file that does nothing but take space. It is given up when a write that must go on all the same (a cancel,
the end of a world, a trim, a tick in flight) finds the disk full, and laid down anew once there is room.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

import apsw
import structlog

from tickwire_engine.errors import StorageFullError
from tickwire_engine.storage._files import NO_ROOM, sync_directory

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_log = structlog.get_logger(__name__)

BALLAST = "BALLAST"


class Room:
    """The room of one data directory. Looked at and changed on the journal's thread; `low` is read on any.

    Attributes:
        low: There is too little of it: no tick is to begin, nothing that makes data is written.
        give_up: Called when there is too little: frees space that others only keep for speed, and says whether it did.
    """

    def __init__(self, directory: Path, *, floor_bytes: int, ballast_bytes: int) -> None:
        """Take an earlier process's ballast over.

        Args:
            directory: The data directory.
            floor_bytes: With less free space than this `low` is set; 0: only once the disk is full.
            ballast_bytes: Size of the ballast; 0: none.
        """
        self.low = False
        self.give_up: Callable[[], bool] = lambda: False
        self._directory = directory
        self._floor_bytes = floor_bytes
        self._ballast_bytes = ballast_bytes
        self._ballast = directory / BALLAST
        self._told = False
        self._laid = self._ballast.exists() and self._ballast.stat().st_size == ballast_bytes > 0

    def look(self, *, waiting: bool = False) -> bool:
        """See whether enough space is free, and set `low`; with enough of it the ballast is laid down.

        Args:
            waiting: Something waits for room; until it got through, `low` stays.
        """
        wanted = self._floor_bytes + (0 if self._laid else self._ballast_bytes)
        free = self._free_bytes()
        if free < wanted and self.give_up():
            free = self._free_bytes()
        enough = free >= wanted and self._lay()
        self.low = waiting or not enough
        if self.low != self._told:
            self._told = self.low
            facts = {"data": str(self._directory), "free_bytes": free, "floor_bytes": self._floor_bytes}
            if self.low:
                _log.warning("no room on the disk: ticks wait, submits are refused", **facts)
            else:
                _log.info("room on the disk again: ticks go on", **facts)
        return enough

    def release(self) -> bool:
        """Give up what takes space for nothing, the ballast last; False: that was done already."""
        self.low = True
        if self.give_up():
            return True
        if not self._laid:
            return False
        _log.warning("the disk is full: the ballast is given up", data=str(self._directory))
        self._ballast.unlink(missing_ok=True)
        self._laid = False
        return True

    def require(self) -> None:
        """Refuse what makes data while there is no room for it.

        Raises:
            StorageFullError: There is none.
        """
        if self.low:
            raise no_room("free space is below the floor")

    def close(self) -> None:
        """Leave no ballast behind."""
        self._ballast.unlink(missing_ok=True)
        self._laid = False

    def _free_bytes(self) -> int:
        facts = os.statvfs(self._directory)
        return facts.f_bavail * facts.f_frsize

    def _lay(self) -> bool:
        if self._laid or not self._ballast_bytes:
            return True
        try:
            file = os.open(self._ballast, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)
            try:
                os.posix_fallocate(file, 0, self._ballast_bytes)
            finally:
                os.close(file)
            sync_directory(self._directory)
        except OSError:
            with contextlib.suppress(OSError):
                self._ballast.unlink(missing_ok=True)
            return False
        self._laid = True
        return True


def was_full(error: BaseException, system_errno: int = 0) -> bool:
    """Tell a lack of room, which may pass, from an I/O error, after which nothing is certain.

    Args:
        error: What a write failed with, before anything was synced.
        system_errno: What the system told SQLite, where it is known.
    """
    if isinstance(error, OSError):
        return error.errno in NO_ROOM
    if isinstance(error, apsw.IOError):
        # SQLite says "full" for ENOSPC of its files only: not for a quota's end, nor for its shared memory's.
        code: int = getattr(error, "extendedresult", 0)
        return code == apsw.SQLITE_IOERR_SHMSIZE or (
            code == apsw.SQLITE_IOERR_WRITE and system_errno in NO_ROOM
        )
    return isinstance(error, apsw.FullError)


def no_room(why: str) -> StorageFullError:
    """Return what a write is refused with that finds no room."""
    return StorageFullError(f"no room on the disk ({why}); nothing was lost, free some space")
