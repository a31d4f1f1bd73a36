"""Errors of the wire become typed errors."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

import tickwire
from tests.client.peer import abort, serving, status
from tickwire import AsyncClient, TickwireError, _error_reasons
from tickwire._error_translation import from_status
from tickwire.v1 import error_reason_pb2, query_service_pb2_grpc

if TYPE_CHECKING:
    from tests.client.conftest import OneWorld


class Refuser(query_service_pb2_grpc.QueryServiceServicer):
    """Refuses everything, as it was told to."""

    def __init__(self, code: grpc.StatusCode, reason: str, **details: Any) -> None:
        self._refusal = (code, reason, details)
        self.calls = 0

    async def GetEntity(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.calls += 1
        code, reason, details = self._refusal
        await abort(context, code, reason, **details)

    def register(self, server: Any) -> None:
        query_service_pb2_grpc.add_QueryServiceServicer_to_server(self, server)


async def test_an_error_has_the_reason_metadata_violations_and_delay_of_its_details(
    one_world: OneWorld,
) -> None:
    refuser = Refuser(
        grpc.StatusCode.NOT_FOUND,
        "ENTITY_NOT_FOUND",
        message="no entity 17",
        metadata={"entity_id": "17", "tick": "42"},
        retry_s=1.5,
        violations=[("entity_id", "is not alive")],
    )
    async with serving(one_world.register, refuser.register) as target, AsyncClient(target) as client:
        world = await client.world("orbit")
        with pytest.raises(tickwire.EntityNotFoundError) as caught:
            await world.entity(17)
    error = caught.value
    assert isinstance(error, tickwire.NotFoundError)
    assert (error.code, error.reason, error.message) == (
        grpc.StatusCode.NOT_FOUND,
        "ENTITY_NOT_FOUND",
        "no entity 17",
    )
    assert (error.entity_id, error.tick) == (17, 42)
    assert error.retry_delay_s == 1.5
    assert error.violations == (tickwire.Violation("entity_id", "is not alive"),)
    assert "no entity 17" in str(error)
    assert refuser.calls == 1


async def test_a_reason_of_a_newer_server_is_raised_as_its_family(one_world: OneWorld) -> None:
    refuser = Refuser(grpc.StatusCode.FAILED_PRECONDITION, "MOON_IN_THE_WRONG_PHASE")
    async with serving(one_world.register, refuser.register) as target, AsyncClient(target) as client:
        world = await client.world("orbit")
        with pytest.raises(tickwire.FailedPreconditionError) as caught:
            await world.entity(17)
    assert type(caught.value) is tickwire.FailedPreconditionError
    assert caught.value.reason == "MOON_IN_THE_WRONG_PHASE"


async def test_a_method_that_a_server_lacks_is_unimplemented(one_world: OneWorld) -> None:
    async with serving(one_world.register) as target, AsyncClient(target) as client:
        world = await client.world("orbit")
        with pytest.raises(tickwire.UnimplementedError) as caught:
            await world.entity(17)
    assert caught.value.reason == ""


async def test_a_call_over_its_time_limit_says_so(one_world: OneWorld) -> None:
    async def never(request: Any, context: Any) -> None:
        await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "too late")

    refuser = Refuser(grpc.StatusCode.DEADLINE_EXCEEDED, "")
    refuser.GetEntity = never  # type: ignore[method-assign]
    async with serving(one_world.register, refuser.register) as target, AsyncClient(target) as client:
        with pytest.raises(tickwire.DeadlineExceededError):
            await (await client.world("orbit")).entity(17)


def test_every_reason_of_the_contract_has_an_error_of_its_own() -> None:
    reasons = {name.removeprefix("ERROR_REASON_") for name in error_reason_pb2.ErrorReason.keys()}  # noqa: SIM118
    classes = [leaf for leaf in vars(_error_reasons).values() if isinstance(leaf, type)]
    leaves = {leaf.REASON for leaf in classes if issubclass(leaf, TickwireError)} - {""}
    assert leaves == reasons - {"UNSPECIFIED"}


def test_every_status_code_but_ok_has_a_family() -> None:
    for code in grpc.StatusCode:
        if code is not grpc.StatusCode.OK:
            error = from_status(status_pb2.Status(code=code.value[0], message="x"))
            assert type(error) is not tickwire.TickwireError
            assert error.code is code


def test_a_detail_of_another_domain_does_not_give_the_reason() -> None:
    foreign = status(grpc.StatusCode.UNAVAILABLE, "STARTING")
    info = error_details_pb2.ErrorInfo(reason="STARTING", domain="proxy.example")
    foreign.details[0].Pack(info)
    assert type(from_status(foreign)) is tickwire.UnavailableError


PROTO = Path(__file__).parents[2] / "protos" / "tickwire" / "v1" / "error_reason.proto"


def examples() -> dict[str, dict[str, str]]:
    """Return each reason's metadata as its comment in the proto shows it."""
    found = {}
    for match in re.finditer(r"// ERROR_REASON_(\w+): (.*?)ERROR_REASON_\1 = ", PROTO.read_text(), re.DOTALL):
        body = re.sub(r"\n\s*//", " ", match[2])
        example = re.search(r'"metadata":\s*(\{.*?\})', body)
        found[match[1]] = json.loads(example[1]) if example else {}
    return found


@pytest.mark.parametrize(("reason", "metadata"), examples().items())
def test_the_typed_fields_of_an_error_are_those_that_its_reason_promises(
    reason: str, metadata: dict[str, str]
) -> None:
    leaf = next(c for c in vars(_error_reasons).values() if getattr(c, "REASON", None) == reason)
    error = leaf("x", reason=reason, metadata=metadata)
    fields = {name: getattr(error, name) for name, value in vars(leaf).items() if isinstance(value, property)}
    assert None not in fields.values(), fields
    assert all(str(value) == metadata[name] for name, value in fields.items() if name in metadata)
