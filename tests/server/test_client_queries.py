"""Queries as the clients make them, both of them, against a real server."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any

import daft
import polars as pl
import pyarrow as pa
import pytest

from tests.engine.parts import stream
from tests.server.answers import despawn
from tickwire import AsyncClient, Client, InvalidSqlError, Rows
from tickwire.v1 import command_pb2

if TYPE_CHECKING:
    from tests.server.conftest import Served


@pytest.fixture
async def walked(served: Served) -> Served:
    """Five moving spots, four ticks; the last tick has one less."""
    await served.create()
    await served.step(3)
    await served.submit(despawn(5))
    await served.step()
    return served


def target(served: Served) -> str:
    return f"127.0.0.1:{served.server.port}"


async def test_rows_are_a_table_in_all_but_name_with_ways_to_other_libraries(walked: Served) -> None:
    async with AsyncClient(target(walked)) as client:
        world = await client.world("w")
        rows = await world.query(components=["Spot"], where="spot__x > 3", ticks=(1, 3), limit=3)
    assert isinstance(rows, Rows)
    assert (len(rows), rows.num_rows, rows.column_names[:2]) == (3, 3, ["tick", "entity_id"])
    assert rows["spot__x"].to_pylist() == rows.column("spot__x").to_pylist() == [4.0, 5.0, 6.0]
    assert [row["entity_id"] for row in rows] == [3, 4, 5]
    assert rows.sort_by([("spot__x", "descending")])["spot__x"].to_pylist() == [6.0, 5.0, 4.0]
    assert pa.table(rows).equals(rows.table)
    assert rows == Rows(rows.table)
    assert rows.to_pandas()["spot__x"].sum() == 15.0
    assert rows.to_polars()["spot__x"].sum() == pl.DataFrame(rows)["spot__x"].sum() == 15.0
    frame: Any = rows.to_daft()
    assert isinstance(frame, daft.DataFrame)
    assert frame.to_pydict()["spot__x"] == [4.0, 5.0, 6.0]


async def test_a_library_that_is_not_there_is_told_with_what_to_install(
    walked: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with AsyncClient(target(walked)) as client:
        rows = await client.sql("SELECT 1 AS one")
    for package, convert in (("polars", rows.to_polars), ("pandas", rows.to_pandas), ("daft", rows.to_daft)):
        with monkeypatch.context() as patched:
            patched.setitem(sys.modules, package, None)
            with pytest.raises(ImportError, match=f"pip install {package}"):
                convert()


async def test_history_is_an_entity_tick_by_tick(walked: Served) -> None:
    async with AsyncClient(target(walked)) as client:
        world = await client.world("w")
        past = await world.history(5)
        assert past["tick"].to_pylist() == [0, 1, 2]
        assert past["spot__x"].to_pylist() == [5.0, 6.0, 7.0]
        assert (await world.history(1, ticks=(2, 3)))["tick"].to_pylist() == [2, 3]
        assert (await world.history(1, where="spot__x > 2", components=["Spot"]))["tick"].to_pylist() == [
            2,
            3,
        ]
        assert (await world.history(99)).num_rows == 0
        other = await client.create_world("empty")
        assert (await other.history(1)).num_rows == 0


async def test_batches_come_as_they_are_read_and_reading_may_end_early(served: Served) -> None:
    await served.create(template="")
    table = stream({"spot__x": [float(number) for number in range(20_000)]})
    await served.submit(command_pb2.Command(spawn=command_pb2.Spawn(table=table)))
    await served.step(20)
    async with AsyncClient(target(served)) as client:
        world = await client.world("w")
        batches = [batch async for batch in world.query_batches(ticks=(0, 19), compression="zstd")]
        assert len(batches) > 10
        assert sum(batch.num_rows for batch in batches) == 400_000
        whole = await world.query(ticks=(0, 19))
        assert pa.Table.from_batches(batches).equals(whole.table)
        some = world.query_batches(ticks=(0, 19))
        assert (await anext(some)).num_rows > 0
        await some.aclose()
        text = "SELECT entity_id FROM w.spot WHERE tick = 3"
        assert sum([batch.num_rows async for batch in client.sql_batches(text)]) == 20_000


async def test_the_blocking_client_asks_the_same(walked: Served) -> None:
    def ask() -> None:
        with Client(target(walked)) as client:
            world = client.world("w")
            rows = world.query(ticks=(0, 3))
            assert rows.num_rows == 19
            assert sum(batch.num_rows for batch in world.query_batches(ticks=(0, 3))) == 19
            assert world.history(5)["tick"].to_pylist() == [0, 1, 2]
            assert client.sql("SELECT count(*) AS n FROM w.spot").to_pylist() == [{"n": 19}]
            assert next(client.sql_batches("SELECT * FROM range(5)")).num_rows == 5
            with pytest.raises(InvalidSqlError):
                client.sql("SELECT * FROM nothing")

    await asyncio.to_thread(ask)
