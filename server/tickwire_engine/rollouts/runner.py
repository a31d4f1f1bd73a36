"""The rollouts of one engine: branches side by side on the cores there are, their results as each ends.

Branches run on worker threads, where Arrow and Daft release the interpreter's lock; no more are under way than whoever reads
the results keeps up with. Used on the engine's event loop; the pool of threads lives as long as the engine.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import xxhash

from tickwire_engine.archetype import ENTITY_ID
from tickwire_engine.command import CommandType
from tickwire_engine.errors import InvalidCommandError, ResultTooLargeError
from tickwire_engine.forking import fork_tick
from tickwire_engine.ids import uuid7
from tickwire_engine.past import state_after
from tickwire_engine.reading import active_rows
from tickwire_engine.rollouts.branch import Base, BranchRun, Job
from tickwire_engine.rollouts.keeping import keep_branch
from tickwire_engine.rollouts.limits import LEAST_ROWS, Budget, RolloutLimits, too_large
from tickwire_engine.rollouts.lockstep import run_in_step
from tickwire_engine.rollouts.result import BranchResult
from tickwire_engine.submission import Submission
from tickwire_engine.world import ipc_stream

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator, Sequence
    from uuid import UUID

    from tickwire_engine.engine import Engine
    from tickwire_engine.rollouts.plan import Rollout
    from tickwire_engine.state import WorldState
    from tickwire_engine.world import AsyncWorld

__all__ = ["BranchResult", "RolloutLimits", "Rollouts"]

SEED_BITS = 52
_STACKED_ROWS = 1 << 20
"""Rows of branches that go in step, about: past that, one branch by itself takes as long a row."""
FIRST = -(1 << 15)
"""The priority of the commands that set a branch's beginning: before all others."""


