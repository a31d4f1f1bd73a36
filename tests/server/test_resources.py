"""Resources over the wire: set and removed by command, listed as they are at the last committed tick."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf import struct_pb2

from tests.server.answers import refused
from tickwire.v1 import command_pb2, world_service_pb2

if TYPE_CHECKING:
    from tests.server.conftest import Served


def set_wind(**value: Any) -> command_pb2.Command:
    struct = struct_pb2.Struct()
    struct.update(value)
    return command_pb2.Command(set_resource=command_pb2.SetResource(name="Wind", value=struct))


async def listed(served: Served) -> dict[str, dict[str, Any]]:
    request = world_service_pb2.ListResourcesRequest(world="w")
    resources = (await served.worlds.ListResources(request)).resources
    assert [r.name for r in resources] == sorted(r.name for r in resources)
    assert all(r.type == r.name for r in resources)
    return {r.name: dict(r.value) for r in resources}


async def test_a_resource_set_over_the_wire_is_listed_once_its_tick_is_durable(served: Served) -> None:
    await served.create()
    assert await listed(served) == {"Gate": {}, "Wind": {"speed": 1.0, "name": ""}}
    # A Struct's numbers are floats; the model asked for an integer.
    await served.submit(set_wind(speed=4, name="north"))
    assert (await listed(served))["Wind"]["speed"] == 1.0
    await served.step()
    assert (await listed(served))["Wind"] == {"speed": 4.0, "name": "north"}
    await served.submit(command_pb2.Command(remove_resource=command_pb2.RemoveResource(name="Wind")))
    await served.step()
    assert await listed(served) == {"Gate": {}}
    await served.stop()
    await served.start()
    assert await listed(served) == {"Gate": {}}


async def test_a_value_that_does_not_fit_is_refused_with_its_path(served: Served) -> None:
    await served.create()
    refusal = await refused(served.submit(set_wind(speed=4.5)))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_COMMAND")
    assert refusal.fields == ["commands[0].set_resource.value.speed"]
    unknown = command_pb2.Command(set_resource=command_pb2.SetResource(name="Sun"))
    refusal = await refused(served.submit(unknown))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "RESOURCE_NOT_FOUND")


async def test_a_resource_that_is_no_model_is_the_apps_own(served: Served) -> None:
    await served.create()
    gate = command_pb2.Command(set_resource=command_pb2.SetResource(name="Gate"))
    refusal = await refused(served.submit(gate))
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert "no pydantic model" in refusal.message
