"""Components that clients register, by text or by schema, and what becomes of worlds that hold them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import pyarrow as pa
import pytest
from google.protobuf.json_format import MessageToDict, ParseDict

from tests.server.answers import Replica, refused, ticks_of
from tickwire.v1 import command_pb2, tick_service_pb2, world_pb2, world_service_pb2
from tickwire_engine.encoding import read_schema, schema_message

if TYPE_CHECKING:
    from tests.server.conftest import Served


def _register(name: str = "Hull", **given: Any) -> world_service_pb2.RegisterComponentRequest:
    return ParseDict({"name": name, **given}, world_service_pb2.RegisterComponentRequest())


FUEL = {"name": "fuel", "type": "float64", "nullable": False, "default": 2.5}
CREW = {"name": "crew", "type": "list<string>"}


def _spawn(**components: Any) -> command_pb2.Command:
    command = command_pb2.Command()
    command.spawn.components.update(components)
    return command


async def test_a_component_in_text_is_registered_once_and_there_after_a_restart(served: Served) -> None:
    request = _register(fields=[FUEL, CREW], defaults={"crew": ["ann"]})
    made = (await served.worlds.RegisterComponent(request)).component
    assert (made.name, made.prefix, made.origin) == ("Hull", "hull__", world_pb2.COMPONENT_ORIGIN_RPC)
    assert [(f.name, f.type, f.nullable) for f in made.fields] == [
        ("fuel", "float64", False),
        ("crew", "list<string>", True),
    ]
    assert MessageToDict(made.defaults) == {"fuel": 2.5, "crew": ["ann"]}
    assert read_schema(made.arrow_schema).names == ["fuel", "crew"]
    assert (await served.worlds.RegisterComponent(request)).component == made
    await served.stop()
    await served.start()
    listed = (await served.worlds.ListComponents(world_service_pb2.ListComponentsRequest())).components
    assert [component for component in listed if component.name == "Hull"] == [made]
    await served.create(template="")
    await served.submit(_spawn(Hull={}))
    await served.step()
    assert served.server.container.engine.world("w").entity(1) == {"Hull": {"fuel": 2.5, "crew": ["ann"]}}


async def test_a_schema_message_says_the_same_as_text(served: Served) -> None:
    schema = pa.schema(
        [pa.field("fuel", pa.float64(), nullable=False), pa.field("crew", pa.large_list(pa.string()))]
    )
    request = _register(defaults={"fuel": 2.5})
    request.arrow_schema = schema_message(schema)
    made = (await served.worlds.RegisterComponent(request)).component
    assert (await served.worlds.RegisterComponent(_register(fields=[FUEL, CREW]))).component == made


async def test_new_fields_are_added_and_streams_show_them_from_the_next_tick_on(served: Served) -> None:
    await served.worlds.RegisterComponent(_register(fields=[FUEL]))
    await served.create(template="")
    await served.submit(_spawn(Hull={}))
    await served.step()
    full = ticks_of(served.subscribe(from_tick=0, until_tick=3))
    changes = served.subscribe(from_tick=0, until_tick=3, mode=tick_service_pb2.TICK_MODE_CHANGES)
    first = await anext(full)
    age = {"name": "age", "type": "int32", "default": 9}
    grown = (await served.worlds.RegisterComponent(_register(fields=[FUEL, age]))).component
    assert [field.name for field in grown.fields] == ["fuel", "age"]
    await served.step(3)
    row = {"entity_id": 1, "is_active": True, "hull__fuel": 2.5, "hull__age": 9}
    # As they come, and out of history.
    for ticks in (
        [first, *[tick async for tick in full]],
        [t async for t in ticks_of(served.subscribe(from_tick=0, until_tick=3))],
    ):
        assert "hull__age" not in ticks[0].active[1]
        assert [tick.active for tick in ticks[1:]] == [{1: row}] * 3
        assert sum(tick.summary.despawned for tick in ticks) == 0
    replica = Replica()
    async for message in changes:
        for chunk in message.chunks:
            replica.apply(chunk)
    assert replica.rows == {1: row}


@pytest.mark.parametrize(
    ("request_", "reason", "field"),
    [
        (_register("9lives", fields=[FUEL]), "INVALID_NAME", "name"),
        (_register("A__b", fields=[FUEL]), "INVALID_NAME", "name"),
        (_register(fields=[{**FUEL, "name": "Fuel"}]), "INVALID_NAME", "fields[0].name"),
        (_register(fields=[{**FUEL, "name": "a__b"}]), "INVALID_NAME", "fields[0].name"),
        (_register(fields=[FUEL, FUEL]), "SCHEMA_MISMATCH", "fields"),
        (_register(fields=[{**FUEL, "type": "float65"}]), "SCHEMA_MISMATCH", "fields[0].type"),
        (_register(fields=[{**FUEL, "default": "much"}]), "SCHEMA_MISMATCH", "fields[0].default"),
        (_register(fields=[FUEL], defaults={"oil": 1}), "SCHEMA_MISMATCH", "defaults.oil"),
        (_register(fields=[FUEL], arrow_schema="bm9uZQ=="), "INVALID_REQUEST", "fields"),
        (_register(arrow_schema="bm9uZQ=="), "INVALID_ARROW", "arrow_schema"),
    ],
)
async def test_what_is_no_component_is_refused_with_the_field(
    served: Served, request_: world_service_pb2.RegisterComponentRequest, reason: str, field: str
) -> None:
    refusal = await refused(served.worlds.RegisterComponent(request_))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, reason)
    assert refusal.fields == [field]


async def test_another_shape_is_refused_with_both(served: Served) -> None:
    await served.worlds.RegisterComponent(_register(fields=[FUEL]))
    for request in (
        _register(fields=[CREW]),
        _register("HULL", fields=[FUEL]),
        _register("Spot", fields=[FUEL]),
    ):
        refusal = await refused(served.worlds.RegisterComponent(request))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.ALREADY_EXISTS, "COMPONENT_EXISTS")
        assert "float64" in refusal.message
