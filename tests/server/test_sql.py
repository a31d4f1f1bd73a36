"""SQL over the wire: conditions and processors as the client writes them, and what the server tells of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc

from tests.server.answers import refused
from tickwire import commands
from tickwire.v1 import query_service_pb2, world_pb2, world_service_pb2

if TYPE_CHECKING:
    from tests.server.conftest import Served


async def spots(served: Served) -> dict[int, tuple[float, float]]:
    request = query_service_pb2.QueryRequest(
        world="w", components=["Spot"], format=query_service_pb2.FORMAT_ROWS
    )
    found = {}
    async for part in served.queries.Query(request):
        for record in part.records:
            found[int(record["entity_id"])] = (record["spot__x"], record["spot__y"])
    return found


async def test_entities_are_selected_by_sql_in_the_order_of_the_commands(served: Served) -> None:
    await served.create(template="")
    await served.submit(
        commands.spawn(table={"spot__x": [1.0, 2.0, 3.0]}),
        commands.update(None, {"Spot": {"y": 5}}, where="spot__x >= 2"),
        commands.despawn(where="spot__y = 5 AND spot__x < 3"),
        commands.add_component([1, 3], {"Mark": {"name": "m"}}, where="spot__x > 2"),
        commands.remove_component(None, ["Mark"], where="mark__name = 'none'"),
    )
    stepped = await served.step()
    assert (stepped.commands_applied, stepped.commands_rejected) == (5, 0)
    assert await spots(served) == {1: (1.0, 0.0), 3: (3.0, 5.0)}


async def test_an_sql_processor_comes_by_command_and_is_listed_with_its_text(served: Served) -> None:
    await served.create(template="")
    await served.submit(
        commands.spawn({"Spot": {"x": 1}}),
        commands.spawn({"Spot": {"x": 100}}),
        commands.add_sql_processor(
            "grow", ["Spot"], {"spot__x": "spot__x + 1", "spot__y": "spot__x"}, where="spot__x < 50", order=3
        ),
    )
    await served.step(2)
    assert await spots(served) == {1: (3.0, 2.0), 2: (100.0, 0.0)}
    request = world_service_pb2.ListProcessorsRequest(world="w")
    (grow,) = (await served.worlds.ListProcessors(request)).processors
    assert (grow.name, grow.type, grow.priority, list(grow.components)) == (
        "grow",
        "SqlProcessor",
        3,
        ["Spot"],
    )
    assert grow.path == world_pb2.PROCESSOR_PATH_SQL
    assert dict(grow.sql.assignments) == {"spot__x": "spot__x + 1", "spot__y": "spot__x"}
    assert (list(grow.sql.components), grow.sql.where) == (["Spot"], "spot__x < 50")
    assert not grow.HasField("params")


async def test_a_text_that_is_not_allowed_is_refused_with_its_field(served: Served) -> None:
    await served.create(template="")
    refusal = await refused(
        served.submit(commands.add_sql_processor("p", [], {"spot__x": "url_download('http://x') + 1"}))
    )
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_SQL")
    assert refusal.fields == ["commands[0].add_processor.sql.assignments.spot__x"]
