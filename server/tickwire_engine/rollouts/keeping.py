"""A branch that is kept: a fork, moved on through the same door as every world, durable tick by tick."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import xxhash

from tickwire_engine.config import ForkConfig, RunConfig
from tickwire_engine.errors import InvalidCommandError, TickwireError
from tickwire_engine.failures import internal
from tickwire_engine.ids import uuid7_from
from tickwire_engine.rollouts.result import BranchResult, Questions

if TYPE_CHECKING:
    import threading
    from uuid import UUID

    from tickwire_engine.engine import Engine
    from tickwire_engine.rollouts.branch import Base, Job
    from tickwire_engine.rollouts.limits import Budget
    from tickwire_engine.rollouts.plan import Rollout
    from tickwire_engine.submission import Submission
    from tickwire_engine.world import AsyncWorld


async def keep_branch(
    engine: Engine,
    parent: AsyncWorld,
    base: Base,
    plan: Rollout,
    job: Job,
    *,
    budget: Budget,
    stop: threading.Event,
    world_id: UUID,
) -> BranchResult:
    """Fork a world and move the fork on as a branch; where it is there already, go on from where it is.

    Args:
        world_id: Of the fork: the same again finds the same, and its commands.
    """
    result = BranchResult(job.number, job.name, base.tick, world_id=str(world_id))
    questions = Questions(engine, plan)
    fork: AsyncWorld | None = None
    try:
        config = ForkConfig(world_id=world_id, at_tick=base.tick if base.tick >= 0 else None, seed=job.seed)
        fork = await engine.fork_world(parent.world_id, config)
        if job.submissions:
            await fork.submit(_with_ids(job, world_id))
        stopped = await _move(fork, base, plan, job, questions, budget, stop)
        state = fork.state
        table, score = await asyncio.to_thread(lambda: (questions.table(state), questions.score(state)))
        result = replace(result, table=table, score=score, stopped=stopped)
    except TickwireError as error:
        result = replace(result, error=error)
    except Exception as error:
        result = replace(result, error=internal("a kept branch failed", error))
    if fork is None:
        return replace(result, world_id="")
    return replace(result, last_tick=fork.tick - 1)


async def _move(
    fork: AsyncWorld,
    base: Base,
    plan: Rollout,
    job: Job,
    questions: Questions,
    budget: Budget,
    stop: threading.Event,
) -> bool:
    config = RunConfig(run_id=fork.run_id)
    asks = bool(plan.stop_sql or plan.tick_sql)
    latest = None
    while fork.tick <= base.tick + plan.ticks:
        if stop.is_set():
            raise InvalidCommandError("the rollout was cancelled")
        left = base.tick + plan.ticks - fork.tick + 1
        for _ in range(1 if asks else left):
            latest = await fork.advance(config, **job.inputs)
            budget.spend(fork.state.entities)
            if stop.is_set():
                break
        if latest is not None:
            await asyncio.shield(latest)
        if asks:
            state = fork.state
            await asyncio.to_thread(questions.after_tick, state)
            if await asyncio.to_thread(questions.is_over, state):
                return True
    return False


def _with_ids(job: Job, world_id: UUID) -> list[Submission]:
    """Give a branch's commands ids that follow from its world's, so that they are applied once, however often sent."""
    moment_ms = world_id.int >> 80
    return [
        submission._replace(
            id=uuid7_from(moment_ms, xxhash.xxh3_128_digest(f"{world_id} {index}".encode())).bytes,
        )
        for index, submission in enumerate(job.submissions)
    ]
