"""The contract's table of errors, row by row: each reason is met over the network, with its code, details and metadata.

What a reason's metadata holds is read off the example in error_reason.proto, so that clients find what they were promised.
A reason that nothing produces is in `UNSERVED`, and must leave it once something does.
"""

from __future__ import annotations

import asyncio
import json
import re
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc import code_pb2

from tests.engine.parts import stream
from tests.server.answers import Refusal, despawn, raised, refusal_of, refused, rest, spawn, until, update
from tests.server.conftest import Served
from tests.server.secured import METHODS, Secured, secured
from tests.server.test_subscribe_lag import large, stuck
from tickwire.v1 import (
    auth_service_pb2,
    command_pb2,
    command_service_pb2,
    query_service_pb2,
    simulation_service_pb2,
    tick_service_pb2,
    world_pb2,
    world_service_pb2,
)
from tickwire_engine import failpoints
from tickwire_engine.errors import TickwireError, together
from tickwire_engine.ids import uuid7
from tickwire_server.grpc.errors import CODE_OF, RETRIABLE, status_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

UNSERVED = {
    "STARTING": "a server listens once its worlds are loaded",
    "FEATURE_OFF": "every RPC and every type of command is served",
}
"""Reasons that nobody can meet, and why."""
PROTO = Path(__file__).parents[2] / "protos" / "tickwire" / "v1" / "error_reason.proto"
DETAIL = {
    code_pb2.NOT_FOUND: "ResourceInfo",
    code_pb2.ALREADY_EXISTS: "ResourceInfo",
    code_pb2.RESOURCE_EXHAUSTED: "QuotaFailure",
    code_pb2.FAILED_PRECONDITION: "PreconditionFailure",
    code_pb2.UNAVAILABLE: "RetryInfo",
}


def promised() -> dict[str, set[str]]:
    """Return the keys of each reason's metadata, by the examples in the proto."""
    text = PROTO.read_text()
    found = {}
    for match in re.finditer(r"// ERROR_REASON_(\w+): (.*?)ERROR_REASON_\1 = ", text, re.DOTALL):
        body = re.sub(r"\n\s*//", " ", match[2])
        example = re.search(r'"metadata":\s*(\{.*?\})', body)
        found[match[1]] = set(json.loads(example[1])) if example else set()
    return found


PROMISED = promised()


