"""Failpoints: named places in the code where a test makes this process die or its storage fail.

They are armed by the environment, ``TICKWIRE_FAILPOINTS="tick_commit.after=kill:3;segment.fsync=eio"``, read once per
process. Each entry is ``place=action`` or ``place=action:n``; it acts at the n-th time the place is reached, once.

    kill      SIGKILL to the own process: nothing is flushed, no handler runs
    eio       OSError EIO, as a disk that fails
    enospc    OSError ENOSPC, as a disk that is full
    skip      what follows is left out, from the n-th time on: only for places that stand before a sync

Unarmed, a place costs one call. `PLACES` lists them all: the crash matrix goes through it, so a place is added there and
in the code, or the matrix fails.
"""

from __future__ import annotations

import errno
import functools
import os
import signal
import threading
from dataclasses import dataclass

ENVIRONMENT = "TICKWIRE_FAILPOINTS"

PLACES = {
    "accept.before": "commands are in the open transaction",
    "accept.after": "commands are durable, nobody was told",
    "journal.commit.before": "a group's transaction is about to commit",
    "journal.commit.after": "a group's transaction is durable",
    "journal.checkpoint.before": "the write-ahead log is about to be folded into the journal",
    "journal.checkpoint.after": "the write-ahead log was folded into the journal",
    "segment.write.after": "a record is in the tick log, unsynced",
    "segment.fsync": "a segment of the tick log is about to be synced",
    "segment.fsync.after": "the tick log is synced, no row names the records",
    "segment.folder_fsync": "the tick log's folder is about to be synced",
    "segment.delete.before": "a segment that no row names is about to be deleted",
    "segment.delete.after": "a segment was deleted",
    "tick_commit.before": "a tick is in the open transaction",
    "tick_commit.after": "a tick is durable, nobody was told",
    "tick_publish.after": "a tick was published, and not archived",
    "archive.append.before": "rows are about to be appended to a dataset",
    "archive.append.after": "rows were appended to a dataset, unsynced",
    "archive.fsync": "a dataset is about to be synced",
    "archive.folder_fsync": "a dataset's folders are about to be synced",
    "watermark.before": "datasets are synced, the journal does not name their versions",
    "watermark.after": "the journal names the datasets' versions, and has its own copies still",
    "trim.before": "archived rows are about to leave the journal, in the open transaction",
    "trim.after": "archived rows left the journal",
    "floor.before": "a floor moves in the open transaction",
    "floor.after": "a floor has moved, nothing was deleted",
    "retire.append.after": "rows that kept ticks need were copied, unsynced",
    "retire.before": "datasets leave the journal in the open transaction",
    "retire.after": "the journal names datasets no more, their files are there",
    "purge.before": "a destroyed world's datasets and rows are about to leave the journal",
    "purge.inside": "some rows of a destroyed world left the journal",
    "purge.after": "nothing is left of a destroyed world but its files and its tombstone",
    "id_floor.before": "the floor of ids moves in the open transaction",
    "id_floor.after": "the floor of ids has moved, nothing was forgotten",
    "forget.before": "settled commands past the horizon leave the journal in the open transaction",
    "forget.after": "settled commands past the horizon left the journal",
    "dataset.delete.before": "a dataset that the journal does not name is about to be deleted",
    "dataset.delete.after": "a dataset was deleted",
    "compaction.before": "a dataset is about to be compacted",
    "compaction.inside": "a dataset is compacted, its index is not",
    "compaction.after": "a dataset is compacted and indexed, unsynced",
    "clean.before": "a dataset's old files are about to be deleted",
    "clean.after": "a dataset's old files were deleted",
    "world_create.before": "a world is in the open transaction",
    "world_create.after": "a world is durable, nobody was told",
    "world_update.before": "a world's change is in the open transaction",
    "world_update.after": "a world's change is durable, nobody was told",
    "world_destroy.before": "a world's end is in the open transaction",
    "world_destroy.after": "a world's end is durable, nobody was told",
    "recovery.begin": "the data directory is locked, nothing was read",
    "recovery.renew": "the journal's tail and the last segment are about to be written anew",
    "recovery.renewed": "the journal's tail and the last segment were written anew",
    "recovery.journal": "the journal is open",
    "recovery.segments": "segments that no row names were deleted",
    "recovery.archive": "the datasets are at their journaled versions",
    "recovery.started": "the start is journaled",
}


@dataclass(slots=True)
class _Armed:
    action: str
    left: int


class Failpoints:
    """What is armed in this process."""

    def __init__(self, text: str) -> None:
        """Parse the environment's text.

        Raises:
            ValueError: It names an unknown place or action.
        """
        self._lock = threading.Lock()
        self._armed: dict[str, _Armed] = {}
        for entry in filter(None, (part.strip() for part in text.split(";"))):
            place, _, action = entry.partition("=")
            action, _, hits = action.partition(":")
            if place not in PLACES or action not in ("kill", "eio", "enospc", "skip"):
                raise ValueError(f"{ENVIRONMENT}: {entry!r} names no failpoint and action")
            self._armed[place] = _Armed(action, int(hits or "1"))

    def __bool__(self) -> bool:
        return bool(self._armed)

    def reach(self, place: str) -> bool:
        """Act if the place is armed and its time has come; return whether to leave out what follows."""
        with self._lock:
            armed = self._armed.get(place)
            if armed is None:
                return False
            armed.left -= 1
            if armed.left > 0 or (armed.left < 0 and armed.action != "skip"):
                return False
        if armed.action == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if armed.action == "skip":
            return True
        number = errno.EIO if armed.action == "eio" else errno.ENOSPC
        raise OSError(number, f"{os.strerror(number)} (failpoint {place})")


@functools.cache
def armed() -> Failpoints:
    """Return this process's failpoints; the environment is read by the first call."""
    return Failpoints(os.environ.get(ENVIRONMENT, ""))


def reach(place: str) -> bool:
    """Mark a place; see `PLACES`.

    Returns:
        Whether what follows is to be left out: always False unless the place is armed with `skip`.

    Raises:
        OSError: The place is armed to fail.
    """
    points = armed()
    return points.reach(place) if points else False
