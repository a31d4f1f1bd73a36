"""The doctor: what a data directory's files are worth, told by file, world and tick; and what can be put right.

It reads everything that the journal names, the way a server would, and changes nothing; a server may be serving the
directory meanwhile. What is damaged stays damaged: rows cannot be guessed, they come back from a backup only. What it can
repair are leftovers, of which nothing that was ever acknowledged depends: files that no row of the journal names, and
versions of datasets that are newer than the journal's. A start clears most of them too.
"""

from __future__ import annotations

import contextlib
import shutil
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING
from uuid import UUID

from tickwire_engine.errors import CorruptRecordError, StorageError, TickwireError
from tickwire_engine.storage import _reads as reads
from tickwire_engine.storage._archiving import watermark
from tickwire_engine.storage._lock import DirectoryLock, owner_of
from tickwire_engine.storage._wal import check_wal
from tickwire_engine.storage._writes import WorldKey
from tickwire_engine.storage.archive import newer_manifests
from tickwire_engine.storage.reader import StoreReader
from tickwire_engine.storage.store import JOURNAL

if TYPE_CHECKING:
    from collections.abc import Container, Iterator, Mapping
    from pathlib import Path

    from tickwire_engine.storage.rows import WorldRow

_PAGE_TICKS = 64
_IN_THE_WAY = "cannot be read while versions newer than the journal's lie there: repair, or start a server, then look again"


@dataclass(frozen=True, slots=True)
class Damage:
    """Something that cannot be read as it was written.

    Attributes:
        file: Below the data directory; "" where the error does not tell.
        world: The world's name and id, or "".
        tick: The tick that cannot be read, or None.
    """

    problem: str
    file: str = ""
    world: str = ""
    tick: int | None = None


@dataclass(frozen=True, slots=True)
class Leftover:
    """A file or folder of which nothing depends.

    Attributes:
        path: Below the data directory.
        nbytes: What deleting it frees.
        why: How it is known that nothing depends on it.
    """

    path: str
    nbytes: int
    why: str


@dataclass(frozen=True, slots=True)
class WorldHealth:
    """What is there of one world.

    Attributes:
        first_tick: The first tick kept; past `last_tick`: none.
        whole_ticks: How many of the kept ticks can be read, whole.
        archived_tick: The last one that lies in the archive.
    """

    name: str
    id: str
    destroyed: bool
    first_tick: int
    last_tick: int
    whole_ticks: int
    archived_tick: int
    damage: tuple[Damage, ...]


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """All that the doctor has found.

    Attributes:
        served_by: The process that serves the directory, as its lock says; None: nobody.
        unclean: Its last server was killed; the next start recovers by itself.
        files: Bytes by kind of file.
        damage: Damage of files that are not one world's.
        leftovers: Not looked for while a server is at work.
    """

    data: str
    served_by: Mapping[str, str] | None
    unclean: bool
    files: Mapping[str, int]
    worlds: tuple[WorldHealth, ...] = ()
    damage: tuple[Damage, ...] = ()
    leftovers: tuple[Leftover, ...] = ()

    @property
    def healthy(self) -> bool:
        """Whether all that was ever acknowledged, and is kept, is there."""
        return not self.damage and not any(world.damage for world in self.worlds)


@dataclass(slots=True)
class _Examination:
    path: Path
    damage: list[Damage] = field(default_factory=list)

    @contextlib.contextmanager
    def noting(self, file: str = "") -> Iterator[None]:
        """Note as damage what cannot be read."""
        try:
            yield
        except CorruptRecordError as error:
            self.damage.append(_damage(error, file))


def examine(path: Path) -> Diagnosis:
    """Read a data directory from end to end.

    Raises:
        StorageError: There is none, or a later release wrote it.
    """
    if not (path / JOURNAL).is_file():
        raise StorageError(f"{path} is no data directory: it has no {JOURNAL}")
    served_by = owner_of(path / "LOCK")
    found = _Examination(path)
    wal = path / f"{JOURNAL}-wal"
    unclean = served_by is None and wal.exists() and wal.stat().st_size > 0
    if unclean:
        with found.noting(wal.name):
            check_wal(wal)
    worlds: tuple[WorldHealth, ...] = ()
    leftovers: tuple[Leftover, ...] = ()
    with found.noting(JOURNAL), contextlib.closing(StoreReader(path)) as store:
        _check_pages(store)
        rows = store.worlds()
        destroyed = {row.key for row in rows if row.destroyed_at_us}
        worlds = tuple(_examine_world(store, row, destroyed) for row in rows)
        with found.noting():
            _check_segments(store, path)
        if served_by is None:
            leftovers = tuple(_leftovers(store, path))
            worlds = tuple(_told_of_newer(world, leftovers) for world in worlds)
    return Diagnosis(str(path), served_by, unclean, _sizes(path), worlds, tuple(found.damage), leftovers)


def repair(path: Path, leftovers: tuple[Leftover, ...]) -> None:
    """Delete leftovers that `examine` found.

    Raises:
        DataDirectoryLockedError: A server has begun to serve the directory meanwhile.
    """
    lock = DirectoryLock(path / "LOCK")
    try:
        for leftover in leftovers:
            target = path / leftover.path
            if target.is_dir():
                shutil.rmtree(target)
            else:
                target.unlink(missing_ok=True)
    finally:
        lock.release()


def _check_pages(store: StoreReader) -> None:
    """Read every page of the journal; each has a checksum."""
    with store.reading() as connection:
        problems = [row[0] for row in connection.execute("PRAGMA integrity_check(5)") if row[0] != "ok"]
    if problems:
        raise CorruptRecordError(f"the journal's tables do not fit together: {'; '.join(map(str, problems))}")


