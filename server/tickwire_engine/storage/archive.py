"""The archive: LanceDB datasets by tick range, one writer, and readers of journaled versions only.

Lance never syncs a file, and a power cut can leave its newest manifest empty, which makes the dataset
unopenable. So the journal names the version of each dataset up to which everything was synced; a start brings
every dataset back to it, and what came after, or belongs to no dataset, is deleted. `lancedb` is imported by
the first use: it costs a second. Nothing here knows ticks or records; see `archiver` for what is written,
`history` for what is read.
"""

from __future__ import annotations

import contextlib
import datetime
import shutil
import threading
import warnings
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa
import structlog

from tickwire_engine import failpoints
from tickwire_engine.errors import CorruptRecordError
from tickwire_engine.storage._background import Background
from tickwire_engine.storage._entity_runs import (
    LEAST_TICKS,
    RUN_LEAST_ROWS,
    RUN_ROWS,
    read_run,
    runs_in,
    write_run,
)
from tickwire_engine.storage._files import sync_directory, sync_files

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    import numpy as np

_log = structlog.get_logger(__name__)

_STORAGE_VERSION = "2.1"
"""The first file format that keeps nulls of structs; pinned, so that a library release does not change it."""

_NEWEST = 2**64 - 1
_TAG = "journaled"
_ALL = 2**31 - 1
_FEW_ENTITIES = 64
"""More of them are not worth as many searches in runs."""


class Dataset(NamedTuple):
    """One Lance dataset, as the journal knows it."""

    world: int
    kind: str
    """What it holds: "stream", "ticks" or "commands"."""
    stream: int
    """The stream whose rows it holds; 0 for the other kinds."""
    first_tick: int
    last_tick: int
    rows: int
    path: str
    """`<world uuid>/<name>`, below the archive's folder and without its suffix."""
    version: int
    """The last version that was synced whole; 0 for a dataset that is not there yet."""
    unindexed: int
    """Rows appended since it was last compacted and indexed."""
    optimised: int
    """The version that this made."""
    sealed: int
    """1 once nothing more is appended."""
    nbytes: int = 0
    """Of its rows, as Arrow holds them."""
    kept: int = 0
    """Records left of the ticks that the floor has passed; 0 while all are there, in order and without gaps."""


