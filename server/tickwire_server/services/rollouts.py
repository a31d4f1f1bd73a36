"""Rollouts and episodes by call: whoever may run one, its branches' results as they end, and their end with the server."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from tickwire_engine import CommandType, Submission
from tickwire_engine.errors import ShuttingDownError
from tickwire_engine.rollouts import parse_episode, parse_rollout
from tickwire_server.auth import caller, guard_for

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

    from tickwire_engine import AsyncWorld
    from tickwire_engine.rollouts import BranchResult
    from tickwire_server.services.worlds import WorldService
    from tickwire_server.storages import Storages


class RolloutService:
    """Tries futures of worlds."""

    def __init__(self, storages: Storages, worlds: WorldService, stopping: asyncio.Event) -> None:
        self._storages = storages
        self._worlds = worlds
        self._stopping = stopping

    def rollout(self, world: AsyncWorld, payload: Mapping[str, Any]) -> AsyncGenerator[BranchResult]:
        """Run a rollout, given by the fields of a RunRollout; closing the iterator stops its branches.

        Raises:
            TickwireError: It cannot be run, or the caller may not; `field` says where.
        """
        return self._run(world, CommandType.RUN_ROLLOUT, payload)

    def episode(self, world: AsyncWorld, payload: Mapping[str, Any]) -> AsyncGenerator[BranchResult]:
        """Run an episode, given by the fields of a RunEpisode; as `rollout`."""
        return self._run(world, CommandType.RUN_EPISODE, payload)

    async def _run(
        self, world: AsyncWorld, kind: CommandType, payload: Mapping[str, Any]
    ) -> AsyncGenerator[BranchResult]:
        if self._stopping.is_set():
            raise _stopped()
        vocabulary = self._storages.setup.vocabulary
        if kind is CommandType.RUN_ROLLOUT:
            plan = parse_rollout(payload, vocabulary, path="rollout")
        else:
            plan = parse_episode(payload, vocabulary, path="episode")
        actor = caller()
        guard = guard_for(actor, world, self._worlds.name_of)
        if guard is not None:
            guard.check(Submission(kind, dict(payload)), world.tick)
        if plan.keep:
            # Kept branches are worlds that are named by their ids.
            actor.require_name("world-000000000000", field="rollout.keep")
        engine = self._storages.engine_of(world.world_id)
        stopping = asyncio.ensure_future(self._stopping.wait())
        try:
            async with aclosing(engine.rollouts.run(world, plan)) as results:
                while True:
                    ended = asyncio.ensure_future(anext(results, None))
                    try:
                        await asyncio.wait((ended, stopping), return_when=asyncio.FIRST_COMPLETED)
                    finally:
                        if not ended.done():
                            ended.cancel()
                            await asyncio.wait((ended,))
                    if ended.cancelled():
                        raise _stopped()
                    result = ended.result()
                    if result is None:
                        return
                    yield result
        finally:
            stopping.cancel()


def _stopped() -> ShuttingDownError:
    return ShuttingDownError("the server is stopping: run the rollout again once it is back")
