"""RunRollout and RunEpisode over gRPC."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc
import pyarrow as pa
import pytest
from google.protobuf import json_format

from tests.server.answers import refusal_of, refused
from tickwire.v1 import simulation_service_pb2 as pb

if TYPE_CHECKING:
    from tests.server.conftest import Served


def rollout(world: str = "w", **given: Any) -> pb.RunRolloutRequest:
    return json_format.ParseDict({"world": world, "rollout": given}, pb.RunRolloutRequest())


def episode(world: str = "w", **given: Any) -> pb.RunEpisodeRequest:
    return json_format.ParseDict({"world": world, "episode": given}, pb.RunEpisodeRequest())


async def collected(call: Any) -> list[Any]:
    return sorted([response async for response in call], key=lambda response: response.branch)


def rows(response: Any) -> list[dict[str, Any]]:
    return pa.ipc.open_stream(response.table).read_all().to_pylist()


MOVED = {"commands": [{"update": {"entityIds": ["1"], "components": {"Spot": {"x": 100}}}}]}


async def test_branches_stream_their_rows_and_the_world_stays(served: Served) -> None:
    await served.create()
    await served.step(3)
    request = rollout(ticks=2, components=["Spot"], branches=[{"name": "as it is"}, MOVED])
    first, second = await collected(served.simulation.RunRollout(request))
    assert (first.name, first.last_tick, second.name) == ("as it is", 4, "1")
    assert [row["spot__x"] for row in rows(first)] == [5.0, 6.0, 7.0, 8.0, 9.0]
    assert [row["spot__x"] for row in rows(second)] == [102.0, 6.0, 7.0, 8.0, 9.0]
    again = await collected(served.simulation.RunRollout(request))
    assert [first, second] == again
    assert (await served.step()).first_tick == 3


async def test_a_failing_branch_does_not_end_the_stream(served: Served) -> None:
    await served.create()
    await served.step()
    broken = {"commands": [{"despawn": {"entityIds": ["77"]}}]}
    request = rollout(ticks=1, resultSql="SELECT nothing FROM spot", branches=[{}, broken])
    answers = await collected(served.simulation.RunRollout(request))
    assert [refusal_of(answer.error).reason for answer in answers] == ["INVALID_SQL", "INVALID_SQL"]
    assert refusal_of(answers[1].rejected[0]).reason == "ENTITY_NOT_FOUND"


async def test_a_kept_branch_is_a_world(served: Served) -> None:
    await served.create()
    await served.step(2)
    request = rollout(ticks=3, components=["Spot"], branches=[MOVED], keep=True)
    (answer,) = await collected(served.simulation.RunRollout(request))
    assert answer.last_tick == 4
    world = served.server.container.engine.world(answer.world_id)
    assert (world.tick, world.row.fork_tick) == (5, 1)
    assert rows(answer)[0]["spot__x"] == 103.0


async def test_episodes_stop_and_score(served: Served) -> None:
    await served.create()
    await served.step()
    request = episode(
        rollout={"copies": 3, "seed": "5"},
        initial={"spot__x": {"uniform": {"low": 0, "high": 4}, "per": "copy"}},
        stopSql="SELECT min(spot__x) >= 6 FROM spot",
        maxTicks=20,
        scoreSql="SELECT max(spot__x) FROM spot",
    )
    answers = await collected(served.simulation.RunEpisode(request))
    assert all(answer.stopped and 6.0 <= answer.score < 7.0 for answer in answers)
    assert len({answer.score for answer in answers}) == 3
    assert answers == await collected(served.simulation.RunEpisode(request))


@pytest.mark.parametrize(
    ("request_", "code", "reason", "field"),
    [
        (rollout(), "INVALID_ARGUMENT", "INVALID_COMMAND", "rollout.ticks"),
        (rollout(world="no", ticks=1), "NOT_FOUND", "WORLD_NOT_FOUND", None),
        (rollout(ticks=1, atTick=9), "OUT_OF_RANGE", "TICK_IN_THE_FUTURE", None),
        (rollout(ticks=2_000_000_000), "RESOURCE_EXHAUSTED", "RESULT_TOO_LARGE", None),
        (rollout(ticks=1, copies=-1), "INVALID_ARGUMENT", "INVALID_COMMAND", "rollout.copies"),
        (
            rollout(ticks=1, branches=[{"commands": [{"spawn": {"components": {"Spot": {"no": 1}}}}]}]),
            "INVALID_ARGUMENT",
            "SCHEMA_MISMATCH",
            "rollout.branches[0].commands[0].spawn.components.Spot.no",
        ),
    ],
)
async def test_a_rollout_that_cannot_be_run_says_why(
    served: Served, request_: pb.RunRolloutRequest, code: str, reason: str, field: str | None
) -> None:
    await served.create()
    await served.step()
    refusal = await refused(served.simulation.RunRollout(request_))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode[code], reason)
    assert refusal.fields == ([] if field is None else [field])


async def test_a_cancelled_rollout_stops_and_the_server_can_go(served: Served) -> None:
    await served.create()
    await served.step()
    call = served.simulation.RunRollout(rollout(ticks=100_000, copies=4))
    call.cancel()
    endless = served.simulation.RunRollout(rollout(ticks=200_000, copies=4))
    reading = asyncio.ensure_future(refused(endless))
    while not served.server.container.engine.rollouts._pool:  # noqa: ASYNC110  (no event tells)
        await asyncio.sleep(0)
    await served.server.stop()
    assert (await reading).reason == "SHUTTING_DOWN"
    served.running = False
    await served.channel.close()
