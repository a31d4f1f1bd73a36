"""The tick log: append-only segments, shared by all worlds, for what is too large for the journal's rows.

A record is a fixed head (length, checksum, kind, world, tick) and a body. Only rows of the journal say where
records are; bytes that no row names are nothing. Writing always starts in a new segment, so what a killed
process left half-written is never written over or appended to. Appends and syncs come from the journal's
writer thread; reads from any thread.

A segment's blocks are there before its records are, and a deleted one's are kept for one to come (as PostgreSQL does with
its write-ahead log): a sync then has no metadata to write, for which it would wait behind whatever else the file system is
busy with.
"""

from __future__ import annotations

import contextlib
import os
import struct
import threading
from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple

import xxhash

from tickwire_engine import failpoints
from tickwire_engine.errors import CorruptRecordError
from tickwire_engine.storage._files import rewrite, sync_directory, write_all

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from pathlib import Path

SEGMENT_BYTES = 64 << 20
"""A segment that has grown past this gets no more records."""

SPARES = 2
"""So many deleted segments are kept to be written over."""
_AMPLE = 4
"""Blocks are reserved and kept while the disk has room for so many segments besides."""
_MAGIC = b"TICKWIRE"
_FILE_HEAD = struct.Struct("<8sII")
_LEADING = struct.Struct("<QQ")
_IDENTITY = struct.Struct("<II16sq")
_HEAD_BYTES = _LEADING.size + _IDENTITY.size
_VERSION = 1


class RecordKind(IntEnum):
    """What a record's body is."""

    FRAME = 1
    COMMAND = 2


class Location(NamedTuple):
    """Where a record's head begins; the sizes of its parts are the journal's to know."""

    segment: int
    offset: int


