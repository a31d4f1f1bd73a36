"""What became of commands, over a socket: look up, list, cancel, wait, watch."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any
from uuid import UUID

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from tests.engine.parts import stream
from tests.server.answers import despawn, refused, spawn, until, update
from tests.server.secured import secured
from tickwire.v1 import command_pb2, command_service_pb2, world_service_pb2
from tickwire_engine.ids import uuid7

if TYPE_CHECKING:
    from pathlib import Path

    from tests.server.conftest import Served

pb = command_service_pb2
PENDING = command_pb2.COMMAND_STATE_PENDING
APPLIED = command_pb2.COMMAND_STATE_APPLIED
REJECTED = command_pb2.COMMAND_STATE_REJECTED
CANCELLED = command_pb2.COMMAND_STATE_CANCELLED


async def get(served: Served, command_id: str) -> pb.GetCommandResponse:
    return await served.commands.GetCommand(pb.GetCommandRequest(world="w", command_id=command_id))


async def cancel(served: Served, command_id: str) -> command_pb2.CommandOutcome:
    request = pb.CancelCommandRequest(world="w", command_id=command_id)
    return (await served.commands.CancelCommand(request)).outcome


async def listed(served: Served, **given: Any) -> list[pb.CommandRecord]:
    """List all pages; every next_page_token is followed."""
    found: list[pb.CommandRecord] = []
    token = ""
    while True:
        request = pb.ListCommandsRequest(world="w", page_token=token, **given)
        page = await served.commands.ListCommands(request)
        assert len(page.commands) <= (given.get("page_size") or 100)
        found += page.commands
        token = page.next_page_token
        if not token:
            return found


async def archive(served: Served, world: str = "w") -> None:
    engine = served.server.container.engine
    await engine.store.archiver.archive_now(engine.world(world).row.key)


def watch(served: Served, **given: Any) -> Any:
    return served.commands.WatchOutcomes(pb.WatchOutcomesRequest(world="w", **given))


async def read(call: Any, count: int) -> list[command_pb2.CommandOutcome]:
    return [(await call.read()).outcome for _ in range(count)]


async def test_a_command_is_found_pending_decided_and_archived(served: Served) -> None:
    await served.create(template="")
    sent = spawn(1.5, id=str(uuid7()), priority=3)
    (receipt,) = (await served.submit(sent)).receipts
    pending = await get(served, sent.id)
    assert (pending.outcome.state, pending.outcome.tick, pending.outcome.outcome_seq) == (PENDING, -1, 0)
    assert pending.command.seq == receipt.seq
    assert pending.accepted_at.ToMicroseconds() > 0
    await served.step()
    applied = await get(served, sent.id)
    assert (applied.outcome.state, applied.outcome.tick, applied.outcome.outcome_seq) == (APPLIED, 0, 1)
    assert (applied.outcome.first_entity_id, applied.outcome.entity_count) == (1, 1)
    await archive(served)
    assert await get(served, sent.id) == applied
    assert pending.command == applied.command
    back = command_pb2.Command()
    back.CopyFrom(applied.command)
    assert back.type == command_pb2.COMMAND_TYPE_SPAWN
    assert back.actor_id
    for output in ("actor_id", "seq", "type", "version"):
        back.ClearField(output)
    assert back == sent


async def test_a_command_comes_back_as_it_was_sent_whatever_it_held(served: Served) -> None:
    await served.create()
    table = command_pb2.Command(spawn=command_pb2.Spawn(table=stream({"spot__x": [1.0, 2.0]})))
    chosen = command_pb2.Command(tick=9)
    chosen.update.where = "spot__x > 1"
    chosen.update.components.update({"Spot": {"y": "NaN"}})
    skipping = command_pb2.Command(despawn=command_pb2.Despawn(entity_ids=[1, 2**52], skip_missing=True))
    sql = command_pb2.Command()
    sql.add_processor.name = "drift"
    sql.add_processor.sql.components.append("Spot")
    sql.add_processor.sql.assignments["spot__x"] = "spot__x + 1"
    letter = command_pb2.Command()
    letter.message.content.update({"a": [1, {"b": None}, "c", True], "empty": {}})
    wind = command_pb2.Command()
    wind.set_resource.name = "Wind"
    wind.set_resource.value.update({"speed": 3})
    for sent in (table, chosen, skipping, sql, letter, wind):
        sent.id = str(uuid7())
        await served.submit(sent)
        back = (await get(served, sent.id)).command
        for output in ("actor_id", "seq", "type", "version"):
            back.ClearField(output)
        assert back == sent


async def test_a_rejection_is_told_with_its_reason(served: Served) -> None:
    await served.create(template="")
    sent = despawn(77, id=str(uuid7()))
    await served.submit(sent)
    await served.step()
    outcome = (await get(served, sent.id)).outcome
    assert outcome.state == REJECTED
    assert outcome.error.code == grpc.StatusCode.NOT_FOUND.value[0]
    assert "77" in outcome.error.message


async def test_an_unknown_command_is_not_found(served: Served) -> None:
    await served.create(template="")
    for call in (
        get(served, str(uuid7())),
        cancel(served, str(uuid7())),
        served.commands.ReadResult(pb.ReadResultRequest(world="w", command_id=str(uuid7()))),
    ):
        refusal = await refused(call)
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "COMMAND_NOT_FOUND")
    for strange in ("", "x", str(uuid7()).upper()):
        refusal = await refused(get(served, strange))
        assert (refusal.reason, refusal.fields) == ("INVALID_REQUEST", ["command_id"])


async def test_a_pending_command_is_cancelled_and_told_so_ever_after(served: Served) -> None:
    await served.create(template="")
    sent = spawn(id=str(uuid7()), tick=4)
    await served.submit(sent)
    outcome = await cancel(served, sent.id)
    assert (outcome.state, outcome.tick, outcome.outcome_seq) == (CANCELLED, -1, 1)
    assert outcome.command_id == sent.id
    assert not outcome.HasField("error")
    assert await cancel(served, sent.id) == outcome
    (receipt,) = (await served.submit(sent)).receipts
    assert receipt.duplicate
    assert receipt.outcome == outcome
    assert (await get(served, sent.id)).outcome == outcome
    await served.stop()
    await served.start()
    assert (await get(served, sent.id)).outcome == outcome
    assert (await served.step(5)).commands_applied == 0


async def test_a_decided_command_cannot_be_cancelled(served: Served) -> None:
    await served.create(template="")
    sent = spawn(id=str(uuid7()))
    await served.submit(sent)
    await served.step()
    refusal = await refused(cancel(served, sent.id))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "COMMAND_NOT_PENDING")
    assert "PreconditionFailure" in refusal.kinds


async def test_a_submit_that_waits_is_told_of_its_cancel(served: Served) -> None:
    await served.create(template="")
    sent = spawn(id=str(uuid7()))
    waiting = asyncio.ensure_future(_call(served.submit(sent, wait=pb.WAIT_LEVEL_APPLIED)))
    await until(lambda: served.server.container.engine.world("w").acceptance.pending)
    await cancel(served, sent.id)
    assert (await waiting).receipts[0].outcome.state == CANCELLED


async def _call(call: Any) -> Any:
    return await call


async def _messages(call: Any) -> list[Any]:
    return [message async for message in call]


async def test_commands_are_listed_newest_first_wherever_they_lie(served: Served) -> None:
    await served.create(template="")
    sent: list[command_pb2.Command] = []

    async def send(*commands: command_pb2.Command) -> None:
        for command in commands:
            command.id = str(uuid7())
        sent.extend(commands)
        await served.submit(*commands)

    await send(spawn(1.0), spawn(tick=50), despawn(9))
    await served.step()
    await archive(served)
    await send(update(1, 5.0), spawn(tick=60), despawn(8))
    await served.step()
    await send(spawn(tick=70), spawn(3.0))
    await cancel(served, sent[4].id)
    newest_first = [command.id for command in reversed(sent)]
    for page_size in (0, 1, 3, 1000):
        found = await listed(served, page_size=page_size)
        assert [record.command.id for record in found] == newest_first
    states = [record.outcome.state for record in found]
    assert states == [PENDING, PENDING, REJECTED, CANCELLED, APPLIED, REJECTED, PENDING, APPLIED]
    for record in found:
        single = await get(served, record.command.id)
        assert (single.command, single.outcome, single.accepted_at) == (
            record.command,
            record.outcome,
            record.accepted_at,
        )


async def test_a_list_shows_only_what_its_conditions_select(served: Served) -> None:
    await served.create(template="")
    ids = [str(uuid7()) for _ in range(6)]
    await served.submit(spawn(id=ids[0]), despawn(9, id=ids[1]))
    await served.step()
    await archive(served)
    await served.submit(update(1, 1.0, id=ids[2]), spawn(id=ids[3], tick=9))
    await served.step()
    later = (await get(served, ids[2])).accepted_at
    await served.submit(spawn(id=ids[4], tick=9), despawn(1, id=ids[5]))
    await cancel(served, ids[5])

    async def found(**given: Any) -> list[int]:
        return sorted(ids.index(record.command.id) for record in await listed(served, **given))

    assert await found(states=[APPLIED]) == [0, 2]
    assert await found(states=[REJECTED]) == [1]
    assert await found(states=[PENDING, CANCELLED]) == [3, 4, 5]
    assert await found(states=[CANCELLED]) == [5]
    assert await found(types=[command_pb2.COMMAND_TYPE_SPAWN]) == [0, 3, 4]
    both = [command_pb2.COMMAND_TYPE_DESPAWN, command_pb2.COMMAND_TYPE_UPDATE]
    assert await found(types=both) == [1, 2, 5]
    assert await found(types=both, states=[APPLIED]) == [2]
    assert await found(from_time=later) == [2, 3, 4, 5]
    assert await found(from_time=Timestamp(seconds=later.seconds + 3600)) == []
    me = (await get(served, ids[0])).command.actor_id
    assert await found(actor_id=me) == [0, 1, 2, 3, 4, 5]
    assert await found(actor_id=str(uuid7())) == []
    assert await found(actor_id="processor:O'Brien") == []


async def test_tables_are_listed_in_the_full_view_only(served: Served) -> None:
    await served.create(template="")
    table = stream({"spot__x": [1.0, 2.0]})
    await served.submit(command_pb2.Command(spawn=command_pb2.Spawn(table=table)))
    for archived in (False, True):
        if archived:
            await served.step()
            await archive(served)
        (basic,) = await listed(served)
        (full,) = await listed(served, view=pb.COMMAND_VIEW_FULL)
        assert basic.command.spawn.table == b""
        assert full.command.spawn.table == table


async def test_a_page_of_large_commands_ends_before_clients_choke(served: Served) -> None:
    await served.create(template="")
    table = stream({"spot__x": [0.0] * 150_000})
    for _ in range(5):
        await served.submit(command_pb2.Command(spawn=command_pb2.Spawn(table=table)))
    request = pb.ListCommandsRequest(world="w", view=pb.COMMAND_VIEW_FULL)
    page = await served.commands.ListCommands(request)
    assert len(page.commands) == 2
    assert [r.command.seq for r in await listed(served, view=pb.COMMAND_VIEW_FULL)] == [5, 4, 3, 2, 1]
    await served.step()
    await archive(served)
    assert [r.command.seq for r in await listed(served, view=pb.COMMAND_VIEW_FULL)] == [5, 4, 3, 2, 1]


async def test_what_is_accepted_while_paging_is_not_shown(served: Served) -> None:
    await served.create(template="")
    await served.submit(spawn(), spawn(), spawn())
    first = await served.commands.ListCommands(pb.ListCommandsRequest(world="w", page_size=2))
    await served.submit(spawn())
    await served.step()
    rest = await served.commands.ListCommands(
        pb.ListCommandsRequest(world="w", page_size=2, page_token=first.next_page_token)
    )
    assert [r.command.seq for r in (*first.commands, *rest.commands)] == [3, 2, 1]
    assert rest.next_page_token == ""


async def test_a_page_token_goes_with_its_conditions(served: Served) -> None:
    await served.create(template="")
    await served.create("other", template="")
    await served.submit(spawn(), spawn())
    page = await served.commands.ListCommands(pb.ListCommandsRequest(world="w", page_size=1))
    token = page.next_page_token
    for other in (
        pb.ListCommandsRequest(world="other", page_token=token),
        pb.ListCommandsRequest(world="w", page_token=token, states=[APPLIED]),
        pb.ListCommandsRequest(world="w", page_token=token, types=[command_pb2.COMMAND_TYPE_SPAWN]),
        pb.ListCommandsRequest(world="w", page_token=token, actor_id=str(uuid7())),
        pb.ListCommandsRequest(world="w", page_token=token, from_time=Timestamp(seconds=1)),
        pb.ListCommandsRequest(world="w", page_token="x"),
    ):
        assert (await refused(served.commands.ListCommands(other))).reason == "INVALID_PAGE_TOKEN"


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"states": [9]}, "states[0]"),
        ({"states": [1, 0]}, "states[1]"),
        ({"types": [99]}, "types[0]"),
        ({"view": 7}, "view"),
        ({"page_size": -1}, "page_size"),
        ({"from_time": Timestamp(seconds=1 << 50)}, "from_time"),
    ],
)
async def test_a_list_of_nonsense_is_refused_by_field(
    served: Served, given: dict[str, Any], field: str
) -> None:
    await served.create(template="")
    refusal = await refused(served.commands.ListCommands(pb.ListCommandsRequest(world="w", **given)))
    assert (refusal.reason, refusal.fields) == ("INVALID_REQUEST", [field])


async def test_submit_waits_until_its_tick_is_archived(served: Served) -> None:
    await served.create(template="")
    await served.play(hz=50.0)
    answer = await served.submit(spawn(), despawn(99), wait=pb.WAIT_LEVEL_ARCHIVED)
    await served.pause()
    applied, rejected = (receipt.outcome for receipt in answer.receipts)
    assert (applied.state, rejected.state) == (APPLIED, REJECTED)
    world = await served.worlds.GetWorld(world_service_pb2.GetWorldRequest(world="w"))
    assert world.world.archived_tick >= applied.tick


async def test_a_wait_for_the_archive_that_is_too_short_tells_no_outcome(served: Served) -> None:
    await served.create("w", template="held")
    gate = served.gate()
    gate.open.clear()
    sent = spawn(id=str(uuid7()))
    step = asyncio.ensure_future(_call(served.step()))
    await gate.entered.wait()
    short = Duration(nanos=1_000_000)
    answer = await served.submit(sent, wait=pb.WAIT_LEVEL_ARCHIVED, max_wait=short)
    assert not answer.receipts[0].HasField("outcome")
    gate.open.set()
    await step
    again = await served.submit(sent, wait=pb.WAIT_LEVEL_ARCHIVED, max_wait=short)
    assert again.receipts[0].duplicate
    assert not again.receipts[0].HasField("outcome")
    assert (await served.step()).commands_applied == 1
    whole = await served.submit(sent, wait=pb.WAIT_LEVEL_ARCHIVED)
    assert whole.receipts[0].outcome.state == APPLIED


async def test_a_negative_wait_is_refused(served: Served) -> None:
    await served.create(template="")
    refusal = await refused(served.submit(spawn(), wait=pb.WAIT_LEVEL_APPLIED, max_wait=Duration(seconds=-1)))
    assert (refusal.reason, refusal.fields) == ("INVALID_REQUEST", ["max_wait"])


async def test_outcomes_come_in_order_without_gaps_wherever_they_lie(served: Served) -> None:
    await served.create(template="")
    await served.submit(spawn(), despawn(9), spawn(tick=90, id=(gone := str(uuid7()))))
    await served.step()
    await archive(served)
    await cancel(served, gone)
    await served.submit(update(1, 1.0))
    await served.step()
    call = watch(served, after_outcome_seq=0)
    outcomes = await read(call, 4)
    await served.submit(spawn(), spawn())
    await served.step()
    outcomes += await read(call, 2)
    await served.submit(spawn(tick=99, id=(another := str(uuid7()))))
    await cancel(served, another)
    outcomes += await read(call, 1)
    call.cancel()
    assert [o.outcome_seq for o in outcomes] == [1, 2, 3, 4, 5, 6, 7]
    assert [o.state for o in outcomes] == [
        *(APPLIED, REJECTED, CANCELLED, APPLIED, APPLIED, APPLIED, CANCELLED)
    ]
    for after in range(7):
        again = watch(served, after_outcome_seq=after)
        assert await read(again, 7 - after) == outcomes[after:]
        again.cancel()
    for outcome in outcomes:
        assert (await get(served, outcome.command_id)).outcome == outcome
    await served.stop()
    await served.start()
    after_restart = watch(served, after_outcome_seq=2)
    assert await read(after_restart, 5) == outcomes[2:]
    after_restart.cancel()


async def test_watching_from_now_says_after_which_outcome_it_begins(served: Served) -> None:
    await served.create(template="")
    await served.submit(spawn(), spawn())
    await served.step()
    call = watch(served)
    metadata = dict(await call.initial_metadata())
    assert metadata["tickwire-after-outcome-seq"] == "2"
    await served.submit(spawn())
    await served.step()
    (outcome,) = await read(call, 1)
    assert outcome.outcome_seq == 3
    call.cancel()


async def test_a_follower_far_behind_catches_up_from_the_journal(served: Served) -> None:
    await served.create(template="")
    call = watch(served, after_outcome_seq=0)
    await call.initial_metadata()
    for _ in range(12):
        await served.submit(*(spawn() for _ in range(1_000)))
        await served.step()
    outcomes = await read(call, 12_000)
    call.cancel()
    assert [o.outcome_seq for o in outcomes] == [*range(1, 12_001)]


async def test_watching_ends_when_the_server_stops_and_when_the_world_ends(served: Served) -> None:
    await served.create(template="")
    await served.create("doomed", template="")
    await served.submit(spawn(), world="doomed")
    await served.step(world="doomed")
    doomed = served.commands.WatchOutcomes(pb.WatchOutcomesRequest(world="doomed", after_outcome_seq=0))
    assert len(await read(doomed, 1)) == 1
    await served.server.container.engine.destroy_world("doomed")
    refusal = await refused(doomed.read())
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "WORLD_DESTROYED")
    call = watch(served)
    await call.initial_metadata()
    stopping = asyncio.ensure_future(served.server.stop())
    refusal = await refused(call.read())
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN")
    await stopping


async def test_whoever_stops_watching_is_forgotten(served: Served) -> None:
    await served.create(template="")
    call = watch(served, after_outcome_seq=0)
    await served.submit(spawn())
    await served.step()
    await read(call, 1)
    service, world = served.server.container.command_service, served.server.container.engine.world("w")
    feed = service._feeds[world.world_id]
    assert feed.followers == 1
    call.cancel()
    await until(lambda: not feed.followers)
    await served.submit(spawn())
    await served.step()
    assert feed.last == 2


async def test_a_strange_place_to_watch_from_is_refused(served: Served) -> None:
    await served.create(template="")
    for after in (-1, 1 << 60):
        refusal = await refused(watch(served, after_outcome_seq=after))
        assert (refusal.reason, refusal.fields) == ("INVALID_REQUEST", ["after_outcome_seq"])


async def test_below_operator_an_actor_sees_and_cancels_its_own_commands_only(tmp_path: Path) -> None:
    async with secured(tmp_path / "data") as server:
        await server.create("w", template="")
        mine = (await server.token("player", name="mine", worlds=["*"])).secret
        other = (await server.token("player", name="other", worlds=["*"])).secret
        operator = (await server.token("operator", name="op", worlds=["*"])).secret
        ids = {secret: str(uuid7()) for secret in (mine, other)}
        for secret, command_id in ids.items():
            request = pb.SubmitRequest(world="w", commands=[spawn(id=command_id, tick=5)])
            await server.call("CommandService.Submit", request, token=secret)

        def call(rpc: str, token: str, kind: Any, **given: Any) -> Any:
            return server.call(f"CommandService.{rpc}", kind(world="w", **given), token=token)

        for rpc, kind in (
            ("GetCommand", pb.GetCommandRequest),
            ("CancelCommand", pb.CancelCommandRequest),
            ("ReadResult", pb.ReadResultRequest),
        ):
            refusal = await refused(call(rpc, mine, kind, command_id=ids[other]))
            assert refusal.reason == "COMMAND_NOT_FOUND"
        own = await call("GetCommand", mine, pb.GetCommandRequest, command_id=ids[mine])
        theirs = await call("GetCommand", operator, pb.GetCommandRequest, command_id=ids[other])
        actors = {mine: own.command.actor_id, other: theirs.command.actor_id}
        assert len(set(actors.values())) == 2
        for given in ({}, {"actor_id": actors[mine]}):
            page = await call("ListCommands", mine, pb.ListCommandsRequest, **given)
            assert [record.command.id for record in page.commands] == [ids[mine]]
        for rpc, kind in (
            ("ListCommands", pb.ListCommandsRequest),
            ("WatchOutcomes", pb.WatchOutcomesRequest),
        ):
            refusal = await refused(call(rpc, mine, kind, actor_id=actors[other]))
            assert (refusal.code, refusal.reason) == (grpc.StatusCode.PERMISSION_DENIED, "ROLE_FORBIDS")
        everything = await call("ListCommands", operator, pb.ListCommandsRequest)
        assert [record.command.id for record in everything.commands] == [ids[other], ids[mine]]
        watching = call("WatchOutcomes", mine, pb.WatchOutcomesRequest, after_outcome_seq=0)
        chosen = call(
            "WatchOutcomes", operator, pb.WatchOutcomesRequest, after_outcome_seq=0, actor_id=actors[mine]
        )
        await call("CancelCommand", operator, pb.CancelCommandRequest, command_id=ids[other])
        await call("CancelCommand", mine, pb.CancelCommandRequest, command_id=ids[mine])
        for each in (watching, chosen):
            (outcome,) = await read(each, 1)
            assert (outcome.command_id, outcome.outcome_seq) == (ids[mine], 2)
            each.cancel()


async def test_the_end_of_a_world_cancels_what_is_pending_and_tells_whoever_waits_or_watches(
    served: Served,
) -> None:
    await served.create(template="")
    applied = (await served.submit(spawn())).receipts[0].command_id
    await served.step()
    sent = spawn(id=str(uuid7()), tick=99)
    (receipt,) = (await served.submit(sent)).receipts
    also = (await served.submit(spawn(tick=50))).receipts[0].command_id
    result = served.commands.ReadResult(pb.ReadResultRequest(world="w", command_id=receipt.command_id))
    waits = [
        asyncio.ensure_future(_call(served.submit(sent, wait=level)))
        for level in (pb.WAIT_LEVEL_APPLIED, pb.WAIT_LEVEL_ARCHIVED)
    ]
    reading = asyncio.ensure_future(_messages(result))
    watching = watch(served, after_outcome_seq=0)
    (first,) = await read(watching, 1)
    entry = served.server.container.engine.world("w").acceptance.find(UUID(sent.id))
    assert entry is not None
    await until(lambda: len(entry.waiters) == 3)
    request = world_service_pb2.DestroyWorldRequest(world="w")
    await served.worlds.DestroyWorld(request)
    for wait in waits:
        (told,) = (await wait).receipts
        assert (told.duplicate, told.outcome.state) == (True, CANCELLED)
    assert await reading == []
    outcomes = [first, *await read(watching, 2)]
    assert [(o.command_id, o.state, o.outcome_seq) for o in outcomes] == [
        (applied, APPLIED, 1),
        (sent.id, CANCELLED, 2),
        (also, CANCELLED, 3),
    ]
    refusal = await refused(watching.read())
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "WORLD_DESTROYED")


async def test_ids_that_were_not_alive_are_told_the_first_hundred_of_them(served: Served) -> None:
    await served.create()
    skipping = despawn(1, *range(1_000, 1_150), id=str(uuid7()))
    skipping.despawn.skip_missing = True
    strict = despawn(2, *range(2_000, 2_150), id=str(uuid7()))
    await served.submit(skipping, strict)
    await served.step()
    for archived in (False, True):
        if archived:
            await archive(served)
        skipped = (await get(served, skipping.id)).outcome
        assert (skipped.state, skipped.entity_count) == (APPLIED, 1)
        assert list(skipped.missing_entity_ids) == [*range(1_000, 1_100)]
        rejected = (await get(served, strict.id)).outcome
        assert rejected.state == REJECTED
        assert list(rejected.missing_entity_ids) == [*range(2_000, 2_100)]
        assert [record.outcome for record in (await listed(served))[:2]] == [rejected, skipped]
