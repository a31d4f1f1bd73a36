"""Branches in step: where all of them compute the same, one call of a processor computes a tick of all of them.

Branches that wait for no commands and run the same processors over the same archetypes differ in their rows alone. If what a
processor makes of them is recorded, row by row, it makes the same of each branch's rows when they stand one after another
in one batch, and a tick costs what one branch's does, not what each one's does. Whether it is so is found out, never
assumed: a processor that asks for more than its rows (the world, chance, messages, a plan over all rows) ends it, and the
branches go on one by one from the tick they have come to, where it did not happen.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

import pyarrow as pa

from tickwire_engine.archetype import ENTITY_ID, IS_ACTIVE
from tickwire_engine.broker import CommandBroker
from tickwire_engine.encoding import canonical, encode
from tickwire_engine.mailbox import Mailbox
from tickwire_engine.processor import AsyncProcessor
from tickwire_engine.randomness import TickRandom
from tickwire_engine.recorded import RecordedDataFrame
from tickwire_engine.resources import Resources
from tickwire_engine.results import CommandResults
from tickwire_engine.tick.processing import fit_changes

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import daft
    from daft.logical.builder import LogicalPlanBuilder

    from tickwire_engine.archetype import Signature
    from tickwire_engine.configuration import ProcessorEntry
    from tickwire_engine.rollouts.branch import BranchRun

_T = TypeVar("_T")
_OWN_TICKS = 2
"""Ticks that each branch computes by itself first: the commands of its first one are applied, and who went is gone."""
_ASKS_ABOUT_THE_CALL = frozenset((CommandBroker, CommandResults, Mailbox, TickRandom))


async def run_in_step(runs: Sequence[BranchRun]) -> None:
    """Bring branches as far as they go in step; to their ends, where they are alike."""
    for run in runs:
        for _ in range(_OWN_TICKS):
            await run.advance()
    going = [run for run in runs if not run.is_over]
    if _are_alike(going):
        await _Stack(going).advance()


class _NotAlikeError(Exception):
    """A processor asked for something that may differ between branches."""


class _Watch:
    """Notes that a processor asked for more than its rows, even if it makes nothing of the error."""

    asked = False

    def refuse(self) -> _NotAlikeError:
        self.asked = True
        return _NotAlikeError("this differs between branches")


class _Rows(RecordedDataFrame):
    """The rows of all branches: what can be recorded is the same for each, what takes a plan need not be."""

    def __init__(self, source: pa.RecordBatch, stages: Any, watch: _Watch) -> None:
        super().__init__(source, stages)
        self._watch = watch

    @property
    def _DataFrame__builder(self) -> LogicalPlanBuilder:  # noqa: N802  (the name that the base class mangles to)
        raise self._watch.refuse()

    def _record(self, stage: Any) -> daft.DataFrame:
        return _Rows(self._source, (*self._stages, tuple(stage)), self._watch)

    def __len__(self) -> int:
        raise self._watch.refuse()


class _NoWorld:
    """What processors are given as `world`."""

    def __init__(self, watch: _Watch) -> None:
        self._watch = watch

    def __getattr__(self, name: str) -> Any:
        raise self._watch.refuse()


class _Configuration(Resources):
    """The resources that are the same in all branches: those that know nothing of a tick."""

    def __init__(self, found: Iterable[object], configured: Mapping[type, object], watch: _Watch) -> None:
        super().__init__()
        self._watch = watch
        for resource in found:
            self.insert(resource)
        self.configure(configured)

    def get(self, kind: type[_T]) -> _T | None:
        """Return a resource, if it is none that differs between branches."""
        if kind in _ASKS_ABOUT_THE_CALL:
            raise self._watch.refuse()
        return super().get(kind)


def _are_alike(runs: Sequence[BranchRun]) -> bool:
    if len(runs) < 2:
        return False
    first = runs[0]
    configuration, tables = first.state.configuration, first.state.tables
    return (
        not first.state.snapshots
        and all(isinstance(entry.instance, AsyncProcessor) for entry in configuration.processors)
        and all(
            run.is_quiet
            and run.state.configuration.interned.id == configuration.interned.id
            and run.inputs == first.inputs
            and run.state.tick == first.state.tick
            and not run.state.snapshots
            and run.state.tables.keys() == tables.keys()
            and all(
                not table.inactive and table.schema.equals(tables[sig].schema)
                for sig, table in run.state.tables.items()
            )
            for run in runs
        )
    )


class _Stack:
    """The rows of branches, one branch after another, by archetype."""

    def __init__(self, runs: Sequence[BranchRun]) -> None:
        self._runs = runs
        self._watch = _Watch()
        first = runs[0].state
        self._batches: dict[Signature, pa.RecordBatch] = {
            sig: pa.concat_batches([run.state.tables[sig].batch for run in runs])  # type: ignore[attr-defined]
            for sig in first.tables
        }
        self._entries = {
            sig: [e for e in first.configuration.processors if set(sig).issuperset(e.components)]
            for sig in first.tables
        }
        self._resources = _Configuration(
            [each for each in runs[0].world.resources if type(each) not in _ASKS_ABOUT_THE_CALL],
            first.configuration.resources_by_type,
            self._watch,
        )

    async def advance(self) -> None:
        """Compute ticks for as long as the branches are alike, and give each its rows."""
        done = 0
        first = self._runs[0]
        # Whatever goes wrong is found again, and told, where the branch that it concerns goes on by itself.
        with contextlib.suppress(Exception):
            while done < first.ticks_left and not first.is_stopped:
                batches = await self._tick(first.state.tick + done)
                first.budget.spend(sum(b.num_rows for b in batches.values()), ticks=len(self._runs))
                self._batches = batches
                done += 1
        if done:
            self._part(done)

    async def _tick(self, tick: int) -> dict[Signature, pa.RecordBatch]:
        batches = {}
        keywords = {
            **self._runs[0].inputs,
            "tick": tick,
            "world": _NoWorld(self._watch),
            "resources": self._resources,
            "run_config": self._runs[0].config,
            "inputs": dict(self._runs[0].inputs),
        }
        for sig, batch in self._batches.items():
            for entry in self._entries[sig]:
                batch = await self._process(entry, batch, keywords)
            batches[sig] = batch
        return batches

    async def _process(
        self, entry: ProcessorEntry, batch: pa.RecordBatch, keywords: dict[str, Any]
    ) -> pa.RecordBatch:
        assert isinstance(entry.instance, AsyncProcessor)
        if not batch.num_rows:
            return batch
        frame = await entry.instance.process(_Rows(batch, (), self._watch), **keywords)
        if (
            self._watch.asked
            or not isinstance(frame, _Rows)
            or not frame.recorded
            or frame.source is not batch
        ):
            raise self._watch.refuse()
        changes = frame.changes()
        if changes is None or ENTITY_ID in changes or IS_ACTIVE in changes:
            raise self._watch.refuse()
        return fit_changes(changes, batch, batch.schema)

    def _part(self, ticks: int) -> None:
        """Give each branch the state that it has come to."""
        starts = dict.fromkeys(self._batches, 0)
        for run in self._runs:
            state = run.state
            tables = {}
            for sig, table in state.tables.items():
                count = table.batch.num_rows
                batch = canonical(self._batches[sig].slice(starts[sig], count))
                starts[sig] += count
                # The next tick of a branch by itself compares with these.
                frame = table.frame if ticks == run.ticks_left else encode(batch, stream=table.stream.number)
                tables[sig] = replace(table, batch=batch, frame=frame)
            run.adopt(replace(state, tick=state.tick + ticks, tables=MappingProxyType(tables)), ticks)
