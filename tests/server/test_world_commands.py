"""Worlds that commands make and end, over a socket, and who may send such commands."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc

from tests.server.answers import raised, refusal_of, refused
from tests.server.secured import secured
from tickwire.v1 import command_pb2, command_service_pb2, world_pb2, world_service_pb2
from tickwire_engine.ids import uuid7

if TYPE_CHECKING:
    from pathlib import Path

    from tests.server.conftest import Served
    from tests.server.secured import Secured


def _create(name: str, **given: object) -> command_pb2.Command:
    return command_pb2.Command(create_world=command_pb2.CreateWorld(name=name, **given))  # type: ignore[arg-type]


def _destroy(world: str) -> command_pb2.Command:
    return command_pb2.Command(destroy_world=command_pb2.DestroyWorld(world=world))


async def test_submit_makes_and_ends_worlds_and_tells_their_ids(served: Served) -> None:
    await served.create(template="")
    await served.create("old")
    watched = served.worlds.WatchWorld(world_service_pb2.WatchWorldRequest(world="old"))
    seen = aiter(watched)
    await anext(seen)
    commands = [_create("child", template="line", labels={"a": "b"}), _create("w"), _destroy("old")]
    for command in commands:
        command.id = str(uuid7())
    await served.submit(*commands)
    await served.step()
    first, taken, ended = (await served.submit(*commands)).receipts
    found = (await served.worlds.GetWorld(world_service_pb2.GetWorldRequest(world="child"))).world
    assert first.outcome.world_id == found.id
    assert dict(found.labels) == {"a": "b"}
    assert (await served.step(world="child")).commands_applied == 6
    assert taken.outcome.state == command_pb2.COMMAND_STATE_REJECTED
    assert refusal_of(taken.outcome.error).reason == "WORLD_EXISTS"
    assert ended.outcome.state == command_pb2.COMMAND_STATE_APPLIED
    states = [message.world.state async for message in seen]
    assert states[-1] == world_pb2.WORLD_STATE_DESTROYED
    gone = await refused(served.worlds.GetWorld(world_service_pb2.GetWorldRequest(world="old")))
    assert gone.reason == "WORLD_NOT_FOUND"


async def test_a_world_that_plays_can_be_ended_by_another(served: Served) -> None:
    await served.create(template="")
    await served.create("old")
    await served.play(world="old")
    await served.submit(_destroy("old"))
    await served.step()
    again = await served.create("old")
    assert (await served.step(world="old")).first_tick == 0
    assert again.tick == 0


async def _submit(server: Secured, token: str, command: command_pb2.Command) -> object:
    request = command_service_pb2.SubmitRequest(world="game-1", commands=[command])
    return await server.call("CommandService.Submit", request, token=token)


async def test_commands_about_worlds_are_bound_by_role_and_globs(tmp_path: Path) -> None:
    async with secured(tmp_path / "data") as server:
        await server.create("game-1")
        other = await server.create("other")
        operator = (await server.token("operator", name="o", worlds=["game-*"])).secret
        admin = (await server.token("admin", name="a", worlds=["game-*"])).secret
        reasons = {}
        for command in (_create("game-2"), _destroy("game-1")):
            try:
                await _submit(server, operator, command)
            except grpc.aio.AioRpcError as error:
                reasons[command.WhichOneof("payload")] = raised(error).reason
        assert reasons == {"create_world": "ROLE_FORBIDS", "destroy_world": "ROLE_FORBIDS"}
        for command, reason in (
            (_create("elsewhere"), "WORLD_FORBIDDEN"),
            (_destroy("other"), "WORLD_FORBIDDEN"),
            (_destroy(other.id), "WORLD_NOT_FOUND"),
        ):
            refusal = await refused(_submit(server, admin, command))
            assert refusal.reason == reason
        await _submit(server, admin, _create("game-2"))
        await _submit(server, admin, _destroy(str(uuid7())))
