"""Query and GetEntity over a socket: rows at any committed tick, as Arrow and for people."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from google.protobuf import json_format

from tests.engine.parts import stream
from tests.server.answers import despawn, refused, spawn, update
from tickwire.v1 import command_pb2, query_service_pb2, world_pb2, world_service_pb2
from tickwire.v1.query_service_pb2 import TickRange

if TYPE_CHECKING:
    from tests.server.conftest import Served


async def query(served: Served, **given: Any) -> pa.Table:
    """Return a query's answer: the ipc bytes concatenate to one stream."""
    request = query_service_pb2.QueryRequest(world="w", **given)
    responses = [response async for response in served.queries.Query(request)]
    table = pa.ipc.open_stream(b"".join(response.ipc for response in responses)).read_all()
    table.validate(full=True)
    assert sum(response.rows for response in responses) == table.num_rows
    assert len({response.tick for response in responses}) == 1
    return table


async def records(served: Served, **given: Any) -> list[dict[str, Any]]:
    request = query_service_pb2.QueryRequest(world="w", format=query_service_pb2.FORMAT_ROWS, **given)
    return [
        json_format.MessageToDict(record)
        async for response in served.queries.Query(request)
        for record in response.records
    ]


def mark(name: str, **spot: float) -> command_pb2.Command:
    command = command_pb2.Command()
    values: dict[str, Any] = {"Mark": {"name": name}}
    if spot:
        values["Spot"] = spot
    command.spawn.components.update(values)
    return command


@pytest.fixture
async def peopled(served: Served) -> Served:
    """Ticks 0 to 3: two spots, a mark, and one with both; then the first spot moves, then goes."""
    await served.create(template="")
    await served.submit(spawn(1.0), spawn(2.0), mark("m"), mark("both", x=4.0))
    await served.step()
    await served.submit(update(1, 10.0))
    await served.step()
    await served.submit(despawn(1))
    await served.step(2)
    return served


async def test_rows_stand_in_entity_order_with_the_union_of_columns(peopled: Served) -> None:
    table = await query(peopled)
    names = ["tick", "entity_id", "is_active", "mark__name", "mark__seen", "spot__x", "spot__y"]
    assert table.schema.names == names
    assert table.column("entity_id").to_pylist() == [2, 3, 4]
    assert table.column("spot__x").to_pylist() == [2.0, None, 4.0]
    assert table.column("mark__name").to_pylist() == [None, "m", "both"]
    assert set(table.column("tick").to_pylist()) == {3}


async def test_any_committed_tick_can_be_read(peopled: Served) -> None:
    assert [
        (await query(peopled, at_tick=tick, components=["Spot"])).column("spot__x").to_pylist()
        for tick in range(4)
    ] == [[1.0, 2.0, 4.0], [10.0, 2.0, 4.0], [2.0, 4.0], [2.0, 4.0]]
    await peopled.stop()
    await peopled.start()
    found = await query(peopled, at_tick=1, components=["Spot"])
    assert found.column("spot__x").to_pylist() == [10.0, 2.0, 4.0]


async def test_components_ids_and_limit_narrow_it(peopled: Served) -> None:
    both = await query(peopled, components=["Spot", "Mark"])
    assert both.column("entity_id").to_pylist() == [4]
    assert both.schema.names[3:] == ["mark__name", "mark__seen", "spot__x", "spot__y"]
    spots = await query(peopled, components=["Spot"])
    assert spots.schema.names[3:] == ["spot__x", "spot__y"]
    assert not spots.schema.field("spot__x").nullable
    assert (await query(peopled, entity_ids=[4, 1, 2, 4, 99])).column("entity_id").to_pylist() == [2, 4]
    assert (await query(peopled, limit=2)).column("entity_id").to_pylist() == [2, 3]
    refusal = await refused(query(peopled, components=["Spot", "Nothing"]))
    assert (refusal.reason, refusal.fields) == ("UNKNOWN_COMPONENT", ["components[1]"])


async def test_no_rows_are_a_schema_and_an_end(served: Served) -> None:
    await served.create(template="")
    for step in range(2):
        empty = await query(served)
        assert (empty.num_rows, empty.schema.names) == (0, ["tick", "entity_id", "is_active"])
        typed = await query(served, components=["Spot"])
        assert typed.num_rows == 0
        assert typed.schema.names == ["tick", "entity_id", "is_active", "spot__x", "spot__y"]
        assert await records(served) == []
        if step == 0:
            await served.step()


async def test_rows_are_for_people(peopled: Served) -> None:
    assert await records(peopled, components=["Mark"]) == [
        {"tick": 3.0, "entity_id": 3.0, "is_active": True, "mark__name": "m", "mark__seen": None},
        {"tick": 3.0, "entity_id": 4.0, "is_active": True, "mark__name": "both", "mark__seen": None},
    ]


