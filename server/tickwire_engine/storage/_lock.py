"""One process at a time serves a data directory."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from tickwire_engine.errors import DataDirectoryLockedError

if TYPE_CHECKING:
    from pathlib import Path

_OWNER = ("pid", "host", "since", "listen")


class DirectoryLock:
    """An exclusive lock on `<data>/LOCK`; the system lets it go when the process ends, however it ends."""

    def __init__(self, path: Path) -> None:
        """Take the lock.

        Raises:
            DataDirectoryLockedError: Another process holds it; the error names that one.
        """
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            owner = _owner(self._file)
            os.close(self._file)
            address = f", at {owner['listen']}" if owner["listen"] else ""
            raise DataDirectoryLockedError(
                f"{path.parent} is served by process {owner['pid']} on {owner['host']} since {owner['since']}"
                f"{address}: stop that one, or choose another data directory",
                **owner,
            ) from None
        self._since = datetime.now(UTC).isoformat(timespec="seconds")
        self.announce("")

    def announce(self, listen: str) -> None:
        """Write who holds the lock, and the address that it listens on; "": on none yet."""
        owner = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "since": self._since,
            "listen": listen,
        }
        with contextlib.suppress(OSError):
            # On a full disk others are told less.
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, json.dumps(owner).encode(), 0)

    def release(self) -> None:
        """Let the lock go; calling it again changes nothing."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def owner_of(path: Path) -> dict[str, str] | None:
    """Return who holds the lock at `path`; None: nobody does."""
    try:
        file = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return _owner(file)
    finally:
        os.close(file)
    return None


def _owner(file: int) -> dict[str, str]:
    try:
        content = json.loads(os.pread(file, 4096, 0))
        return {name: str(content[name]) for name in _OWNER}
    except (ValueError, KeyError, TypeError):
        # It has the lock, and has not written its name yet.
        return dict.fromkeys(_OWNER, "unknown") | {"listen": ""}
