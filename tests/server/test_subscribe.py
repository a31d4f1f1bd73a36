"""Subscriptions: every tick from the one asked for, in order, once, equal to what a query finds."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from tests.engine.parts import stream
from tests.server.answers import despawn, raised, refused, ticks_of, until, update
from tickwire.v1 import command_pb2, query_service_pb2, tick_service_pb2, world_pb2

if TYPE_CHECKING:
    from tests.server.answers import Tick
    from tests.server.conftest import Served


async def queried(served: Served, tick: int, world: str = "w") -> dict[int, dict[str, Any]]:
    """Return the active rows at a tick, as a query finds them."""
    request = query_service_pb2.QueryRequest(world=world, at_tick=tick)
    data = b"".join([response.ipc async for response in served.queries.Query(request)])
    import pyarrow as pa

    table = pa.ipc.open_stream(data).read_all()
    assert set(table.column("tick").to_pylist()) <= {tick}
    return {row["entity_id"]: row for row in table.to_pylist()}


async def equal_to_query(served: Served, tick: Tick) -> None:
    found = await queried(served, tick.tick)
    assert set(tick.active) == set(found)
    for entity_id, row in tick.active.items():
        assert {name: found[entity_id][name] for name in row} == row


async def script(served: Served, ticks: int = 12) -> None:
    """Make a world that grows, shrinks, empties an archetype and fills it again."""
    await served.create()
    mark = command_pb2.Command()
    mark.spawn.components.update({"Mark": {"name": "m"}})
    table = command_pb2.Command(spawn=command_pb2.Spawn(table=stream({"spot__x": [7.0] * 5})))
    steps = {1: [mark], 2: [table, update(1, 100)], 3: [despawn(6)], 4: [despawn(2, 3)], 6: [mark]}
    for tick in range(ticks):
        if tick in steps:
            await served.submit(*steps[tick])
        await served.step()


async def first(stream_: Any) -> tick_service_pb2.Started:
    message = await stream_.read()
    assert message.HasField("started")
    return message.started


async def test_started_comes_first_and_at_once(served: Served) -> None:
    world = await served.create()
    started = await first(served.subscribe())
    assert (started.world_id, started.first_tick, started.earliest_tick) == (world.id, 0, 0)
    assert started.max_message_bytes == 1 << 20
    assert started.run_id == ""
    started = await first(served.subscribe(max_message_bytes=1))
    assert started.max_message_bytes == 64 << 10
    started = await first(served.subscribe(max_message_bytes=1 << 30))
    assert started.max_message_bytes == served.server.config.max_message_bytes


@pytest.mark.parametrize("when", ["before", "after", "restarted"])
async def test_a_subscriber_from_tick_0_sees_every_tick_once_as_queries_do(served: Served, when: str) -> None:
    found: list[Tick] = []

    async def follow() -> None:
        found.extend([tick async for tick in ticks_of(served.subscribe(from_tick=0, until_tick=11))])

    if when == "before":
        await served.create("w0", template="")
        asked = asyncio.ensure_future(script(served))
        await until(lambda: served.server.container.engine.worlds[1:])
        await asyncio.gather(asked, follow())
    else:
        await script(served)
        if when == "restarted":
            await served.stop()
            await served.start()
        await follow()
    assert [tick.tick for tick in found] == list(range(12))
    for tick in found:
        await equal_to_query(served, tick)
        assert tick.summary.rows == sum(map(len, tick.rows.values()))
        assert tick.summary.entities == len(tick.active)
    # Tick 3 despawns the only Mark: its last row, then one empty batch, then nothing until tick 6.
    assert [[row["is_active"] for row in tick.rows.get("Mark", [])] for tick in found[1:7]] == [
        [True],
        [True],
        [False],
        [],
        [],
        [True],
    ]
    assert ["Mark" in tick.rows for tick in found[3:7]] == [True, True, False, True]
    assert [found[4].summary.despawned, found[3].summary.despawned] == [2, 1]


async def test_each_start_begins_where_it_says(served: Served) -> None:
    await served.create()
    starts = (
        tick_service_pb2.START_AT_LATEST,
        tick_service_pb2.START_AT_SNAPSHOT,
        tick_service_pb2.START_AT_EARLIEST,
    )
    for at in starts:
        assert (await first(served.subscribe(at=at))).first_tick == 0
    await served.step(5)
    asked: list[tuple[dict[str, int], int]] = [({}, 5), ({"from_tick": 3}, 3), ({"from_tick": 7}, 7)]
    asked += [({"at": at}, expected) for at, expected in zip(starts, (5, 4, 0), strict=True)]
    calls = [served.subscribe(until_tick=8, **start) for start, _ in asked]
    following = [asyncio.ensure_future(_collect(call)) for call in calls]
    hub = served.server.container.hub(served.mover().world)
    await until(lambda: not (hub.subscribers < len(asked)))
    await served.step(4)
    for (start, expected), found in zip(asked, following, strict=True):
        assert [tick.tick for tick in await found] == list(range(expected, 9)), start


async def _collect(call: Any) -> list[Tick]:
    return [tick async for tick in ticks_of(call)]


async def test_until_tick_ends_with_ok(served: Served) -> None:
    await served.create()
    await served.step(3)
    call = served.subscribe(from_tick=1, until_tick=2)
    assert [tick.tick for tick in await _collect(call)] == [1, 2]
    assert await call.code() is grpc.StatusCode.OK


async def test_one_that_falls_out_of_the_ring_catches_up_without_gap_or_repeat(served: Served) -> None:
    await served.create()
    hub = served.server.container.hub(served.mover().world)
    hub.ring.max_bytes = 1
    call = served.subscribe(from_tick=0, until_tick=299)
    stream_ = ticks_of(call)
    await served.play(0.0, max_ticks=100)
    assert (await anext(stream_)).tick == 0
    await served.mover()._play
    assert len(hub.ring) == 2
    hub.ring.max_bytes = 3_000
    await served.step(100)
    await served.play(0.0, max_ticks=100)
    rest = [tick async for tick in stream_]
    assert [tick.tick for tick in rest] == list(range(1, 300))
    for tick in rest[::37]:
        await equal_to_query(served, tick)


async def test_subscribers_that_join_while_it_plays_see_the_same(served: Served) -> None:
    await served.create()
    await served.play(0.0, max_ticks=200)
    calls = [served.subscribe(from_tick=tick, until_tick=199) for tick in (0, 0, 50, 150)]
    calls += [
        served.subscribe(until_tick=199),
        served.subscribe(from_tick=0, until_tick=199, max_message_bytes=1),
    ]
    found = await asyncio.gather(*map(_collect, calls))
    everything = {tick.tick: tick for tick in found[0]}
    assert sorted(everything) == list(range(200))
    for ticks in found[1:]:
        assert ticks[-1].tick == 199
        for tick in ticks:
            assert tick.rows == everything[tick.tick].rows
            assert tick.summary == everything[tick.tick].summary


async def test_a_tick_larger_than_a_message_comes_in_chunks(served: Served) -> None:
    await served.create(template="")
    rows = 20_000
    table = stream({"spot__x": [float(i) for i in range(rows)]})
    await served.submit(command_pb2.Command(spawn=command_pb2.Spawn(table=table)))
    await served.step()
    sizes: list[int] = []
    call = served.subscribe(from_tick=0, until_tick=0, max_message_bytes=64 << 10)
    messages = [message async for message in call]
    sizes = [message.ByteSize() for message in messages]
    assert max(sizes) <= 64 << 10
    assert len(sizes) > 5
    (tick,) = await _collect(served.subscribe(from_tick=0, until_tick=0, max_message_bytes=64 << 10))
    assert tick.chunks >= len(sizes) - 1
    assert len(tick.active) == rows
    await served.submit(despawn(*range(1, 10_001)))
    await served.step()
    messages = [m async for m in served.subscribe(from_tick=1, until_tick=1, max_message_bytes=64 << 10)]
    assert max(message.ByteSize() for message in messages) <= 64 << 10


async def test_a_tick_without_rows_is_still_sent(served: Served) -> None:
    await served.create(template="")
    await served.step(3)
    found = await _collect(served.subscribe(from_tick=0, until_tick=2))
    assert [(tick.tick, tick.rows) for tick in found] == [(0, {}), (1, {}), (2, {})]


async def test_a_change_of_state_is_told_at_once(served: Served) -> None:
    await served.create(template="held")
    await served.step()
    gate = served.gate()
    call = served.subscribe()
    await first(call)
    gate.open.clear()
    await served.play(0.0, max_ticks=1)
    beat = (await call.read()).heartbeat
    assert (beat.committed_tick, beat.state) == (0, world_pb2.WORLD_STATE_PLAYING)
    gate.open.set()
    assert (await until_state(call, world_pb2.WORLD_STATE_IDLE)).committed_tick <= 1
    gate.broken = True
    await refused(served.step())
    assert "Hold" in (await until_state(call, world_pb2.WORLD_STATE_FAULTED)).fault
    gate.broken = False
    await served.step()
    assert not (await until_state(call, world_pb2.WORLD_STATE_IDLE)).fault
    call.cancel()


async def until_state(call: Any, state: world_pb2.WorldState) -> tick_service_pb2.Heartbeat:
    """Return the first heartbeat that tells `state`."""
    while (beat := (await call.read()).heartbeat).state != state:
        pass
    return beat


async def test_silence_is_filled_with_heartbeats(served: Served) -> None:
    await served.create()
    call = served.subscribe(heartbeat=Duration(nanos=1))
    await first(call)
    beat = (await call.read()).heartbeat
    assert (beat.committed_tick, beat.state) == (-1, world_pb2.WORLD_STATE_IDLE)
    call.cancel()


async def test_a_server_that_stops_says_where_to_resume(served: Served) -> None:
    await served.create()
    await served.step(3)
    idle = served.subscribe(from_tick=0)
    stream_ = ticks_of(idle)
    for expected in range(3):
        assert (await anext(stream_)).tick == expected
    following = asyncio.ensure_future(served.server.stop())
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await anext(stream_)
    refusal = raised(error.value)
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN")
    assert refusal.metadata["next_tick"] == "3"
    assert "RetryInfo" in refusal.kinds
    await following
    await served.stop()
    await served.start()
    await served.step()
    resumed = await _collect(served.subscribe(from_tick=int(refusal.metadata["next_tick"]), until_tick=3))
    assert [tick.tick for tick in resumed] == [3]


async def test_a_playing_server_that_stops_loses_no_tick_for_its_subscriber(served: Served) -> None:
    await served.create()
    call = served.subscribe(from_tick=0)
    stream_ = ticks_of(call)
    await served.play()
    seen = [(await anext(stream_)).tick for _ in range(30)]
    stopping = asyncio.ensure_future(served.server.stop())

    async def follow() -> None:
        async for tick in stream_:
            seen.append(tick.tick)  # noqa: PERF401  (it ends with an error, and what came before counts)

    with pytest.raises(grpc.aio.AioRpcError) as error:
        await follow()
    await stopping
    resume = int(raised(error.value).metadata["next_tick"])
    assert seen == list(range(resume))
    await served.stop()
    await served.start()
    last = served.server.container.engine.world("w").tick - 1
    if resume <= last:
        rest = await _collect(served.subscribe(from_tick=resume, until_tick=last))
        assert [tick.tick for tick in rest] == list(range(resume, last + 1))


async def test_a_cancelled_subscriber_is_forgotten(served: Served) -> None:
    await served.create()
    hub = served.server.container.hub(served.mover().world)
    call = served.subscribe(from_tick=0)
    await first(call)
    await served.step()
    while not (await call.read()).chunks:
        pass
    assert hub.subscribers == 1
    call.cancel()
    await until(lambda: not (hub.subscribers))
    await served.step()