class SegmentedTickLog:
    """The segments of one data directory."""

    def __init__(self, directory: Path, *, segment_bytes: int = SEGMENT_BYTES) -> None:
        """Open the log; nothing is written before the first append."""
        directory.mkdir(exist_ok=True)
        sync_directory(directory.parent)
        self._directory = directory
        self._segment_bytes = segment_bytes
        self._current = max(self.segments(), default=0)
        self._end = segment_bytes
        self._dirty: set[int] = set()
        self._created = False
        self._files: dict[int, int] = {}
        self._spares: list[Path] = []
        self._lock = threading.Lock()

    @property
    def current(self) -> int:
        """The segment that is written to, or was last."""
        return self._current

    def segments(self) -> list[int]:
        """Return the numbers of all segments on disk."""
        return sorted(int(path.stem) for path in self._directory.glob("*.seg"))

    def append(self, kind: RecordKind, world: bytes, tick: int, parts: Sequence[bytes]) -> Location:
        """Write a record after the last one; durable only after `sync`.

        Args:
            kind: What the body is.
            world: The world's 16-byte id.
            tick: The tick, or for a command its seq.
            parts: The body, in order.
        """
        if self._end >= self._segment_bytes:
            self._start_segment()
        identity = _IDENTITY.pack(kind, 0, world, tick)
        checksum = xxhash.xxh3_64(identity)
        for part in parts:
            checksum.update(part)
        head = _LEADING.pack(sum(map(len, parts)), checksum.intdigest()) + identity
        location = Location(self._current, self._end)
        # The end moves only once all is written: what a full disk cut short is written over.
        self._dirty.add(self._current)
        self._end += write_all(self._files[self._current], [head, *parts], self._end)
        failpoints.reach("segment.write.after")
        return location

    def sync(self) -> None:
        """Make all appended records durable."""
        for segment in self._dirty:
            if not failpoints.reach("segment.fsync"):
                os.fdatasync(self._files[segment])
        if self._created:
            if not failpoints.reach("segment.folder_fsync"):
                sync_directory(self._directory)
            self._created = False
        self._dirty.clear()
        failpoints.reach("segment.fsync.after")

    def read(
        self, location: Location, kind: RecordKind, world: bytes, tick: int, sizes: Sequence[int]
    ) -> tuple[bytes, ...]:
        """Read a record's parts and check them.

        Raises:
            CorruptRecordError: The segment is gone or cut, or the bytes are not those that were written.
        """
        try:
            file = self._open(location.segment)
            head = os.pread(file, _HEAD_BYTES, location.offset)
            position = location.offset + _HEAD_BYTES
            parts = []
            for size in sizes:
                parts.append(os.pread(file, size, position))
                position += size
        except FileNotFoundError:
            raise _corrupt(location, world, tick, "its file is missing") from None
        if len(head) != _HEAD_BYTES or any(
            len(part) != size for part, size in zip(parts, sizes, strict=True)
        ):
            raise _corrupt(location, world, tick, "it is cut short")
        identity = _IDENTITY.pack(kind, 0, world, tick)
        checksum = xxhash.xxh3_64(identity)
        for part in parts:
            checksum.update(part)
        if head != _LEADING.pack(sum(sizes), checksum.intdigest()) + identity:
            raise _corrupt(location, world, tick, "its checksum does not match")
        return tuple(parts)

    def renew(self) -> None:
        """Write the last segment anew and sync it: what a failed sync left undecided is decided then."""
        if self._current:
            rewrite(self._path(self._current))

    def delete_except(self, kept: Collection[int]) -> None:
        """Delete every segment that is not named, and an earlier process's spares, before anything is appended."""
        for spare in self._directory.glob("*.spare"):
            spare.unlink()
        for segment in self.segments():
            if segment not in kept:
                self.delete(segment)

    def delete(self, segment: int) -> None:
        """Delete a segment that no row of the journal names and nobody reads; its blocks may be kept for another."""
        with self._lock:
            file = self._files.pop(segment, None)
        if file is not None:
            os.close(file)
        failpoints.reach("segment.delete.before")
        path = self._path(segment)
        with self._lock:
            if len(self._spares) < SPARES and self._is_whole(path) and self._has_ample_room():
                self._spares.append(path.replace(path.with_suffix(".spare")))
            else:
                path.unlink(missing_ok=True)
        failpoints.reach("segment.delete.after")

    def release(self) -> bool:
        """Give up the blocks that are kept for segments to come; False: there are none."""
        with self._lock:
            spares, self._spares = self._spares, []
        for spare in spares:
            spare.unlink(missing_ok=True)
        return bool(spares)

    def close(self) -> None:
        """Close all files, and leave no blocks behind that hold nothing."""
        self.release()
        with self._lock:
            if self._current in self._files and self._end < self._segment_bytes:
                with contextlib.suppress(OSError):
                    os.truncate(self._files[self._current], self._end)
            for file in self._files.values():
                os.close(file)
            self._files.clear()

    def _path(self, segment: int) -> Path:
        return self._directory / f"{segment:08}.seg"

    def _start_segment(self) -> None:
        number = self._current + 1
        path = self._path(number)
        file = self._open_spare(path)
        if file is None:
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
            self._reserve(file)
        try:
            end = write_all(file, [_FILE_HEAD.pack(_MAGIC, _VERSION, number)], 0)
        except OSError:
            os.close(file)
            path.unlink()
            raise
        with self._lock:
            self._files[number] = file
        self._current, self._end = number, end
        self._created = True

    def _open_spare(self, path: Path) -> int | None:
        with self._lock:
            if not self._spares:
                return None
            return os.open(self._spares.pop().replace(path), os.O_RDWR)

    def _reserve(self, file: int) -> None:
        if not self._has_ample_room():
            return
        try:
            os.posix_fallocate(file, 0, self._segment_bytes)
        except OSError:
            # It is written all the same, as long as there is room.
            os.truncate(file, 0)

    def _has_ample_room(self) -> bool:
        facts = os.statvfs(self._directory)
        return facts.f_bavail * facts.f_frsize >= _AMPLE * self._segment_bytes

    def _is_whole(self, path: Path) -> bool:
        with contextlib.suppress(FileNotFoundError):
            return path.stat().st_size >= self._segment_bytes
        return False

    def _open(self, segment: int) -> int:
        with self._lock:
            file = self._files.get(segment)
            if file is None:
                file = os.open(self._path(segment), os.O_RDONLY)
                self._files[segment] = file
            return file


def _corrupt(location: Location, world: bytes, tick: int, what: str) -> CorruptRecordError:
    return CorruptRecordError(
        f"the record of tick {tick} at segment {location.segment}, offset {location.offset} cannot be read: "
        f"{what}; restore the data directory from a backup",
        segment=location.segment,
        offset=location.offset,
        world=world.hex(),
        tick=tick,
    )
