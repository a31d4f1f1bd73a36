"""Retiring history: move a world's floor as its retention says, then delete what no kept tick needs.

On the archiver's thread only, in that order, so that a process that dies in between leaves garbage and nothing else. A
dataset goes once the floor has passed all of it; records in it that a kept tick needs are copied to the dataset that holds
what is left of older ticks. Each row is copied a bounded number of times, however long the history.
"""

from __future__ import annotations

import functools
import itertools
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow.compute as pc

from tickwire_engine import failpoints
from tickwire_engine.storage import _reads as reads
from tickwire_engine.storage import _retaining as retaining
from tickwire_engine.storage._archiving import (
    ReplaceDatasets,
    WriteDataset,
    datasets,
    sync_dataset,
    watermark,
)
from tickwire_engine.storage._files import NO_ROOM
from tickwire_engine.storage._needing import ForgetSpans, idle_spans, needed_records
from tickwire_engine.storage._sparing import Left, left_of_ticks, new_path, rows_at

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tickwire_engine.storage import Archive, Journal
    from tickwire_engine.storage._leases import Leases
    from tickwire_engine.storage.archive import Dataset
    from tickwire_engine.storage.retention import Kept, Retention

_BITE_SPANS = 400
_PASSES = 4


class _Plan(NamedTuple):
    retention: Retention
    kept: Kept
    archived: int
    committed: int
    datasets: list[Dataset]


