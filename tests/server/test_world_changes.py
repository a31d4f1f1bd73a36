"""Worlds changed and ended by call: by whom, and what others see of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import pytest

from tests.server.answers import raised, refused
from tests.server.secured import secured
from tickwire import AsyncClient, EtagMismatchError, WorldState
from tickwire.v1 import tick_service_pb2, world_pb2, world_service_pb2

if TYPE_CHECKING:
    from pathlib import Path

    from tests.server.conftest import Served


def _update(world: str, *paths: str, etag: str = "", **changes: Any) -> world_service_pb2.UpdateWorldRequest:
    request = world_service_pb2.UpdateWorldRequest(world=world, changes=world_pb2.World(**changes), etag=etag)
    request.update_mask.paths.extend(paths)
    return request


def _get(world: str) -> world_service_pb2.GetWorldRequest:
    return world_service_pb2.GetWorldRequest(world=world)


async def test_a_change_is_whole_and_there_after_a_restart(served: Served) -> None:
    made = await served.create(labels={"old": "1"})
    request = _update(
        "w",
        *("name", "labels", "retention"),
        name="renamed",
        labels={"new": "2"},
        retention=world_pb2.Retention(keep_ticks=50, keep_every=10),
        seed=99,
    )
    changed = (await served.worlds.UpdateWorld(request)).world
    assert (changed.id, changed.name, dict(changed.labels)) == (made.id, "renamed", {"new": "2"})
    assert (changed.retention.keep_ticks, changed.retention.keep_every) == (50, 10)
    assert changed.seed == made.seed
    assert changed.etag != made.etag
    await served.stop()
    await served.start()
    assert (await served.worlds.GetWorld(_get("renamed"))).world.etag == changed.etag
    assert (await refused(served.worlds.GetWorld(_get("w")))).reason == "WORLD_NOT_FOUND"
    await served.create("w")


async def test_only_what_the_mask_names_is_changed(served: Served) -> None:
    made = await served.create(labels={"a": "1"})
    nothing = (await served.worlds.UpdateWorld(_update("w", name="other", labels={"b": "2"}))).world
    assert (nothing.name, dict(nothing.labels), nothing.etag) == ("w", {"a": "1"}, made.etag)
    cleared = (await served.worlds.UpdateWorld(_update("w", "labels", name="other"))).world
    assert (cleared.name, dict(cleared.labels)) == ("w", {})
    unset = (await served.worlds.UpdateWorld(_update("w", "retention"))).world
    assert unset.retention == made.retention, "the default again"


async def test_who_looked_before_a_change_is_told_so(served: Served) -> None:
    made = await served.create()
    changed = (
        await served.worlds.UpdateWorld(_update("w", "labels", etag=made.etag, labels={"a": "1"}))
    ).world
    late = await refused(served.worlds.UpdateWorld(_update("w", "name", etag=made.etag, name="late")))
    assert (late.code, late.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "ETAG_MISMATCH")
    assert late.metadata["etag"] == changed.etag
    assert (await served.worlds.GetWorld(_get("w"))).world == changed


@pytest.mark.parametrize(
    ("request_", "reason", "field"),
    [
        (_update("w", "seed", seed=4), "INVALID_REQUEST", "update_mask.paths[0]"),
        (_update("w", "labels", "tick"), "INVALID_REQUEST", "update_mask.paths[1]"),
        (_update("w", "name", name="Not a name"), "INVALID_NAME", "changes.name"),
        (_update("w", "name"), "INVALID_NAME", "changes.name"),
        (
            _update("w", "retention", retention=world_pb2.Retention(keep_ticks=-1)),
            "INVALID_REQUEST",
            "changes.retention.keep_ticks",
        ),
        (_update(""), "INVALID_REQUEST", "world"),
    ],
)
async def test_what_cannot_be_changed_is_said_with_the_field(
    served: Served, request_: world_service_pb2.UpdateWorldRequest, reason: str, field: str
) -> None:
    made = await served.create()
    refusal = await refused(served.worlds.UpdateWorld(request_))
    assert (refusal.reason, refusal.fields) == (reason, [field])
    assert (await served.worlds.GetWorld(_get("w"))).world.etag == made.etag


async def test_a_name_that_is_taken_changes_nothing_at_all(served: Served) -> None:
    made = await served.create()
    await served.create("other")
    request = _update("w", "name", "labels", name="other", labels={"a": "1"})
    refusal = await refused(served.worlds.UpdateWorld(request))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.ALREADY_EXISTS, "WORLD_EXISTS")
    assert (await served.worlds.GetWorld(_get("w"))).world.etag == made.etag


async def test_a_destroyed_world_is_found_by_its_id_and_its_streams_end(served: Served) -> None:
    made = await served.create()
    await served.step(3)
    stream = aiter(served.subscribe(from_tick=0))
    await anext(stream)
    destroy = world_service_pb2.DestroyWorldRequest
    await served.play()
    ended = (await served.worlds.DestroyWorld(destroy(world="w"))).world
    assert (ended.id, ended.name, ended.state) == (made.id, "w", world_pb2.WORLD_STATE_DESTROYED)
    assert ended.tick >= 3
    seen: list[int] = []
    try:
        async for message in stream:
            seen += [chunk.tick for chunk in message.chunks if chunk.last]
    except grpc.aio.AioRpcError as end:
        assert raised(end).reason == "WORLD_DESTROYED"  # noqa: PT017  (a stream that ends otherwise fails below)
        seen.append(-1)
    assert seen == [*range(ended.tick), -1]
    assert (await served.worlds.DestroyWorld(destroy(world=made.id))).world == ended
    assert (await refused(served.worlds.DestroyWorld(destroy(world="w")))).reason == "WORLD_NOT_FOUND"
    await served.stop()
    await served.start()
    again = (await served.worlds.GetWorld(_get(made.id))).world
    assert (again.state, again.tick, again.name) == (ended.state, ended.tick, "w")
    refusal = await refused(served.ticks.Subscribe(tick_service_pb2.SubscribeRequest(world=made.id)))
    assert refusal.reason == "WORLD_NOT_FOUND"


async def test_worlds_outside_of_an_actors_globs_are_neither_changed_nor_told_of(tmp_path: Path) -> None:
    async with secured(tmp_path / "data") as server:
        await server.create("game-1")
        other = await server.create("other")
        admin = (await server.token("admin", name="a", worlds=["game-*"])).secret
        for rpc, request, reason in (
            ("UpdateWorld", _update("game-1", "name", name="elsewhere"), "WORLD_FORBIDDEN"),
            ("UpdateWorld", _update("other", "labels"), "WORLD_FORBIDDEN"),
            ("UpdateWorld", _update(other.id, "labels"), "WORLD_NOT_FOUND"),
            ("DestroyWorld", world_service_pb2.DestroyWorldRequest(world=other.id), "WORLD_NOT_FOUND"),
        ):
            assert (await refused(server.call(f"WorldService.{rpc}", request, token=admin))).reason == reason
        await server.call("WorldService.DestroyWorld", world_service_pb2.DestroyWorldRequest(world=other.id))
        gone = await refused(server.call("WorldService.GetWorld", _get(other.id), token=admin))
        assert gone.reason == "WORLD_NOT_FOUND"


async def test_the_client_changes_and_ends_worlds(served: Served) -> None:
    async with AsyncClient(f"127.0.0.1:{served.server.port}") as client:
        world = await client.create_world("w", template="line")
        info = await world.change(name="renamed", keep_ticks=7)
        assert (info.name, info.keep_ticks, info.keep_every) == ("renamed", 7, 0)
        with pytest.raises(EtagMismatchError):
            await world.change(labels={}, etag="stale")
        assert (await world.destroy()).state is WorldState.DESTROYED
        assert (await world.destroy()).state is WorldState.DESTROYED
