"""ForkWorld over gRPC: what a fork answers, streams and keeps of its ancestors' history."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import pyarrow as pa
import pytest

from tests.server.answers import refused, spawn, ticks_of, update
from tickwire.v1 import query_service_pb2, world_pb2, world_service_pb2
from tickwire_engine.ids import uuid7

if TYPE_CHECKING:
    from tests.server.conftest import Served


async def fork(served: Served, world: str = "w", **given: Any) -> world_pb2.World:
    request = world_service_pb2.ForkWorldRequest(world=world, **given)
    return (await served.worlds.ForkWorld(request)).world


async def queried(served: Served, world: str, tick: int) -> dict[int, float]:
    request = query_service_pb2.QueryRequest(world=world, at_tick=tick, components=["Spot"])
    data = b"".join([response.ipc async for response in served.queries.Query(request)])
    return {row["entity_id"]: row["spot__x"] for row in pa.ipc.open_stream(data).read_all().to_pylist()}


async def test_a_fork_describes_itself_as_it_was_at_the_fork_tick(served: Served) -> None:
    parent = await served.create()
    await served.step(6)
    await served.submit(spawn(9.0))
    await served.step()
    made = await fork(served, name="other", at_tick=3, labels={"team": "a"})
    assert (made.parent_id, made.fork_tick, made.tick, made.earliest_tick) == (parent.id, 3, 4, 0)
    assert (made.name, made.entities, made.pending_commands) == ("other", 5, 0)
    assert dict(made.labels) == {"team": "a"}
    assert made.seed not in (0, parent.seed)
    (archetype,) = made.archetypes
    assert (archetype.name, archetype.entities) == ("Spot", 5)
    schema = pa.ipc.read_schema(pa.py_buffer(archetype.arrow_schema))
    assert schema.metadata[b"tickwire.world_id"] == made.id.encode()
    latest = await fork(served)
    assert (latest.fork_tick, latest.entities) == (6, 6)
    assert not (await served.worlds.GetWorld(world_service_pb2.GetWorldRequest(world="w"))).world.parent_id


@pytest.mark.parametrize("restarted", [False, True], ids=["running", "restarted"])
async def test_a_subscriber_of_a_fork_sees_its_ancestors_ticks_then_its_own(
    served: Served, restarted: bool
) -> None:
    await served.create()
    await served.step(6)
    made = await fork(served, name="f", at_tick=3)
    await served.submit(update(1, 100.0), world="f")
    await served.step(3, world="f")
    await served.step(2)
    await served.worlds.GetWorld(world_service_pb2.GetWorldRequest(world="f"))
    parents = {
        tick.tick: tick.summary.state_hash
        async for tick in ticks_of(served.subscribe(from_tick=0, until_tick=7))
    }
    if restarted:
        await served.stop()
        await served.start()
    found = [tick async for tick in ticks_of(served.subscribe("f", from_tick=0, until_tick=6))]
    assert [tick.tick for tick in found] == [*range(7)]
    for tick in found:
        assert {i: row["spot__x"] for i, row in tick.active.items()} == await queried(served, "f", tick.tick)
        assert (tick.summary.state_hash == parents[tick.tick]) == (tick.tick <= 3)
    started = await served.subscribe("f", from_tick=0).read()
    assert started.started.world_id == made.id
    async for message in served.subscribe("f", from_tick=0, until_tick=6):
        for chunk in message.chunks:
            for batch in chunk.batches:
                if batch.schema:
                    schema = pa.ipc.read_schema(pa.py_buffer(batch.schema))
                    assert schema.metadata[b"tickwire.world_id"] == made.id.encode()


async def test_the_same_fork_request_answers_the_same_world(served: Served) -> None:
    await served.create()
    await served.step(2)
    given = {"name": "f", "world_id": str(uuid7()), "seed": 5}
    first = await fork(served, **given)
    await served.step(1)
    assert (await fork(served, **given)).id == first.id == given["world_id"]
    assert first.seed == 5
    refusal = await refused(fork(served, **given, at_tick=1))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.ALREADY_EXISTS, "WORLD_EXISTS")
    refusal = await refused(fork(served, name="f"))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.ALREADY_EXISTS, "WORLD_EXISTS")


async def test_pending_commands_are_taken_along_if_asked(served: Served) -> None:
    await served.create()
    await served.step()
    await served.submit(spawn(1.0))
    assert (await fork(served, name="bare")).pending_commands == 0
    assert (await fork(served, name="asked", with_pending=True)).pending_commands == 1


@pytest.mark.parametrize(
    ("given", "code", "reason", "field"),
    [
        ({"at_tick": 2}, "OUT_OF_RANGE", "TICK_IN_THE_FUTURE", None),
        ({"at_tick": -1}, "INVALID_ARGUMENT", "INVALID_REQUEST", "at_tick"),
        ({"seed": -1}, "INVALID_ARGUMENT", "INVALID_REQUEST", "seed"),
        ({"name": "No"}, "INVALID_ARGUMENT", "INVALID_NAME", "name"),
        ({"world_id": "x"}, "INVALID_ARGUMENT", "INVALID_REQUEST", "world_id"),
        ({"world": "nobody"}, "NOT_FOUND", "WORLD_NOT_FOUND", None),
        ({"world": ""}, "INVALID_ARGUMENT", "INVALID_REQUEST", "world"),
    ],
)
async def test_a_fork_that_cannot_be_made_says_why(
    served: Served, given: dict[str, Any], code: str, reason: str, field: str | None
) -> None:
    await served.create()
    await served.step(2)
    refusal = await refused(fork(served, **given))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode[code], reason)
    assert refusal.fields == ([] if field is None else [field])
