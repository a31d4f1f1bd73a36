"""Telling damage in SQLite's write-ahead log from the torn end of a write that nobody was told of.

SQLite reads the log up to the first frame whose checksum does not hold, and takes the rest for the remains of a crash. That
is right for the last transaction: it may have been cut off before its sync, and of its frames any sectors may have reached
the disk and others not, which still hold what the log held there in an older round. But a transaction begins only after the
one before was synced; so where a commit is followed by a frame that continues it, all up to that commit was synced, and a
frame there that does not hold has changed since: going on would lose what was acknowledged. Checksums are cumulative, each
frame's begins with the one stored before it, so every frame can be checked against its neighbour, all at once.

What cannot be told apart: damage within the very last transaction, and a log that was cut off at its end.
"""

from __future__ import annotations

import functools
import struct
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tickwire_engine.errors import CorruptRecordError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

_HEADER = struct.Struct(">IIIIIIII")
_FRAME_HEAD = 24
_MAGIC = 0x377F0682
_CHUNK = 1024
_SECTOR = 512
"""Bytes that reach the disk together, or not at all: the fewest of any disk."""


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
    ours = frames[:, 8:16].copy().view(np.uint64)[:, 0] == data[16:24].copy().view(np.uint64)[0]
    links = _links(frames, stored_head, "<u4" if magic == _MAGIC else ">u4")
    whole = ours & links.stored
    if whole.all():
        return
    bad = int(np.argmin(whole))
    if _synced_commits(frames, whole, ours, links)[bad:].any():
        raise _damaged(path, f"frame {bad} of {count}")


def _synced_commits(
    frames: NDArray[np.uint8], whole: NDArray[np.bool_], ours: NDArray[np.bool_], links: _Links
) -> NDArray[np.bool_]:
    """Tell of every frame whether it is a commit that another transaction continues.

    A frame that continues the right checksum of the one before it proves the commit's mark, which is part of what that sums.
    One that continues the stored checksum shows that this one is of this round, and so that the mark is, where they share a
    sector; where they do not, it is if the frame before holds, whose last bytes are in the mark's sector.
    """
    split = (_HEADER.size + np.arange(len(frames)) * frames.shape[1] + 8) % _SECTOR == 0
    known = np.where(split, np.concatenate([[True], whole[:-1]]), ours)
    continued = _next(ours & links.right) | _next(whole) & known
    return continued & frames[:, 4:8].any(axis=1)


def _next(flags: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return np.concatenate([flags[1:], [False]])


class _Links(NamedTuple):
    """Of every frame, whether its checksum continues that of the frame before it."""

    stored: NDArray[np.bool_]
    """The one that is stored there."""
    right: NDArray[np.bool_]
    """The one that would be right there."""


def _links(frames: NDArray[np.uint8], first: NDArray[np.uint32], order: str) -> _Links:
    links = _Links(np.zeros(len(frames), bool), np.zeros(len(frames), bool))
    before = right = first
    for start in range(0, len(frames), _CHUNK):
        chunk = frames[start : start + _CHUNK]
        stored = _big(chunk[:, 16:24])
        words = np.concatenate([chunk[:, :8], chunk[:, _FRAME_HEAD:]], axis=1).view(order).astype(np.uint32)
        begins = np.vstack([before, stored[:-1]])
        sums = _sums(words, begins)
        links.stored[start : start + _CHUNK] = (sums == stored).all(axis=1)
        rights = sums + _carried(np.vstack([right, sums[:-1]]) - begins, words.shape[1])
        links.right[start : start + _CHUNK] = (rights == stored).all(axis=1)
        before, right = stored[-1:], sums[-1:]
    return links


def _sums(words: NDArray[np.uint32], before: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """SQLite's checksum of each row: s0 += x + s1; s1 += y + s0 over pairs, which is linear modulo 2^32."""
    weights, _ = _weights(words.shape[1] // 2)
    own = np.stack([(words * row).sum(axis=1, dtype=np.uint32) for row in weights], axis=1)
    return own + _carried(before, words.shape[1])


def _carried(before: NDArray[np.uint32], words: int) -> NDArray[np.uint32]:
    """What the checksum before so many words adds to the one after them."""
    _, power = _weights(words // 2)
    carried: NDArray[np.uint32] = before @ power.T
    return carried


@functools.cache
def _weights(pairs: int) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    weights = np.empty((2, pairs, 2), np.uint32)
    power = np.array([[1, 0], [0, 1]], np.uint32)
    step = np.array([[1, 1], [1, 2]], np.uint32)
    for pair in reversed(range(pairs)):
        weights[:, pair, :] = power @ np.array([[1, 0], [1, 1]], np.uint32)
        power = power @ step
    return weights.reshape(2, -1), power


def _big(numbers: NDArray[np.uint8]) -> NDArray[np.uint32]:
    return np.ascontiguousarray(numbers).reshape(-1, 8).view(">u4").astype(np.uint32)


def _damaged(path: Path, what: str) -> CorruptRecordError:
    return CorruptRecordError(
        f"{path.name} is damaged at {what}: transactions that were durable cannot be read; "
        "restore the data directory from a backup",
        file=path.name,
    )
