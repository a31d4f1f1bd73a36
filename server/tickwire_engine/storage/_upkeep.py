"""Upkeep of the archive's datasets: compact, index, seal, clean up.

It is paid per row once or twice, and never grows with history: a dataset is sealed at some millions of rows
and not touched again. On the archiver's thread only.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from tickwire_engine import failpoints
from tickwire_engine.storage import _retaining as retaining
from tickwire_engine.storage._archiving import WriteDataset, datasets, sync_dataset

if TYPE_CHECKING:
    from collections.abc import Callable

    from tickwire_engine.storage import Archive, Journal
    from tickwire_engine.storage._leases import Leases
    from tickwire_engine.storage.archive import Dataset
    from tickwire_engine.storage.retention import Retention


_log = structlog.get_logger(__name__)
_INDEXED = {"stream": ("tick", "entity_id"), "ticks": ("tick",), "commands": ("applied_tick", "seq")}
_MAX_APPENDS = 64
_FEW_APPENDS = 8
"""A dataset of few rows and as few appends is scanned as fast as it is looked up in."""
_SHARE = 8
"""A sealed dataset holds about one part in so many of the ticks or the bytes that its world keeps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UpkeepLimits:
    """When a dataset is looked after."""

    dataset_rows: int = 5_000_000
    """A dataset with as many rows is sealed, and the next rows go to a new one."""
    dataset_ticks: int = 64
    """A dataset spans at least so many ticks before retention has it sealed."""
    kept_records: int = 50_000
    """A dataset of what is left of older ticks is sealed with so many records."""
    unindexed_rows: int = 1_000_000
    """So many rows may lie outside the indexes; a scan of them takes some 30 ms."""
    idle_rows: int = 50_000
    """So many may stay outside when there is nothing else to do."""


class Upkeep:
    """Looks after the datasets of worlds."""

    def __init__(self, journal: Journal, archive: Archive, leases: Leases, limits: UpkeepLimits) -> None:
        self._journal = journal
        self._archive = archive
        self._leases = leases
        self._limits = limits

    def after_copy(self, world: int) -> None:
        """Do what must not be put off."""
        self._look_after(world, self._limits.unindexed_rows)

    def when_idle(self, world: int, *, busy: Callable[[], bool]) -> None:
        """Do what makes reads faster, until there is something else to do."""
        self._look_after(world, self._limits.idle_rows)
        with self._journal.read() as connection:
            known = datasets(connection, world)
        for dataset in known:
            if dataset.kind == "stream" and not dataset.kept:
                try:
                    self._archive.gather(dataset, stop=busy)
                except OSError as error:
                    # Reads do without.
                    _log.warning("rows were not sorted by entity", dataset=dataset.path, error=str(error))

    def _look_after(self, world: int, unindexed: int) -> None:
        with self._journal.read() as connection:
            known = datasets(connection, world)
            retention = retaining.retention(connection, world)
        open_bytes = sum(dataset.nbytes for dataset in known if not (dataset.sealed or dataset.kept))
        for dataset in known:
            full = self._is_full(dataset, retention, open_bytes)
            appends = dataset.version - dataset.optimised
            if dataset.sealed:
                continue
            if full and dataset.rows <= self._limits.idle_rows and appends <= _FEW_APPENDS:
                self._journal.call(WriteDataset(dataset._replace(sealed=1)))
            elif full or dataset.unindexed > unindexed or appends > _MAX_APPENDS:
                self._optimise(dataset, sealed=full)

    def _is_full(self, dataset: Dataset, retention: Retention, open_bytes: int) -> bool:
        """Whether to seal it: retention deletes whole datasets, so they must be small beside what is kept."""
        limits = self._limits
        if dataset.rows >= limits.dataset_rows:
            return True
        if dataset.kept:
            return dataset.kept >= limits.kept_records
        ticks = dataset.last_tick - dataset.first_tick + 1
        if retention.keep_ticks and ticks >= max(retention.keep_ticks // _SHARE, limits.dataset_ticks):
            return True
        many = bool(retention.keep_bytes) and open_bytes >= retention.keep_bytes // _SHARE
        return many and dataset.nbytes * _SHARE >= open_bytes

    def _optimise(self, dataset: Dataset, *, sealed: bool) -> None:
        failpoints.reach("compaction.before")
        version = self._archive.optimise(dataset, _INDEXED[dataset.kind])
        failpoints.reach("compaction.after")
        sync_dataset(self._journal, self._archive, dataset.path)
        optimised = dataset._replace(version=version, unindexed=0, optimised=version, sealed=int(sealed))
        self._journal.call(WriteDataset(optimised))
        self._leases.defer(functools.partial(self._clean, optimised))

    def _clean(self, dataset: Dataset) -> None:
        with self._journal.read() as connection:
            unchanged = dataset in datasets(connection, dataset.world)
        # Once there are later versions, cleaning up is left to the next time.
        if unchanged:
            failpoints.reach("clean.before")
            self._archive.clean(dataset)
            failpoints.reach("clean.after")
