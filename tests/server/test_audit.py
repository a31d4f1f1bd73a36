"""The audit trail: who did what, when, how it ended; listable, bounded, and without anybody's secrets."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import jwt
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import code_pb2

from tests.server.answers import refused, spawn
from tests.server.secured import Secured, secured
from tickwire.v1 import (
    auth_service_pb2,
    command_service_pb2,
    error_reason_pb2,
    server_service_pb2,
    simulation_service_pb2,
)
from tickwire_engine.storage.store import Store
from tickwire_server.auth.audit import AuditLog

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
async def guarded(tmp_path: Path) -> AsyncIterator[Secured]:
    async with secured(tmp_path / "data") as made:
        yield made


async def events(made: Secured, **given: Any) -> list[server_service_pb2.AuditEvent]:
    request = server_service_pb2.ListAuditEventsRequest(**given)
    return list((await made.call("ServerService.ListAuditEvents", request)).events)


def said(event: server_service_pb2.AuditEvent) -> tuple[str, str, str]:
    return (
        event.method.rpartition("/")[2],
        code_pb2.Code.Name(event.code),
        error_reason_pb2.ErrorReason.Name(event.reason)[13:],
    )


async def test_the_trail_says_who_did_what_to_which_world_when_from_where_and_how_it_ended(guarded: Secured):
    before = time.time()
    world = await guarded.create("w")
    ann = await guarded.token("viewer", name="ann")
    denied = guarded.call(
        "SimulationService.Step", simulation_service_pb2.StepRequest(world="w"), token=ann.secret
    )
    await refused(denied)
    await refused(guarded.call("SimulationService.Step", simulation_service_pb2.StepRequest(world="none")))
    await refused(guarded.call("WorldService.ListWorlds", token="tw_" + "x" * 43))
    trail = (await events(guarded))[::-1]
    assert [said(event) for event in trail] == [
        ("CreateWorld", "OK", "UNSPECIFIED"),
        ("CreateToken", "OK", "UNSPECIFIED"),
        ("Step", "PERMISSION_DENIED", "ROLE_FORBIDS"),
        ("Step", "NOT_FOUND", "WORLD_NOT_FOUND"),
        ("ListWorlds", "UNAUTHENTICATED", "TOKEN_INVALID"),
    ]
    created, token, forbidden, _, unknown = trail
    assert (created.subject, created.world_id, created.resource) == ("first", world.id, "w")
    assert token.resource == ann.token.id
    assert (forbidden.subject, forbidden.actor_id) == ("ann", ann.token.id)
    assert (unknown.subject, unknown.actor_id) == ("", "")
    for event in trail:
        assert before - 1 <= event.time.seconds <= time.time() + 1
        assert event.peer.startswith(("ipv4:127.0.0.1:", "ipv6:[::1]:"))


async def test_the_trail_is_listed_by_actor_world_and_time_a_page_at_a_time_newest_first(guarded: Secured):
    for name in ("a", "b", "c"):
        await guarded.create(name)
    ann = await guarded.token("operator", name="ann")
    for name in ("a", "b"):
        request = simulation_service_pb2.StepRequest(world=name)
        await guarded.call("SimulationService.Step", request, token=ann.secret)
    assert [said(event)[0] for event in await events(guarded, actor_id=ann.token.id)] == ["Step", "Step"]
    for world in ("a", (await events(guarded, world="a"))[0].world_id):
        asked = [said(event)[0] for event in await events(guarded, world=world)]
        assert [name for name in asked if name != "ListAuditEvents"] == ["Step", "CreateWorld"]
    later = Timestamp(seconds=int(time.time()) + 60)
    assert not await events(guarded, from_time=later)
    whole = await events(guarded, actor_id=ann.token.created_by)
    first = server_service_pb2.ListAuditEventsRequest(page_size=2, actor_id=ann.token.created_by)
    paged: list[server_service_pb2.AuditEvent] = []
    while not paged or first.page_token:
        page = await guarded.call("ServerService.ListAuditEvents", first)
        assert 1 <= len(page.events) <= 2
        paged += page.events
        first.page_token = page.next_page_token
    assert paged[-len(whole) :] == whole
    assert [event.resource for event in paged[-3:]] == ["c", "b", "a"]
    first.page_token = (await guarded.call("ServerService.ListAuditEvents", first)).next_page_token
    first.world = "a"
    refusal = await refused(guarded.call("ServerService.ListAuditEvents", first))
    assert refusal.reason == "INVALID_PAGE_TOKEN"


async def test_the_trail_outlives_a_restart(tmp_path: Path):
    async with secured(tmp_path / "data") as made:
        await made.create("w")
        admin = made.admin
    async with secured(tmp_path / "data", admin=admin) as made:
        assert [said(event)[0] for event in await events(made, world="w")] == ["CreateWorld"]


async def test_only_administrators_read_it(guarded: Secured):
    operator = (await guarded.token("operator")).secret
    assert (
        await refused(guarded.call("ServerService.ListAuditEvents", token=operator))
    ).reason == "ROLE_FORBIDS"


async def test_whoever_hammers_the_door_does_not_push_the_rest_out(guarded: Secured):
    await guarded.create("w")
    for _ in range(50):
        await refused(guarded.call("WorldService.ListWorlds", token="tw_" + "x" * 43))
    assert len(await events(guarded)) == 2


async def test_the_trail_is_bounded_in_number_and_age(tmp_path: Path):
    store = Store.open(tmp_path / "data")
    now = 1_700_000_000.0
    audit = AuditLog(store.identity, keep=1_000, days=2.0, clock=lambda: now)

    def note(number: int) -> None:
        audit.record(
            actor="a",
            subject="s" * 1_000,
            method="/m",
            world="",
            world_name="",
            resource=str(number),
            code=0,
            reason="",
            peer="ipv4:127.0.0.1:1",
        )

    for number in range(1_500):
        note(number)
    found = await audit.events(limit=10_000)
    assert [row.resource for row in found] == [str(number) for number in reversed(range(500, 1_500))]
    assert len(found[0].subject) == 256
    now += 3 * 86_400
    note(7)
    assert [row.resource for row in await audit.events(limit=10_000)] == ["7"]
    store.close()


async def test_secrets_are_neither_logged_nor_stored(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    key = "the key that signs for everybody, in a file of its own"
    keys = tmp_path / "keys"
    keys.write_text(key)
    settings = {"jwt_keys": keys, "jwt_issuer": "i", "jwt_audience": "a", "log_level": "DEBUG"}
    claims = {"iss": "i", "aud": "a", "sub": "ann", "exp": int(time.time()) + 600, "roles": ["admin"]}
    signed = jwt.encode(claims, key)
    false = jwt.encode(claims, "another key that is as long as the one that is right")
    async with secured(tmp_path / "data", **settings) as made:
        token = (await made.token("admin", name="t")).secret
        wrong = "tw_" + "w" * 43
        await made.create("w")
        for sent in (token, signed):
            await made.call("WorldService.ListWorlds", token=sent)
            request = command_service_pb2.SubmitRequest(world="w", commands=[spawn()])
            await made.call("CommandService.Submit", request, token=sent)
            await refused(made.call("SimulationService.Run", token=sent))
        for sent in (wrong, false, f"{token}x", signed[:-1]):
            refusal = await refused(made.call("WorldService.ListWorlds", token=sent))
            assert sent not in refusal.message
        listed = await made.call("AuthService.ListTokens", auth_service_pb2.ListTokensRequest())
        secrets = [made.admin, token, wrong, signed, false, key, signed.rpartition(".")[2], token[3:]]
        assert not any(secret in str(listed) for secret in secrets)
    written = b"".join(path.read_bytes() for path in (tmp_path / "data").rglob("*") if path.is_file())
    logged = "".join(capfd.readouterr())
    assert logged
    assert b"ann" in written
    for secret in secrets:
        assert secret not in logged
        assert secret.encode() not in written


async def test_a_full_trail_says_what_it_dropped(tmp_path: Path):
    store = Store.open(tmp_path / "data")
    audit = AuditLog(store.identity, keep=1_000, days=2.0)
    for number in range(50_010):
        audit.record(
            actor="a",
            subject="",
            method="/m",
            world="",
            world_name="",
            resource=str(number),
            code=0,
            reason="",
            peer="",
        )
    assert audit.dropped == 10
    store.close()
