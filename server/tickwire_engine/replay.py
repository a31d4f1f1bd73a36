"""Replay: a world's ticks computed once more from the journal, and held to the state hashes that it recorded.

Same journal, same world: commands in the order in which they were applied, inputs, tick times, the world's seed and what
its processors sent are all journaled, so every tick comes out bit for bit, on the same code, libraries and CPU features.
Where one does not, replay says which, and looks for the processor whose results differ from one call to the next. It
reads only, and works on a store that is open for reading.
"""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from uuid import UUID

from tickwire_engine.archetype import archetype_name
from tickwire_engine.command import CommandType
from tickwire_engine.commands import Decision, parse_row
from tickwire_engine.commands.effect import recorded_decision
from tickwire_engine.config import RunConfig
from tickwire_engine.eras import Eras
from tickwire_engine.errors import InvalidRequestError, TickNotKeptError, TickwireError
from tickwire_engine.past import state_after
from tickwire_engine.tick.compute import DueCommand

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from tickwire_engine.commands import Vocabulary
    from tickwire_engine.configuration import ProcessorEntry
    from tickwire_engine.engine import Engine
    from tickwire_engine.state import WorldState
    from tickwire_engine.storage.history import History, StoredTick
    from tickwire_engine.storage.reader import Start
    from tickwire_engine.storage.rows import CommandRow, WorldRow
    from tickwire_engine.tick.compute import ComputedTick
    from tickwire_engine.world import AsyncWorld

_PAGE_TICKS = 64
_RECONFIGURES = {CommandType.ADD_PROCESSOR, CommandType.REMOVE_PROCESSOR}


@dataclass(frozen=True, slots=True)
class Difference:
    """A tick that came out otherwise than it was recorded.

    Attributes:
        archetypes: Those whose rows differ; none: what differs are counters, configuration or commands sent.
        processors: Those that may have caused it, in the order they run; the one that did, if `certain`.
        certain: The processor gave two results for the same rows.
        error: Why the tick could not be computed at all, or "".
    """

    tick: int
    archetypes: tuple[str, ...]
    processors: tuple[str, ...]
    certain: bool = False
    error: str = ""

    def __str__(self) -> str:
        """Say it in a sentence."""
        if self.error:
            return f"tick {self.tick} cannot be computed again: {self.error}"
        what = ", ".join(self.archetypes) or "counters, configuration or what processors sent"
        said = f"tick {self.tick} comes out differently in {what}"
        if self.certain:
            return f"{said}: processor {self.processors[0]} gives two results for the same rows"
        return f"{said}; processors there: {', '.join(self.processors) or 'none'}"


@dataclass(frozen=True, slots=True)
class Replayed:
    """What a replay has found.

    Attributes:
        first_tick: The first tick computed again.
        last_tick: The last one that came out as recorded; before `first_tick`: none.
        difference: The first tick that did not, if any.
    """

    first_tick: int
    last_tick: int
    difference: Difference | None = None


@dataclass(frozen=True, slots=True)
class EnvironmentChange:
    """A start on other code, libraries or CPU features than the start before: where replay may differ."""

    tick: int
    """The first tick after it; the world's next tick, if there is none yet."""
    changed: Mapping[str, tuple[str, str]]
    """(before, after) by name."""


async def replay(
    engine: Engine, row: WorldRow, *, from_tick: int | None = None, to_tick: int | None = None
) -> Replayed:
    """Compute a world's ticks again and compare their state hashes, up to the first difference.

    Args:
        engine: What knows the application; its store may be open for reading only.
        row: The world.
        from_tick: The first tick to compute, from the recorded state before it; None: the first that can be. Those
            that a fork shares are computed in the world that committed them.
        to_tick: The last one; None: the last committed.

    Raises:
        InvalidRequestError: `from_tick` is one that the fork shares.
        TickNotKeptError: The tick before `from_tick` is below the floor; the error says where a replay can start.
        CorruptRecordError: Stored bytes are not what was committed.
    """
    history = engine.store.history
    earliest = history.earliest_tick(row.key)
    if from_tick is not None and from_tick <= row.fork_tick:
        raise InvalidRequestError(
            f"the ticks up to {row.fork_tick} are those of the world that this one was forked from, "
            f"{UUID(bytes=history.world_id(row.parent_key))}: verify them there",
            field="from_tick",
        )
    first = max(earliest + 1 if earliest else 0, row.fork_tick + 1) if from_tick is None else from_tick
    if first <= earliest and earliest:
        raise TickNotKeptError(
            f"tick {first} of world {row.name} cannot be computed again: that takes the tick before it, and every tick is "
            f"kept from {earliest} on only; start at tick {earliest + 1}",
            field="from_tick",
            tick=first,
            earliest=earliest + 1,
        )
    last = history.last_tick(row.key) if to_tick is None else min(to_tick, history.last_tick(row.key))
    state = state_after(history, row, first - 1, engine.setup.vocabulary)
    eras = Eras(
        engine.setup.vocabulary, history.streams(row.key), max(_recorded(history, row, first - 1), default=0)
    )
    vocabulary = engine.setup.vocabulary
    world = engine.assembly.replica(row, state)
    for start in range(first, last + 1, _PAGE_TICKS):
        end = min(last, start + _PAGE_TICKS - 1)
        applied = history.applied(row.key, start, end)
        for stored in history.ticks(row.key, start, end):
            then = eras.at(stored)
            if then is not vocabulary:
                vocabulary = then
                world = engine.speaking(then).assembly.replica(row, state)
                # Its tables have the shapes of another catalog, whatever that one counts.
                state = replace(state, generation=-1)
            tick = _Tick(world, engine, vocabulary, state, stored, applied.get(stored.summary.tick, []))
            try:
                computed = await tick.compute()
            except TickwireError as error:
                named = error.metadata.get("processor")
                difference = Difference(
                    stored.summary.tick, (), (named,) if named else (), error=error.message
                )
                return Replayed(first, stored.summary.tick - 1, difference)
            if computed.state_hash != stored.summary.state_hash:
                return Replayed(first, stored.summary.tick - 1, await tick.difference(computed))
            state = computed.state
    return Replayed(first, last)