class Retirement:
    """Moves floors and deletes what lies below them."""

    def __init__(self, journal: Journal, archive: Archive, leases: Leases) -> None:
        self._journal = journal
        self._archive = archive
        self._leases = leases
        self._done: dict[int, Kept] = {}
        """By world: what was kept when all that lies below the floor was looked at."""

    def retire(self, world: int) -> None:
        """Bring a world to what its retention says; readers in other processes put it off."""
        with self._leases.nobody_outside() as alone:
            if not alone:
                return
            self._move_floor(world)
            self._delete(world)
            for _ in range(_PASSES):
                if not self._bound_bytes(world):
                    break
                self._delete(world)

    def end(self, world: int, floor: int) -> None:
        """Delete all of a destroyed world but what is pinned, readers in other processes kept waiting."""
        plan = self._plan(world)
        if plan.kept.floor < floor:
            self._journal.call(retaining.MoveFloor(world, plan.kept.cut(floor)))
        self._delete(world)

    def _plan(self, world: int) -> _Plan:
        with self._journal.read() as connection:
            return _Plan(
                retaining.retention(connection, world),
                retaining.kept(connection, world),
                watermark(connection, world),
                reads.next_tick(connection, world) - 1,
                datasets(connection, world),
            )

    def _move_floor(self, world: int) -> None:
        plan = self._plan(world)
        moved = plan.kept.moved(plan.retention, committed=plan.committed, archived=plan.archived)
        if moved != plan.kept:
            self._journal.call(retaining.MoveFloor(world, moved))

    def _bound_bytes(self, world: int) -> bool:
        """Move the floor, or what is thinned below it, up to where the rest fits; return whether it moved."""
        plan = self._plan(world)
        excess = sum(dataset.nbytes for dataset in plan.datasets) - plan.retention.keep_bytes
        if not plan.retention.keep_bytes or excess <= 0:
            return False
        moved = plan.kept.cut(min(_cut(plan.datasets, excess), plan.archived))
        if moved == plan.kept:
            return False
        self._journal.call(retaining.MoveFloor(world, moved))
        return True

    def _delete(self, world: int) -> None:
        plan = self._plan(world)
        before = self._done.get(world)
        again = before is None or (before.pins, _starts(before)) != (plan.kept.pins, _starts(plan.kept))
        series: dict[tuple[str, int], list[Dataset]] = {}
        for dataset in plan.datasets:
            if dataset.last_tick < plan.kept.floor:
                series.setdefault((dataset.kind, dataset.stream), []).append(dataset)
        full: OSError | None = None
        for passed in series.values():
            if again or any(not dataset.kept for dataset in passed):
                try:
                    self._retire_series(plan.kept, passed)
                except OSError as error:
                    if error.errno not in NO_ROOM:
                        raise
                    # Others may go without being copied, and make room.
                    full = error
        if full is not None:
            raise full
        self._done[world] = plan.kept

    def _retire_series(self, kept: Kept, passed: list[Dataset]) -> None:
        """Go through datasets of one kind and stream that the floor has passed, in the order of their ticks."""
        if passed[0].kind == "commands":
            self._retire_commands(kept, passed)
            return
        whole = [dataset for dataset in passed if not dataset.kept]
        thin = [dataset for dataset in passed if dataset.kept]
        tail = thin.pop() if thin and not thin[-1].sealed else None
        for dataset in whole:
            tail = self._fold(kept, tail, dataset)
        if not whole and tail is not None:
            self._shrink(kept, tail, superseded=False)
        # After those that carry on what they carry.
        last = None if tail is not None or not thin else thin.pop()
        for dataset in thin:
            self._shrink(kept, dataset, superseded=True)
        if last is not None:
            self._shrink(kept, last, superseded=False)
        if passed[0].kind == "stream":
            self._forget_spans(kept, passed)

    def _retire_commands(self, kept: Kept, passed: list[Dataset]) -> None:
        """Delete commands, but for those of ticks that a fork shares: it can be replayed from there."""
        for dataset in passed:
            if not any(pin.between(dataset.first_tick, dataset.last_tick) for pin in kept.pins):
                self._replace([dataset], None, [])
            elif not dataset.kept:
                self._journal.call(WriteDataset(dataset._replace(kept=1, sealed=1)))

    def _shrink(self, kept: Kept, dataset: Dataset, *, superseded: bool) -> None:
        """Copy a dataset's needed records to a new one, where they are much fewer than it has."""
        left = self._left(kept, dataset, superseded=superseded)
        if 4 * left.count <= 3 * dataset.kept:
            self._replace([dataset], None, [(dataset, left)], sealed=dataset.sealed)

    def _fold(self, kept: Kept, tail: Dataset | None, dataset: Dataset) -> Dataset | None:
        """Append a dataset's needed records to what is left of the ones before; return that."""
        left = self._left(kept, dataset, superseded=False)
        if tail is None:
            if left.count == left.before:
                held = dataset._replace(kept=left.count)
                self._journal.call(WriteDataset(held))
                return None if held.sealed else held
            return self._replace([dataset], None, [(dataset, left)])
        older = self._left(kept, tail, superseded=True)
        if 4 * older.count <= 3 * tail.kept:
            return self._replace([tail, dataset], None, [(tail, older), (dataset, left)])
        return self._replace([dataset], tail, [(dataset, left)])

    def _left(self, kept: Kept, dataset: Dataset, *, superseded: bool) -> Left:
        """Find what of a dataset kept ticks need.

        Args:
            kept: What is kept.
            dataset: One that the floor has passed.
            superseded: Whether a later one carries on the resources' snapshots.
        """
        world, first, last = dataset.world, dataset.first_tick, dataset.last_tick
        with self._journal.read() as connection:
            if dataset.kind == "stream":
                needed = needed_records(connection, world, dataset.stream, first, last, kept)
                return Left(needed.ticks, needed.before)
            records = [
                needed_records(connection, world, stream.number, first, last, kept).ticks
                for stream in reads.streams(connection, world)
            ]
            ticks = np.unique(np.concatenate([kept.below_floor(first, last), *records]))
            return left_of_ticks(connection, self._archive, dataset, ticks, superseded=superseded)

    def _replace(
        self,
        gone: Sequence[Dataset],
        target: Dataset | None,
        sources: Sequence[tuple[Dataset, Left]],
        *,
        sealed: int = 0,
    ) -> Dataset | None:
        """Append what is left of `sources` to `target`, or to a new dataset, and let `gone` go.

        Returns:
            The dataset that holds what is left.
        """
        made = target
        for source, left in sources:
            for rows in rows_at(self._archive, source, left):
                if made is None:
                    first = int(left.ticks[0])
                    made = source._replace(
                        first_tick=first, path=new_path(source, first), rows=0, version=0, unindexed=0
                    )
                    made = made._replace(optimised=0, sealed=sealed, nbytes=0, kept=0)
                version = self._archive.append(made, rows)
                failpoints.reach("retire.append.after")
                made = made._replace(
                    version=version,
                    last_tick=int(left.ticks[-1]),
                    rows=made.rows + rows.num_rows,
                    unindexed=made.unindexed + rows.num_rows,
                    nbytes=made.nbytes + rows.nbytes,
                    kept=made.kept + len(pc.unique(rows["tick"])),
                )
        if made is not None and made != target:
            sync_dataset(self._journal, self._archive, made.path)
        self._journal.call(ReplaceDatasets(gone, made))
        for dataset in gone:
            self._leases.defer(functools.partial(self._delete_files, dataset.path))
        return made

    def _delete_files(self, path: str) -> None:
        failpoints.reach("dataset.delete.before")
        self._archive.delete(path)
        failpoints.reach("dataset.delete.after")

    def _forget_spans(self, kept: Kept, passed: Sequence[Dataset]) -> None:
        world, stream = passed[0].world, passed[0].stream
        with self._journal.read() as connection:
            first = min(d.first_tick for d in passed)
            idle = idle_spans(connection, world, stream, first, passed[-1].last_tick, kept)
        for start in range(0, len(idle), _BITE_SPANS):
            self._journal.call(ForgetSpans(world, stream, idle[start : start + _BITE_SPANS]))


def _starts(kept: Kept) -> list[tuple[int, int]]:
    """Return what of the ranges below a floor says which ticks of those that were passed before are kept."""
    return [(thinned.first_tick, thinned.every) for thinned in kept.thinned]


def _cut(known: Sequence[Dataset], nbytes: int) -> int:
    """Return the first tick that may stay where about so many bytes of the oldest history go."""
    cuts = []
    newest = {(dataset.kind, dataset.stream): dataset.path for dataset in known}
    for dataset in known:
        if newest[dataset.kind, dataset.stream] == dataset.path:
            # Ticks are appended to it, or it holds what every tick after it needs.
            continue
        if dataset.kept:
            middle = (dataset.first_tick + dataset.last_tick) // 2 + 1
            cuts += [(middle, dataset.nbytes // 2), (dataset.last_tick + 1, dataset.nbytes // 2)]
        else:
            cuts.append((dataset.last_tick + 1, dataset.nbytes))
    cuts.sort()
    freed = itertools.accumulate(size for _, size in cuts)
    enough = (tick for (tick, _), sum_ in zip(cuts, freed, strict=True) if sum_ >= nbytes)
    return next(enough, cuts[-1][0] if cuts else 0)
