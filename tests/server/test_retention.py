"""Claims about what is kept, as callers see it: floors, thinned ticks, and what is refused with where to begin."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc
import pytest

from tests.server.answers import refused
from tickwire import AsyncClient
from tickwire.v1 import (
    query_service_pb2,
    tick_service_pb2,
    world_pb2,
    world_service_pb2,
)
from tickwire_engine.replay import replay

if TYPE_CHECKING:
    from tests.server.conftest import Served

KEPT = world_pb2.Retention(keep_ticks=10, keep_every=8)


async def aged(served: Served, ticks: int = 40) -> world_pb2.World:
    """A world of so many ticks, all of them archived."""
    await served.create(retention=KEPT)
    await served.step(ticks)
    await archived(served)
    return (await served.worlds.GetWorld(world_service_pb2.GetWorldRequest(world="w"))).world


async def archived(served: Served) -> None:
    engine = served.server.container.engine
    await engine.store.archiver.archive_now(engine.world("w").row.key)


def query(tick: int) -> query_service_pb2.QueryRequest:
    return query_service_pb2.QueryRequest(world="w", at_tick=tick, format=query_service_pb2.FORMAT_ROWS)


async def x_at(served: Served, tick: int) -> float:
    """The x of the first spot, which moves by one in every tick."""
    answers = [answer async for answer in served.queries.Query(query(tick))]
    return float(answers[0].records[0]["spot__x"])


async def test_a_world_says_from_which_tick_on_it_keeps_every_tick(served: Served) -> None:
    world = await aged(served)
    assert (world.tick, world.earliest_tick, world.archived_tick) == (40, 30, 39)
    assert world.retention.keep_bytes == 8 << 30
    listed = await served.ticks.ListTicks(tick_service_pb2.ListTicksRequest(world="w"))
    assert [summary.tick for summary in listed.ticks] == [*range(30, 40)]
    stream = served.subscribe(at=tick_service_pb2.START_AT_EARLIEST, until_tick=39)
    messages = [message async for message in stream]
    assert (messages[0].started.first_tick, messages[0].started.earliest_tick) == (30, 30)
    seen = [chunk.tick for message in messages for chunk in message.chunks if chunk.last]
    assert seen == [*range(30, 40)]


async def test_thinned_ticks_serve_queries_and_others_are_refused_with_where_to_begin(served: Served) -> None:
    await aged(served)
    first = await x_at(served, 0)
    for tick in (8, 16, 24, 30, 39):
        assert await x_at(served, tick) == first + tick
    for call in (served.queries.Query(query(29)), served.subscribe(from_tick=29)):
        refusal = await refused(call)
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.OUT_OF_RANGE, "TICK_NOT_KEPT")
        assert (refusal.metadata["tick"], refusal.metadata["earliest"]) == ("29", "30")


async def test_a_change_of_retention_holds_without_a_further_tick(served: Served) -> None:
    await aged(served)
    async with AsyncClient(f"127.0.0.1:{served.server.port}") as client:
        world = await client.world("w")
        info = await world.change(keep_ticks=4, keep_every=16, keep_bytes=1 << 30)
        assert (info.keep_ticks, info.keep_every, info.keep_bytes) == (4, 16, 1 << 30)
        info = await world.change(keep_ticks=4, keep_every=16)
        assert info.keep_bytes == 1 << 30
        await archived(served)
        assert (await world.info()).earliest_tick == 36
        made = await client.create_world("other", keep_ticks=3, keep_bytes=0)
        info = await made.info()
        assert (info.keep_ticks, info.keep_every, info.keep_bytes) == (3, 0, 0)
    first = await x_at(served, 0)
    assert await x_at(served, 16) == first + 16
    assert (await refused(served.queries.Query(query(8)))).reason == "TICK_NOT_KEPT"


async def test_a_replay_says_from_which_tick_it_can_start(served: Served) -> None:
    await aged(served)
    engine = served.server.container.engine
    row = engine.world("w").row
    found = await replay(engine, row)
    assert (found.first_tick, found.last_tick, found.difference) == (31, 39, None)
    with pytest.raises(Exception, match="start at tick 31") as told:
        await replay(engine, row, from_tick=30)
    assert told.value.metadata["earliest"] == "31"  # type: ignore[attr-defined]
