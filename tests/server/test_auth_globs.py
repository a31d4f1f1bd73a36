"""World globs bind every RPC that names a world, whichever there are: the table is the contract's own descriptors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.protobuf import message_factory

from tests.server.answers import raised, refusal_of
from tests.server.secured import METHODS, Secured, secured
from tickwire.v1 import command_service_pb2, server_service_pb2, world_service_pb2

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

NAMING = sorted(
    rpc
    for rpc, method in METHODS.items()
    if "world" in method.input_type.fields_by_name and rpc != "ServerService.ListAuditEvents"
)
"""RPCs that are about one world."""


@pytest.fixture
async def guarded(tmp_path: Path) -> AsyncIterator[Secured]:
    async with secured(tmp_path / "data", metrics="") as made:
        yield made


async def said(made: Secured, rpc: str, world: str, token: str) -> str:
    request = message_factory.GetMessageClass(METHODS[rpc].input_type)(world=world)
    call = made.call(rpc, request, token=token)
    try:
        if not METHODS[rpc].server_streaming:
            await call
        else:
            async for answer in call:
                if isinstance(answer, command_service_pb2.SubmitStreamResponse):
                    return refusal_of(answer.error).reason
    except grpc.aio.AioRpcError as error:
        return raised(error).reason
    return ""


async def test_no_rpc_reaches_a_world_out_of_reach_by_its_name_or_its_id(guarded: Secured):
    lab = await guarded.create("lab")
    token = (await guarded.token("admin", worlds=["game-*"])).secret
    assert len(NAMING) > 15
    answers = {rpc: [await said(guarded, rpc, ref, token) for ref in ("lab", lab.id)] for rpc in NAMING}
    assert {
        rpc: answer for rpc, answer in answers.items() if answer != ["WORLD_FORBIDDEN", "WORLD_NOT_FOUND"]
    } == {}
    request = world_service_pb2.GetWorldRequest(world="lab")
    assert (await guarded.call("WorldService.GetWorld", request)).world == lab


async def test_lists_and_the_audit_trail_show_only_what_is_within_reach(guarded: Secured):
    for name in ("lab", "game-1", "game-2"):
        await guarded.create(name)
    token = (await guarded.token("admin", worlds=["game-*"])).secret
    listed = await guarded.call("WorldService.ListWorlds", token=token)
    assert [world.name for world in listed.worlds] == ["game-1", "game-2"]

    async def trail(**given: Any) -> list[str]:
        request = server_service_pb2.ListAuditEventsRequest(**given)
        found = (await guarded.call("ServerService.ListAuditEvents", request, token=token)).events
        return [event.resource for event in found if event.method.endswith("CreateWorld")]

    assert await trail() == ["game-2", "game-1"]
    assert await trail(world="lab") == []
    assert await trail(world="game-1") == ["game-1"]
    request = server_service_pb2.ListAuditEventsRequest(page_size=1)
    pages = 0
    while pages == 0 or request.page_token:
        page = await guarded.call("ServerService.ListAuditEvents", request, token=token)
        assert all(event.resource != "lab" for event in page.events)
        request.page_token = page.next_page_token
        pages += 1
    assert pages > 2
