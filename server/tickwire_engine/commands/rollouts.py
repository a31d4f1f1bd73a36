"""RUN_ROLLOUT and RUN_EPISODE: futures of the world, tried beside its ticks; what came of them is journaled.

A processor that sends one in tick N reads its results in N+1 or later (`CommandResults`), in the tick that applies it.
Replay reads them back and never runs a branch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import xxhash

from tickwire_engine.commands.effect import Decision, Effect, EffectScope
from tickwire_engine.errors import InvalidCommandError, ResultTooLargeError
from tickwire_engine.ids import uuid7_from

if TYPE_CHECKING:
    from collections.abc import Mapping
    from uuid import UUID

    from tickwire_engine.commands.operation import Operation, Vocabulary
    from tickwire_engine.rollouts import Rollout
    from tickwire_engine.storage.rows import CommandRow


@dataclass(frozen=True, slots=True)
class RunBranches(Effect):
    """A rollout, or an episode, of the world that it was sent to."""

    plan: Rollout
    is_episode: bool
    detached = True

    @property
    def type_name(self) -> str:
        """The field of the command that holds it."""
        return "run_episode" if self.is_episode else "run_rollout"

    async def decide(self, row: CommandRow, scope: EffectScope) -> Decision:
        """Run the branches, from the state that the tick before left."""
        from tickwire_engine.rollouts.answer import answer_of

        derived = scope.derived_world_id(row)

        def world_id(number: int) -> UUID:
            digest = xxhash.xxh3_128_digest(derived.bytes + str(number).encode())
            return uuid7_from(derived.int >> 80, digest)

        rollouts = scope.engine.rollouts
        branches = rollouts.run(scope.world, self.plan, state=scope.state, world_id=world_id)
        applied = answer_of([result async for result in branches], self.is_episode)
        limit = scope.engine.setup.vocabulary.limits.result_bytes
        if len(applied.table) > limit:
            raise ResultTooLargeError(
                f"the branches' rows take {len(applied.table)} bytes, more than {limit}, the server's limit "
                "(result_bytes): ask for fewer rows, or call RunRollout",
                field=self.type_name,
                limit=limit,
            )
        return Decision(applied)


def parse_rollout(payload: Mapping[str, Any], table: bytes, vocabulary: Vocabulary) -> Operation:
    """Validate what can be told without looking at the world."""
    from tickwire_engine.rollouts.plan import parse_rollout as parse

    _refuse_table(table, "run_rollout")
    return RunBranches(parse(payload, vocabulary, path="run_rollout"), is_episode=False)


def parse_episode(payload: Mapping[str, Any], table: bytes, vocabulary: Vocabulary) -> Operation:
    """Validate what can be told without looking at the world."""
    from tickwire_engine.rollouts.plan import parse_episode as parse

    _refuse_table(table, "run_episode")
    plan = parse(payload, vocabulary, path="run_episode")
    if plan.result_sql or plan.tick_sql or plan.components:
        raise InvalidCommandError(
            "run_episode as a command answers the summary of its branches: leave result_sql, tick_sql and components "
            "out, or call RunEpisode",
            field="run_episode.rollout.result_sql",
        )
    return RunBranches(plan, is_episode=True)


def _refuse_table(table: bytes, type_name: str) -> None:
    if table:
        raise InvalidCommandError(f"{type_name} takes no table", field=f"{type_name}.table")