class Scene:
    """What a producer needs: a server, started as it likes, and worlds of names that nobody has."""

    def __init__(self, path: Path, stack: AsyncExitStack) -> None:
        self._path = path
        self._stack = stack

    async def served(self, template: str = "", **settings: Any) -> Served:
        """Start a server with a world "w"."""
        made = Served(self._path / "data")
        await made.start(**{"metrics": "", **settings})
        self._stack.push_async_callback(made.stop)
        await made.create(template=template)
        return made

    async def secured(self, **settings: Any) -> Secured:
        """Start a server that asks who calls."""
        return await self._stack.enter_async_context(secured(self._path / "data", metrics="", **settings))

    @property
    def data(self) -> Path:
        return self._path / "data"

    def failing(self, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
        """Let storage fail at a place."""
        monkeypatch.setenv(failpoints.ENVIRONMENT, f"{place}=eio")
        failpoints.armed.cache_clear()
        self._stack.callback(failpoints.armed.cache_clear)


PRODUCERS: dict[str, Callable[[Scene], Awaitable[Refusal]]] = {}


def produces(reason: str) -> Callable[[Any], Any]:
    def register(producer: Any) -> Any:
        assert reason not in PRODUCERS
        PRODUCERS[reason] = producer
        return producer

    return register


def submitting(reason: str, command: Callable[[], command_pb2.Command], **settings: Any) -> None:
    """Register what a command is refused with as it comes."""

    async def producer(scene: Scene) -> Refusal:
        served = await scene.served(**settings)
        return await refused(served.submit(command()))

    produces(reason)(producer)


def settling(reason: str, command: Callable[[], command_pb2.Command], before: int = 1) -> None:
    """Register what a command is rejected with in its tick, after some spawns."""

    async def producer(scene: Scene) -> Refusal:
        served = await scene.served()
        await served.submit(*(spawn() for _ in range(before)))
        sent = command()
        sent.id = str(uuid7())
        await served.submit(sent)
        await served.step()
        again = await served.submit(sent)
        return refusal_of(again.receipts[0].outcome.error)

    produces(reason)(producer)


def with_components(**components: Any) -> command_pb2.Command:
    command = command_pb2.Command()
    command.spawn.components.update(components)
    return command


def mark(entity_id: int) -> command_pb2.Command:
    command = command_pb2.Command(update=command_pb2.Update(entity_ids=[entity_id]))
    command.update.components.update({"Mark": {"name": "m"}})
    return command


def add_processor(name: str, kind: str = "") -> command_pb2.Command:
    return command_pb2.Command(add_processor=command_pb2.AddProcessor(name=name, type=kind))


def custom(name: str, **body: Any) -> command_pb2.Command:
    command = command_pb2.Command(custom=command_pb2.Custom(name=name))
    command.custom.body.update(body)
    return command


submitting("INVALID_COMMAND", despawn)
submitting("COMMAND_TYPE_MISMATCH", lambda: spawn(type=2))
submitting("UNKNOWN_COMPONENT", lambda: with_components(Nobody={}))
submitting("UNKNOWN_PROCESSOR_TYPE", lambda: add_processor("Nobody"))
submitting("UNKNOWN_CUSTOM_COMMAND", lambda: custom("nothing"))
submitting("SCHEMA_MISMATCH", lambda: with_components(Mark={"seen": 1.5}))
submitting("INVALID_ARROW", lambda: command_pb2.Command(spawn=command_pb2.Spawn(table=b"ARROW1\0\0")))
submitting("INVALID_SQL", lambda: command_pb2.Command(despawn=command_pb2.Despawn(where="uuid() = 'x'")))
submitting("WORLD_FULL", spawn, world_entities=1, template="held")
submitting(
    "RESOURCE_NOT_FOUND",
    lambda: command_pb2.Command(set_resource=command_pb2.SetResource(name="Nothing")),
)
settling("COMPONENT_NOT_FOUND", lambda: mark(1))
settling(
    "PROCESSOR_NOT_FOUND",
    lambda: command_pb2.Command(remove_processor=command_pb2.RemoveProcessor(name="nobody")),
)
settling("CUSTOM_REFUSED", lambda: custom("nudge", entity_id=1, by=1e6))


@produces("INVALID_REQUEST")
async def _(scene: Scene) -> Refusal:
    served = await scene.served()
    return await refused(served.step(ticks=-1))


@produces("INVALID_NAME")
async def _(scene: Scene) -> Refusal:
    return await refused((await scene.served()).create("My World"))


@produces("INVALID_PAGE_TOKEN")
async def _(scene: Scene) -> Refusal:
    served = await scene.served()
    request = world_service_pb2.ListWorldsRequest(page_token="of another request")
    return await refused(served.worlds.ListWorlds(request))


@produces("WORLD_NOT_FOUND")
async def _(scene: Scene) -> Refusal:
    return await refused((await scene.served()).step(world="nothing"))


@produces("ENTITY_NOT_FOUND")
async def _(scene: Scene) -> Refusal:
    served = await scene.served()
    await served.step()
    return await refused(served.queries.GetEntity(query_service_pb2.GetEntityRequest(world="w", entity_id=7)))


@produces("TEMPLATE_NOT_FOUND")
async def _(scene: Scene) -> Refusal:
    return await refused((await scene.served()).create("v", template="nothing"))


@produces("COMMAND_NOT_FOUND")
async def _(scene: Scene) -> Refusal:
    served = await scene.served()
    request = command_service_pb2.GetCommandRequest(world="w", command_id=str(uuid7()))
    return await refused(served.commands.GetCommand(request))


@produces("TOKEN_NOT_FOUND")
async def _(scene: Scene) -> Refusal:
    made = await scene.secured()
    return await refused(
        made.call("AuthService.RevokeToken", auth_service_pb2.RevokeTokenRequest(token_id=str(uuid7())))
    )


@produces("WORLD_EXISTS")
async def _(scene: Scene) -> Refusal:
    return await refused((await scene.served()).create())


@produces("COMMAND_ID_REUSED")
async def _(scene: Scene) -> Refusal:
    served = await scene.served()
    first = spawn(1.0, id=str(uuid7()))
    await served.submit(first)
    return await refused(served.submit(spawn(2.0, id=first.id)))


@produces("PROCESSOR_EXISTS")
async def _(scene: Scene) -> Refusal:
    served = await scene.served()
    again = add_processor("Push")
    again.id = str(uuid7())
    await served.submit(add_processor("Push"), again)
    await served.step()
    return refusal_of((await served.submit(again)).receipts[0].outcome.error)


@produces("COMPONENT_EXISTS")
async def _(scene: Scene) -> Refusal:
    served = await scene.served()
    request = world_service_pb2.RegisterComponentRequest(
        name="Spot", fields=[world_pb2.Field(name="x", type="utf8")]
    )
    return await refused(served.worlds.RegisterComponent(request))


@produces("TOKEN_MISSING")
async def _(scene: Scene) -> Refusal:
    return await refused((await scene.secured()).call("ServerService.WhoAmI", token=""))


@produces("TOKEN_INVALID")
async def _(scene: Scene) -> Refusal:
    return await refused((await scene.secured()).call("ServerService.WhoAmI", token="tw_" + "x" * 43))


@produces("TOKEN_EXPIRED")
async def _(scene: Scene) -> Refusal:
    made = await scene.secured()
    secret = (await made.token("viewer", ttl=Duration(seconds=60))).secret
    now = made.server.identities.clock()
    made.server.identities.tokens._clock = lambda: now + 61.0
    return await refused(made.call("ServerService.WhoAmI", token=secret))


@produces("TOKEN_REVOKED")
async def _(scene: Scene) -> Refusal:
    made = await scene.secured()
    gone = await made.token("viewer")
    await made.call("AuthService.RevokeToken", auth_service_pb2.RevokeTokenRequest(token_id=gone.token.id))
    return await refused(made.call("ServerService.WhoAmI", token=gone.secret))


@produces("ROLE_FORBIDS")
async def _(scene: Scene) -> Refusal:
    made = await scene.secured()
    viewer = (await made.token("viewer")).secret
    return await refused(
        made.call("SimulationService.Step", simulation_service_pb2.StepRequest(), token=viewer)
    )


@produces("WORLD_FORBIDDEN")
async def _(scene: Scene) -> Refusal:
    made = await scene.secured()
    viewer = (await made.token("viewer", worlds=["game-*"])).secret
    request = world_service_pb2.GetWorldRequest(world="lab")
    return await refused(made.call("WorldService.GetWorld", request, token=viewer))


async def over_quota(scene: Scene, **quota: Any) -> Refusal:
    made = await scene.secured(**quota)
    await made.create("w", template="")
    player = (await made.token("player")).secret
    request = command_service_pb2.SubmitRequest(world="w", commands=[spawn(), spawn()])
    return await refused(made.call("CommandService.Submit", request, token=player))


@produces("QUOTA_TICK")
async def _(scene: Scene) -> Refusal:
    return await over_quota(scene, commands_per_tick=1)


@produces("QUOTA_DAY")
async def _(scene: Scene) -> Refusal:
    return await over_quota(scene, cost_units_per_day=1)


@produces("QUEUE_FULL")
async def _(scene: Scene) -> Refusal:
    served = await scene.served(pending_commands=1)
    return await refused(served.submit(spawn(), spawn()))


@produces("STREAM_LIMIT")
async def _(scene: Scene) -> Refusal:
    made = await scene.secured(streams_per_actor=1)
    await made.create("w")
    request = tick_service_pb2.SubscribeRequest(world="w")
    first = made.call("TickService.Subscribe", request)
    await first.read()
    return await refused(made.call("TickService.Subscribe", request))


@produces("CONNECTION_LIMIT")
async def _(scene: Scene) -> Refusal:
    made = await scene.secured(connections_per_actor=1)
    await made.create("w")
    first = made.call("TickService.Subscribe", tick_service_pb2.SubscribeRequest(world="w"))
    await first.read()
    own = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(f"localhost:{made.server.port}", options=own) as channel:
        other = Secured(made.server, channel, made.admin)
        return await refused(other.call("ServerService.WhoAmI"))


@produces("WORLD_LIMIT")
async def _(scene: Scene) -> Refusal:
    return await refused((await scene.served(worlds=1)).create("v"))


@produces("MESSAGE_TOO_LARGE")
async def _(scene: Scene) -> Refusal:
    served = await scene.served(max_receive_bytes=1 << 20)
    table = stream({"spot__x": [0.0] * 140_000})
    return await refused(served.submit(command_pb2.Command(spawn=command_pb2.Spawn(table=table))))


@produces("RESULT_TOO_LARGE")
async def _(scene: Scene) -> Refusal:
    served = await scene.served(sql_rows=10, sql_processes=1)
    request = query_service_pb2.SqlRequest(sql="SELECT * FROM range(11)")
    return await refused(served.queries.Sql(request))


async def broken(scene: Scene) -> tuple[Served, Refusal]:
    served = await scene.served("held")
    served.gate().broken = True
    return served, await refused(served.step())


@produces("PROCESSOR_FAILED")
async def _(scene: Scene) -> Refusal:
    return (await broken(scene))[1]


@produces("WORLD_FAULTED")
async def _(scene: Scene) -> Refusal:
    served, _ = await broken(scene)
    return await refused(served.simulation.Run(simulation_service_pb2.RunRequest(world="w", ticks=1)))


@produces("WORLD_PLAYING")
async def _(scene: Scene) -> Refusal:
    served = await scene.served()
    await served.play(20.0)
    return await refused(served.step())


@produces("WORLD_RUNNING")
async def _(scene: Scene) -> Refusal:
    served = await scene.served("held")
    gate = served.gate()
    gate.open.clear()
    step = asyncio.ensure_future(served.step())
    await gate.entered.wait()
    refusal = await refused(served.play())
    gate.open.set()
    await step
    return refusal


@produces("WORLD_DESTROYED")
async def _(scene: Scene) -> Refusal:
    served = await scene.served()
    followed = served.subscribe()
    await followed.read()
    await served.server.container.world_service.remove_world("w")
    return await refused(rest(followed))


@produces("COMMAND_NOT_PENDING")
async def _(scene: Scene) -> Refusal:
    served = await scene.served()
    sent = spawn(id=str(uuid7()))
    await served.submit(sent)
    await served.step()
    request = command_service_pb2.CancelCommandRequest(world="w", command_id=sent.id)
    return await refused(served.commands.CancelCommand(request))


@produces("TICK_IN_THE_PAST")
async def _(scene: Scene) -> Refusal:
    served = await scene.served()
    await served.step(2)
    return await refused(served.submit(spawn(tick=0)))


@produces("TICK_MISMATCH")
async def _(scene: Scene) -> Refusal:
    return await refused((await scene.served()).step(expected_tick=7))


@produces("ETAG_MISMATCH")
async def _(scene: Scene) -> Refusal:
    served = await scene.served()
    request = world_service_pb2.UpdateWorldRequest(world="w", etag="of before")
    request.update_mask.paths.append("labels")
    return await refused(served.worlds.UpdateWorld(request))


@produces("COMMAND_ID_TOO_OLD")
async def _(scene: Scene) -> Refusal:
    served = await scene.served()
    engine = served.server.container.engine
    engine.store._id_floors_ms[engine.world("w").row.key] = 2
    return await refused(served.submit(spawn(id=str(uuid7(1)))))


@produces("TICK_NOT_KEPT")
async def _(scene: Scene) -> Refusal:
    served = await scene.served()
    await served.create("short", template="", retention=world_pb2.Retention(keep_ticks=2))
    await served.step(9, world="short")
    engine = served.server.container.engine
    await engine.store.archiver.archive_now(engine.world("short").row.key)
    return await refused(served.queries.Query(query_service_pb2.QueryRequest(world="short", at_tick=0)))


@produces("TICK_IN_THE_FUTURE")
async def _(scene: Scene) -> Refusal:
    served = await scene.served()
    await served.step()
    return await refused(served.queries.Query(query_service_pb2.QueryRequest(world="w", at_tick=9)))


@produces("SHUTTING_DOWN")
async def _(scene: Scene) -> Refusal:
    served = await scene.served()
    await served.step()
    followed = served.subscribe(from_tick=0)
    await followed.read()
    await followed.read()
    stopping = asyncio.ensure_future(served.stop())
    refusal = await refused(rest(followed))
    await stopping
    return refusal


@produces("INTERNAL")
async def _(scene: Scene) -> Refusal:
    return await refused((await scene.served()).create("v", template="failing"))


@produces("SUBSCRIBER_TOO_SLOW")
async def _(scene: Scene) -> Refusal:
    served = await scene.served(stalled_write_s=0.2)
    await served.server.container.world_service.remove_world("w")
    await large(served)
    followed = served.subscribe(from_tick=0, lag=tick_service_pb2.LAG_POLICY_DISCONNECT)
    await followed.read()
    hub = served.server.container.hub(served.mover().world)
    await stuck(served)
    await until(lambda: not hub.subscribers)
    return await refused(rest(followed))


@produces("HISTORY_CORRUPT")
async def _(scene: Scene) -> Refusal:
    served = await scene.served()
    await served.submit(
        command_pb2.Command(spawn=command_pb2.Spawn(table=stream({"spot__x": [0.5] * 50_000})))
    )
    await served.step()
    await served.submit(update(1, 1.0))
    await served.step()
    segment = max(scene.data.rglob("*.seg"), key=lambda path: path.stat().st_size)
    with segment.open("r+b") as file:
        file.seek(10_000)
        file.write(bytes(byte ^ 1 for byte in segment.read_bytes()[10_000:]))
    return await refused(served.queries.Query(query_service_pb2.QueryRequest(world="w", at_tick=0)))


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    async with AsyncExitStack() as stack:
        yield Scene(tmp_path, stack)


def test_every_reason_has_a_producer_or_says_why_it_has_none() -> None:
    assert set(PROMISED) - {"UNSPECIFIED"} == set(CODE_OF)
    assert set(CODE_OF) == set(PRODUCERS) | set(UNSERVED) | {"STORAGE_FAILED"}


async def test_every_rpc_is_served(scene: Scene) -> None:
    made = await scene.secured()
    for rpc, method in METHODS.items():
        if not method.server_streaming:
            try:
                await made.call(rpc)
            except grpc.aio.AioRpcError as error:
                assert raised(error).reason != "FEATURE_OFF", rpc  # noqa: PT017  (some RPCs take an empty request)
        elif not method.client_streaming:
            assert (await refused(made.call(rpc))).reason != "FEATURE_OFF", rpc


@pytest.mark.parametrize("reason", PRODUCERS)
async def test_a_reason_is_met_with_its_code_details_and_metadata(scene: Scene, reason: str) -> None:
    refusal = await PRODUCERS[reason](scene)
    check(refusal, reason)


def check(refusal: Refusal, reason: str) -> None:
    assert refusal.reason == reason, refusal
    code = CODE_OF[reason]
    assert refusal.code.value[0] == code
    assert PROMISED[reason] <= set(refusal.metadata), PROMISED[reason] - set(refusal.metadata)
    assert all(refusal.metadata[key] for key in PROMISED[reason]), refusal.metadata
    if code == code_pb2.INVALID_ARGUMENT:
        assert refusal.fields
        assert all(refusal.fields)
    if code in DETAIL:
        assert DETAIL[code] in refusal.kinds
    assert ("RetryInfo" in refusal.kinds) == (reason in RETRIABLE or code == code_pb2.UNAVAILABLE)
    assert len(refusal.message) > 10
    assert not re.search(r"Traceback|\.py|/tmp/|site-packages", refusal.message)


async def test_a_failed_sync_is_answered_with_its_reason(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = await scene.served()
    scene.failing(monkeypatch, "journal.commit.before")
    refusal = await refused(served.submit(spawn()))
    check(refusal, "STORAGE_FAILED")
    monkeypatch.delenv(failpoints.ENVIRONMENT)


async def test_all_that_is_wrong_with_a_batch_is_told_at_once_up_to_eight_and_the_rest_counted(
    scene: Scene,
) -> None:
    served = await scene.served()
    for bad in (
        with_components(Nobody={}),
        command_pb2.Command(),
        with_components(Mark={"seen": "x" * 5_000}),
    ):
        refusal = await refused(served.submit(spawn(), bad, spawn(), bad, bad))
        assert [field.partition(".")[0] for field in refusal.fields] == [f"commands[{i}]" for i in (1, 3, 4)]
        assert "more" not in refusal.metadata
        refusal = await refused(served.submit(*(bad for _ in range(20))))
        assert len(refusal.fields) == 8
        assert refusal.metadata["more"] == "12"
    assert (await served.step()).commands_applied == 0


@pytest.mark.parametrize("reason", sorted(CODE_OF))
def test_a_status_stays_within_four_kib_whatever_it_tells(reason: str) -> None:
    def error(number: int) -> TickwireError:
        made = TickwireError("\U0001fa90" * 5_000, field=f"commands[{number}].{'f' * 5_000}")
        made.metadata = dict.fromkeys(PROMISED[reason], "\0" * 5_000)
        made.reason = reason  # type: ignore[misc]
        return made

    for count in (1, 2, 8, 100):
        refusal = refusal_of(status_of(together([error(number) for number in range(count)])))
        assert refusal.reason == reason
        assert len(refusal.fields) == (min(count, 8) if CODE_OF[reason] == code_pb2.INVALID_ARGUMENT else 0)