def environment_changes(
    engine: Engine, row: WorldRow, starts: Sequence[Start], first: int
) -> Iterator[EnvironmentChange]:
    """Yield where, from a tick on, the world was computed by something else than before."""
    summaries = iter(engine.store.history.summaries(row.key, first, engine.store.history.last_tick(row.key)))
    summary = next(summaries, None)
    for before, after in itertools.pairwise(starts):
        names = sorted({*before.fingerprint, *after.fingerprint})
        changed = {
            name: (before.fingerprint.get(name, ""), after.fingerprint.get(name, ""))
            for name in names
            if before.fingerprint.get(name) != after.fingerprint.get(name)
        }
        while summary is not None and summary.committed_at_us < after.at_us:
            summary = next(summaries, None)
        if changed:
            tick = engine.store.history.last_tick(row.key) + 1 if summary is None else summary.tick
            yield EnvironmentChange(tick, changed)


def _recorded(history: History, row: WorldRow, tick: int) -> Iterable[int]:
    """Return the streams that have rows after a tick."""
    return history.records_at(row.key, tick) if tick >= 0 else ()


@dataclass(frozen=True, slots=True)
class _Tick:
    """One tick to be computed again."""

    world: AsyncWorld
    engine: Engine
    vocabulary: Vocabulary
    state: WorldState
    stored: StoredTick
    commands: Sequence[CommandRow]

    async def compute(self, processors: tuple[ProcessorEntry, ...] | None = None) -> ComputedTick:
        """Compute it; with other processors than its own, if they are given."""
        state, commands = self.state, self.commands
        if processors is not None:
            state = replace(state, configuration=replace(state.configuration, processors=processors))
            commands = [row for row in commands if CommandType(row.type) not in _RECONFIGURES]
        due = [DueCommand(row, parse_row(row, self.vocabulary)) for row in commands]
        return await self.world.ticking.recompute(
            state,
            due,
            time_us=self.stored.tick_time_us,
            run_config=RunConfig(run_id=UUID(bytes=self.stored.summary.run_id)),
            inputs=json.loads(self.stored.inputs),
            decisions=self._decisions(due),
        )

    def _decisions(self, due: Sequence[DueCommand]) -> dict[int, Decision | TickwireError]:
        """Read back what was decided for commands that reach beyond the world: none of it is done again."""
        seqs = {
            command.row.seq for command in due if command.operation.reaches_out or command.operation.recorded
        }
        if not seqs:
            return {}
        history, key = self.engine.store.history, self.world.row.key
        return {
            outcome.seq: recorded_decision(outcome, history.result(key, outcome.seq) or b"")
            for outcome in self.stored.outcomes
            if outcome.seq in seqs
        }

    async def difference(self, computed: ComputedTick) -> Difference:
        """Find out what differs, and by whose doing."""
        then = {frame.stream: frame.hash for frame in self.stored.changed}
        now = {frame.stream: frame.hash for frame in computed.frames}
        numbers = {number for number in then.keys() | now.keys() if then.get(number) != now.get(number)}
        signatures = [sig for sig, stream in computed.state.streams.items() if stream.number in numbers]
        entries = computed.state.configuration.processors
        involved = [
            entry
            for entry in entries
            if not signatures or any({*entry.components} <= {*s} for s in signatures)
        ]
        names = tuple(archetype_name(sig) for sig in signatures)
        for count, entry in enumerate(entries, start=1):
            if entry in involved and await self._differs(entries[:count]):
                return Difference(self.stored.summary.tick, names, (entry.name,), certain=True)
        return Difference(self.stored.summary.tick, names, tuple(entry.name for entry in involved))

    async def _differs(self, processors: tuple[ProcessorEntry, ...]) -> bool:
        first, second = [await self.compute(processors) for _ in range(2)]
        return first.state_hash != second.state_hash
