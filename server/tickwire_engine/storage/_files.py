"""Writing files so that they survive a power cut."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Numbers of errors that free space lets pass: the disk, the quota or the largest file that may be are full."""

_VECTOR = 512  # below every system's IOV_MAX
_OPEN = 64
"""Files that are open at once."""
_SLICE = 512 << 10
_WRITE_AND_WAIT = 7  # SYNC_FILE_RANGE_WAIT_BEFORE | _WRITE | _WAIT_AFTER

_sync_file_range: Any = getattr(ctypes.CDLL(None, use_errno=True), "sync_file_range", None)
"""Linux's own; it makes nothing durable by itself."""
if _sync_file_range is not None:
    _sync_file_range.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)


def sync_directory(path: Path) -> None:
    """Make the names in a folder durable: a synced file is of no use under a name that is lost."""
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def sync_files(paths: Sequence[Path]) -> None:
    """Make files' contents durable, gently: whoever syncs another file meanwhile waits for a slice, not for all of them.

    Raises:
        OSError: Some of it may be lost.
    """
    for start in range(0, len(paths), _OPEN):
        with contextlib.ExitStack() as opened:
            files = []
            for path in paths[start : start + _OPEN]:
                files.append(os.open(path, os.O_RDONLY))
                opened.callback(os.close, files[-1])
            # Of what is on the disk already the file system has one commit to make for all of them, not one each.
            for file in files:
                write_out(file)
            for file in files:
                os.fsync(file)


def write_out(file: int) -> None:
    """Send what was written to an open file to the disk, a slice at a time; durable only after a sync.

    Raises:
        OSError: Some of it may be lost.
    """
    if _sync_file_range is None:
        return
    for offset in range(0, os.fstat(file).st_size, _SLICE):
        if _sync_file_range(file, offset, _SLICE, _WRITE_AND_WAIT):
            number = ctypes.get_errno()
            if number in (errno.ENOSYS, errno.EINVAL, errno.ESPIPE):
                return
            raise OSError(number, os.strerror(number))


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
