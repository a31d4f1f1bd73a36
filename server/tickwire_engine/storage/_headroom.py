"""Zeros behind the end of the journal's write-ahead log, so that a commit writes over blocks that are there.

The sync of a file that grows must also write what the file system keeps about it; where the file is as long as before, it
writes the commit and no more. SQLite goes by what the log's frames say of themselves, not by the file's length: zeros are
no frame. Once the log has been as long as it gets it is written over from its beginning, and this does nothing more.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from tickwire_engine.storage._connections import PAGE_BYTES
from tickwire_engine.storage._files import NO_ROOM

if TYPE_CHECKING:
    from pathlib import Path

_FRAME_BYTES = 24 + PAGE_BYTES
_STEP = 1 << 20
_LEAST = 256 << 10


class Headroom:
    """Keeps zeros behind the frames; on the journal's thread, between two transactions."""

    def __init__(self, wal: Path) -> None:
        """Open the log beside SQLite, which locks other files than this."""
        self._file = os.open(wal, os.O_WRONLY | os.O_CREAT, 0o644)

    def keep(self, frames: int) -> None:
        """Write more zeros if few are left.

        Args:
            frames: So many of the log's are in use.

        Raises:
            OSError: A sync or a write failed, not for want of room.
        """
        length = os.fstat(self._file).st_size
        if length == 0:
            # It was cut off, perhaps, and a power cut could bring back what it was, with zeros in the midst of it.
            os.fsync(self._file)
        if length - frames * _FRAME_BYTES < _LEAST:
            try:
                os.pwrite(self._file, bytes(_STEP), length)
            except OSError as error:
                # Without room for them the log grows by its frames.
                if error.errno not in NO_ROOM:
                    raise

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)
