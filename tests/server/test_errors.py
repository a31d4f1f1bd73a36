"""The table of errors: code, reason, field and details, for every condition that can be met over the network today."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.protobuf.unknown_fields import UnknownFieldSet

from tests.engine.parts import stream
from tests.server.answers import despawn, refusal_of, refused, spawn, update
from tickwire.v1 import (
    command_pb2,
    command_service_pb2,
    error_reason_pb2,
    query_service_pb2,
    simulation_service_pb2,
    tick_service_pb2,
    world_pb2,
    world_service_pb2,
)
from tickwire_engine.errors import ShuttingDownError, TickwireError
from tickwire_engine.ids import uuid7
from tickwire_server.grpc.errors import CODE_OF, status_of

if TYPE_CHECKING:
    from tests.server.conftest import Served

INVALID = grpc.StatusCode.INVALID_ARGUMENT
MISSING = grpc.StatusCode.NOT_FOUND
EXISTS = grpc.StatusCode.ALREADY_EXISTS
STATE = grpc.StatusCode.FAILED_PRECONDITION
RANGE = grpc.StatusCode.OUT_OF_RANGE


def with_component(name: str, values: dict[str, Any]) -> command_pb2.Command:
    command = command_pb2.Command()
    command.spawn.components.update({name: values})
    return command


def with_table(data: bytes) -> command_pb2.Command:
    return command_pb2.Command(spawn=command_pb2.Spawn(table=data))


def with_unknown_field(*, nested: bool) -> command_pb2.Command:
    command = spawn()
    unknown = b"\xf8\x3f\x01"  # field 1023, varint 1
    if nested:
        command.spawn.MergeFromString(unknown)
    else:
        command.MergeFromString(unknown)
    assert len(UnknownFieldSet(command.spawn if nested else command)) == 1
    return command


SPOT_TABLE = stream({"spot__x": [1.0, 2.0]})

BAD_COMMANDS: dict[str, tuple[command_pb2.Command, Any, str, str]] = {
    "empty": (command_pb2.Command(), INVALID, "INVALID_COMMAND", ""),
    "unknown component": (
        with_component("Nothing", {}),
        INVALID,
        "UNKNOWN_COMPONENT",
        ".spawn.components.Nothing",
    ),
    "unknown field": (
        with_component("Spot", {"z": 1}),
        INVALID,
        "SCHEMA_MISMATCH",
        ".spawn.components.Spot.z",
    ),
    "wrong value": (
        with_component("Spot", {"x": "far"}),
        INVALID,
        "SCHEMA_MISMATCH",
        ".spawn.components.Spot.x",
    ),
    "fraction": (
        with_component("Mark", {"seen": 1.5}),
        INVALID,
        "SCHEMA_MISMATCH",
        ".spawn.components.Mark.seen",
    ),
    "component no object": (
        with_component("Spot", 1),  # type: ignore[arg-type]
        INVALID,
        "SCHEMA_MISMATCH",
        ".spawn.components.Spot",
    ),
    "truncated table": (with_table(SPOT_TABLE[:-9]), INVALID, "INVALID_ARROW", ".spawn.table"),
    "no table": (with_table(b"ARROW1\0\0"), INVALID, "INVALID_ARROW", ".spawn.table"),
    "unknown column": (
        with_table(stream({"spot__q": [1.0]})),
        INVALID,
        "SCHEMA_MISMATCH",
        ".spawn.table.spot__q",
    ),
    "nothing selected": (despawn(), INVALID, "INVALID_COMMAND", ".despawn"),
    "bad entity id": (despawn(0), INVALID, "INVALID_COMMAND", ".despawn.entity_ids[0]"),
    "payload denies type": (spawn(type=2), INVALID, "COMMAND_TYPE_MISMATCH", ".type"),
    "type of another version": (spawn(type=99), INVALID, "COMMAND_TYPE_MISMATCH", ".type"),
    "field of another version": (with_unknown_field(nested=False), INVALID, "INVALID_COMMAND", ""),
    "nested field of another version": (
        with_unknown_field(nested=True),
        INVALID,
        "INVALID_COMMAND",
        ".spawn",
    ),
    "bad id": (spawn(id="nothing"), INVALID, "INVALID_COMMAND", ".id"),
    "upper-case id": (spawn(id=str(uuid7()).upper()), INVALID, "INVALID_COMMAND", ".id"),
    "id of another version": (
        spawn(id="00000000-0000-4000-8000-000000000000"),
        INVALID,
        "INVALID_COMMAND",
        ".id",
    ),
    "actor": (spawn(actor_id="me"), INVALID, "INVALID_COMMAND", ".actor_id"),
    "seq": (spawn(seq=1), INVALID, "INVALID_COMMAND", ".seq"),
    "tick below 0": (spawn(tick=-1), INVALID, "INVALID_COMMAND", ".tick"),
    "priority": (spawn(priority=1 << 20), INVALID, "INVALID_COMMAND", ".priority"),
    "version": (spawn(version=2), INVALID, "INVALID_COMMAND", ".version"),
    "past tick": (spawn(tick=0), STATE, "TICK_IN_THE_PAST", ""),
    "processor type": (
        command_pb2.Command(add_processor=command_pb2.AddProcessor(name="Nobody")),
        INVALID,
        "UNKNOWN_PROCESSOR_TYPE",
        ".add_processor.type",
    ),
    "where": (
        command_pb2.Command(despawn=command_pb2.Despawn(where="uuid() = 'x'")),
        grpc.StatusCode.INVALID_ARGUMENT,
        "INVALID_SQL",
        ".despawn.where",
    ),
}


@pytest.mark.parametrize("name", BAD_COMMANDS)
async def test_a_bad_command_is_refused_by_its_field_and_the_server_lives(served: Served, name: str) -> None:
    command, code, reason, path = BAD_COMMANDS[name]
    await served.create()
    await served.step()
    refusal = await refused(served.submit(spawn(), command))
    assert (refusal.code, refusal.reason) == (code, reason)
    if code is INVALID:
        assert refusal.fields == [f"commands[1]{path}"]
    if code is STATE:
        assert "PreconditionFailure" in refusal.kinds
    answer = await served.submit(spawn(), command, spawn(), allow_partial=True)
    assert [bool(receipt.seq) for receipt in answer.receipts] == [True, False, True]
    alone = refusal_of(answer.receipts[1].error)
    assert (alone.code, alone.reason, alone.fields) == (refusal.code, refusal.reason, refusal.fields)
    assert (await served.step()).commands_applied == 2


async def test_what_does_not_exist_is_named(served: Served) -> None:
    await served.create()
    await served.step()
    calls = [
        (served.step(world="nothing"), "WORLD_NOT_FOUND"),
        (served.submit(spawn(), world=str(uuid7())), "WORLD_NOT_FOUND"),
        (served.subscribe("nothing"), "WORLD_NOT_FOUND"),
        (served.queries.Query(query_service_pb2.QueryRequest(world="nothing")), "WORLD_NOT_FOUND"),
        (
            served.queries.GetEntity(query_service_pb2.GetEntityRequest(world="w", entity_id=77)),
            "ENTITY_NOT_FOUND",
        ),
        (served.create("x", template="none"), "TEMPLATE_NOT_FOUND"),
    ]
    for call, reason in calls:
        refusal = await refused(call)
        assert (refusal.code, refusal.reason) == (MISSING, reason)
        assert "ResourceInfo" in refusal.kinds


async def test_what_exists_already_is_refused(served: Served) -> None:
    await served.create()
    taken = await refused(served.create())
    assert (taken.code, taken.reason) == (EXISTS, "WORLD_EXISTS")
    command_id = str(uuid7())
    await served.submit(spawn(1.0, id=command_id))
    reused = await refused(served.submit(spawn(2.0, id=command_id)))
    assert (reused.code, reused.reason) == (EXISTS, "COMMAND_ID_REUSED")


@pytest.mark.parametrize(
    ("request_", "reason", "field"),
    [
        ({"name": "W"}, "INVALID_NAME", "name"),
        ({"name": "a0000000-0000-7000-8000-000000000001"}, "INVALID_NAME", "name"),
        ({"world_id": "x"}, "INVALID_REQUEST", "world_id"),
        ({"world_id": "00000000-0000-4000-8000-000000000000"}, "INVALID_REQUEST", "world_id"),
        ({"seed": -1}, "INVALID_REQUEST", "seed"),
        ({"seed": 1 << 53}, "INVALID_REQUEST", "seed"),
        ({"retention": world_pb2.Retention(keep_ticks=-1)}, "INVALID_REQUEST", "retention.keep_ticks"),
    ],
)
async def test_a_bad_world_is_refused_by_its_field(
    served: Served, request_: dict[str, Any], reason: str, field: str
) -> None:
    refusal = await refused(served.worlds.CreateWorld(world_service_pb2.CreateWorldRequest(**request_)))
    assert (refusal.code, refusal.reason, refusal.fields) == (INVALID, reason, [field])


@pytest.mark.parametrize(
    ("rpc", "request_", "field"),
    [
        ("simulation.Step", simulation_service_pb2.StepRequest(), "world"),
        ("simulation.Step", simulation_service_pb2.StepRequest(world="w", ticks=-1), "ticks"),
        ("simulation.Step", simulation_service_pb2.StepRequest(world="w", ticks=1_000_000), "ticks"),
        ("simulation.Run", simulation_service_pb2.RunRequest(world="w"), "ticks"),
        ("simulation.Play", simulation_service_pb2.PlayRequest(world="w", hz=-1), "hz"),
        ("simulation.Play", simulation_service_pb2.PlayRequest(world="w", hz=float("nan")), "hz"),
        ("simulation.Play", simulation_service_pb2.PlayRequest(world="w", max_ticks=-1), "max_ticks"),
        ("queries.Query", query_service_pb2.QueryRequest(world="w", limit=-1), "limit"),
        ("queries.Query", query_service_pb2.QueryRequest(world="w", at_tick=-1), "at_tick"),
        ("queries.Query", query_service_pb2.QueryRequest(world="w", format=9), "format"),
        ("queries.GetEntity", query_service_pb2.GetEntityRequest(world="w"), "entity_id"),
        ("ticks.Subscribe", tick_service_pb2.SubscribeRequest(world="w", from_tick=-1), "from_tick"),
        ("ticks.Subscribe", tick_service_pb2.SubscribeRequest(world="w", at=9), "at"),
        (
            "ticks.Subscribe",
            tick_service_pb2.SubscribeRequest(world="w", max_message_bytes=-1),
            "max_message_bytes",
        ),
        (
            "ticks.Subscribe",
            tick_service_pb2.SubscribeRequest(world="w", from_tick=5, until_tick=4),
            "until_tick",
        ),
        ("worlds.ListWorlds", world_service_pb2.ListWorldsRequest(page_size=-1), "page_size"),
        ("commands.Submit", command_service_pb2.SubmitRequest(world="w", wait=9), "wait"),
    ],
)
async def test_a_bad_request_is_refused_by_its_field(
    served: Served, rpc: str, request_: Any, field: str
) -> None:
    await served.create()
    await served.step()
    service, method = rpc.split(".")
    refusal = await refused(getattr(getattr(served, service), method)(request_))
    assert (refusal.code, refusal.fields) == (INVALID, [field])


async def test_an_input_may_not_take_the_name_of_a_keyword(served: Served) -> None:
    await served.create()
    request = simulation_service_pb2.StepRequest(world="w")
    request.inputs.update({"tick": 1})
    refusal = await refused(served.simulation.Step(request))
    assert (refusal.reason, refusal.fields) == ("INVALID_REQUEST", ["inputs.tick"])


async def test_a_page_token_of_another_request_is_refused(served: Served) -> None:
    for name in ("a", "b", "c"):
        await served.create(name, template="", labels={"k": "v"})
    request = world_service_pb2.ListWorldsRequest(page_size=2, labels={"k": "v"})
    first = await served.worlds.ListWorlds(request)
    assert [world.name for world in first.worlds] == ["a", "b"]
    request.page_token = first.next_page_token
    second = await served.worlds.ListWorlds(request)
    assert [world.name for world in second.worlds] == ["c"]
    assert not second.next_page_token
    for token in (first.next_page_token, "x", "é", "W10=", "NQ=="):
        other = world_service_pb2.ListWorldsRequest(page_size=2, page_token=token)
        refusal = await refused(served.worlds.ListWorlds(other))
        assert (refusal.code, refusal.reason) == (INVALID, "INVALID_PAGE_TOKEN")


async def test_ticks_that_are_not_there_are_out_of_range(served: Served) -> None:
    await served.create()
    await served.step(2)
    refusal = await refused(served.queries.Query(query_service_pb2.QueryRequest(world="w", at_tick=2)))
    assert (refusal.code, refusal.reason) == (RANGE, "TICK_IN_THE_FUTURE")
    assert refusal.metadata["committed_tick"] == "1"


async def test_a_bug_is_answered_with_an_id_and_tells_nothing_else(served: Served) -> None:
    refusal = await refused(served.create("w", template="failing"))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INTERNAL, "INTERNAL")
    assert refusal.metadata["error_id"] in refusal.message
    assert "not to be told" not in refusal.message
    assert __file__ not in refusal.message
    assert not (await served.worlds.ListWorlds(world_service_pb2.ListWorldsRequest())).worlds


async def test_an_update_of_what_is_gone_is_rejected_in_its_outcome(served: Served) -> None:
    await served.create(template="")
    answer = await served.submit(update(7, 1.0))
    step = await served.step()
    assert (step.commands_applied, step.commands_rejected) == (0, 1)
    command_id = answer.receipts[0].command_id
    again = await served.submit(update(7, 1.0, id=command_id))
    outcome = again.receipts[0].outcome
    assert again.receipts[0].duplicate
    assert outcome.state == command_pb2.COMMAND_STATE_REJECTED
    rejection = refusal_of(outcome.error)
    assert (rejection.code, rejection.reason) == (MISSING, "ENTITY_NOT_FOUND")


def test_every_reason_of_the_contract_has_a_code_and_the_other_way_round() -> None:
    values = error_reason_pb2.DESCRIPTOR.enum_types_by_name["ErrorReason"].values_by_name
    reasons = {name.removeprefix("ERROR_REASON_") for name in values}
    assert set(CODE_OF) == reasons - {"UNSPECIFIED"}


def every_error() -> list[type[TickwireError]]:
    found: list[type[TickwireError]] = []
    waiting = [TickwireError]
    while waiting:
        kind = waiting.pop()
        found.append(kind)
        waiting.extend(kind.__subclasses__())
    return found


@pytest.mark.parametrize("kind", every_error(), ids=lambda kind: kind.__name__)
def test_every_error_of_the_engine_has_a_reason_of_the_contract(kind: type[TickwireError]) -> None:
    assert kind.reason in CODE_OF
    refusal = refusal_of(status_of(kind("m" * 10_000, field="f", name="x" * 10_000)))
    assert refusal.reason == kind.reason


def test_whoever_may_try_again_is_told_when() -> None:
    assert "RetryInfo" in refusal_of(status_of(ShuttingDownError("stopping"))).kinds
