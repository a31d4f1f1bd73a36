"""The Sql RPC: queries over the worlds that a caller may see, at every kept tick or at one."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc
import pyarrow as pa
import pytest
from google.protobuf import json_format

from tests.engine.parts import stream
from tests.server.answers import despawn, refused, spawn, update
from tests.server.secured import secured
from tickwire.v1 import command_pb2, query_service_pb2

if TYPE_CHECKING:
    from pathlib import Path

    from tests.server.conftest import Served

ENDLESS = "SELECT count(*) FROM range(1000000000) a, range(1000000) b"


async def sql(served: Served, text: str, **given: Any) -> pa.Table:
    request = query_service_pb2.SqlRequest(sql=text, **given)
    responses = [response async for response in served.queries.Sql(request)]
    table = pa.ipc.open_stream(b"".join(response.ipc for response in responses)).read_all()
    assert sum(response.rows for response in responses) == table.num_rows
    return table


@pytest.fixture
async def peopled(served: Served) -> Served:
    """Two worlds. Ticks 0 to 3 of `w`: two spots, of which the first moves, then goes; and one with a mark."""
    await served.create(template="")
    both = command_pb2.Command()
    both.spawn.components.update({"Spot": {"x": 4.0}, "Mark": {"name": "both"}})
    await served.submit(spawn(1.0), spawn(2.0), both)
    await served.step()
    await served.submit(update(1, 10.0))
    await served.step()
    await served.submit(despawn(1))
    await served.step(2)
    await served.create("other-one")
    await served.step(2, world="other-one")
    return served


async def test_tables_have_every_kept_tick_with_what_did_not_change(peopled: Served) -> None:
    engine = peopled.server.container.engine
    for _ in range(2):
        found = await sql(peopled, "SELECT tick, entity_id, spot__x FROM w.spot ORDER BY ALL")
        assert [tuple(row.values()) for row in found.to_pylist()] == [
            (0, 1, 1.0),
            (0, 2, 2.0),
            (0, 3, 4.0),
            (1, 1, 10.0),
            (1, 2, 2.0),
            (1, 3, 4.0),
            (2, 2, 2.0),
            (2, 3, 4.0),
            (3, 2, 2.0),
            (3, 3, 4.0),
        ]
        found = await sql(
            peopled,
            "SELECT archetype, components, tick, entity_id, mark__name FROM w.entities "
            "WHERE tick BETWEEN 1 AND 2 AND entity_id IN (1, 3) ORDER BY tick, entity_id",
        )
        assert [tuple(row.values()) for row in found.to_pylist()] == [
            ("Spot", ["Spot"], 1, 1, None),
            ("Mark+Spot", ["Mark", "Spot"], 1, 3, "both"),
            ("Mark+Spot", ["Mark", "Spot"], 2, 3, "both"),
        ]
        await engine.store.archiver.archive_now(engine.world("w").row.key)


async def test_tables_can_be_those_of_one_tick(peopled: Served) -> None:
    text = "SELECT tick, sum(spot__x) AS total FROM w.spot GROUP BY tick"
    assert (await sql(peopled, text, at_tick=1)).to_pylist() == [{"tick": 1, "total": 16.0}]
    assert (await sql(peopled, text, at_tick=3)).to_pylist() == [{"tick": 3, "total": 6.0}]
    refusal = await refused(sql(peopled, text, at_tick=4))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.OUT_OF_RANGE, "TICK_IN_THE_FUTURE")
    assert (await refused(sql(peopled, text, at_tick=-1))).fields == ["at_tick"]


async def test_worlds_can_be_joined_and_named_by_id(peopled: Served) -> None:
    found = await sql(
        peopled,
        'SELECT count(*) AS n FROM w.spot a JOIN "other-one".spot b USING (tick, entity_id)',
    )
    assert found.to_pylist() == [{"n": 6}]
    world = peopled.server.container.engine.world("w")
    assert (await sql(peopled, f'SELECT * FROM "{world.world_id}".mark WHERE tick = 2')).num_rows == 1


async def test_the_tick_of_the_answer_is_that_of_its_one_world(peopled: Served) -> None:
    async def tick(text: str) -> int:
        request = query_service_pb2.SqlRequest(sql=text)
        ticks = {response.tick async for response in peopled.queries.Sql(request)}
        (found,) = ticks
        return found

    assert await tick("SELECT * FROM w.spot") == 3
    assert await tick('SELECT * FROM "other-one".spot') == 1
    assert await tick('SELECT * FROM w.spot, "other-one".spot b LIMIT 1') == -1
    assert await tick("SELECT 1") == -1


async def test_rows_are_for_people_and_none_are_a_schema_and_an_end(peopled: Served) -> None:
    request = query_service_pb2.SqlRequest(
        sql="SELECT entity_id, spot__x AS x, 9007199254740993 AS big FROM w.spot WHERE tick = 3 ORDER BY 1",
        format=query_service_pb2.FORMAT_ROWS,
    )
    rows = [
        json_format.MessageToDict(record)
        async for response in peopled.queries.Sql(request)
        for record in response.records
    ]
    assert rows == [
        {"entity_id": 2.0, "x": 2.0, "big": "9007199254740993"},
        {"entity_id": 3.0, "x": 4.0, "big": "9007199254740993"},
    ]
    none = await sql(peopled, "SELECT * FROM w.mark WHERE tick = 99")
    assert none.schema.names == ["tick", "entity_id", "is_active", "mark__name", "mark__seen"]


async def test_what_is_no_query_is_refused_with_what_to_do(peopled: Served) -> None:
    for text, told in (
        ("SELECT * FROM w.spott", "There are: "),
        ("SELECT x FROM w.spot", "spot__x"),
        ("DELETE FROM w.spot", "one SELECT statement"),
        ("SELECT * FROM read_csv('/etc/passwd')", "read_csv"),
        ("SELEC 1", "syntax error"),
        ("", "one SELECT statement"),
    ):
        refusal = await refused(sql(peopled, text))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_SQL")
        assert refusal.fields == ["sql"]
        assert told in refusal.message


async def test_a_caller_sees_the_worlds_of_its_globs_only(tmp_path: Path) -> None:
    async with secured(tmp_path / "data") as server:
        await server.create("mine")
        await server.create("theirs")
        secret = (await server.token("viewer", worlds=["mi*"])).secret

        def ask(text: str) -> Any:
            request = query_service_pb2.SqlRequest(sql=text)
            return server.call("QueryService.Sql", request, token=secret)

        async def rows(text: str) -> int:
            return sum([response.rows async for response in ask(text)])

        assert await rows("SELECT * FROM mine.spot") == 0
        theirs = str(server.server.container.engine.world("theirs").world_id)
        for name in ("theirs", f'"{theirs}"'):
            refusal = await refused(rows(f"SELECT * FROM {name}.spot"))
            assert refusal.reason == "INVALID_SQL"
            assert "theirs." not in refusal.message.partition("There are:")[2]


async def test_a_query_is_bounded_in_time_rows_and_memory(tmp_path: Path, served: Served) -> None:
    await served.stop()
    bounds: dict[str, tuple[dict[str, Any], str]] = {
        "takes more than 1 s": ({"sql_s": 1.0}, ENDLESS),
        "1000 rows": ({"sql_rows": 1000}, "SELECT * FROM range(1001)"),
        "memory": ({"sql_memory_bytes": 128 << 20}, "SELECT length(repeat('x', 1000000000))"),
    }
    for said, (settings, text) in bounds.items():
        await served.start(**settings)
        refusal = await refused(sql(served, text))
        assert said in refusal.message
        assert (refusal.code, refusal.reason) == (
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            "RESULT_TOO_LARGE",
        ), text
        await served.stop()
    await served.start(sql_rows=1000)
    assert (await sql(served, "SELECT * FROM range(1000)")).num_rows == 1000


async def test_a_query_that_nobody_waits_for_gives_its_process_back(served: Served) -> None:
    await served.stop()
    await served.start(sql_processes=1)
    call = served.queries.Sql(query_service_pb2.SqlRequest(sql=ENDLESS))
    waiting = asyncio.ensure_future(call.read())
    sandbox = served.server.container.engine.sandbox
    while not sandbox._all:  # noqa: ASYNC110  (nobody tells when a process starts)
        await asyncio.sleep(0.01)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert (await sql(served, "SELECT 1 AS one")).to_pylist() == [{"one": 1}]
    with pytest.raises(grpc.aio.AioRpcError) as late:
        await served.queries.Sql(query_service_pb2.SqlRequest(sql=ENDLESS), timeout=0.3).read()
    assert late.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert (await sql(served, "SELECT 2 AS two")).num_rows == 1


async def test_a_condition_on_ticks_or_entities_reads_no_more_history_than_it_needs(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    await served.create(template="")
    table = stream({"spot__x": [float(number) for number in range(100)]})
    await served.submit(command_pb2.Command(spawn=command_pb2.Spawn(table=table)))
    await served.step(50)
    history = served.server.container.engine.world("w").history
    read: list[tuple[int, int | None]] = []
    scan = history.scan

    def noted(world: int, ticks: Any, **asked: Any) -> Any:
        ids = asked["entity_ids"]
        read.append((len(ticks), None if ids is None else len(ids)))
        return scan(world, ticks, **asked)

    monkeypatch.setattr(history, "scan", noted)
    for text, expected, rows in (
        ("SELECT * FROM w.spot WHERE tick BETWEEN 10 AND 19", (10, None), 1000),
        ("SELECT * FROM w.spot WHERE tick = 7 AND spot__x < 5", (1, None), 5),
        ("SELECT * FROM w.spot WHERE tick IN (3, 30)", (2, None), 200),
        ("SELECT * FROM w.spot WHERE entity_id = 5", (50, 1), 50),
        ("SELECT * FROM w.spot WHERE tick >= 48 AND entity_id IN (1, 2, 3)", (2, 3), 6),
    ):
        read.clear()
        assert (await sql(served, text)).num_rows == rows
        assert read == [expected], text


async def test_a_table_that_is_not_there_is_answered_with_those_of_the_world_that_was_meant(
    served: Served,
) -> None:
    for number in range(12):
        await served.create(f"other-{number}", template="")
    await served.create("zone", template="")
    refusal = await refused(sql(served, "SELECT * FROM zone.spott"))
    assert refusal.reason == "INVALID_SQL"
    assert "There are: zone.entities, " in refusal.message
    assert "zone.spot, " in refusal.message