def _check_segments(store: StoreReader, path: Path) -> None:
    missing = [n for n in sorted(store.segments()) if not (path / "log" / f"{n:08}.seg").is_file()]
    if missing:
        raise CorruptRecordError(
            f"segments {', '.join(map(str, missing))} of the tick log are missing, and the journal names them",
            file=f"log/{missing[0]:08}.seg",
        )


def _examine_world(store: StoreReader, row: WorldRow, destroyed: Container[int]) -> WorldHealth:
    history, key = store.history, row.key
    found = _Examination(store.path)
    first = last = archived = -1
    whole = 0
    with found.noting(JOURNAL):
        last = history.last_tick(key)
        with store.reading() as connection:
            archived = watermark(connection, key)
        # What a fork shares is read with the world that it is of, unless that was destroyed.
        read_here = (s.first for s in history.lineages.of(key) if s.world == key or s.world in destroyed)
        first = max(next(read_here), history.earliest_tick(key))
        # Whether a world that was destroyed still has its files is nobody's business.
        if not row.destroyed_at_us:
            whole = _read_ticks(store, row, first, last, found)
            with found.noting(JOURNAL), store.reading() as connection:
                for _ in reads.commands(connection, store.log, WorldKey(key, row.id)):
                    pass
    named = f"{row.name} ({_uuid(row.id)})"
    return WorldHealth(
        row.name,
        _uuid(row.id),
        bool(row.destroyed_at_us),
        first,
        last,
        whole,
        archived,
        tuple(Damage(d.problem, d.file, named, d.tick) for d in found.damage),
    )


def _read_ticks(store: StoreReader, row: WorldRow, first: int, last: int, found: _Examination) -> int:
    """Read all ticks page by page, and one by one where a page has damage; return how many are whole."""
    whole = 0
    for start in range(first, last + 1, _PAGE_TICKS):
        end = min(start + _PAGE_TICKS - 1, last)
        try:
            whole += _read(store, row, start, end)
        except TickwireError:
            for tick in range(start, end + 1):
                try:
                    whole += _read(store, row, tick, tick)
                except CorruptRecordError as error:
                    found.damage.append(_damage(error, "", tick=tick))
    return whole


def _read(store: StoreReader, row: WorldRow, first: int, last: int) -> int:
    ticks = [tick.summary.tick for tick in store.history.ticks(row.key, first, last)]
    if ticks != list(range(first, last + 1)):
        lost = sorted({*range(first, last + 1)} - {*ticks})
        raise CorruptRecordError(f"tick {lost[0]} is missing", tick=lost[0])
    store.history.applied(row.key, first, last)
    return len(ticks)


def _leftovers(store: StoreReader, path: Path) -> Iterator[Leftover]:
    named = store.segments()
    for segment in sorted((path / "log").glob("*.seg")):
        if segment.stem.isdigit() and int(segment.stem) not in named:
            yield _leftover(path, segment, "no row of the journal names this segment")
    for spare in sorted((path / "log").glob("*.spare")):
        yield _leftover(path, spare, "a segment without records, kept to be written over")
    for copy in sorted([*path.glob("*.copy"), *(path / "log").glob("*.copy")]):
        yield _leftover(path, copy, "a copy that a start did not finish; the original is in its place")
    versions = {dataset.path: dataset.version for dataset in store.datasets()}
    root = path / "archive"
    for folder in sorted(root.glob("*/*.lance")):
        name = str(folder.relative_to(root)).removesuffix(".lance")
        if name not in versions:
            yield _leftover(path, folder, "the journal names no such dataset")
            continue
        for manifest in newer_manifests(folder, versions[name]):
            yield _leftover(path, manifest, f"a version after {versions[name]}, which the journal names")


def _told_of_newer(world: WorldHealth, leftovers: tuple[Leftover, ...]) -> WorldHealth:
    """Say where a version that a killed process left half-written may be all that is wrong: a start would delete it."""
    headed = {leftover.path.partition("/_versions/")[0] for leftover in leftovers}
    return replace(
        world,
        damage=tuple(
            replace(damage, problem=f"{_IN_THE_WAY} ({damage.problem})") if damage.file in headed else damage
            for damage in world.damage
        ),
    )


def _leftover(root: Path, path: Path, why: str) -> Leftover:
    return Leftover(str(path.relative_to(root)), _nbytes(path), why)


def _sizes(path: Path) -> dict[str, int]:
    return {
        "journal": sum(file.stat().st_size for file in path.glob(f"{JOURNAL}*")),
        "tick log": _nbytes(path / "log"),
        "archive": _nbytes(path / "archive"),
    }


def _nbytes(path: Path) -> int:
    if path.is_file():
        return path.stat().st_size
    total = 0
    for file in path.rglob("*"):
        # Beside a server files come and go.
        with contextlib.suppress(FileNotFoundError):
            total += file.stat().st_size if file.is_file() else 0
    return total


def _damage(error: CorruptRecordError, file: str, *, tick: int | None = None) -> Damage:
    facts = error.metadata
    if "segment" in facts:
        file = f"log/{int(facts['segment']):08}.seg"
    elif "dataset" in facts:
        file = f"archive/{facts['dataset']}.lance"
    known = facts.get("tick", "")
    named = int(known) if known.lstrip("-").isdigit() else None
    return Damage(error.message, facts.get("file", file), tick=named if tick is None else tick)


def _uuid(raw: bytes) -> str:
    return str(UUID(bytes=raw))
