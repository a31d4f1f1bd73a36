"""Custom commands over a socket: by whom, with what answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from google.protobuf.json_format import MessageToDict

from tests.server.answers import refusal_of, refused
from tests.server.secured import secured
from tickwire.v1 import command_pb2, command_service_pb2, simulation_service_pb2
from tickwire_engine.ids import uuid7

if TYPE_CHECKING:
    from pathlib import Path

    from tests.server.conftest import Served


def _custom(name: str, **body: Any) -> command_pb2.Command:
    command = command_pb2.Command(id=str(uuid7()), custom=command_pb2.Custom(name=name))
    command.custom.body.update(body)
    return command


async def test_a_custom_command_answers_its_value_and_its_refusal(served: Served) -> None:
    await served.create()
    commands = [_custom("nudge", entity_id=1, by=2.5), _custom("nudge", entity_id=1, by=1000.0)]
    await served.submit(*commands)
    assert (await served.step()).commands_rejected == 1
    taken, declined = (await served.submit(*commands)).receipts
    assert MessageToDict(taken.outcome.value) == {"by": 2.5, "subject": "local", "roles": ["admin"]}
    refusal = refusal_of(declined.outcome.error)
    assert (refusal.reason, refusal.message) == ("CUSTOM_REFUSED", "that is too far")
    assert refusal.metadata == {"name": "nudge"}
    await served.step()
    assert served.server.container.engine.world("w").entity(1)["Spot"]["y"] == 2.5


async def test_what_no_handler_takes_is_refused_with_the_field(served: Served) -> None:
    await served.create()
    unknown = await refused(served.submit(_custom("dock")))
    assert (unknown.reason, unknown.fields) == ("UNKNOWN_CUSTOM_COMMAND", ["commands[0].custom.name"])
    assert unknown.metadata == {"name": "dock", "field": "commands[0].custom.name"}
    misfit = await refused(served.submit(_custom("nudge", entity_id=1), _custom("nudge", entity_id="x")))
    assert (misfit.reason, misfit.fields) == ("SCHEMA_MISMATCH", ["commands[1].custom.body.entity_id"])
    assert served.server.container.engine.world("w").acceptance.pending == 6


async def test_a_handler_is_told_who_sent_the_command_whatever_the_sender_says(tmp_path: Path) -> None:
    async with secured(tmp_path / "data") as server:
        await server.create("w")
        token = await server.token("player", name="alice")
        command = _custom("nudge", entity_id=1, subject="root", roles=["admin"])
        request = command_service_pb2.SubmitRequest(world="w", commands=[command])
        await server.call("CommandService.Submit", request, token=token.secret)
        await server.call("SimulationService.Step", simulation_service_pb2.StepRequest(world="w"))
        (receipt,) = (await server.call("CommandService.Submit", request, token=token.secret)).receipts
        value = MessageToDict(receipt.outcome.value)
        assert (value["subject"], value["roles"]) == ("alice", ["player"])
