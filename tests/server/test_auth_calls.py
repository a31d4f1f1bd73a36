"""Calls to a server that asks who calls: every role on every RPC, tokens good and bad, worlds in and out of reach."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.engine.parts import stream as ipc_stream
from tests.server.answers import Refusal, despawn, raised, refused, spawn
from tests.server.secured import METHODS, Secured, invoke, secured
from tickwire.v1 import (
    auth_service_pb2,
    command_pb2,
    command_service_pb2,
    query_service_pb2,
    server_service_pb2,
    simulation_service_pb2,
    tick_service_pb2,
    world_service_pb2,
)
from tickwire_engine.ids import uuid7
from tickwire_server.auth.tokens import PREFIX

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

UNAUTHENTICATED = grpc.StatusCode.UNAUTHENTICATED
DENIED = grpc.StatusCode.PERMISSION_DENIED
ROLES = ("viewer", "player", "operator", "admin")
BY_ROLE: dict[str, dict[str, tuple[str, ...]]] = {
    "viewer": {
        "CommandService": (
            *("Submit", "SubmitStream", "GetCommand", "ListCommands", "ReadResult", "WatchOutcomes"),
        ),
        "QueryService": ("Query", "Sql", "GetEntity"),
        "TickService": ("Subscribe", "ListTicks"),
        "WorldService": (
            *("GetWorld", "ListWorlds", "WatchWorld", "ListComponents", "ListProcessors", "ListResources"),
        ),
        "ServerService": ("WhoAmI", "GetServerInfo"),
    },
    "player": {"CommandService": ("CancelCommand",)},
    "operator": {
        "SimulationService": ("Step", "Run", "Play", "Pause", "RunRollout", "RunEpisode"),
        "WorldService": ("ForkWorld", "RegisterComponent"),
    },
    "admin": {
        "WorldService": ("CreateWorld", "UpdateWorld", "DestroyWorld"),
        "AuthService": ("CreateToken", "ListTokens", "RevokeToken"),
        "ServerService": ("ListAuditEvents",),
    },
}
LEAST = {
    f"{service}.{name}": role
    for role, services in BY_ROLE.items()
    for service, names in services.items()
    for name in names
}
"""Every RPC, and the least role that may call it, by the contract."""


@pytest.fixture
async def guarded(tmp_path: Path) -> AsyncIterator[Secured]:
    async with secured(tmp_path / "data") as made:
        yield made


async def reason(call: Any) -> str:
    """Return the reason a call was refused for, or "" where it was answered."""
    try:
        if hasattr(call, "__aiter__"):
            async for _ in call:
                pass
        else:
            await call
    except grpc.aio.AioRpcError as error:
        return raised(error).reason
    return ""


async def ended(stream: Any) -> Refusal:
    """Read a stream that was read from before, until it is refused."""
    try:
        while await stream.read() is not grpc.aio.EOF:
            pass
    except grpc.aio.AioRpcError as error:
        return raised(error)
    raise AssertionError("the stream was not refused")


def test_the_table_below_has_every_rpc():
    assert set(LEAST) == set(METHODS)


async def test_every_rpc_is_each_roles_or_not_as_the_contract_says(guarded: Secured):
    for number, role in enumerate(ROLES):
        token = (await guarded.token(role)).secret
        for rpc, least in LEAST.items():
            said = await reason(guarded.call(rpc, token=token))
            allowed = number >= ROLES.index(least)
            assert (said != "ROLE_FORBIDS") == allowed, (role, rpc, said)


async def test_without_credentials_only_the_version_is_told(guarded: Secured):
    for rpc in LEAST:
        if rpc != "ServerService.GetServerInfo":
            refusal = await refused(guarded.call(rpc, token=""))
            assert (refusal.code, refusal.reason) == (UNAUTHENTICATED, "TOKEN_MISSING"), rpc
    info = await guarded.call("ServerService.GetServerInfo", token="")
    assert info.version
    assert info == server_service_pb2.GetServerInfoResponse(version=info.version)
    known = await guarded.call("ServerService.GetServerInfo")
    assert known.app == "tests"
    assert (known.limits.commands_per_tick, known.limits.cost_units_per_day) == (500, 200_000)


async def test_the_refusal_of_a_role_says_what_it_needs(guarded: Secured):
    token = (await guarded.token("viewer")).secret
    refusal = await refused(guarded.call("SimulationService.Step", token=token))
    assert (refusal.code, refusal.reason) == (DENIED, "ROLE_FORBIDS")
    assert refusal.metadata["needs"] == "operator"
    assert refusal.metadata["method"] == "SimulationService.Step"


@pytest.mark.parametrize(
    "sent",
    ["tw_", f"{PREFIX}{'x' * 43}", "secret", "a.b.c", "e30.e30.e30", "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhIn0."],
)
async def test_a_token_that_nobody_made_is_invalid(guarded: Secured, sent: str):
    refusal = await refused(guarded.call("WorldService.ListWorlds", token=sent))
    assert (refusal.code, refusal.reason) == (UNAUTHENTICATED, "TOKEN_INVALID")
    assert sent not in refusal.message


@pytest.mark.parametrize("header", ["Basic YTpi", "Bearer", "Bearer ", "", "bearer"])
async def test_another_authorization_than_bearer_is_invalid(guarded: Secured, header: str):
    refusal = await refused(guarded.call("WorldService.ListWorlds", token="", authorization=header))
    assert refusal.reason == "TOKEN_INVALID"


async def test_two_tokens_are_not_better_than_one(guarded: Secured):
    good = guarded.admin
    call = guarded.call("WorldService.ListWorlds", token=good, authorization=f"Bearer {good}")
    assert (await refused(call)).reason == "TOKEN_INVALID"


async def test_the_scheme_may_be_written_in_any_case(guarded: Secured):
    await guarded.call("WorldService.ListWorlds", token="", authorization=f"bEARER {guarded.admin}")


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    header=st.one_of(
        st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=200),
        st.text("abcXYZ019-_.", max_size=100).map(lambda rest: f"Bearer tw_{rest}"),
        st.lists(st.text("abcXYZ019-_=", max_size=40), min_size=3, max_size=3).map(
            lambda parts: f"Bearer {'.'.join(parts)}"
        ),
    )
)
def test_no_made_up_header_opens_the_door(guarded_access: Any, header: str):
    from tickwire_engine.errors import TokenInvalidError, TokenMissingError
    from tickwire_server.auth import Credentials

    with pytest.raises((TokenInvalidError, TokenMissingError)):
        guarded_access.actor(Credentials(header.removeprefix("Bearer ")))


@pytest.fixture
def guarded_access(guarded: Secured) -> Any:
    return guarded.server.identities.access


async def test_a_token_ends_by_itself(tmp_path: Path):
    async with secured(tmp_path / "data") as made:
        lasting = await made.token("viewer", ttl=Duration(seconds=3600))
        assert lasting.token.HasField("expires_at")
        whoami = await made.call("ServerService.WhoAmI", token=lasting.secret)
        assert whoami.actor_ctx.expires_at == lasting.token.expires_at
        now = made.server.identities.clock()
        made.server.identities.access._clock = lambda: now + 3601.0
        refusal = await refused(made.call("WorldService.ListWorlds", token=lasting.secret))
        assert (refusal.code, refusal.reason) == (UNAUTHENTICATED, "TOKEN_EXPIRED")
        assert refusal.metadata["expired_at"].endswith("Z")


async def test_a_revoked_token_is_refused_at_once_and_after_a_restart(tmp_path: Path):
    async with secured(tmp_path / "data") as made:
        kept, gone = await made.token("viewer", name="kept"), await made.token("viewer", name="gone")
        await made.call("WorldService.ListWorlds", token=gone.secret)
        request = auth_service_pb2.RevokeTokenRequest(token_id=gone.token.id)
        first = await made.call("AuthService.RevokeToken", request)
        assert first == await made.call("AuthService.RevokeToken", request)
        assert first.token.HasField("revoked_at")
        refusal = await refused(made.call("WorldService.ListWorlds", token=gone.secret))
        assert (refusal.code, refusal.reason) == (UNAUTHENTICATED, "TOKEN_REVOKED")
        admin = made.admin
    async with secured(tmp_path / "data", admin=admin) as made:
        assert (
            await refused(made.call("WorldService.ListWorlds", token=gone.secret))
        ).reason == "TOKEN_REVOKED"
        await made.call("WorldService.ListWorlds", token=kept.secret)


async def test_a_revocation_ends_open_streams_the_idle_and_the_slow(guarded: Secured):
    await guarded.create("w")
    await guarded.create("still")
    made = await guarded.token("viewer")
    other = (await guarded.token("viewer")).secret
    idle = guarded.call(
        "TickService.Subscribe", tick_service_pb2.SubscribeRequest(world="still"), token=made.secret
    )
    kept = guarded.call(
        "TickService.Subscribe", tick_service_pb2.SubscribeRequest(world="still"), token=other
    )
    slow = guarded.call(
        "TickService.Subscribe", tick_service_pb2.SubscribeRequest(world="w"), token=made.secret
    )
    for stream in (idle, kept, slow):
        assert (await stream.read()).HasField("started")
    # More than the connection takes without being read: the server waits in the midst of a message.
    rows = command_pb2.Command(spawn=command_pb2.Spawn(table=ipc_stream({"spot__x": [0.5] * 100_000})))
    submit = command_service_pb2.SubmitRequest(world="w", commands=[rows])
    await guarded.call("CommandService.Submit", submit)
    await guarded.call("SimulationService.Step", simulation_service_pb2.StepRequest(world="w", ticks=20))
    await guarded.call("AuthService.RevokeToken", auth_service_pb2.RevokeTokenRequest(token_id=made.token.id))
    for stream in (idle, slow):
        refusal = await ended(stream)
        assert (refusal.code, refusal.reason) == (UNAUTHENTICATED, "TOKEN_REVOKED")
    await guarded.call("SimulationService.Step", simulation_service_pb2.StepRequest(world="still"))
    while not (await kept.read()).chunks:
        pass
    kept.cancel()


async def test_an_open_stream_ends_when_its_token_expires(guarded: Secured):
    await guarded.create("w")
    made = await guarded.token("viewer", ttl=Duration(seconds=3600))
    stream = guarded.call(
        "TickService.Subscribe", tick_service_pb2.SubscribeRequest(world="w"), token=made.secret
    )
    assert (await stream.read()).HasField("started")
    identities = guarded.server.identities
    identities.check()
    assert len(identities.sessions) == 1
    now = identities.clock()
    identities.access._clock = lambda: now + 3601.0
    identities.check()
    assert (await ended(stream)).reason == "TOKEN_EXPIRED"


async def test_the_caller_is_who_its_token_says_whatever_it_claims(guarded: Secured):
    await guarded.create("w")
    made = await guarded.token("player", name="ann")
    actor = (await guarded.call("ServerService.WhoAmI", token=made.secret)).actor_ctx
    assert (actor.id, actor.subject, list(actor.roles), list(actor.worlds)) == (
        made.token.id,
        "ann",
        ["player"],
        ["*"],
    )
    claimed = command_service_pb2.SubmitRequest(world="w", commands=[spawn(actor_id=str(uuid7()))])
    refusal = await refused(guarded.call("CommandService.Submit", claimed, token=made.secret))
    assert refusal.fields == ["commands[0].actor_id"]


async def test_a_known_id_of_another_actor_is_taken(guarded: Secured):
    await guarded.create("w")
    ann, bob = (await guarded.token("player")).secret, (await guarded.token("player")).secret
    request = command_service_pb2.SubmitRequest(world="w", commands=[spawn(id=str(uuid7()))])
    await guarded.call("CommandService.Submit", request, token=ann)
    refusal = await refused(guarded.call("CommandService.Submit", request, token=bob))
    assert refusal.reason == "COMMAND_ID_REUSED"


async def test_a_receipt_stays_good_when_the_role_is_gone(tmp_path: Path):
    """Known ids come before the guard: what was accepted is told, though it would be refused today."""
    policy = tmp_path / "policy.toml"
    policy.write_text(
        "[roles.player]\nrpcs = ['*']\ncommands = ['spawn']\n"
        "[roles.admin]\nincludes = ['player']\nothers = true\n"
    )
    request = command_service_pb2.SubmitRequest(world="w", commands=[spawn(id=str(uuid7()))])
    async with secured(tmp_path / "data", policy=policy) as made:
        admin = made.admin
        await made.create("w")
        first = await made.call("CommandService.Submit", request)
    policy.write_text("[roles.admin]\nrpcs = ['*']\nothers = true\n")
    async with secured(tmp_path / "data", policy=policy, admin=admin) as made:
        again = await made.call("CommandService.Submit", request)
        assert again.receipts[0].duplicate
        assert again.receipts[0].seq == first.receipts[0].seq
        new = command_service_pb2.SubmitRequest(world="w", commands=[spawn()])
        assert (await refused(made.call("CommandService.Submit", new))).reason == "ROLE_FORBIDS"


@pytest.mark.parametrize(
    ("payload", "least"),
    [
        (command_pb2.Command(spawn=command_pb2.Spawn()), "player"),
        (despawn(1), "player"),
        (command_pb2.Command(remove_processor=command_pb2.RemoveProcessor(name="Push")), "operator"),
        (command_pb2.Command(destroy_world=command_pb2.DestroyWorld(world="w")), "admin"),
    ],
)
async def test_commands_need_the_role_of_their_type(
    guarded: Secured, payload: command_pb2.Command, least: str
):
    await guarded.create("w")
    request = command_service_pb2.SubmitRequest(world="w", commands=[payload])
    for number, role in enumerate(ROLES):
        token = (await guarded.token(role)).secret
        call = guarded.call("CommandService.Submit", request, token=token)
        if number < ROLES.index(least):
            refusal = await refused(call)
            assert (refusal.code, refusal.reason) == (DENIED, "ROLE_FORBIDS")
            assert refusal.metadata["needs"] == least
        else:
            assert await reason(call) != "ROLE_FORBIDS"


async def test_allowed_commands_restrict_the_roles(guarded: Secured):
    await guarded.create("w")
    only = (await guarded.token("player", allowed_commands=[command_pb2.COMMAND_TYPE_SPAWN])).secret
    ok = command_service_pb2.SubmitRequest(world="w", commands=[spawn()])
    await guarded.call("CommandService.Submit", ok, token=only)
    mixed = command_service_pb2.SubmitRequest(world="w", commands=[spawn(), despawn(1)], allow_partial=True)
    receipts = (await guarded.call("CommandService.Submit", mixed, token=only)).receipts
    assert [receipt.HasField("error") for receipt in receipts] == [False, True]


async def test_worlds_out_of_reach_are_forbidden_by_name_and_not_there_by_id(guarded: Secured):
    mine, theirs = await guarded.create("game-1"), await guarded.create("lab-1")
    token = (await guarded.token("operator", worlds=["game-*"])).secret
    for ref, said in (
        ("lab-1", "WORLD_FORBIDDEN"),
        (theirs.id, "WORLD_NOT_FOUND"),
        ("nowhere", "WORLD_FORBIDDEN"),
    ):
        for rpc, request in _about(ref):
            refusal = await refused(guarded.call(rpc, request, token=token))
            assert refusal.reason == said, (rpc, ref)
    unknown = str(uuid7())
    hidden = await refused(
        guarded.call("WorldService.GetWorld", world_service_pb2.GetWorldRequest(world=theirs.id), token=token)
    )
    absent = await refused(
        guarded.call("WorldService.GetWorld", world_service_pb2.GetWorldRequest(world=unknown), token=token)
    )
    assert hidden.message.replace(theirs.id, "?") == absent.message.replace(unknown, "?")
    listed = await guarded.call("WorldService.ListWorlds", token=token)
    assert [world.id for world in listed.worlds] == [mine.id]
    for ref in ("game-1", mine.id):
        await guarded.call("WorldService.GetWorld", world_service_pb2.GetWorldRequest(world=ref), token=token)


def _about(ref: str) -> list[tuple[str, Any]]:
    return [
        ("WorldService.GetWorld", world_service_pb2.GetWorldRequest(world=ref)),
        ("CommandService.Submit", command_service_pb2.SubmitRequest(world=ref, commands=[spawn()])),
        ("SimulationService.Step", simulation_service_pb2.StepRequest(world=ref)),
        ("SimulationService.Pause", simulation_service_pb2.PauseRequest(world=ref)),
        ("QueryService.Query", query_service_pb2.QueryRequest(world=ref)),
        ("TickService.Subscribe", tick_service_pb2.SubscribeRequest(world=ref)),
        ("WorldService.ListProcessors", world_service_pb2.ListProcessorsRequest(world=ref)),
    ]


async def test_new_worlds_and_commands_that_name_worlds_stay_within_reach(guarded: Secured):
    await guarded.create("game-1")
    theirs = await guarded.create("lab-1")
    token = (await guarded.token("admin", worlds=["game-*"])).secret
    for name in ("lab-2", ""):
        request = world_service_pb2.CreateWorldRequest(name=name)
        refusal = await refused(guarded.call("WorldService.CreateWorld", request, token=token))
        assert (refusal.code, refusal.reason) == (DENIED, "WORLD_FORBIDDEN")
    forms = (
        (command_pb2.Command(create_world=command_pb2.CreateWorld(name="lab-2")), "WORLD_FORBIDDEN"),
        (command_pb2.Command(destroy_world=command_pb2.DestroyWorld(world="lab-1")), "WORLD_FORBIDDEN"),
        (command_pb2.Command(destroy_world=command_pb2.DestroyWorld(world=theirs.id)), "WORLD_NOT_FOUND"),
        (command_pb2.Command(fork_world=command_pb2.ForkWorld(name="lab-2")), "WORLD_FORBIDDEN"),
    )
    for command, said in forms:
        sent = command_service_pb2.SubmitRequest(world="game-1", commands=[command])
        assert (await refused(guarded.call("CommandService.Submit", sent, token=token))).reason == said


async def test_a_stream_of_submits_is_answered_by_world_and_not_ended(guarded: Secured):
    await guarded.create("game-1")
    token = (await guarded.token("player", worlds=["game-*"])).secret

    async def requests() -> AsyncIterator[Any]:
        yield command_service_pb2.SubmitStreamRequest(world="lab-1", commands=[spawn()])
        yield command_service_pb2.SubmitStreamRequest(world="game-1", commands=[spawn()])

    path = "/tickwire.v1.CommandService/SubmitStream"
    pb = command_service_pb2
    stream = guarded.channel.stream_stream(
        path, pb.SubmitStreamRequest.SerializeToString, pb.SubmitStreamResponse.FromString
    )(requests(), metadata=[("authorization", f"Bearer {token}")])
    answers = [answer async for answer in stream]
    assert answers[0].error.code == DENIED.value[0]
    assert answers[1].receipts[0].first_entity_id


async def test_a_creator_cannot_grant_more_than_it_has(tmp_path: Path):
    policy = tmp_path / "policy.toml"
    policy.write_text(
        "[roles.lead]\nrpcs = ['AuthService.*', 'WorldService.GetWorld']\ncommands = ['spawn']\n"
        "[roles.admin]\nrpcs = ['*']\ncommands = ['*']\nothers = true\n"
    )
    async with secured(tmp_path / "data", policy=policy) as made:
        lead = (await made.token("lead", worlds=["game-*"])).secret
        for roles, given in (
            (("admin",), {}),
            (("lead", "admin"), {}),
            (("lead",), {"worlds": ["*"]}),
            (("lead",), {"worlds": ["gam*"]}),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await made.token(*roles, token=lead, **given)
            assert error.value.code() is DENIED
        granted = await made.token("lead", token=lead)
        assert list(granted.token.worlds) == ["game-*"]
        await made.token("lead", token=lead, worlds=["game-eu-*"])
        spawning = [command_pb2.COMMAND_TYPE_SPAWN]
        narrow = (await made.token("admin", allowed_commands=spawning)).secret
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await made.token("admin", token=narrow)
        assert error.value.code() is DENIED
        await made.token("admin", token=narrow, allowed_commands=spawning)


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (auth_service_pb2.CreateTokenRequest(roles=["viewer"]), "name"),
        (auth_service_pb2.CreateTokenRequest(name="t"), "roles"),
        (auth_service_pb2.CreateTokenRequest(name="t", roles=["viewer", "god"]), "roles[1]"),
        (auth_service_pb2.CreateTokenRequest(name="t", roles=["viewer"], worlds=["A"]), "worlds[0]"),
        (
            auth_service_pb2.CreateTokenRequest(name="t", roles=["viewer"], allowed_commands=[0]),
            "allowed_commands[0]",
        ),
        (auth_service_pb2.CreateTokenRequest(name="t", roles=["viewer"], ttl=Duration(seconds=-1)), "ttl"),
        (
            auth_service_pb2.CreateTokenRequest(name="t", roles=["viewer"], ttl=Duration(seconds=1 << 40)),
            "ttl",
        ),
        (auth_service_pb2.CreateTokenRequest(name="t" * 300, roles=["viewer"]), "name"),
    ],
)
async def test_a_wrong_token_request_is_refused_by_its_field(guarded: Secured, request_: Any, field: str):
    refusal = await refused(guarded.call("AuthService.CreateToken", request_))
    assert (refusal.code, refusal.fields) == (grpc.StatusCode.INVALID_ARGUMENT, [field])


async def test_tokens_are_listed_without_their_secrets_newest_first_in_pages(guarded: Secured):
    made = [await guarded.token("viewer", name=f"t{i}") for i in range(3)]
    first = await guarded.call("AuthService.ListTokens", auth_service_pb2.ListTokensRequest(page_size=2))
    assert [token.name for token in first.tokens] == ["t2", "t1"]
    rest = await guarded.call(
        "AuthService.ListTokens", auth_service_pb2.ListTokensRequest(page_token=first.next_page_token)
    )
    assert [token.name for token in rest.tokens] == ["t0", "first"]
    assert not rest.next_page_token
    everything = first.SerializeToString() + rest.SerializeToString()
    assert not any(token.secret.encode() in everything for token in made)
    assert rest.tokens[0].created_by == rest.tokens[1].id


@pytest.mark.parametrize(
    ("token_id", "said"),
    [("", "INVALID_REQUEST"), ("x", "INVALID_REQUEST"), (str(uuid7()), "TOKEN_NOT_FOUND")],
)
async def test_a_token_that_is_not_there_cannot_be_revoked(guarded: Secured, token_id: str, said: str):
    request = auth_service_pb2.RevokeTokenRequest(token_id=token_id)
    assert (await refused(guarded.call("AuthService.RevokeToken", request))).reason == said


async def test_health_is_told_to_everybody_and_channelz_to_administrators(guarded: Secured):
    from grpc_channelz.v1 import channelz_pb2, channelz_pb2_grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc
    from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

    health: Any = health_pb2_grpc.HealthStub(guarded.channel)
    assert (await health.Check(health_pb2.HealthCheckRequest())).status == 1
    viewer = [("authorization", f"Bearer {(await guarded.token('viewer')).secret}")]
    admin = [("authorization", f"Bearer {guarded.admin}")]
    channelz: Any = channelz_pb2_grpc.ChannelzStub(guarded.channel)
    assert (await refused(channelz.GetServers(channelz_pb2.GetServersRequest()))).reason == "TOKEN_MISSING"
    denied = channelz.GetServers(channelz_pb2.GetServersRequest(), metadata=viewer)
    assert (await refused(denied)).reason == "ROLE_FORBIDS"
    assert (await channelz.GetServers(channelz_pb2.GetServersRequest(), metadata=admin)).server
    reflection: Any = reflection_pb2_grpc.ServerReflectionStub(guarded.channel)
    asked = reflection_pb2.ServerReflectionRequest(list_services="*")
    answers = [a async for a in reflection.ServerReflectionInfo(iter([asked]), metadata=viewer)]
    assert "tickwire.v1.AuthService" in {s.name for s in answers[0].list_services_response.service}
    assert (await refused(reflection.ServerReflectionInfo(iter([asked])))).reason == "TOKEN_MISSING"


async def test_without_authentication_everybody_on_this_machine_is_its_administrator(tmp_path: Path):
    async with secured(tmp_path / "data", auth=False) as made:
        actor = (await made.call("ServerService.WhoAmI", token="")).actor_ctx
        assert (actor.subject, list(actor.roles)) == ("local", ["admin"])
        info = await made.call("ServerService.GetServerInfo", token="")
        assert (info.limits.commands_per_tick, info.limits.cost_units_per_day) == (0, 0)
        assert (await invoke(made.channel, "AuthService.ListTokens")).tokens
