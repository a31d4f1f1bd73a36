"""Forks, rollouts and episodes by command: decided before a tick, journaled with it, never done again by replay."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest

from tests.engine.parts import Drift, Place, Speed, Tag, setup
from tickwire_engine import (
    ArrowProcessor,
    CommandBroker,
    CommandResults,
    CommandType,
    RunConfig,
    Submission,
    WorldConfig,
)
from tickwire_engine.errors import InvalidCommandError, TickwireError
from tickwire_engine.replay import replay
from tickwire_engine.rollouts.limits import Budget

if TYPE_CHECKING:
    from tests.engine.conftest import Opener
    from tickwire_engine import AsyncWorld, Engine, EngineSetup
    from tickwire_engine.storage.rows import Outcome
    from tickwire_engine.submission import Accepted


class Planner(ArrowProcessor):
    """In every third tick tries two speeds on branches, and takes the one that gets its thing farther."""

    components = (Tag,)

    def process_batch(self, batch: pa.RecordBatch, **kwargs: Any) -> pa.RecordBatch:
        broker = kwargs["resources"].require(CommandBroker)
        results = kwargs["resources"].require(CommandResults)
        if kwargs["tick"] % 3 == 1:
            slow, fast = (
                {"update": {"entity_ids": [1], "components": {"Speed": {"vx": v}}}} for v in (1.0, 4.0)
            )
            broker.issue(
                CommandType.RUN_EPISODE,
                {
                    "rollout": {
                        "branches": [
                            {"name": "slow", "commands": [slow]},
                            {"name": "fast", "commands": [fast]},
                        ]
                    },
                    "max_ticks": 4,
                    "score_sql": "SELECT place__x FROM place WHERE entity_id = 1",
                },
            )
        heard = [
            f"{row['name']}={row['score']}{row['error'][:150]}"
            for result in results.results(type=CommandType.RUN_EPISODE)
            for row in results.table(result).to_pylist()  # type: ignore[union-attr]
        ] or [r.reason for r in results.results(type=CommandType.RUN_EPISODE)]
        if not heard:
            return batch
        index = batch.schema.get_field_index("tag__text")
        text = batch.column(index)[0].as_py() + f"{kwargs['tick']}: {', '.join(heard)}; "
        return batch.set_column(index, batch.schema.field(index), pa.array([text]))


def application() -> EngineSetup:
    made = setup()
    made.vocabulary.processors.register(Planner)
    return made


@pytest.fixture
async def engine(opener: Opener) -> Engine:
    return await opener.open(application())


async def moving(engine: Engine, *, ticks: int = 3) -> AsyncWorld:
    world = await engine.create_world(WorldConfig(name="w", seed=7))
    await world.add_processor(Drift())
    await world.create_entities([[Place(), Speed(vx=1.0)], [Tag()]])
    await world.run(RunConfig(num_steps=ticks))
    return world


async def send(world: AsyncWorld, kind: CommandType, /, **payload: Any) -> Accepted:
    (receipt,) = await world.submit([Submission(kind, payload)])
    assert receipt.command is not None
    return receipt.command


def outcome(command: Accepted) -> Outcome:
    assert command.settled is not None
    return command.settled.outcome


async def test_a_world_forks_itself_and_the_fork_shares_the_tick_before(
    opener: Opener, engine: Engine
) -> None:
    world = await moving(engine)
    sent = await send(world, CommandType.FORK_WORLD, name="fork", seed=5)
    past = await send(world, CommandType.FORK_WORLD, at_tick=1, labels={"a": "b"})
    assert [w.name for w in engine.worlds] == ["w"]
    await world.step()
    fork = engine.world(outcome(sent).world_id)
    assert (fork.name, fork.parent_id, fork.row.fork_tick, fork.row.seed) == ("fork", world.world_id, 2, 5)
    assert engine.world(outcome(past).world_id).row.fork_tick == 1
    await fork.step()
    engine = await opener.open(application())
    assert engine.world("fork").tick == 4
    found = await replay(engine, engine.world("w").row)
    assert (found.last_tick, found.difference) == (3, None)
    assert len(engine.worlds) == 3


async def test_a_fork_that_cannot_be_made_rejects_the_command_alone(engine: Engine) -> None:
    world = await moving(engine)
    sent = [
        await send(world, CommandType.FORK_WORLD, name="w"),
        await send(world, CommandType.FORK_WORLD, at_tick=99),
        await send(world, CommandType.FORK_WORLD, world="nobody"),
    ]
    await world.step()
    assert [outcome(s).reason for s in sent] == ["WORLD_EXISTS", "TICK_IN_THE_FUTURE", "WORLD_NOT_FOUND"]
    with pytest.raises(InvalidCommandError):
        await send(world, CommandType.FORK_WORLD, at_tick=-1)
    with pytest.raises(InvalidCommandError):
        await send(world, CommandType.FORK_WORLD, nothing=1)


async def test_a_rollout_by_command_answers_rows_and_a_word_on_each_branch(engine: Engine) -> None:
    world = await moving(engine)
    faster = {"update": {"entity_ids": [1], "components": {"Speed": {"vx": 10.0}}}}
    sent = await send(
        world,
        CommandType.RUN_ROLLOUT,
        ticks=2,
        components=["Place"],
        branches=[{"name": "a"}, {"name": "b", "commands": [faster]}],
    )
    await world.step()
    assert outcome(sent).applied
    results = engine.store.history.result(world.row.key, outcome(sent).seq)
    rows = pa.ipc.open_stream(results).read_all().to_pylist()
    assert [(r["branch"], r["name"], r["place__x"]) for r in rows] == [(0, "a", 5.0), (1, "b", 23.0)]
    assert world.tick == 4


async def test_a_rollout_by_command_that_is_kept_makes_its_worlds_once(
    opener: Opener, engine: Engine
) -> None:
    world = await moving(engine)
    sent = await send(world, CommandType.RUN_ROLLOUT, ticks=3, copies=2, keep=True)
    await world.step()
    assert outcome(sent).applied
    engine = await opener.open(application())
    kept = [w for w in engine.worlds if w.parent_id is not None]
    assert [(w.row.fork_tick, w.tick) for w in kept] == [(2, 6), (2, 6)]


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        (CommandType.RUN_ROLLOUT, {}),
        (CommandType.RUN_ROLLOUT, {"ticks": 1, "components": ["No"]}),
        (CommandType.RUN_EPISODE, {"max_ticks": 0}),
        (CommandType.RUN_EPISODE, {"max_ticks": 1, "rollout": {"components": ["Place"]}}),
        (CommandType.RUN_EPISODE, {"max_ticks": 1, "initial": {"no__x": {"uniform": {}}}}),
    ],
)
async def test_what_could_never_be_run_is_refused_at_the_door(
    engine: Engine, kind: CommandType, payload: dict[str, Any]
) -> None:
    world = await moving(engine)
    with pytest.raises(TickwireError) as caught:
        await send(world, kind, **payload)
    assert caught.value.field.startswith(f"commands[0].{kind.value}.")


async def test_a_processor_plans_by_rollouts_and_replay_runs_none(
    opener: Opener, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = await moving(engine, ticks=1)
    await world.add_processor(Planner())
    await world.run(RunConfig(num_steps=7))
    (text,) = (await world.get_components([Tag])).to_pydict()["tag__text"]
    # Sent in tick 1, read in tick 2; the branches of the planner's own rollouts go no deeper than they may.
    assert text.startswith("2: slow=6.0, fast=18.0; 5: ")
    spent: list[int] = []
    monkeypatch.setattr(Budget, "spend", lambda _self, rows: spent.append(rows))
    for _ in range(2):
        found = await replay(engine, world.row)
        assert (found.last_tick, found.difference) == (7, None)
        engine = await opener.open(application())
        world = engine.world("w")
    assert spent == []


async def test_rollouts_inside_branches_end_at_their_depth(engine: Engine) -> None:
    world = await moving(engine, ticks=1)
    await world.add_processor(Planner())
    await world.step()
    plan = {"ticks": 6, "result_sql": "SELECT tag__text FROM tag"}
    sent = await send(world, CommandType.RUN_ROLLOUT, **plan)
    await world.step()
    table = pa.ipc.open_stream(engine.store.history.result(world.row.key, outcome(sent).seq)).read_all()
    (text,) = table.column("tag__text").to_pylist()
    assert "slow=" in text
