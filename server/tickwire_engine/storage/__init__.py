"""Durable storage of worlds: a journal, a tick log and an archive behind one door.

The door is `Store` (tickwire_engine.storage.store). The layers below it are Protocols, each with one implementation
beside it, so that a replicated log or an object store can take a layer's place:

    Journal    SqliteJournal (journal.py)        what is committed, in one order
    TickLog    SegmentedTickLog (tick_log.py)    bytes too large for the journal's rows
    Archive    LanceArchive (archive.py)         history, by ranges of ticks

Nothing heavy is imported before `open_store` is called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Collection, Iterable, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    import apsw
    import numpy as np
    import pyarrow as pa

    from tickwire_engine.errors import StorageFailedError
    from tickwire_engine.storage.archive import Dataset
    from tickwire_engine.storage.journal import Write
    from tickwire_engine.storage.store import Store, StoreOptions
    from tickwire_engine.storage.tick_log import Location, RecordKind

__all__ = ["Archive", "Journal", "TickLog", "open_store"]

_T = TypeVar("_T")


def open_store(path: Path, *, options: StoreOptions | None = None) -> Store:
    """Open the data directory `path`, and make it if it is not there; see `Store.open`."""
    from tickwire_engine.storage.store import Store

    return Store.open(path, options=options)


class Journal(Protocol):
    """One order of writes, each durable before it is acknowledged, and consistent reads of what they left."""

    @property
    def failed(self) -> StorageFailedError | None:
        """Why no more writes are taken, or None."""
        ...

    def submit(self, write: Write[_T]) -> asyncio.Future[_T]:
        """Hand in a write on an event-loop thread; the future resolves once it is durable."""
        ...

    def call(self, write: Write[_T]) -> _T:
        """Hand in a write on another thread, and wait until it is durable."""
        ...

    def read(self) -> AbstractContextManager[apsw.Connection]:
        """Read one consistent state, on any thread."""
        ...

    def fail(self, error: BaseException) -> StorageFailedError:
        """Take no more writes: something that was acknowledged may be gone."""
        ...

    def stop_waiting(self) -> None:
        """Keep nothing back any more that waits for room on the disk."""
        ...

    def close(self) -> None:
        """Finish what was handed in, and stop."""
        ...


class TickLog(Protocol):
    """Checksummed records in append-only segments; what no row of the journal names does not exist."""

    @property
    def current(self) -> int:
        """The segment that is written to."""
        ...

    def append(self, kind: RecordKind, world: bytes, tick: int, parts: Sequence[bytes]) -> Location:
        """Write a record; durable after `sync`."""
        ...

    def sync(self) -> None:
        """Make all appended records durable."""
        ...

    def read(
        self, location: Location, kind: RecordKind, world: bytes, tick: int, sizes: Sequence[int]
    ) -> tuple[bytes, ...]:
        """Read a record, checked."""
        ...

    def segments(self) -> list[int]:
        """Return the segments there are."""
        ...

    def delete(self, segment: int) -> None:
        """Delete a segment."""
        ...

    def delete_except(self, kept: Collection[int]) -> None:
        """Delete all other segments, before anything is appended."""
        ...

    def release(self) -> bool:
        """Give up disk space that is only kept for speed; False: there is none."""
        ...

    def renew(self) -> None:
        """Bring what a failed sync left undecided to the disk."""
        ...

    def close(self) -> None:
        """Let go of all files."""
        ...


class Archive(Protocol):
    """Versioned datasets of rows; one writer, and readers of versions that the journal names."""

    def bring_back(self, known: Iterable[Dataset]) -> None:
        """Bring all datasets to their journaled versions, and delete others."""
        ...

    def append(self, dataset: Dataset, rows: pa.Table) -> int:
        """Append rows; returns the new version, durable after `sync`."""
        ...

    def optimise(self, dataset: Dataset, columns: Sequence[str]) -> int:
        """Compact and index; returns the new version, durable after `sync`."""
        ...

    def sync(self, path: str) -> None:
        """Make a dataset's files durable."""
        ...

    def clean(self, dataset: Dataset) -> None:
        """Delete what only earlier versions refer to."""
        ...

    def read(self, dataset: Dataset, where: str, columns: pa.Schema | None = None) -> pa.Table:
        """Read rows of the journaled version, in the order in which they were appended; which columns, or all."""
        ...

    def read_entities(
        self,
        dataset: Dataset,
        entity_ids: np.ndarray[Any, Any],
        ticks: tuple[int, int],
        columns: pa.Schema,
    ) -> pa.Table:
        """Read the rows of a few entities at a range of ticks, in no order, and perhaps rows of theirs at other ticks."""
        ...

    def gather(self, dataset: Dataset, *, stop: Callable[[], bool]) -> None:
        """Sort rows by entity, beside the dataset, for `read_entities`, until there is something better to do."""
        ...

    def count(self, dataset: Dataset, where: str) -> int:
        """Count rows of the journaled version."""
        ...

    def delete(self, path: str) -> None:
        """Delete a dataset."""
        ...