class Rollouts:
    """Runs rollouts.

    Attributes:
        limits: What each may take.
    """

    def __init__(self, engine: Engine, limits: RolloutLimits | None = None) -> None:
        self.limits = limits or RolloutLimits()
        self._engine = engine
        self._pool: ThreadPoolExecutor | None = None
        self._under_way: set[threading.Event] = set()
        self._keeping = asyncio.Semaphore(self.limits.cores)

    async def run(
        self,
        world: AsyncWorld,
        plan: Rollout,
        *,
        state: WorldState | None = None,
        world_id: Callable[[int], UUID] = lambda _: uuid7(),
    ) -> AsyncGenerator[BranchResult]:
        """Run the branches of a world's future and yield the result of each as it ends.

        Closing the iterator stops all of them after the ticks in hand.

        Args:
            world: The world to branch from; it is not changed.
            plan: What to run.
            state: What to start from, if not from what the plan says.
            world_id: Gives the branches that are kept their ids, by their numbers.

        Raises:
            TickNotKeptError: The tick to start after is no longer kept.
            TickInTheFutureError: It is not durable yet.
            ResultTooLargeError: It would take more than it may.
        """
        base = await self._base(world, plan, state)
        self._require_fits(plan, base.state)
        stop = threading.Event()
        self._under_way.add(stop)
        budget = Budget(self.limits.entity_ticks)
        jobs = self.jobs(base, plan)
        size = self._chunk(plan, base.state)
        running: set[asyncio.Future[None]] = set()
        ended: asyncio.Queue[BranchResult | asyncio.Future[None]] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        def tell(result: BranchResult) -> None:
            loop.call_soon_threadsafe(ended.put_nowait, result)

        def begin() -> None:
            while len(running) <= self.limits.cores and (chunk := [*itertools.islice(jobs, size)]):
                future: asyncio.Future[None]
                if plan.keep:
                    (job,) = chunk
                    kept = self._keep(world, base, plan, job, budget, stop, world_id(job.number))
                    future = asyncio.ensure_future(_put(kept, ended))
                else:
                    branches = [
                        BranchRun(self._engine, base, plan, job, budget=budget, stop=stop, depth=0)
                        for job in chunk
                    ]
                    future = loop.run_in_executor(self._threads(), _run, branches, tell)
                running.add(future)
                future.add_done_callback(ended.put_nowait)

        try:
            begin()
            while running or not ended.empty():
                told = await ended.get()
                if isinstance(told, BranchResult):
                    yield told
                else:
                    running.discard(told)
                    told.result()
                    begin()
        finally:
            stop.set()
            self._under_way.discard(stop)
            if running:
                for waiting in running:
                    waiting.cancel()
                await asyncio.wait(running)

    def _chunk(self, plan: Rollout, state: WorldState) -> int:
        """Return how many branches go in step: they share the cores evenly, and a bounded number of rows."""
        if plan.keep or plan.tick_sql or plan.stop_sql:
            return 1
        evenly = -(-plan.count // self.limits.cores)
        return max(1, min(evenly, _STACKED_ROWS // max(state.entities, 1)))

    def jobs(self, base: Base, plan: Rollout) -> Iterator[Job]:
        """Yield the branches of a plan, copies counted; copy c of every branch draws the same, unless it has a seed."""
        root = plan.seed
        if root is None:
            root = _derived(base.row.seed, f"rollout after {base.tick}")
        number = 0
        for branch in plan.branches:
            for copy in range(plan.copies):
                seed = _derived(root if branch.seed is None else branch.seed, f"copy {copy}")
                submissions = (*_beginning(plan, base.state, seed, copy), *branch.commands)
                name = branch.name or str(number)
                yield Job(number, name, seed, submissions, branch.inputs)
                number += 1

    def require_depth(self, depth: int) -> None:
        """Refuse rollouts within rollouts that go too deep.

        Raises:
            InvalidCommandError: They do.
        """
        if depth >= self.limits.depth:
            raise InvalidCommandError(
                f"rollouts go {self.limits.depth} deep at most, and this one began {depth} levels down"
            )

    def close(self) -> None:
        """Stop all branches after the ticks in hand. Blocks."""
        for stop in [*self._under_way]:
            stop.set()
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def _threads(self) -> ThreadPoolExecutor:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self.limits.cores, thread_name_prefix="tickwire-rollout")
        return self._pool

    async def _base(self, world: AsyncWorld, plan: Rollout, state: WorldState | None) -> Base:
        tick = fork_tick(world, plan.at_tick) if state is None or plan.at_tick is not None else state.tick - 1
        # It may still be on its way to the disk, and its time is journaled with it.
        await world.settled_tick(tick)
        history = self._engine.store.history
        if state is None or state.tick - 1 != tick:
            state = world.state
        if state.tick - 1 != tick:
            vocabulary = self._engine.setup.vocabulary
            state = await asyncio.to_thread(state_after, history, world.row, tick, vocabulary)
        state = await asyncio.to_thread(state.loaded)
        if tick < 0:
            return Base(world.row, state, world.row.created_at_us)
        stored = await asyncio.to_thread(history.tick, world.row.key, tick)
        return Base(world.row, state, stored.tick_time_us)

    def _require_fits(self, plan: Rollout, state: WorldState) -> None:
        limits = self.limits
        if plan.count > limits.branches:
            raise ResultTooLargeError(
                f"{plan.count} branches are more than {limits.branches}: run fewer, or fewer copies",
                field="copies",
                limit_branches=limits.branches,
            )
        if plan.count * plan.ticks * max(state.entities, LEAST_ROWS) > limits.entity_ticks:
            raise too_large(limits.entity_ticks)

    async def _keep(
        self,
        world: AsyncWorld,
        base: Base,
        plan: Rollout,
        job: Job,
        budget: Budget,
        stop: threading.Event,
        world_id: UUID,
    ) -> BranchResult:
        async with self._keeping:
            return await keep_branch(
                self._engine, world, base, plan, job, budget=budget, stop=stop, world_id=world_id
            )


def _run(branches: Sequence[BranchRun], tell: Callable[[BranchResult], object]) -> None:
    """Run branches on this thread, and tell each one's result."""
    asyncio.run(_run_all(branches, tell))


async def _run_all(branches: Sequence[BranchRun], tell: Callable[[BranchResult], object]) -> None:
    for branch in branches:
        await branch.begin()
    if len(branches) > 1:
        await run_in_step(branches)
    for branch in branches:
        tell(await branch.finish())


async def _put(kept: Coroutine[Any, Any, BranchResult], ended: asyncio.Queue[Any]) -> None:
    ended.put_nowait(await kept)


def _beginning(plan: Rollout, state: WorldState, seed: int, copy: int) -> Iterator[Submission]:
    """Yield the commands that set what is drawn: one for each column and archetype that has it."""
    for column, distribution in plan.initial.items():
        digest = xxhash.xxh3_64_intdigest(f"{seed} {column}".encode())
        generator = np.random.Generator(np.random.PCG64(digest))
        for _, table in sorted(state.tables.items()):
            if column not in table.schema.names:
                continue
            ids = active_rows(table.batch).column(ENTITY_ID)
            if len(ids):
                drawn = distribution.draw(generator, len(ids), copy)
                rows = pa.table({ENTITY_ID: ids, column: drawn})
                payload = {"table": ipc_stream(rows)}
                yield Submission(CommandType.UPDATE, payload, priority=FIRST)


def _derived(seed: int, text: str) -> int:
    return xxhash.xxh3_64_intdigest(f"{seed} {text}".encode()) >> (64 - SEED_BITS)
