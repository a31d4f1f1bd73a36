"""A data directory opened for reading only: by `verify`, `doctor` and `backup`, beside a server or without one.

Nothing is recovered, renewed or brought back, and no write is taken. While a reader is open the server deletes nothing
(see `_outside`), so what the journal named when it was opened stays readable. The directory needs to be writable all the
same: SQLite keeps its readers' marks in it.
"""

from __future__ import annotations

import contextlib
import json
import threading
from typing import TYPE_CHECKING, NamedTuple, NoReturn

import apsw

from tickwire_engine.errors import StorageError
from tickwire_engine.storage import _reads as reads
from tickwire_engine.storage._archiving import datasets
from tickwire_engine.storage._connections import open_copy, open_reader, read_transaction
from tickwire_engine.storage._forgetting import id_floors
from tickwire_engine.storage._leases import Leases
from tickwire_engine.storage._lineage import Lineages
from tickwire_engine.storage._outside import OutsideReaders
from tickwire_engine.storage.archive import LanceArchive
from tickwire_engine.storage.command_history import CommandHistory
from tickwire_engine.storage.history import History
from tickwire_engine.storage.store import JOURNAL, Store, StoreOptions
from tickwire_engine.storage.tick_log import SegmentedTickLog

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from tickwire_engine.errors import StorageFailedError
    from tickwire_engine.storage import TickLog
    from tickwire_engine.storage.archive import Dataset
    from tickwire_engine.storage.rows import StoredComponent, WorldRow


class Start(NamedTuple):
    """One start of a server on the directory."""

    at_us: int
    fingerprint: Mapping[str, str]
    """Code, libraries and CPU features: replay is exact only on the same."""


class JournalReader:
    """The journal without its writer."""

    failed: StorageFailedError | None = None

    def __init__(self, path: Path) -> None:
        """Name the file; every reading thread opens it for itself."""
        self._path = path
        self._local = threading.local()

    @contextlib.contextmanager
    def read(self) -> Iterator[apsw.Connection]:
        """Read one consistent state; calls may be nested."""
        connection: apsw.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = open_reader(self._path)
        with read_transaction(connection, self._path):
            yield connection

    def submit(self, write: object) -> NoReturn:
        """Refuse to write."""
        raise StorageError("the data directory is open for reading only")

    call = submit

    def fail(self, error: BaseException) -> NoReturn:
        """Raise what went wrong."""
        raise error

    def close(self) -> None:
        """Close this thread's connection."""
        connection: apsw.Connection | None = getattr(self._local, "connection", None)
        if connection is not None:
            connection.close()


class StoreReader(Store):
    """A `Store` that reads only."""

    def __init__(self, path: Path) -> None:
        """Open a data directory.

        Raises:
            StorageError: There is none.
        """
        if not (path / JOURNAL).is_file():
            raise StorageError(f"{path} is no data directory: it has no {JOURNAL}")
        self.path = path
        self._held = contextlib.ExitStack()
        self._held.enter_context(OutsideReaders(path / "READERS").reading())
        try:
            self._reader = JournalReader(path / JOURNAL)
            self._journal = self._reader  # type: ignore[assignment]
            self._clock_us = StoreOptions().clock_us
            self._log = SegmentedTickLog(path / "log")
            self._archive = LanceArchive(path / "archive")
            with self._reader.read() as connection:
                worlds = reads.worlds(connection)
                self._id_floors_ms = id_floors(connection)
            self._ids = {row.key: row.id for row in worlds}
            parts = (self._journal, self._log, self._archive, Leases(), self._ids)
            self.history = History(*parts, Lineages(worlds))
            self.command_history = CommandHistory(*parts)
        except BaseException:
            self._held.close()
            raise

    @property
    def log(self) -> TickLog:
        """The tick log, to read records of."""
        return self._log

    @contextlib.contextmanager
    def reading(self) -> Iterator[apsw.Connection]:
        """Read one consistent state of the journal."""
        with self._reader.read() as connection:
            yield connection

    def worlds(self) -> list[WorldRow]:
        """Read all worlds, destroyed ones too, oldest first."""
        with self._reader.read() as connection:
            return reads.worlds(connection)

    def starts(self) -> list[Start]:
        """Read the starts that the directory has seen, in order."""
        with self._reader.read() as connection:
            rows = connection.execute("SELECT started_at_us, fingerprint FROM starts ORDER BY number")
            return [Start(at, json.loads(text)) for at, text in rows]

    def components(self) -> list[StoredComponent]:
        """Read the components that clients registered, by name."""
        with self._reader.read() as connection:
            return reads.components(connection)

    def datasets(self) -> list[Dataset]:
        """Read which datasets the journal names."""
        with self._reader.read() as connection:
            return datasets(connection)

    def segments(self) -> set[int]:
        """Read which segments of the tick log the journal names."""
        with self._reader.read() as connection:
            return reads.segments(connection)

    def copy_journal(self, target: Path) -> None:
        """Copy the journal as of one moment to a new file.

        Raises:
            CorruptRecordError: A page of it is damaged.
        """
        with self._reader.read() as source, contextlib.closing(open_copy(target)) as copy:
            with copy.backup("main", source, "main") as backup:
                backup.step()
            # As a file by itself: a copy has no write-ahead log yet.
            copy.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)

    def close(self) -> None:
        """Let the directory go."""
        self._reader.close()
        self._log.close()
        self._held.close()