async def test_a_large_answer_comes_in_messages_that_every_client_takes(served: Served) -> None:
    await served.create(template="")
    # Long rows stand together: an average says nothing about them.
    names = ["x" * 100_000] * 60 + [""] * 20_000
    table = command_pb2.Command(spawn=command_pb2.Spawn(table=stream({"mark__name": names})))
    await served.submit(table)
    await served.step()
    sizes = [
        response.ByteSize()
        async for response in served.queries.Query(query_service_pb2.QueryRequest(world="w"))
    ]
    assert max(sizes) < 2 << 20
    assert (await query(served)).column("mark__name").to_pylist() == names
    assert len(await records(served, components=["Mark"])) == len(names)


async def test_an_entity_is_read_by_id(peopled: Served) -> None:
    async def entity(entity_id: int, **given: Any) -> Any:
        request = query_service_pb2.GetEntityRequest(world="w", entity_id=entity_id, **given)
        return await peopled.queries.GetEntity(request)

    found = await entity(4)
    assert (found.entity_id, found.tick) == (4, 3)
    assert json_format.MessageToDict(found.components) == {
        "Mark": {"name": "both", "seen": None},
        "Spot": {"x": 4.0, "y": 0.0},
    }
    assert json_format.MessageToDict((await entity(1, at_tick=1)).components)["Spot"]["x"] == 10.0
    for tick in (2, 3):
        assert (await refused(entity(1, at_tick=tick))).reason == "ENTITY_NOT_FOUND"


def mark_moves(entity_id: int, name: str) -> command_pb2.Command:
    command = command_pb2.Command()
    command.update.entity_ids.append(entity_id)
    command.update.components.update({"Mark": {"name": name}})
    return command


async def archive(served: Served, world: str = "w") -> None:
    engine = served.server.container.engine
    await engine.store.archiver.archive_now(engine.world(world).row.key)


async def test_a_range_has_every_tick_in_order_also_of_what_did_not_change(peopled: Served) -> None:
    for where_it_lies in ("in the journal", "in the archive"):
        found = await query(peopled, ticks=TickRange(from_tick=0, to_tick=3), components=["Spot"])
        rows = zip(
            *(found.column(name).to_pylist() for name in ("tick", "entity_id", "spot__x")), strict=True
        )
        assert [*rows] == [
            (0, 1, 1.0),
            (0, 2, 2.0),
            (0, 4, 4.0),
            (1, 1, 10.0),
            (1, 2, 2.0),
            (1, 4, 4.0),
            (2, 2, 2.0),
            (2, 4, 4.0),
            (3, 2, 2.0),
            (3, 4, 4.0),
        ], where_it_lies
        one = await query(peopled, ticks=TickRange(from_tick=1, to_tick=3), entity_ids=[1, 3, 99])
        assert one.column("tick").to_pylist() == [1, 1, 2, 3]
        assert one.column("spot__x").to_pylist() == [10.0, None, None, None]
        assert one.column("mark__name").to_pylist() == [None, "m", "m", "m"]
        cut = await query(peopled, ticks=TickRange(from_tick=0, to_tick=3), limit=4)
        assert [*zip(cut.column("tick").to_pylist(), cut.column("entity_id").to_pylist(), strict=True)] == [
            (0, 1),
            (0, 2),
            (0, 3),
            (0, 4),
        ]
        await archive(peopled)


async def test_a_range_reads_what_single_ticks_read(peopled: Served) -> None:
    await peopled.submit(mark("late", x=9.0), mark_moves(3, "moved"))
    await peopled.step(3)
    await archive(peopled)
    await peopled.submit(despawn(4))
    await peopled.step(2)
    whole = await query(peopled, ticks=TickRange(from_tick=0, to_tick=8))
    for tick in range(9):
        single = await query(peopled, at_tick=tick)
        part = whole.filter(pc.field("tick") == tick)
        assert part.select(single.schema.names).to_pylist() == single.to_pylist()


async def test_conditions_choose_rows_now_and_then(peopled: Served) -> None:
    assert (await query(peopled, where="spot__x > 1.5")).column("entity_id").to_pylist() == [2, 4]
    found = await query(
        peopled,
        where="spot__x > 1.5 AND entity_id < 4",
        components=["Spot"],
        ticks=TickRange(from_tick=0, to_tick=2),
    )
    assert found.column("entity_id").to_pylist() == [2, 1, 2, 2]
    # A condition may read components that the answer does not have.
    found = await query(peopled, where="mark__name = 'both'", components=["Spot"], at_tick=0)
    assert found.schema.names[3:] == ["spot__x", "spot__y"]
    assert found.column("entity_id").to_pylist() == [4]
    assert (await query(peopled, where="mark__name = 'none'", at_tick=1)).num_rows == 0


async def test_compression_changes_the_bytes_and_nothing_else(served: Served) -> None:
    await served.create(template="")
    await served.submit(
        command_pb2.Command(spawn=command_pb2.Spawn(table=stream({"mark__name": ["same"] * 50_000})))
    )
    await served.step()
    plain = await query(served)
    for compression in (world_pb2.COMPRESSION_LZ4, world_pb2.COMPRESSION_ZSTD):
        request = query_service_pb2.QueryRequest(world="w", compression=compression)
        pieces = [response.ipc async for response in served.queries.Query(request)]
        assert sum(map(len, pieces)) < plain.nbytes / 3
        assert pa.ipc.open_stream(b"".join(pieces)).read_all() == plain


