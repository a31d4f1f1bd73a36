"""The contract's surface: every RPC answers, served or not; health and reflection tell what is there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from google.protobuf import message_factory
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from tests.server.answers import spawn
from tests.server.secured import invoke
from tickwire.v1 import auth_service_pb2, server_service_pb2, world_service_pb2
from tickwire_server.grpc.routing import SERVICES

if TYPE_CHECKING:
    from google.protobuf.descriptor import MethodDescriptor

    from tests.server.conftest import Served

METHODS = [method for service in SERVICES for method in service.methods]
SERVED = {
    "AuthService": {"CreateToken", "ListTokens", "RevokeToken"},
    "CommandService": {
        *(
            "Submit",
            "SubmitStream",
            "GetCommand",
            "ListCommands",
            "CancelCommand",
            "ReadResult",
            "WatchOutcomes",
        )
    },
    "QueryService": {"Query", "Sql", "GetEntity"},
    "ServerService": {"GetServerInfo", "WhoAmI", "ListAuditEvents"},
    "SimulationService": {"Step", "Run", "Play", "Pause", "RunRollout", "RunEpisode"},
    "TickService": {"Subscribe", "ListTicks"},
    "WorldService": {
        "CreateWorld",
        "ForkWorld",
        "UpdateWorld",
        "DestroyWorld",
        "GetWorld",
        "ListWorlds",
        "RegisterComponent",
        "ListComponents",
        "ListProcessors",
        "ListResources",
        "WatchWorld",
    },
}


def served_here(method: MethodDescriptor) -> bool:
    return method.name in SERVED.get(method.containing_service.name, set())


def call(served: Served, method: MethodDescriptor, request: Any = None) -> Any:
    """Call any RPC, by its descriptor."""
    path = f"/{method.containing_service.full_name}/{method.name}"
    kinds: dict[tuple[bool, bool], Any] = {
        (False, False): served.channel.unary_unary,
        (False, True): served.channel.unary_stream,
        (True, True): served.channel.stream_stream,
    }
    request = request or message_factory.GetMessageClass(method.input_type)()
    stub = kinds[method.client_streaming, method.server_streaming](
        path,
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=message_factory.GetMessageClass(method.output_type).FromString,
    )
    return stub(iter([request])) if method.client_streaming else stub(request)


def test_every_rpc_of_the_contract_is_served() -> None:
    assert [method.full_name for method in METHODS if not served_here(method)] == []


@pytest.mark.parametrize("method", [m for m in METHODS if served_here(m)], ids=lambda m: m.full_name)
async def test_an_rpc_that_is_served_answers(served: Served, method: MethodDescriptor) -> None:
    await served.create()
    await served.step()
    request = message_factory.GetMessageClass(method.input_type)()
    fields = method.input_type.fields_by_name
    for name, value in {
        "world": "w",
        "ticks": 1,
        "entity_id": 1,
        "until_tick": 1,
        "max_ticks": 1,
        "sql": "SELECT 1",
    }.items():
        if name in fields and fields[name].message_type is None:
            setattr(request, name, value)
    if method.name == "RegisterComponent":
        request.name = "Another"
    if method.name == "CreateWorld":
        request.name = "another"
    if method.name == "RunRollout":
        request.rollout.ticks = 1
    if method.name == "RunEpisode":
        request.episode.max_ticks = 1
    if method.name == "Subscribe":
        request.from_tick = 0
        request.until_tick = 0
    if method.name in ("CreateToken", "RevokeToken"):
        token = auth_service_pb2.CreateTokenRequest(name="t", roles=["viewer"])
        made = await invoke(served.channel, "AuthService.CreateToken", token)
        request = token if method.name == "CreateToken" else type(request)(token_id=made.token.id)
    if method.name == "WatchOutcomes":
        request.after_outcome_seq = 0
    if "command_id" in fields:
        (receipt,) = (await served.submit(spawn())).receipts
        request.command_id = receipt.command_id
    if method.name == "ReadResult":
        await served.step()
    answer = call(served, method, request)
    if method.name == "ReadResult":
        assert [piece async for piece in answer] == []
    elif method.server_streaming:
        # Some go on for as long as somebody listens.
        assert isinstance(await answer.read(), message_factory.GetMessageClass(method.output_type))
        answer.cancel()
    else:
        assert isinstance(await answer, message_factory.GetMessageClass(method.output_type))
    if method.name == "Play":
        await served.mover().pause()


async def test_a_stranger_finds_every_service_by_reflection(served: Served) -> None:
    channel: Any = served.channel
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    (response,) = [response async for response in stub.ServerReflectionInfo(iter([request]))]
    names = {service.name for service in response.list_services_response.service}
    assert {service.full_name for service in SERVICES} <= names
    assert "grpc.health.v1.Health" in names
    for service in SERVICES:
        request = reflection_pb2.ServerReflectionRequest(file_containing_symbol=service.full_name)
        (response,) = [response async for response in stub.ServerReflectionInfo(iter([request]))]
        assert response.file_descriptor_response.file_descriptor_proto


async def test_health_is_serving_then_not_serving(served: Served) -> None:
    channel: Any = served.channel
    stub: Any = health_pb2_grpc.HealthStub(channel)
    serving = health_pb2.HealthCheckResponse.SERVING
    for service in ("", *(service.full_name for service in SERVICES)):
        answer = await stub.Check(health_pb2.HealthCheckRequest(service=service))
        assert answer.status == serving
    watch = stub.Watch(health_pb2.HealthCheckRequest())
    assert (await watch.read()).status == serving
    await served.server.stop()
    assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING


async def test_the_server_tells_what_it_is(served: Served) -> None:
    info = await served.info.GetServerInfo(server_service_pb2.GetServerInfoRequest())
    assert info.app == "tests"
    assert info.version
    assert info.limits.max_page_size == 1000
    assert info.hash_algorithm
    me = (await served.info.WhoAmI(server_service_pb2.WhoAmIRequest())).actor_ctx
    assert (me.subject, list(me.roles), list(me.worlds)) == ("local", ["admin"], ["*"])


async def test_components_and_processors_are_listed(served: Served) -> None:
    await served.create()
    await served.step()
    components = (await served.worlds.ListComponents(world_service_pb2.ListComponentsRequest())).components
    assert [(c.name, c.prefix) for c in components] == [("Mark", "mark__"), ("Spot", "spot__")]
    mark = components[0]
    assert [(f.name, f.type, f.nullable) for f in mark.fields] == [
        ("name", "string", False),
        ("seen", "int64", True),
    ]
    (push,) = (
        await served.worlds.ListProcessors(world_service_pb2.ListProcessorsRequest(world="w"))
    ).processors
    assert (push.name, push.priority, list(push.components)) == ("Push", 10, ["Spot"])
    assert push.path == 1  # FAST
    assert push.last_time.ToMicroseconds() > 0
