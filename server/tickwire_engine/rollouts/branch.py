"""One branch in memory: a world that shares another's state and goes on by itself, and leaves nothing.

It has its own commands, seed and resources. It computes ticks as worlds do and writes none of them; its clock goes on
from the tick that it left by a fixed step, so that it comes out the same whenever it is run. Lives in one worker
thread, on a loop of its own.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import tickwire_engine.commands as commands
from tickwire_engine.config import RunConfig
from tickwire_engine.errors import InvalidCommandError, TickNotKeptError, TickwireError
from tickwire_engine.failures import internal
from tickwire_engine.rollouts.answer import answer_of
from tickwire_engine.rollouts.result import BranchResult, Questions
from tickwire_engine.world import AsyncWorld

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterable, Mapping, Sequence
    from uuid import UUID

    import daft
    import pyarrow as pa

    from tickwire_engine.archetype import Signature
    from tickwire_engine.commands import Decision
    from tickwire_engine.component import Component
    from tickwire_engine.engine import Engine
    from tickwire_engine.rollouts.limits import Budget
    from tickwire_engine.rollouts.plan import Rollout
    from tickwire_engine.state import WorldState
    from tickwire_engine.storage.rows import Outcome, WorldRow
    from tickwire_engine.submission import Submission
    from tickwire_engine.tick.compute import DueCommand

STEP_US = 1_000
"""By how much the tick time of a branch goes on from tick to tick."""


@dataclass(frozen=True, slots=True)
class Base:
    """What branches start from.

    Attributes:
        row: The world that they leave.
        state: As of the tick that they leave it after; all of them share it.
        time_us: That tick's time.
    """

    row: WorldRow
    state: WorldState
    time_us: int

    @property
    def tick(self) -> int:
        """The tick that they leave after; -1: before the first."""
        return self.state.tick - 1


@dataclass(frozen=True, slots=True)
class Job:
    """One branch to run.

    Attributes:
        number: Counting copies.
        seed: The root of its randomness.
        submissions: Its commands, those that set its beginning first.
    """

    number: int
    name: str
    seed: int
    submissions: Sequence[Submission]
    inputs: Mapping[str, Any]


class BranchWorld(AsyncWorld):
    """What processors get as `world` in a branch: its state, and the past of the world that it left."""

    base_tick: int

    async def tables_at(self, at_tick: int | None = None) -> dict[Signature, pa.RecordBatch]:
        """Return the rows of every archetype as they are, or at a tick before the branch began."""
        if at_tick is not None and self.base_tick < at_tick < self.state.tick - 1:
            raise self._not_kept(at_tick)
        return await super().tables_at(at_tick)

    async def query_archetype(
        self,
        sig: Iterable[type[Component] | str],
        ticks: Iterable[int] | int | None = None,
        entity_ids: Sequence[int] | None = None,
        components: Iterable[type[Component] | str] | None = None,
        run_id: UUID | str | None = None,
    ) -> daft.DataFrame:
        """Return the history of an archetype before the branch began."""
        if ticks is None:
            wanted = self.history.kept_ticks(self.row.key, 0, self.base_tick)
        else:
            wanted = [ticks] if isinstance(ticks, int) else [*ticks]
        for tick in wanted:
            if tick > self.base_tick:
                raise self._not_kept(tick)
        return await super().query_archetype(sig, wanted, entity_ids, components, run_id)

    def _not_kept(self, tick: int) -> TickNotKeptError:
        return TickNotKeptError(
            f"a branch keeps no history of its own: tick {tick} is gone, up to {self.base_tick} they are the world's",
            tick=tick,
        )


class BranchRun:
    """Runs one branch.

    Attributes:
        world: What its processors get; there once it began.
        state: What it has come to.
        ticks_left: How many it computes yet.
        config: What its processors get as the run's.
    """

    world: BranchWorld
    config: RunConfig

    def __init__(
        self,
        engine: Engine,
        base: Base,
        plan: Rollout,
        job: Job,
        *,
        budget: Budget,
        stop: threading.Event,
        depth: int,
    ) -> None:
        """Say what to run.

        Args:
            depth: 0: of a world's own rollout; 1: of one that a branch of that began; and so on.
        """
        self.budget = budget
        self.inputs = job.inputs
        self.state = base.state
        self.ticks_left = plan.ticks
        self._engine = engine
        self._base = base
        self._plan = plan
        self._job = job
        self._stop = stop
        self._depth = depth
        self._error: TickwireError | None = None
        self._stopped = False
        self._rejected: list[Outcome] = []
        self._questions = Questions(engine, plan)

    @property
    def is_over(self) -> bool:
        """Whether it computes no further tick."""
        return self._error is not None or self._stopped or not self.ticks_left

    @property
    def is_stopped(self) -> bool:
        """Whether the rollout was cancelled."""
        return self._stop.is_set()

    @property
    def is_quiet(self) -> bool:
        """Whether nothing waits in it."""
        return not self.world.acceptance.pending

    async def begin(self) -> None:
        """Make its world, and send it its commands; on the loop that runs it."""
        self.world = self._engine.assembly.branch(
            replace(self._base.row, seed=self._job.seed), self._base.state
        )
        self.config = RunConfig(run_id=self.world.run_id)
        try:
            receipts = await self.world.submit(self._job.submissions)
        except TickwireError as error:
            self._error = error
            return
        # Staged at once, but due only when the loop has told so.
        await asyncio.gather(*(r.command.journaled for r in receipts if r.command and r.command.journaled))

    async def advance(self) -> None:
        """Compute one tick, unless it is over; what goes wrong ends it, and is its result."""
        if self.is_over:
            return
        try:
            await self._advance()
        except TickwireError as error:
            self._error = error
        except Exception as error:
            self._error = internal("a branch failed", error)

    def adopt(self, state: WorldState, ticks: int) -> None:
        """Go on from a state that was computed for it."""
        self.state = state
        self.ticks_left -= ticks
        self.world.acceptance.queue.drain(state.tick - 1)

    async def finish(self) -> BranchResult:
        """Run it to its end, and tell what came of it."""
        while not self.is_over:
            await self.advance()
        result = BranchResult(self._job.number, self._job.name, self.state.tick - 1)
        try:
            if self._error is not None:
                raise self._error
            table, score = self._questions.table(self.state), self._questions.score(self.state)
            result = replace(result, table=table, score=score, stopped=self._stopped)
        except TickwireError as error:
            result = replace(result, error=error)
        return replace(result, rejected=tuple(self._rejected))

    async def _advance(self) -> None:
        if self.is_stopped:
            raise InvalidCommandError("the rollout was cancelled")
        world, state = self.world, self.state
        due = world.acceptance.queue.drain(state.tick)
        computed = await world.ticking.recompute(
            state,
            due,
            time_us=self._base.time_us + (state.tick - self._base.tick) * STEP_US,
            run_config=self.config,
            inputs=dict(self.inputs),
            decisions=await self._decide(due, world),
        )
        world.acceptance.take_issued(computed.issued, tick=state.tick)
        rows = [command.row for command in due]
        world.acceptance.settle(rows, computed.outcomes, tick=state.tick, first_seq=0)
        world.acceptance.entities = computed.entities
        own = len(self._job.submissions)
        self._rejected += [o for o in computed.outcomes if not o.applied and o.seq <= own]
        self.state = computed.state
        self.ticks_left -= 1
        self.budget.spend(computed.rows)
        self._questions.after_tick(computed.state)
        self._stopped = self._questions.is_over(computed.state)

    async def _decide(
        self, due: Sequence[DueCommand], world: BranchWorld
    ) -> dict[int, Decision | TickwireError]:
        """Decide what reaches beyond the branch: rollouts of its own, as deep as they may go, and nothing else."""
        decided: dict[int, Decision | TickwireError] = {}
        for command in due:
            operation = command.operation
            if not operation.reaches_out:
                continue
            seq = command.row.seq
            if not isinstance(operation, commands.rollouts.RunBranches):
                decided[seq] = InvalidCommandError(
                    f"{command.row.type} reaches beyond a branch, which has no other worlds",
                    field=command.row.type,
                )
                continue
            try:
                decided[seq] = await self._nested(operation, world)
            except TickwireError as error:
                decided[seq] = error
        return decided

    async def _nested(self, operation: commands.rollouts.RunBranches, world: BranchWorld) -> Decision:
        rollouts, plan = self._engine.rollouts, operation.plan
        rollouts.require_depth(self._depth + 1)
        if plan.keep or plan.at_tick is not None:
            raise InvalidCommandError(
                "a rollout inside a branch starts from the branch as it is, and keeps nothing",
                field=f"{operation.type_name}.keep",
            )
        state = self.state
        time_us = self._base.time_us + (state.tick - 1 - self._base.tick) * STEP_US
        base = Base(world.row, state, time_us)
        results = []
        for job in rollouts.jobs(base, plan):
            inner = BranchRun(
                self._engine, base, plan, job, budget=self.budget, stop=self._stop, depth=self._depth + 1
            )
            await inner.begin()
            results.append(await inner.finish())
        return commands.Decision(answer_of(results, operation.is_episode))
