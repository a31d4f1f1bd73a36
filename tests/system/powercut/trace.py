"""The trace of one run, and the disk that a power cut at any of its points could leave behind.

`recorder.c` writes the trace. The model of the disk is as mean as POSIX allows: a write is safe once its file was synced
after it, a name once its folder was; before that, each page and each name may be there or not, whatever became of the
others. What a sync says is believed.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

_HEAD = struct.Struct("<cQQQ")
_PAGE = 4096
_FOLDER = -1
_UNTRACED = ("-shm", "/LOCK")
"""Shared memory is written through a mapping, and rebuilt by whoever comes first; the lock is not data."""


@dataclass(frozen=True, slots=True)
class Record:
    """One call, in the order of their effects."""

    kind: str
    a: int
    b: int
    body: bytes

    @property
    def paths(self) -> tuple[str, ...]:
        """The paths that it names, from the root of the trace."""
        return tuple(self.body.decode().split("\n"))


def read(path: Path) -> Iterator[Record]:
    """Read a trace."""
    data = memoryview(path.read_bytes())
    at = 0
    while at < len(data):
        kind, a, b, length = _HEAD.unpack_from(data, at)
        at += _HEAD.size
        yield Record(kind.decode(), a, b, bytes(data[at : at + length]))
        at += length


class Found(NamedTuple):
    """A file or folder that was there before the run."""

    name: str
    inode: int
    content: bytes


def look(folder: Path) -> list[Found]:
    """Read what is in a folder."""
    return [
        Found(f"/{path.relative_to(folder)}", _FOLDER, b"")
        if path.is_dir()
        else Found(f"/{path.relative_to(folder)}", path.stat().st_ino, path.read_bytes())
        for path in sorted(folder.rglob("*"))
    ]


@dataclass(slots=True)
class _File:
    safe: bytearray = field(default_factory=bytearray)
    doomed: list[tuple[int, bytes | None]] = field(default_factory=list)
    """Pages whose sync failed: the system calls them clean, and no later sync writes them. As `unsafe` otherwise."""
    unsafe: list[tuple[int, bytes | None]] = field(default_factory=list)
    """(offset, bytes), or (length, None) for a truncation."""


@dataclass(frozen=True, slots=True)
class _NameChange:
    folder: str
    """Whose sync makes it safe."""
    removed: str
    added: str
    inode: int

    def apply(self, names: dict[str, int]) -> None:
        if self.removed:
            names.pop(self.removed, None)
        if self.added:
            names[self.added] = self.inode


class Disk:
    """What is safe, and what is not yet; fed with records in order.

    Attributes:
        notes: What the run told the world up to here: it must hold after a cut.
    """

    def __init__(
        self, ignored: Callable[[str], bool] = lambda _: False, *, before: Sequence[Found] = ()
    ) -> None:
        """Begin.

        Args:
            ignored: Says of a path whether its syncs do nothing: a sync that was forgotten in the code.
            before: What was in the folder before, all of it safe.
        """
        self.notes: list[dict[str, Any]] = []
        self._ignored = ignored
        self._files: dict[int, _File] = {}
        self._safe_names: dict[str, int] = {}
        self._names: dict[str, int] = {}
        self._unsafe_names: list[_NameChange] = []
        for name, inode, content in before:
            self._safe_names[name] = self._names[name] = inode
            if inode != _FOLDER:
                self._files[inode] = _File(bytearray(content))

    def take(self, record: Record) -> None:
        """Let one call happen."""
        match record.kind:
            case "n":
                self.notes.append(json.loads(record.body))
            case "w":
                self._file(record.a).unsafe.append((record.b, record.body))
            case "t":
                self._file(record.a).unsafe.append((record.b, None))
            case "s":
                self._sync(record)
            case "f":
                self._fail_to_sync(record)
            case "c":
                assert record.a not in self._files, "an inode was used again"
                self._file(record.a)
                self._rename("", record.paths[0], record.a)
            case "m":
                self._rename("", record.paths[0], _FOLDER)
            case "r":
                source, target = record.paths
                assert self._names[source] != _FOLDER, "the model does not know how to rename folders"
                self._rename(source, target, self._names[source])
            case "l":
                source, target = record.paths
                self._rename("", target, self._names[source])
            case "u" | "d":
                self._rename(record.paths[0], "", 0)
            case _:
                raise AssertionError(f"a record of kind {record.kind!r}")

    def reboot(self) -> None:
        """Let the process be gone: inodes that nothing names any more are given to new files."""
        safe = {*self._safe_names.values()} - {*self._names.values()}
        fresh = {inode: -2 - number for number, inode in enumerate(sorted(safe - {_FOLDER}))}
        named = {*self._names.values()}
        self._files = {
            fresh.get(inode, inode): file
            for inode, file in self._files.items()
            if inode in named or inode in fresh
        }
        self._safe_names = {name: fresh.get(inode, inode) for name, inode in self._safe_names.items()}
        self._unsafe_names = [
            replace(change, inode=fresh.get(change.inode, change.inode)) for change in self._unsafe_names
        ]

    def save_all(self, target: Path) -> None:
        """Write what the run itself sees to a folder."""
        files = {inode: _applied(file, lambda: True) for inode, file in self._files.items()}
        _write(target, self._names, files)

    def cut(self, target: Path, rng: random.Random) -> None:
        """Write what a power cut at this point might leave to a folder."""
        likely = rng.choice((0.0, 0.5, 1.0))
        files = {
            inode: _applied(file, lambda: rng.random() < likely)
            for inode, file in self._files.items()
            if file.safe or file.doomed or file.unsafe
        }
        names = dict(self._safe_names)
        likely = rng.choice((0.0, 0.5, 1.0))
        for change in self._unsafe_names:
            if rng.random() < likely:
                change.apply(names)
        _write(target, names, files)

    def _file(self, inode: int) -> _File:
        return self._files.setdefault(inode, _File())

    def _sync(self, record: Record) -> None:
        path = record.paths[0]
        if self._ignored(path):
            return
        if not record.b:
            file = self._file(record.a)
            _make_safe(file)
            return
        kept = []
        for change in self._unsafe_names:
            if change.folder == path:
                change.apply(self._safe_names)
            else:
                kept.append(change)
        self._unsafe_names = kept

    def _fail_to_sync(self, record: Record) -> None:
        if not record.b:
            file = self._file(record.a)
            for offset, written in file.unsafe:
                file.doomed += [(offset, None)] if written is None else _pages(offset, written)
            file.unsafe = []

    def _rename(self, removed: str, added: str, inode: int) -> None:
        folder = (added or removed).rpartition("/")[0]
        change = _NameChange(folder, removed, added, inode)
        change.apply(self._names)
        self._unsafe_names.append(change)


def _applied(file: _File, survives: Callable[[], bool]) -> bytearray:
    content = bytearray(file.safe) if file.doomed or file.unsafe else file.safe
    for offset, written in (*file.doomed, *file.unsafe):
        if written is None:
            if survives():
                del content[offset:]
                content.extend(bytes(offset - len(content)))
            continue
        for at, page in _pages(offset, written):
            if survives():
                content.extend(bytes(max(0, at + len(page) - len(content))))
                content[at : at + len(page)] = page
    return content


def _pages(offset: int, written: bytes) -> Iterator[tuple[int, bytes]]:
    """Cut a write at the borders of pages: they reach the disk one by one."""
    at = 0
    while at < len(written):
        end = min(len(written), at + _PAGE - (offset + at) % _PAGE)
        yield offset + at, written[at:end]
        at = end


def _make_safe(file: _File) -> None:
    """Let a sync succeed: it writes the pages that are dirty, whole, and none of those whose sync failed before."""
    seen = _applied(file, lambda: True)
    if not file.doomed:
        file.safe, file.unsafe = seen, []
        return
    dirty: set[int] = set()
    for offset, written in file.unsafe:
        if written is None:
            # Everything from there on is gone, what had failed too.
            file.doomed = [(at, page) for at, page in file.doomed if at < offset]
            del file.safe[offset:]
        else:
            dirty.update(at // _PAGE for at, _ in _pages(offset, written))
    for number in sorted(dirty):
        page = seen[number * _PAGE : (number + 1) * _PAGE]
        file.safe.extend(bytes(max(0, number * _PAGE + len(page) - len(file.safe))))
        file.safe[number * _PAGE : number * _PAGE + len(page)] = page
    file.doomed = [(at, page) for at, page in file.doomed if at // _PAGE not in dirty]
    file.unsafe = []


def _write(target: Path, names: dict[str, int], files: dict[int, bytearray]) -> None:
    target.mkdir(parents=True)
    for name, inode in sorted(names.items()):
        path = target / name.removeprefix("/")
        if not path.parent.is_dir() or name.endswith(_UNTRACED):
            # A file that is safe in a folder that is not is lost.
            continue
        if inode == _FOLDER:
            path.mkdir()
        else:
            path.write_bytes(files.get(inode, b""))
