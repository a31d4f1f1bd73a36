"""Writing files so that they survive a power cut."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Numbers of errors that free space lets pass: the disk, the quota or the largest file that may be are full."""

_VECTOR = 512  # below every system's IOV_MAX


def sync_directory(path: Path) -> None:
    """Make the names in a folder durable: a synced file is of no use under a name that is lost."""
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def sync_file(path: Path) -> None:
    """Make a file's content durable."""
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def write_all(file: int, parts: Sequence[bytes], offset: int) -> int:
    """Write all parts at an offset, however often the system stops short.

    Returns:
        How many bytes they are.
    """
    start = offset
    for first in range(0, len(parts), _VECTOR):
        pending = [memoryview(part) for part in parts[first : first + _VECTOR]]
        while pending:
            written = os.pwritev(file, pending, offset)
            offset += written
            while pending and written >= len(pending[0]):
                written -= len(pending.pop(0))
            if pending:
                pending[0] = pending[0][written:]
    return offset - start


def rewrite(path: Path) -> None:
    """Copy a file to a new one, sync that, and put it in the old one's place.

    After a failed sync the system may hold pages as clean that never reached the disk; a copy is written
    anew.
    """
    copy = path.with_name(path.name + ".copy")
    copy.unlink(missing_ok=True)
    try:
        with path.open("rb") as source, copy.open("xb") as target:
            while chunk := source.read(1 << 20):
                target.write(chunk)
            target.flush()
            os.fsync(target.fileno())
    except OSError:
        copy.unlink(missing_ok=True)
        raise
    copy.replace(path)
    sync_directory(path.parent)
