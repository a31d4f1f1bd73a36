"""Queries as commands, over a socket: their rows come with the outcome, or by ReadResult."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa

from tests.server.answers import refused
from tickwire import AsyncClient, commands
from tickwire.v1 import command_pb2, command_service_pb2
from tickwire_engine.ids import uuid7

if TYPE_CHECKING:
    from tests.server.conftest import Served


def _query(**given: object) -> command_pb2.Command:
    return command_pb2.Command(id=str(uuid7()), query_world=command_pb2.QueryWorld(**given))  # type: ignore[arg-type]


async def test_rows_come_with_the_outcome_and_by_read_result(served: Served) -> None:
    await served.create()
    sent = [_query(components=["Spot"], where="spot__x >= 3"), _query(sql="SELECT count(*) AS n FROM spot")]
    await served.submit(*sent)
    await served.step()
    first, second = (await served.submit(*sent)).receipts
    rows = pa.ipc.open_stream(first.outcome.table).read_all()
    # As the template made them: the query stands before the processors of tick 0.
    assert [row["spot__x"] for row in rows.to_pylist()] == [3.0, 4.0]
    assert first.outcome.table_bytes == len(first.outcome.table)
    assert pa.ipc.open_stream(second.outcome.table).read_all().to_pylist() == [{"n": 5}]
    request = command_service_pb2.ReadResultRequest(world="w", command_id=sent[0].id)
    pieces = b"".join([piece.ipc async for piece in served.commands.ReadResult(request)])
    assert pa.ipc.open_stream(pieces).read_all().equals(rows)


async def test_a_query_that_names_what_is_not_there_is_refused_with_the_field(served: Served) -> None:
    await served.create()
    refusal = await refused(served.submit(_query(components=["Spot", "Nothing"])))
    assert (refusal.reason, refusal.fields) == (
        "UNKNOWN_COMPONENT",
        ["commands[0].query_world.components[1]"],
    )
    refusal = await refused(served.submit(_query(where="spot__x = read_csv('/etc/passwd')")))
    assert (refusal.reason, refusal.fields) == ("INVALID_SQL", ["commands[0].query_world.where"])


async def test_the_client_waits_for_the_rows(served: Served) -> None:
    async with AsyncClient(f"127.0.0.1:{served.server.port}") as client:
        world = await client.create_world("w", template="line")
        await world.play(hz=50.0)
        (receipt,) = await world.submit([commands.query_world(components=["Spot"])], wait="applied")
        await world.pause()
        assert receipt.outcome is not None
        assert receipt.outcome.table is not None
        assert receipt.outcome.table.num_rows == 5
