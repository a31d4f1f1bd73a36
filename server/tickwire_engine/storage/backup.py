"""Backups: a consistent copy of a data directory, of a live server's too.

The journal is copied first, as of one moment, by SQLite itself; then what that copy names: segments of the tick log and
versions of datasets. Both only ever grow while the copy is made, since a reader in the directory holds up all deletions
(see `_outside`). The copy is a data directory like any other: it can be served, verified, and backed up. It gets its name
once every byte of it is synced, so there are no half backups.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from tickwire_engine.errors import CorruptRecordError, InvalidRequestError
from tickwire_engine.storage._files import sync_directory, sync_files
from tickwire_engine.storage.archive import files_of
from tickwire_engine.storage.reader import StoreReader
from tickwire_engine.storage.store import JOURNAL


@dataclass(frozen=True, slots=True)
class Copied:
    """What a backup holds."""

    worlds: int
    segments: int
    datasets: int
    nbytes: int


def copy_data(source: Path, target: Path) -> Copied:
    """Copy a data directory to a new one.

    Args:
        source: A data directory; a server may be serving it.
        target: Where the copy goes; there must be nothing, or an empty folder.

    Raises:
        InvalidRequestError: There is something at `target`.
        CorruptRecordError: Something that the journal names is missing, or a page of the journal is damaged.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InvalidRequestError(
            f"{target} is there already and not empty: choose another place", field="target"
        )
    part = target.with_name(target.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    store = StoreReader(source)
    try:
        part.mkdir(parents=True)
        store.copy_journal(part / JOURNAL)
    except BaseException:
        store.close()
        raise
    try:
        copied = _copy_named(source, part)
    finally:
        store.close()
    _sync_tree(part)
    if target.exists():
        target.rmdir()
    part.rename(target)
    sync_directory(target.parent)
    return copied


def _copy_named(source: Path, part: Path) -> Copied:
    copy = StoreReader(part)
    try:
        worlds, segments, datasets = copy.worlds(), copy.segments(), copy.datasets()
    finally:
        copy.close()
    # The copy is read by nobody else: all that its reader left there may go.
    for name in ("READERS", f"{JOURNAL}-shm", f"{JOURNAL}-wal"):
        (part / name).unlink(missing_ok=True)
    files = [source / "log" / f"{number:08}.seg" for number in sorted(segments)]
    for dataset in datasets:
        files += files_of(source / "archive" / f"{dataset.path}.lance", dataset.version)
    nbytes = (part / JOURNAL).stat().st_size
    for file in files:
        target = part / file.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            shutil.copyfile(file, target)
        except FileNotFoundError:
            raise CorruptRecordError(
                f"{file.relative_to(source)} is missing, and the journal names it: run `tickwire doctor`",
                file=str(file.relative_to(source)),
            ) from None
        nbytes += target.stat().st_size
    return Copied(sum(not row.destroyed_at_us for row in worlds), len(segments), len(datasets), nbytes)


def _sync_tree(root: Path) -> None:
    for folder, _, names in os.walk(root):
        sync_files([Path(folder) / name for name in names])
        sync_directory(Path(folder))
