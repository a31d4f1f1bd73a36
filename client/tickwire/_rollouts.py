"""Rollouts and episodes: what to try on branches of a world's future, and what came of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, TypedDict

from tickwire._arrow import from_ipc
from tickwire._error_translation import from_status
from tickwire._values import to_struct
from tickwire.v1 import command_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import pyarrow as pa

    from tickwire._errors import TickwireError
    from tickwire.v1 import simulation_service_pb2


@dataclass(frozen=True, slots=True, kw_only=True)
class Branch:
    """One future to try.

    Attributes:
        name: given back with the result; empty: the branch's number.
        commands: from `tickwire.commands`, applied in the branch; no tick means its first.
        inputs: passed to the processors in every tick.
        seed: the root of its randomness; None: the rollout's. Copies of branches with the same root draw the same.
    """

    name: str = ""
    commands: Sequence[pb.Command] = ()
    inputs: Mapping[str, Any] | None = None
    seed: int | None = None

    def message(self) -> pb.Branch:
        """Makes the contract's message."""
        return pb.Branch(
            name=self.name,
            commands=self.commands,
            inputs=None if self.inputs is None else to_struct(self.inputs),
            seed=self.seed,
        )


class RolloutOptions(TypedDict, total=False):
    """What rollouts and episodes take. At most one of result_sql, tick_sql and components makes a branch's table.

    Attributes:
        branches: the futures to try; none: one without commands.
        copies: how often each is run, each time with other randomness.
        at_tick: the tick to start after; left out: the last committed one.
        result_sql: a query over the branch's last state.
        tick_sql: a query over the state after each tick; its rows come after a column `tick`.
        components: the rows of the entities that have all of these.
        keep: makes a world of each branch.
        seed: the root of all randomness; left out: derived from the world's seed and the tick.
    """

    branches: Iterable[Branch]
    copies: int
    at_tick: int | None
    result_sql: str
    tick_sql: str
    components: Iterable[str]
    keep: bool
    seed: int | None


class EpisodeOptions(RolloutOptions, total=False):
    """What episodes take besides.

    Attributes:
        initial: what columns are drawn from before the first tick:
            {"position__x": {"normal": {"mean": 0, "std": 1}}}; uniform {low, high}, choice {values, weights}
            and table {values}, and "per": "copy" for one value a copy.
        stop_sql: a query of one boolean; true ends a branch.
        score_sql: a query of one number over a branch's last state.
    """

    initial: Mapping[str, Mapping[str, Any]]
    stop_sql: str
    score_sql: str


def rollout_message(ticks: int, options: RolloutOptions) -> pb.RunRollout:
    """Makes the contract's message."""
    return pb.RunRollout(
        branches=[branch.message() for branch in options.get("branches", ())],
        copies=options.get("copies", 0),
        ticks=ticks,
        at_tick=options.get("at_tick"),
        result_sql=options.get("result_sql", ""),
        tick_sql=options.get("tick_sql", ""),
        components=options.get("components", ()),
        keep=options.get("keep", False),
        seed=options.get("seed"),
    )


def episode_message(max_ticks: int, options: EpisodeOptions) -> pb.RunEpisode:
    """Makes the contract's message."""
    return pb.RunEpisode(
        rollout=rollout_message(0, options),
        initial={column: to_struct(drawn) for column, drawn in options.get("initial", {}).items()},
        stop_sql=options.get("stop_sql", ""),
        max_ticks=max_ticks,
        score_sql=options.get("score_sql", ""),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class BranchResult:
    """What came of one branch.

    Attributes:
        branch: its number, counting copies: branch i, copy c is i * copies + c.
        name: the branch's name.
        last_tick: the last tick that it computed.
        table: its rows; None: none were asked for, or it failed.
        world_id: the world that was made of it, with `keep`; otherwise empty.
        stopped: its stop condition became true.
        score: the number that `score_sql` gave; 0 without.
        error: why it failed, or None.
        rejected: why commands of the branch were rejected, in order.
    """

    branch: int
    name: str
    last_tick: int
    table: pa.Table | None
    world_id: str
    stopped: bool
    score: float
    error: TickwireError | None
    rejected: tuple[TickwireError, ...]

    @classmethod
    def from_message(
        cls, message: simulation_service_pb2.RunRolloutResponse | simulation_service_pb2.RunEpisodeResponse
    ) -> Self:
        """Reads the contract's message."""
        return cls(
            branch=message.branch,
            name=message.name,
            last_tick=message.last_tick,
            table=from_ipc([message.table]) if message.table else None,
            world_id=message.world_id,
            stopped=message.stopped,
            score=message.score,
            error=from_status(message.error) if message.HasField("error") else None,
            rejected=tuple(from_status(status) for status in message.rejected),
        )
