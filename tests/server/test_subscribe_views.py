"""What of each tick a subscriber asked for: columns, rows, codecs, every n-th; and what lies behind: summaries, worlds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import pytest

from tests.engine.parts import stream
from tests.server.answers import Assembler, despawn, raised, refused, rest, spawn, ticks_of, until, update
from tests.server.test_subscribe_changes import lively
from tickwire.v1 import command_pb2, simulation_service_pb2, tick_service_pb2, world_pb2, world_service_pb2

if TYPE_CHECKING:
    from tests.server.answers import Tick
    from tests.server.conftest import Served

FROM_START = {"from_tick": 0, "until_tick": 15}


async def collected(call: Any, **given: Any) -> list[Tick]:
    return [tick async for tick in ticks_of(call, **given)]


@pytest.mark.parametrize("source", ["ring", "history"])
async def test_components_choose_archetypes_and_columns(served: Served, source: str) -> None:
    await lively(served)
    if source == "history":
        ring = served.server.container.hub(served.mover().world).ring
        ring.max_bytes = 1
        ring.shrink()
    whole = await collected(served.subscribe(**FROM_START))
    marked = await collected(served.subscribe(components=["Mark"], **FROM_START))
    both = await collected(served.subscribe(components=["Spot", "Mark"], **FROM_START))
    for everything, marks, two in zip(whole, marked, both, strict=True):
        names = [name for name, rows in everything.rows.items() if rows]
        assert [name for name, rows in marks.rows.items() if rows] == [n for n in names if "Mark" in n]
        assert [name for name, rows in two.rows.items() if rows] == [n for n in names if n == "Mark+Spot"]
        for name, rows in marks.rows.items():
            assert rows == [
                {key: row[key] for key in ("entity_id", "is_active", "mark__name", "mark__seen")}
                for row in everything.rows[name]
            ]
        assert marks.summary == everything.summary
    assert any(two.rows for two in both)


async def test_where_chooses_rows_by_columns_that_need_not_be_shown(served: Served) -> None:
    await lively(served)
    whole = await collected(served.subscribe(**FROM_START))
    asked = {"where": "spot__x > 8 AND entity_id <> 3", "components": ["Mark"], **FROM_START}
    found = await collected(served.subscribe(**asked))
    for everything, tick in zip(whole, found, strict=True):
        expected = [
            row["entity_id"]
            for name, rows in everything.rows.items()
            for row in rows
            if name == "Mark+Spot" and row["spot__x"] > 8 and row["entity_id"] != 3
        ]
        assert [row["entity_id"] for rows in tick.rows.values() for row in rows] == expected
    assert any(tick.rows for tick in found)


@pytest.mark.parametrize(
    ("asked", "reason", "field"),
    [
        ({"components": ["Nothing"]}, "UNKNOWN_COMPONENT", "components[0]"),
        ({"where": "spot__x >"}, "INVALID_SQL", "where"),
        ({"where": "spot__x + 1"}, "INVALID_SQL", "where"),
        ({"where": "spot__q > 1"}, "INVALID_SQL", "where"),
        ({"every": -1}, "INVALID_REQUEST", "every"),
        ({"max_message_bytes": -1}, "INVALID_REQUEST", "max_message_bytes"),
        ({"mode": 9}, "INVALID_REQUEST", "mode"),
        ({"compression": 9}, "INVALID_REQUEST", "compression"),
        ({"lag": 9}, "INVALID_REQUEST", "lag"),
        ({"at": 9}, "INVALID_REQUEST", "at"),
        ({"from_tick": -1}, "INVALID_REQUEST", "from_tick"),
        ({"from_tick": 5, "until_tick": 4}, "INVALID_REQUEST", "until_tick"),
    ],
    ids=str,
)
async def test_a_view_that_cannot_be_is_refused_with_its_field(
    served: Served, asked: dict[str, Any], reason: str, field: str
) -> None:
    await served.create()
    refusal = await refused(served.subscribe(**asked))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, reason)
    assert refusal.fields == [field]


@pytest.mark.parametrize("mode", [tick_service_pb2.TICK_MODE_FULL, tick_service_pb2.TICK_MODE_CHANGES])
async def test_compressed_batches_hold_the_same_rows_in_fewer_bytes(served: Served, mode: Any) -> None:
    await served.create(template="")
    table = stream({"spot__x": [float(i % 7) for i in range(5000)]})
    await served.submit(command_pb2.Command(spawn=command_pb2.Spawn(table=table)))
    await served.step(2)
    rows, sizes = [], []
    for compression in (
        world_pb2.COMPRESSION_NONE,
        world_pb2.COMPRESSION_LZ4,
        world_pb2.COMPRESSION_ZSTD,
    ):
        asked = {"from_tick": 0, "until_tick": 1, "compression": compression, "mode": mode}
        messages = [m async for m in served.subscribe(**asked)]
        assembler = Assembler()
        ticks = [assembler.add(chunk) for message in messages for chunk in message.chunks]
        rows.append([tick.rows for tick in ticks if tick is not None])
        sizes.append(sum(message.ByteSize() for message in messages))
    assert rows[0] == rows[1] == rows[2]
    assert len(rows[0][0]["Spot"]) == 5000
    assert max(sizes[1:]) < sizes[0] / 2


@pytest.mark.parametrize("source", ["ring", "history"])
async def test_every_sends_multiples_and_sums_what_lies_between(served: Served, source: str) -> None:
    await served.create()
    for x in range(15):
        await served.submit(*[spawn(float(x))] * (x + 1), despawn(x + 1))
        await served.step()
    if source == "history":
        ring = served.server.container.hub(served.mover().world).ring
        ring.max_bytes = 1
        ring.shrink()
    call = served.subscribe(from_tick=2, until_tick=14, every=5)
    assert (await call.read()).started.first_tick == 5
    found = await collected(served.subscribe(from_tick=2, until_tick=14, every=5), every=5)
    whole = await collected(served.subscribe(from_tick=0, until_tick=14))
    assert [tick.tick for tick in found] == [5, 10]
    for tick, first in zip(found, (2, 6), strict=True):
        between = [summed.summary for summed in whole[first : tick.tick + 1]]
        assert tick.summary.spawned == sum(summary.spawned for summary in between)
        assert tick.summary.despawned == sum(summary.despawned for summary in between) == len(between)
        assert tick.summary.commands_applied == sum(summary.commands_applied for summary in between)
        assert tick.summary.entities == whole[tick.tick].summary.entities
        assert tick.summary.state_hash == whole[tick.tick].summary.state_hash
        assert tick.active == whole[tick.tick].active


async def test_every_ends_ok_only_once_until_tick_is_committed(served: Served) -> None:
    await served.create()
    await served.step(6)
    call = served.subscribe(from_tick=0, until_tick=7, every=5)
    hub = served.server.container.hub(served.mover().world)
    found: list[int] = []
    while len(found) < 2:
        found += [chunk.tick for chunk in (await call.read()).chunks]
    assert found == [0, 5]
    assert hub.subscribers == 1
    await served.step(2)
    assert [chunk async for message in rest(call) for chunk in message.chunks] == []
    assert await call.code() is grpc.StatusCode.OK


async def test_an_archetype_that_a_view_sees_no_more_is_sent_empty_once(served: Served) -> None:
    await served.create()
    await served.step(6)
    found = await collected(served.subscribe(from_tick=0, until_tick=5, where="spot__x < 7"))
    # x starts at 0 to 4 and grows by one a tick: the condition sees fewer, then none.
    assert [len(tick.rows["Spot"]) if "Spot" in tick.rows else None for tick in found] == [5, 5, 4, 3, 2, 1]
    await served.step(2)
    found = await collected(served.subscribe(from_tick=4, until_tick=7, where="spot__x < 7"))
    assert [len(tick.rows["Spot"]) if "Spot" in tick.rows else None for tick in found] == [2, 1, 0, None]


async def test_subscribers_of_one_view_share_its_encoding(served: Served) -> None:
    await served.create()
    hub = served.server.container.hub(served.mover().world)
    asked: dict[str, Any] = {"until_tick": 4, "components": ["Spot"], "where": "entity_id > 2"}
    calls = [served.subscribe(**asked) for _ in range(3)]
    for call in calls:
        await call.read()
    await served.step(5)
    for call in calls:
        assert len([chunk async for message in rest(call) for chunk in message.chunks]) == 5
    entry = hub.ring.at(4)
    assert entry is not None
    assert (len(entry.shown), len(entry.messages)) == (1, 1)


async def test_the_ring_counts_what_was_encoded_and_drops_it_first(served: Served) -> None:
    await served.create()
    hub = served.server.container.hub(served.mover().world)
    await served.step(50)
    plain = hub.ring.held
    for components in ([], ["Spot"], ["Mark"]):
        await collected(served.subscribe(from_tick=0, until_tick=49, components=components))
    assert hub.ring.held > plain * 2
    hub.ring.max_bytes = plain + 3_000
    hub.ring.shrink()
    assert hub.ring.held <= plain + 3_000
    assert (len(hub.ring), hub.ring.first_tick) == (50, 0)
    hub.ring.max_bytes = plain // 2
    hub.ring.shrink()
    assert 2 < len(hub.ring) < 50
    assert hub.ring.held <= plain // 2


async def test_views_of_the_newest_tick_do_not_push_the_others_out(served: Served) -> None:
    await served.create()
    hub = served.server.container.hub(served.mover().world)
    await served.step(50)
    plain = hub.ring.held
    hub.ring.max_bytes = 3 * plain
    for number in range(400):
        # Each is a view of its own.
        where = f"entity_id >= {-number}"
        await collected(served.subscribe(from_tick=49, until_tick=49, where=where))
        assert hub.ring.held <= 3 * plain
    newest = hub.ring.at(49)
    assert newest is not None
    assert 2 < len(newest.messages) < 400
    assert (len(hub.ring), hub.ring.first_tick) == (50, 0)


async def test_archetypes_that_rest_count_once_in_the_ring(served: Served) -> None:
    await served.create(template="")
    table = stream({"mark__name": [f"{i:020}" for i in range(5000)]})
    await served.submit(command_pb2.Command(spawn=command_pb2.Spawn(table=table)))
    hub = served.server.container.hub(served.mover().world)
    await served.step()
    once = hub.ring.held
    await served.step(20)
    assert len(hub.ring) == 21
    assert hub.ring.held < once * 1.1
    hub.ring.max_bytes = 1
    hub.ring.shrink()
    assert once * 0.9 < hub.ring.held < once * 1.1
    await served.submit(despawn(*range(1, 5001)))
    await served.step(3)
    assert hub.ring.held < once / 2


# Ends


async def test_a_destroyed_worlds_stream_ends_after_its_last_tick(served: Served) -> None:
    await served.create()
    await served.step(3)
    service = served.server.container.world_service
    world = served.mover().world
    hub = served.server.container.hub(world)
    following = [served.subscribe(from_tick=0), served.subscribe(from_tick=9), served.subscribe()]
    await until(lambda: hub.subscribers == 3)
    await service.remove_world(world.world_id)
    seen: list[list[int]] = []
    for call in following:
        ticks: list[int] = []
        try:
            async for message in call:
                ticks += [chunk.tick for chunk in message.chunks]
        except grpc.aio.AioRpcError as error:
            refusal = raised(error)
            assert (refusal.code, refusal.reason) == (
                grpc.StatusCode.FAILED_PRECONDITION,
                "WORLD_DESTROYED",
            )
        seen.append(ticks)
    assert seen == [[0, 1, 2], [], []]
    assert world.world_id not in served.server.container._hubs


# ListTicks, WatchWorld


async def test_list_ticks_pages_through_the_kept_summaries(served: Served) -> None:
    await served.create()
    assert not (await served.ticks.ListTicks(tick_service_pb2.ListTicksRequest(world="w"))).ticks
    await served.step(25)
    whole = await collected(served.subscribe(from_tick=0, until_tick=24))
    listed: list[Any] = []
    request = tick_service_pb2.ListTicksRequest(world="w", from_tick=3, to_tick=22, page_size=7)
    while True:
        page = await served.ticks.ListTicks(request)
        assert len(page.ticks) <= 7
        listed += page.ticks
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    assert listed == [tick.summary for tick in whole[3:23]]
    everything = await served.ticks.ListTicks(tick_service_pb2.ListTicksRequest(world="w", to_tick=99))
    assert [summary.tick for summary in everything.ticks] == list(range(25))
    request.from_tick = 4
    refusal = await refused(served.ticks.ListTicks(request))
    assert refusal.reason == "INVALID_PAGE_TOKEN"
    for bad in ({"from_tick": -1}, {"to_tick": -1}, {"page_size": -1}):
        refusal = await refused(served.ticks.ListTicks(tick_service_pb2.ListTicksRequest(world="w", **bad)))
        assert (refusal.reason, refusal.fields) == ("INVALID_REQUEST", [*bad])


async def test_watch_world_tells_it_at_once_then_changes_and_its_end(served: Served) -> None:
    await served.create(template="held")
    await served.step()
    call = served.worlds.WatchWorld(world_service_pb2.WatchWorldRequest(world="w"))
    seen = (await call.read()).world
    assert (seen.tick, seen.state) == (1, world_pb2.WORLD_STATE_IDLE)
    gate = served.gate()
    gate.open.clear()
    await served.simulation.Play(simulation_service_pb2.PlayRequest(world="w", max_ticks=2))
    while seen.state != world_pb2.WORLD_STATE_PLAYING:
        seen = (await call.read()).world
    assert seen.tick == 1
    gate.open.set()
    while (seen.state, seen.tick) != (world_pb2.WORLD_STATE_IDLE, 3):
        seen = (await call.read()).world
    await served.submit(update(1, 5.0))
    while not seen.pending_commands:
        seen = (await call.read()).world
    await served.server.container.world_service.remove_world(seen.id)
    last = [message.world.state async for message in rest(call)][-1]
    assert last == world_pb2.WORLD_STATE_DESTROYED
    assert await call.code() is grpc.StatusCode.OK


async def test_watch_world_of_a_fast_world_leaves_most_of_it_out(served: Served) -> None:
    await served.create()
    call = served.worlds.WatchWorld(world_service_pb2.WatchWorldRequest(world="w"))
    assert (await call.read()).world.tick == 0
    await served.step(200)
    heard: list[int] = []
    while not heard or heard[-1] < 200:
        heard.append((await call.read()).world.tick)
    assert len(heard) < 50
    call.cancel()
