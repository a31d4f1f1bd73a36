"""Telling damage in SQLite's write-ahead log from the torn end of a write that nobody was told of.

SQLite reads the log up to the first frame whose checksum does not hold, and takes the rest for the remains of a crash. That
is right for the last transaction: it may have been cut off before its sync. But a transaction begins only after the one
before was synced; so where a whole frame follows the transaction that holds the bad one, synced bytes have changed, and
going on would lose what was acknowledged. Checksums are cumulative, each frame's begins with the one stored before it, so
every frame can be checked against its neighbour, all at once.

What cannot be told apart: damage within the very last transaction, and a log that was cut off at its end.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import numpy as np

from tickwire_engine.errors import CorruptRecordError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

_HEADER = struct.Struct(">IIIIIIII")
_FRAME_HEAD = 24
_MAGIC = 0x377F0682
_CHUNK = 1024


def check_wal(path: Path) -> None:
    """Check a write-ahead log that an unclean end has left.

    Raises:
        CorruptRecordError: Transactions that were durable are damaged.
    """
    data = np.fromfile(path, np.uint8)
    if len(data) < _HEADER.size:
        return
    magic, _, page, *_ = _HEADER.unpack(data[: _HEADER.size].tobytes())
    if not data[: _HEADER.size].any():
        return
    # A header is smaller than a sector, and synced before any frame follows it.
    head_words = data[:24].view("<u4" if magic == _MAGIC else ">u4").astype(np.uint32)
    stored_head = _big(data[24:32])
    if magic & ~1 != _MAGIC or (_sums(head_words[None], np.zeros((1, 2), np.uint32)) != stored_head).any():
        raise _damaged(path, "its header")
    size = _FRAME_HEAD + page
    count = (len(data) - _HEADER.size) // size
    frames = data[_HEADER.size : _HEADER.size + count * size].reshape(count, size)
    salts = frames[:, 8:16].copy().view(np.uint64)[:, 0] == data[16:24].copy().view(np.uint64)[0]
    whole = salts & _consistent(frames, stored_head, "<u4" if magic == _MAGIC else ">u4")
    if whole.all():
        return
    bad = int(np.argmin(whole))
    commits = np.flatnonzero(frames[bad:, 4:8].any(axis=1)) + bad
    end = int(commits[0]) if len(commits) else count
    if whole[end + 1 :].any():
        raise _damaged(path, f"frame {bad} of {count}")


def _consistent(frames: NDArray[np.uint8], first: NDArray[np.uint32], order: str) -> NDArray[np.bool_]:
    """Tell of every frame whether its checksum follows from the one stored before it."""
    found = np.zeros(len(frames), bool)
    before = first
    for start in range(0, len(frames), _CHUNK):
        chunk = frames[start : start + _CHUNK]
        stored = _big(chunk[:, 16:24])
        content = np.concatenate([chunk[:, :8], chunk[:, _FRAME_HEAD:]], axis=1)
        sums = _sums(content.view(order).astype(np.uint32), np.vstack([before, stored[:-1]]))
        found[start : start + _CHUNK] = (sums == stored).all(axis=1)
        before = stored[-1:]
    return found


def _sums(words: NDArray[np.uint32], before: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """SQLite's checksum of each row: s0 += x + s1; s1 += y + s0 over pairs, which is linear modulo 2^32."""
    pairs = words.shape[1] // 2
    weights = np.empty((2, pairs, 2), np.uint32)
    power = np.array([[1, 0], [0, 1]], np.uint32)
    step = np.array([[1, 1], [1, 2]], np.uint32)
    for pair in reversed(range(pairs)):
        weights[:, pair, :] = power @ np.array([[1, 0], [1, 1]], np.uint32)
        power = power @ step
    flat = weights.reshape(2, -1)
    own = np.stack([(words * row).sum(axis=1, dtype=np.uint32) for row in flat], axis=1)
    result: NDArray[np.uint32] = own + before @ power.T
    return result


def _big(numbers: NDArray[np.uint8]) -> NDArray[np.uint32]:
    return np.ascontiguousarray(numbers).reshape(-1, 8).view(">u4").astype(np.uint32)


def _damaged(path: Path, what: str) -> CorruptRecordError:
    return CorruptRecordError(
        f"{path.name} is damaged at {what}: transactions that were durable cannot be read; "
        "restore the data directory from a backup",
        file=path.name,
    )