async def test_what_makes_no_sense_is_refused_by_its_field(peopled: Served) -> None:
    for field, reason, asked in (
        ("at_tick", "TICK_IN_THE_FUTURE", {"at_tick": 4}),
        ("at_tick", "INVALID_REQUEST", {"at_tick": -1}),
        ("ticks.to_tick", "TICK_IN_THE_FUTURE", {"ticks": TickRange(from_tick=0, to_tick=4)}),
        ("ticks.to_tick", "INVALID_REQUEST", {"ticks": TickRange(from_tick=2, to_tick=1)}),
        ("ticks.from_tick", "INVALID_REQUEST", {"ticks": TickRange(from_tick=-1, to_tick=1)}),
        ("where", "INVALID_SQL", {"where": "spot__x >"}),
        ("where", "INVALID_SQL", {"where": "spot__x + 1"}),
        ("where", "UNKNOWN_COMPONENT", {"where": "nothing__x = 1"}),
        ("limit", "INVALID_REQUEST", {"limit": -1}),
        ("entity_ids[1]", "INVALID_REQUEST", {"entity_ids": [1, 0]}),
        ("compression", "INVALID_REQUEST", {"compression": 9}),
        ("format", "INVALID_REQUEST", {"format": 9}),
    ):
        refusal = await refused(query(peopled, **asked))
        assert refusal.reason == reason, asked
        if reason != "TICK_IN_THE_FUTURE":
            assert refusal.fields == [field], asked


async def test_a_value_that_a_condition_cannot_work_with_is_told(peopled: Served) -> None:
    refusal = await refused(query(peopled, where="list_get(spot__x, 0) = 1", ticks=TickRange(to_tick=3)))
    assert (refusal.reason, refusal.fields) == ("INVALID_SQL", ["where"])


async def test_a_query_that_nobody_waits_for_stops_reading(served: Served) -> None:
    await served.create(template="")
    spots = stream({"spot__x": [0.0] * 20_000})
    await served.submit(command_pb2.Command(spawn=command_pb2.Spawn(table=spots)))
    await served.step(200)
    whole = query_service_pb2.QueryRequest(world="w", ticks=TickRange(from_tick=0, to_tick=199))
    call = served.queries.Query(whole)
    assert (await call.read()).rows > 0
    call.cancel()
    with pytest.raises(grpc.aio.AioRpcError) as late:
        async for _ in served.queries.Query(whole, timeout=0.2):
            pass
    assert late.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    # All threads are free again.
    threads = served.server.container.query_service._threads
    await asyncio.wait_for(asyncio.gather(*(threads.call(int) for _ in range(8))), 30)
    assert (await query(served, limit=1)).num_rows == 1


async def test_one_tick_is_read_while_the_world_goes_on(served: Served) -> None:
    await served.create(template="line")
    await served.step(5)
    await served.play()
    try:
        for _ in range(10):
            found = await query(served)
            assert len(set(found.column("tick").to_pylist())) == 1
            request = query_service_pb2.SqlRequest(sql="SELECT count(*) AS n, max(tick) AS last FROM w.spot")
            responses = [response async for response in served.queries.Sql(request)]
            (row,) = pa.ipc.open_stream(b"".join(r.ipc for r in responses)).read_all().to_pylist()
            assert row["last"] == responses[-1].tick
            assert row["n"] % (row["last"] + 1) == 0
    finally:
        await served.pause()


async def test_a_forks_history_begins_with_its_ancestors(peopled: Served) -> None:
    for archived in (False, True):
        if archived:
            await archive(peopled)
        name = f"fork-{archived}".lower()
        await peopled.worlds.ForkWorld(world_service_pb2.ForkWorldRequest(world="w", name=name, at_tick=1))
        await peopled.submit(update(2, 20.0), world=name)
        await peopled.step(2, world=name)
        await peopled.submit(update(2, 99.0))
        await peopled.step()
        request = query_service_pb2.QueryRequest(
            world=name, ticks=TickRange(from_tick=0, to_tick=3), entity_ids=[1, 2], components=["Spot"]
        )
        responses = [response async for response in peopled.queries.Query(request)]
        found = pa.ipc.open_stream(b"".join(response.ipc for response in responses)).read_all()
        rows = zip(*(found.column(n).to_pylist() for n in ("tick", "entity_id", "spot__x")), strict=True)
        assert [*rows] == [
            (0, 1, 1.0),
            (0, 2, 2.0),
            (1, 1, 10.0),
            (1, 2, 2.0),
            (2, 1, 10.0),
            (2, 2, 20.0),
            (3, 1, 10.0),
            (3, 2, 20.0),
        ]
