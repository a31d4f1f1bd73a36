"""The clients themselves: channels, handles, pages, and the public door."""

from __future__ import annotations

import asyncio
import importlib
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import grpc
import grpc_testing  # type: ignore[import-untyped]

import tickwire
from tests.client.peer import WORLD, serving
from tickwire import AsyncClient, Client, _methods
from tickwire.v1 import world_service_pb2

if TYPE_CHECKING:
    from tests.client.conftest import OneWorld


def test_the_blocking_client_takes_any_channel() -> None:
    service = world_service_pb2.DESCRIPTOR.services_by_name["WorldService"]
    channel = grpc_testing.channel([service], grpc_testing.strict_real_time())
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(Client(channel=channel, token="secret").create_world, "orbit", seed=0)
        metadata, request, call = channel.take_unary_unary(service.methods_by_name["CreateWorld"])
        call.send_initial_metadata(())
        call.terminate(world_service_pb2.CreateWorldResponse(world=WORLD), (), grpc.StatusCode.OK, "")
        world = answer.result()
    assert (world.id, world.name) == (WORLD.id, "orbit")
    assert ("authorization", "Bearer secret") in list(metadata)
    assert request.world_id
    assert request.HasField("seed")


async def test_a_world_is_created_with_an_id_of_the_clients(one_world: OneWorld) -> None:
    async with serving(one_world.register) as target, AsyncClient(target) as client:
        await client.create_world("orbit", template="solar_system", labels={"team": "red"})
        await client.create_world("orbit", world_id=WORLD.id)
    first, second = one_world.created
    assert first.world_id[14] == "7"
    assert not first.HasField("seed")
    assert second.world_id == WORLD.id


async def test_worlds_are_listed_page_by_page(one_world: OneWorld) -> None:
    def names(target: str) -> list[str]:
        with Client(target) as client:
            return [world.name for world in client.worlds()]

    async with serving(one_world.register) as target, AsyncClient(target) as client:
        assert [world.name async for world in client.worlds()] == ["orbit", "tides"]
        assert await asyncio.to_thread(names, target) == ["orbit", "tides"]


def test_both_clients_offer_the_same() -> None:
    assert offered(tickwire.AsyncClient) - {"aclose"} == offered(tickwire.Client) - {"close"}
    assert offered(tickwire.AsyncWorld) - {"submit_stream"} == offered(tickwire.World)


def test_a_clients_repr_does_not_show_the_token() -> None:
    assert "secret" not in repr(Client(token="secret")._transport.config)


def test_the_methods_are_those_of_the_contract() -> None:
    methods = [method for method in vars(_methods).values() if isinstance(method, _methods.Method)]
    assert methods
    for method in methods:
        _, service_name, name = method.path.split("/")
        module = importlib.import_module(method.request.__module__)
        rpc = module.DESCRIPTOR.services_by_name[service_name.rsplit(".", 1)[1]].methods_by_name[name]
        assert service_name == rpc.containing_service.full_name
        assert (rpc.input_type, rpc.output_type) == (method.request.DESCRIPTOR, method.response.DESCRIPTOR)


def test_exported_members_are_exactly_what_all_names() -> None:
    public = {name for name in vars(tickwire) if not name.startswith("_")} | {"__version__"}
    assert public - {"v1"} == set(tickwire.__all__)
    assert len(tickwire.__all__) == len(set(tickwire.__all__))
    errors = {name for name in tickwire.__all__ if name.endswith("Error")}
    assert set(tickwire.__all__) - errors == {
        "Archetype",
        "AsyncClient",
        "AsyncLiveState",
        "AsyncOutcomeStream",
        "AsyncTickStream",
        "Branch",
        "BranchResult",
        "ChangesOptions",
        "LiveState",
        "AsyncWorld",
        "Client",
        "Command",
        "CommandOptions",
        "CommandRecord",
        "CommandState",
        "EpisodeOptions",
        "ComponentInfo",
        "ProcessorInfo",
        "TokenInfo",
        "Limits",
        "Outcome",
        "OutcomeStream",
        "Receipt",
        "RetryPolicy",
        "RolloutOptions",
        "Rows",
        "RunProgress",
        "ServerInfo",
        "StepResult",
        "SubmitStream",
        "Tick",
        "TickStream",
        "TickSummary",
        "ViewOptions",
        "Violation",
        "World",
        "WorldInfo",
        "WorldState",
        "__version__",
        "commands",
        "new_id",
    }


def offered(kind: Any) -> set[str]:
    return {name for name in vars(kind) if not name.startswith("_")}
