"""What clients get wrong: the server says what, in the contract's words, and serves on."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pyarrow as pa
import pytest
from google.rpc import error_details_pb2, status_pb2

from tickwire.v1 import (
    command_pb2,
    command_service_pb2,
    command_service_pb2_grpc,
    simulation_service_pb2,
    simulation_service_pb2_grpc,
    world_service_pb2,
    world_service_pb2_grpc,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from tickwire_server.cli.server_process import ServerProcess

pytestmark = pytest.mark.system

ROOT = Path(__file__).parents[2]
INVALID = grpc.StatusCode.INVALID_ARGUMENT


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    from tickwire_server.cli.server_process import ServerProcess

    data = tmp_path_factory.mktemp("wrong") / "data"
    with ServerProcess(data, app="tests.system.app:app", root=ROOT) as server:
        yield server


@pytest.fixture
async def channel(served: ServerProcess) -> AsyncIterator[Any]:
    """A channel; once the test is over the server must be the one it was, and step."""
    pid = served.pid
    async with grpc.aio.insecure_channel(served.address) as made:
        worlds: Any = world_service_pb2_grpc.WorldServiceStub(made)  # type: ignore[arg-type]
        simulation: Any = simulation_service_pb2_grpc.SimulationServiceStub(made)  # type: ignore[arg-type]
        world = (await worlds.CreateWorld(world_service_pb2.CreateWorldRequest(template="crowd"))).world
        made.world_id = world.id  # type: ignore[attr-defined]
        yield made
        stepped = await simulation.Step(simulation_service_pb2.StepRequest(world=world.id))
        assert stepped.last_tick == 0
        # What was refused left nothing: the template's commands are all there is.
        described = await worlds.GetWorld(world_service_pb2.GetWorldRequest(world=world.id))
        assert described.world.entities == 100
    assert served.is_running
    assert served.pid == pid


async def refusal(call: Any) -> tuple[grpc.StatusCode, str, list[str], dict[str, str]]:
    """Return what a call is refused with: code, reason, fields to blame, facts."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    reason, metadata, fields = "", {}, []
    for key, value in caught.value.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            for detail in status_pb2.Status.FromString(value).details:  # type: ignore[arg-type]
                info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
                if detail.Unpack(info):
                    assert info.domain == "tickwire"
                    reason, metadata = info.reason, dict(info.metadata)
                elif detail.Unpack(bad):
                    fields = [violation.field for violation in bad.field_violations]
    return caught.value.code(), reason, fields, metadata


def submit(channel: Any, *commands: command_pb2.Command) -> Any:
    request = command_service_pb2.SubmitRequest(world=channel.world_id, commands=commands)
    return command_service_pb2_grpc.CommandServiceStub(channel).Submit(request)


def spawn(components: dict[str, Any]) -> command_pb2.Command:
    command = command_pb2.Command()
    command.spawn.components.update(components)
    return command


@pytest.mark.parametrize(
    "name", ["nowhere", "é" * 3_000, "\U0001fa90" * 3_000], ids=["short", "long", "wide"]
)
async def test_a_step_of_an_unknown_world_is_not_found(channel: Any, name: str) -> None:
    step: Any = simulation_service_pb2_grpc.SimulationServiceStub(channel).Step
    code, reason, _, metadata = await refusal(step(simulation_service_pb2.StepRequest(world=name)))
    assert (code, reason) == (grpc.StatusCode.NOT_FOUND, "WORLD_NOT_FOUND")
    assert name.startswith(metadata["world"])


@pytest.mark.parametrize(
    ("components", "reason", "field"),
    [
        ({"Nobody": {}}, "UNKNOWN_COMPONENT", "Nobody"),
        ({"Agent": {"nmae": "a"}}, "SCHEMA_MISMATCH", "Agent.nmae"),
        ({"Agent": {"number": 1.5}}, "SCHEMA_MISMATCH", "Agent.number"),
        ({"Agent": {"number": "seven"}}, "SCHEMA_MISMATCH", "Agent.number"),
        ({"Agent": {"name": None}}, "SCHEMA_MISMATCH", "Agent.name"),
        ({"Agent": {"name": {"first": "a"}}}, "SCHEMA_MISMATCH", "Agent.name"),
        ({"Agent": 7}, "SCHEMA_MISMATCH", "Agent"),
    ],
)
async def test_a_malformed_component_is_named_by_its_path(
    channel: Any, components: dict[str, Any], reason: str, field: str
) -> None:
    good = spawn({"Agent": {"name": "good"}})
    expected = (INVALID, reason, [f"commands[1].spawn.components.{field}"])
    assert (await refusal(submit(channel, good, spawn(components))))[:3] == expected


async def test_a_table_cut_off_anywhere_is_refused(channel: Any) -> None:
    table = pa.table({"agent__name": ["a", "b"], "agent__number": pa.array([1, 2], pa.int64())})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    whole = sink.getvalue().to_pybytes()
    cuts = [*range(1, 40), *range(40, len(whole) - 8, 37), len(whole) - 9]
    answers = await asyncio.gather(
        *(
            refusal(submit(channel, command_pb2.Command(spawn=command_pb2.Spawn(table=whole[:cut]))))
            for cut in cuts
        )
    )
    for cut, (code, reason, fields, _) in zip(cuts, answers, strict=True):
        assert (cut, code, reason, fields) == (cut, INVALID, "INVALID_ARROW", ["commands[0].spawn.table"])


async def test_bytes_that_are_no_message_end_their_call_only(channel: Any) -> None:
    call = channel.unary_unary("/tickwire.v1.CommandService/Submit")
    assert (await refusal(call(b"\xff\xff\xff\xff")))[:2] == (INVALID, "INVALID_REQUEST")
    stream = channel.stream_stream("/tickwire.v1.CommandService/SubmitStream")

    async def first() -> None:
        async for _ in stream(iter([b"\xff\xff\xff\xff"])):
            pass

    assert (await refusal(first()))[:2] == (INVALID, "INVALID_REQUEST")
