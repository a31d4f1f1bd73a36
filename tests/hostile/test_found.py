"""What strangers found: each of these once had no good answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.protobuf import struct_pb2
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from tests.server.answers import refused, spawn
from tickwire.v1 import (
    command_pb2,
    command_service_pb2,
    server_service_pb2,
    simulation_service_pb2,
    tick_service_pb2,
)

if TYPE_CHECKING:
    from tests.server.conftest import Served

INVALID = grpc.StatusCode.INVALID_ARGUMENT
UNKNOWN = b"\xf8\x3f\x01"
"""Field 1023, of no message: a varint."""


@pytest.mark.parametrize(
    "moment",
    [
        Timestamp(nanos=-1),
        Timestamp(nanos=1_000_000_000),
        Timestamp(seconds=1 << 40),
        Timestamp(seconds=-(1 << 62)),
    ],
)
async def test_a_time_that_is_none_is_refused_by_its_field(served: Served, moment: Timestamp) -> None:
    request = server_service_pb2.ListAuditEventsRequest(from_time=moment)
    refusal = await refused(served.info.ListAuditEvents(request))
    assert (refusal.code, refusal.reason, refusal.fields) == (INVALID, "INVALID_REQUEST", ["from_time"])


@pytest.mark.parametrize(
    "duration",
    [
        Duration(seconds=-1),
        Duration(nanos=-1),
        Duration(nanos=1_000_000_000),
        Duration(seconds=(1 << 63) - 1),
    ],
)
async def test_a_duration_that_is_none_is_refused_by_its_field(served: Served, duration: Duration) -> None:
    await served.create()
    calls: dict[str, Any] = {
        "max_wait": served.simulation.Step(simulation_service_pb2.StepRequest(world="w", max_wait=duration)),
        "heartbeat": served.ticks.Subscribe(tick_service_pb2.SubscribeRequest(world="w", heartbeat=duration)),
    }
    submit = command_service_pb2.SubmitRequest(world="w", commands=[spawn()], wait=2, max_wait=duration)
    for field, call in (*calls.items(), ("max_wait", served.commands.Submit(submit))):
        refusal = await refused(call)
        assert (refusal.code, refusal.fields) == (INVALID, [field])
    assert (await served.step()).commands_applied == 6


def deep(depth: int) -> struct_pb2.Struct:
    root = struct_pb2.Struct()
    inner = root
    for _ in range(depth - 1):
        inner = inner.fields["a"].struct_value
    inner.fields["a"].bool_value = True
    return root


def message(content: struct_pb2.Struct) -> command_pb2.Command:
    return command_pb2.Command(message=command_pb2.EntityMessage(channel="c", content=content))


def unknown_in(place: str) -> tuple[command_pb2.Command, str]:
    """Return a command with a field of another version somewhere, and the path of what has it."""
    command = message(deep(3))
    content = command.message.content
    command.message.content.fields["l"].list_value.values.add().number_value = 1.0
    targets: dict[str, tuple[Any, str]] = {
        "command": (command, ""),
        "payload": (command.message, ".message"),
        "struct": (content, ".message.content"),
        "value": (content.fields["a"], ".message.content.a"),
        "inner struct": (content.fields["a"].struct_value, ".message.content.a"),
        "list": (content.fields["l"].list_value, ".message.content.l"),
        "item": (content.fields["l"].list_value.values[0], ".message.content.l[0]"),
    }
    target, path = targets[place]
    target.MergeFromString(UNKNOWN)
    return command, path


@pytest.mark.parametrize("place", ["command", "payload", "struct", "value", "inner struct", "list", "item"])
@pytest.mark.parametrize("ballast", [0, 100_000])
async def test_a_field_of_another_version_is_refused_wherever_it_hangs(
    served: Served,
    place: str,
    ballast: int,
) -> None:
    await served.create(template="")
    command, path = unknown_in(place)
    if ballast:
        command.message.content.fields["ballast"].string_value = "x" * ballast
    refusal = await refused(served.submit(spawn(), command))
    assert (refusal.code, refusal.reason) == (INVALID, "INVALID_COMMAND")
    assert refusal.fields == [f"commands[1]{path}"]
    assert "1023" in refusal.message
    assert (await served.step()).commands_applied == 0


async def test_a_value_without_a_value_is_refused_and_null_is_not(served: Served) -> None:
    await served.create(template="")
    content = struct_pb2.Struct()
    assert content.fields["a"].list_value.values.add() is not None
    refusal = await refused(served.submit(message(content)))
    assert refusal.fields == ["commands[0].message.content.a[0]"]
    content.fields["a"].list_value.values[0].null_value = struct_pb2.NULL_VALUE
    await served.submit(message(content))
    assert (await served.step()).commands_applied == 1


async def test_params_of_an_sql_processor_by_its_type_are_named_as_params(served: Served) -> None:
    await served.create(template="")
    command = command_pb2.Command(add_processor=command_pb2.AddProcessor(name="p", type="SqlProcessor"))
    command.add_processor.params.update({"0x10": 1})
    refusal = await refused(served.submit(command))
    assert (refusal.code, refusal.fields) == (INVALID, ["commands[0].add_processor.params.0x10"])