class LanceArchive:
    """The datasets below one folder. Writes come from one thread, reads from any."""

    def __init__(self, root: Path) -> None:
        """Name the folder; it is made by the first append."""
        self._root = root
        self._lock = threading.Lock()
        self._readers: dict[str, tuple[int, Any]] = {}
        self._synced: dict[str, set[Path]] = {}
        self._suspect: set[str] = set()
        self._background = Background()

    def bring_back(self, known: Iterable[Dataset]) -> None:
        """Bring all datasets to their journaled versions, before anything is read or appended."""
        if not self._root.exists():
            return
        versions = {self._folder(dataset.path): dataset.version for dataset in known}
        for folder in self._root.glob("*/*.lance"):
            version = versions.get(folder)
            if version is None:
                shutil.rmtree(folder)
            else:
                _drop_newer(folder, version)

    def append(self, dataset: Dataset, rows: pa.Table) -> int:
        """Append rows, and make the dataset first if it is new.

        Args:
            dataset: As it is journaled; version 0 makes it.
            rows: In freshly allocated arrays: slices, and batches read from IPC, have broken Lance's writer.

        Returns:
            The new version; durable only after `sync`.

        Raises:
            CorruptRecordError: The dataset cannot be opened.
        """
        self._background.move()
        if dataset.version == 0:
            folder, name = self._split(dataset.path)
            folder.mkdir(parents=True, exist_ok=True)
            # What a failed turn left there was never journaled.
            shutil.rmtree(self._folder(dataset.path), ignore_errors=True)
            return int(_connect(folder).create_table(name, rows).version)
        table = self._writer(dataset)
        self._suspect.add(dataset.path)
        table.add(rows)
        version = int(table.version)
        self._suspect.discard(dataset.path)
        return version

    def optimise(self, dataset: Dataset, columns: Sequence[str]) -> int:
        """Compact the dataset and index columns.

        Returns:
            The new version; durable only after `sync`.
        """
        from lancedb.index import BTree

        self._background.move()
        table = self._writer(dataset)
        self._suspect.add(dataset.path)
        table.optimize()
        failpoints.reach("compaction.inside")
        indexed = {column for index in table.list_indices() for column in index.columns}
        for column in columns:
            if column not in indexed:
                table.create_index(column, config=BTree())
        version = 0
        while version != table.version:
            # Fragments that the index has just taken in can be merged with others now; `clean` must find
            # nothing left.
            version = int(table.version)
            table.optimize()
        self._suspect.discard(dataset.path)
        return version

    def clean(self, dataset: Dataset) -> None:
        """Delete what only versions before the journaled one refer to: nobody may be reading those."""
        table = self._writer(dataset)
        # Should the library ever make a version of its own here, the tag keeps it from deleting the journaled
        # one.
        if _TAG in table.tags.list():
            table.tags.update(_TAG, dataset.version)
        else:
            table.tags.create(_TAG, dataset.version)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            table.optimize(cleanup_older_than=datetime.timedelta(0), delete_unverified=True)
        if table.version != dataset.version:
            self._suspect.add(dataset.path)
        self._synced.pop(dataset.path, None)

    def sync(self, path: str) -> None:
        """Make every new file of a dataset durable, and all names up to the data directory.

        Raises:
            OSError: A sync failed; nothing that was appended since the last one may be relied on.
        """
        folder = self._folder(path)
        synced = self._synced.setdefault(path, set())
        found = [path for path in folder.rglob("*") if path not in synced and path.suffix != ".json"]
        files = [path for path in found if path.is_file()]
        sync_files([file for file in files if not failpoints.reach("archive.fsync")])
        changed = {path.parent for path in found} | {*found}.difference(files)
        synced.update(found)
        for directory in (*changed, folder.parent, self._root, self._root.parent):
            if not failpoints.reach("archive.folder_fsync"):
                sync_directory(directory)

    def read(self, dataset: Dataset, where: str, columns: pa.Schema | None = None) -> pa.Table:
        """Read rows of the journaled version, in the order in which they were appended.

        Args:
            dataset: As it is journaled.
            where: Which rows, in Lance's SQL.
            columns: Which columns, as they were written; None takes all that there are, as they are.

        Raises:
            CorruptRecordError: The dataset cannot be read, or its columns are not those.
        """
        with _readable(dataset):
            query = self._reader(dataset).search().where(where).limit(_ALL)
            if columns is not None:
                query = query.select(columns.names)
            rows: pa.Table = query.to_arrow()
            if columns is not None:
                _require_columns(rows, columns)
        return rows

    def read_entities(
        self,
        dataset: Dataset,
        entity_ids: np.ndarray[Any, Any],
        ticks: tuple[int, int],
        columns: pa.Schema,
    ) -> pa.Table:
        """Read the rows of a few entities at a range of ticks, in no order, and perhaps rows of theirs at other ticks.

        Args:
            dataset: As it is journaled.
            entity_ids: Ascending.
            ticks: (first, last), both included.
            columns: Which, as they were written; tick and entity_id are among them.

        Raises:
            CorruptRecordError: The dataset cannot be read.
        """
        first, last = ticks
        chosen = f"entity_id IN ({', '.join(map(str, entity_ids.tolist()))})"
        found: list[pa.Table] = []
        for run in runs_in(self._folder(dataset.path)) if len(entity_ids) <= _FEW_ENTITIES else ():
            if run.first_tick > first:
                break
            if run.last_tick < first:
                continue
            try:
                found.append(read_run(run, entity_ids, columns.names))
            except (OSError, ValueError, KeyError) as error:
                _log.warning(
                    "a run cannot be read", dataset=dataset.path, run=run.path.name, error=str(error)
                )
                break
            first = run.last_tick + 1
            if first > last:
                break
        if first <= last:
            # To combine both costs Lance more than to pass over rows of some other ticks.
            few = 4 * (last - first) < dataset.last_tick - dataset.first_tick
            between = f" AND tick >= {first} AND tick <= {last}"
            found.append(self.read(dataset, chosen + between if few else chosen, columns))
            if found[:-1] and not few:
                rest = found[-1]["tick"].to_numpy() >= first
                found[-1] = found[-1].filter(pa.array(rest))
        return found[0] if len(found) == 1 else pa.concat_tables(found)

    def gather(self, dataset: Dataset, *, stop: Callable[[], bool]) -> None:
        """Sort rows that have no run yet by entity, as far as that makes reads of entities faster; see `_entity_runs`.

        Args:
            dataset: As it is journaled; one of a stream.
            stop: Asked every so often whether there is something better to do.
        """
        folder = self._folder(dataset.path)
        runs = runs_in(folder)
        first = runs[-1].last_tick + 1 if runs else dataset.first_tick
        sorted_rows = sum(run.rows for run in runs)
        left = dataset.rows - sorted_rows
        if left < RUN_LEAST_ROWS or (left < sorted_rows // 4 and not dataset.sealed):
            return
        step = (dataset.last_tick - first + 1) * RUN_ROWS // max(left, 1)
        if step < LEAST_TICKS:
            return
        while first <= dataset.last_tick and not stop():
            last = min(first + step - 1, dataset.last_tick)
            rows = self.read(dataset, f"tick >= {first} AND tick <= {last}")
            write_run(folder, first, last, rows)
            first = last + 1

    def count(self, dataset: Dataset, where: str) -> int:
        """Count rows of the journaled version.

        Raises:
            CorruptRecordError: The dataset cannot be read.
        """
        with _readable(dataset):
            return int(self._reader(dataset).count_rows(where))

    def delete(self, path: str) -> None:
        """Delete a dataset that the journal does not name any more and nobody reads."""
        with self._lock:
            self._readers.pop(path, None)
        self._synced.pop(path, None)
        shutil.rmtree(self._folder(path), ignore_errors=True)

    def _reader(self, dataset: Dataset) -> Any:
        with self._lock:
            version, table = self._readers.get(dataset.path, (0, None))
            if version != dataset.version:
                folder, name = self._split(dataset.path)
                table = _connect(folder).open_table(name)
                table.checkout(dataset.version)
                if dataset.version > version:
                    self._readers[dataset.path] = (dataset.version, table)
            return table

    def _writer(self, dataset: Dataset) -> Any:
        folder, name = self._split(dataset.path)
        with _readable(dataset):
            table = _connect(folder).open_table(name)
        if dataset.path in self._suspect or table.version != dataset.version:
            # An append of this process failed half-way: go on from what is journaled.
            _log.warning("archive dataset restored", dataset=dataset.path, version=dataset.version)
            table.checkout(dataset.version)
            table.restore()
        return table

    def _split(self, path: str) -> tuple[Path, str]:
        folder, _, name = path.rpartition("/")
        return self._root / folder, name

    def _folder(self, path: str) -> Path:
        return self._root / f"{path}.lance"


@contextlib.contextmanager
def _readable(dataset: Dataset) -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        # Damaged files make the library raise anything, panics included, which are no Exceptions.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise _unreadable(dataset) from error


def _require_columns(rows: pa.Table, columns: pa.Schema) -> None:
    """Refuse what a damaged manifest makes of columns: others by their names or types, or nothing but nulls."""
    for found, field in zip(rows.columns, columns, strict=True):
        if found.type != field.type or (found.null_count and not field.nullable):
            raise TypeError(f"column {field.name} is {found.type} with {found.null_count} nulls, not {field}")


def _unreadable(dataset: Dataset) -> CorruptRecordError:
    return CorruptRecordError(
        f"the archive's dataset {dataset.path} cannot be read at version {dataset.version}; "
        "restore the data directory from a backup",
        dataset=dataset.path,
        version=dataset.version,
    )


def _connect(folder: Path) -> Any:
    import lancedb

    return lancedb.connect(folder, storage_options={"new_table_data_storage_version": _STORAGE_VERSION})


def files_of(folder: Path, version: int) -> list[Path]:
    """Return the files that a dataset at a version may need: all that a restart would keep, whatever is added meanwhile."""
    found = []
    for file in sorted(folder.rglob("*")):
        if file.is_dir() or file.name.startswith(".tmp") or file.suffix == ".json":
            continue
        if file.parent.name == "_versions" and not (
            file.suffix == ".manifest" and file.stem.isdigit() and _NEWEST - int(file.stem) <= version
        ):
            continue
        found.append(file)
    return found


def newer_manifests(folder: Path, version: int) -> list[Path]:
    """Return the manifests of a dataset's versions after one: what they added is garbage."""
    found = []
    for manifest in sorted((folder / "_versions").glob("*.manifest")):
        with contextlib.suppress(ValueError):
            if _NEWEST - int(manifest.stem) > version:
                found.append(manifest)
    return found


def _drop_newer(folder: Path, version: int) -> None:
    """Delete manifests after a version: the head is then that version, and what they added is garbage."""
    versions = folder / "_versions"
    # The hint and the tag are written in place, unsynced: a torn one must not be read.
    (versions / "latest_version_hint.json").unlink(missing_ok=True)
    (folder / "_refs" / "tags" / f"{_TAG}.json").unlink(missing_ok=True)
    for manifest in newer_manifests(folder, version):
        manifest.unlink()
    if versions.exists():
        sync_directory(versions)
