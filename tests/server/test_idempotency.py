"""What CONTRACT says of retries, line by line: the same id is the same command, or an error, and never a second one."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import grpc
import pyarrow as pa
import pytest

from tests.engine.parts import stream
from tests.server.answers import despawn, refusal_of, refused, spawn, update
from tests.server.secured import secured
from tickwire.v1 import command_pb2, command_service_pb2
from tickwire_engine.ids import uuid7

if TYPE_CHECKING:
    from pathlib import Path

    from tests.server.conftest import Served

pb = command_service_pb2
APPLIED = command_pb2.COMMAND_STATE_APPLIED
REJECTED = command_pb2.COMMAND_STATE_REJECTED
CANCELLED = command_pb2.COMMAND_STATE_CANCELLED


def new_id() -> str:
    return str(uuid7())


async def one(served: Served, command: command_pb2.Command, **given: Any) -> pb.CommandReceipt:
    (receipt,) = (await served.submit(command, **given)).receipts
    return receipt


async def archive(served: Served) -> None:
    engine = served.server.container.engine
    await engine.store.archiver.archive_now(engine.world("w").row.key)


async def test_a_known_id_answers_its_receipt_whatever_has_become_of_the_command(served: Served) -> None:
    await served.create(template="")
    kept, refused_later, gone = spawn(1.0, id=new_id()), despawn(99, id=new_id()), spawn(id=new_id(), tick=9)
    first = [await one(served, command) for command in (kept, refused_later, gone)]

    async def again(*states: int) -> None:
        for command, was, state in zip((kept, refused_later, gone), first, states, strict=True):
            receipt = await one(served, command)
            assert receipt.duplicate
            assert receipt.outcome.state == state
            assert receipt.outcome.command_id == (command.id if state else "")
            for name in ("command_id", "seq", "due_tick", "first_entity_id", "entity_count"):
                assert getattr(receipt, name) == getattr(was, name)

    await again(0, 0, 0)
    await served.commands.CancelCommand(pb.CancelCommandRequest(world="w", command_id=gone.id))
    await again(0, 0, CANCELLED)
    assert (await served.step()).commands_applied == 1
    await again(APPLIED, REJECTED, CANCELLED)
    await served.stop()
    await served.start()
    await again(APPLIED, REJECTED, CANCELLED)
    await archive(served)
    await again(APPLIED, REJECTED, CANCELLED)
    await served.stop()
    await served.start()
    await again(APPLIED, REJECTED, CANCELLED)
    assert (await served.step(9)).commands_applied == 0


async def test_a_known_id_is_known_whatever_the_tick(served: Served) -> None:
    await served.create(template="")
    command = spawn(id=new_id(), tick=0)
    await one(served, command)
    await served.step(3)
    assert (await one(served, command)).duplicate
    late = await refused(served.submit(spawn(id=new_id(), tick=0)))
    assert late.reason == "TICK_IN_THE_PAST"


async def test_a_known_id_is_known_whatever_the_state_of_the_world(served: Served) -> None:
    await served.create("w", template="held")
    command = spawn(id=new_id())
    await one(served, command)
    served.gate().broken = True
    assert (await refused(served.step())).reason == "PROCESSOR_FAILED"
    assert (await one(served, command)).duplicate
    served.gate().broken = False
    waiting = asyncio.ensure_future(one(served, command, wait=pb.WAIT_LEVEL_APPLIED))
    await served.step()
    assert (await waiting).outcome.state == APPLIED


async def test_a_known_id_is_known_whatever_the_quota(tmp_path: Path) -> None:
    async with secured(tmp_path / "data", commands_per_tick=1) as server:
        await server.create("w", template="")
        player = (await server.token("player", worlds=["*"])).secret

        def submit(command: command_pb2.Command) -> Any:
            request = pb.SubmitRequest(world="w", commands=[command])
            return server.call("CommandService.Submit", request, token=player)

        command = spawn(id=new_id())
        await submit(command)
        assert (await refused(submit(spawn(id=new_id())))).reason == "QUOTA_TICK"
        assert (await submit(command)).receipts[0].duplicate


async def test_a_retry_waits_as_the_first_try_would_have(served: Served) -> None:
    await served.create(template="")
    command = spawn(id=new_id())
    await one(served, command)
    for level in (pb.WAIT_LEVEL_APPLIED, pb.WAIT_LEVEL_ARCHIVED):
        waiting = asyncio.ensure_future(one(served, command, wait=level))
        await served.step()
        receipt = await waiting
        assert (receipt.duplicate, receipt.outcome.state) == (True, APPLIED)


def marked(seen: int | None) -> command_pb2.Command:
    command = command_pb2.Command()
    command.update.entity_ids.append(1)
    command.update.components.update({"Mark": {"seen": seen}})
    return command


CONTENT: dict[str, tuple[command_pb2.Command, command_pb2.Command]] = {
    "a value": (spawn(1.0), spawn(2.0)),
    "the tick": (spawn(), spawn(tick=3)),
    "another tick": (spawn(tick=4), spawn(tick=3)),
    "the tick that next means": (spawn(), spawn(tick=0)),
    "the priority": (spawn(), spawn(priority=1)),
    "the type": (spawn(), despawn(1)),
    "an id": (despawn(1, 2), despawn(1, 3)),
    "the order of ids": (despawn(1, 2), despawn(2, 1)),
    "a flag": (
        despawn(1),
        command_pb2.Command(despawn=command_pb2.Despawn(entity_ids=[1], skip_missing=True)),
    ),
    "null": (marked(None), marked(0)),
    "the bytes of a table": (
        command_pb2.Command(spawn=command_pb2.Spawn(table=stream({"spot__x": [1.0, 2.0]}))),
        command_pb2.Command(
            spawn=command_pb2.Spawn(
                table=stream({"spot__x": pa.chunked_array([[1.0], [2.0]])})  # the same rows
            )
        ),
    ),
}


@pytest.mark.parametrize("restarted", [False, True])
async def test_a_known_id_with_other_content_is_reused(served: Served, restarted: bool) -> None:
    await served.create(template="")
    ids = {name: new_id() for name in CONTENT}
    for name, (first, _) in CONTENT.items():
        first.id = ids[name]
        await served.submit(first)
    if restarted:
        await served.stop()
        await served.start()
    for name, (first, other) in CONTENT.items():
        other.id = ids[name]
        refusal = await refused(served.submit(spawn(), other))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.ALREADY_EXISTS, "COMMAND_ID_REUSED"), name
        assert refusal.metadata["command_id"] == ids[name]
        assert (await one(served, first)).duplicate, name
    partial = await served.submit(spawn(), CONTENT["a value"][1], allow_partial=True)
    assert [refusal_of(r.error).reason if r.HasField("error") else "" for r in partial.receipts] == [
        *("", "COMMAND_ID_REUSED")
    ]


async def test_the_same_is_what_is_equal_after_parsing(served: Served) -> None:
    await served.create(template="")
    command = command_pb2.Command(id=new_id())
    command.spawn.components.update({"Spot": {"x": 1, "y": 2.5}, "Mark": {"name": "a", "seen": None}})
    await served.submit(command)
    other = command_pb2.Command(id=command.id, type=command_pb2.COMMAND_TYPE_SPAWN, version=1)
    other.spawn.components.update({"Mark": {"seen": None, "name": "a"}, "Spot": {"y": 2.5, "x": 1.0}})
    assert (await one(served, other)).duplicate
    flag = command_pb2.Command(id=new_id(), despawn=command_pb2.Despawn(entity_ids=[1]))
    await served.submit(flag)
    flag.despawn.skip_missing = False
    assert (await one(served, flag)).duplicate


@pytest.mark.parametrize(
    ("strange", "usable"),
    [
        ("00000000-0000-4000-8000-000000000000", False),
        ("01930000-0000-7000-0000-000000000000", False),
        ("01930000-0000-1000-8000-000000000000", False),
        ("ahead", False),
        ("a little ahead", True),
    ],
)
async def test_ids_that_are_not_v7_or_dated_more_than_five_minutes_ahead_are_refused(
    served: Served, strange: str, usable: bool
) -> None:
    await served.create(template="")
    seconds = {"ahead": 330, "a little ahead": 270}.get(strange)
    command_id = strange if seconds is None else str(uuid7(int((time.time() + seconds) * 1000)))
    if usable:
        await served.submit(spawn(id=command_id))
    else:
        refusal = await refused(served.submit(spawn(id=command_id)))
        assert (refusal.reason, refusal.fields) == ("INVALID_COMMAND", ["commands[0].id"])


async def test_commands_without_an_id_are_two_each_with_an_id_of_the_servers(served: Served) -> None:
    await served.create(template="")
    command = spawn(1.0)
    first, second = await one(served, command), await one(served, command)
    assert (first.duplicate, second.duplicate) == (False, False)
    assert first.command_id != second.command_id
    assert (await served.step()).commands_applied == 2
    command.id = first.command_id
    again = await one(served, command)
    assert (again.duplicate, again.seq) == (True, first.seq)


async def test_reserved_entities_can_be_named_at_once(served: Served) -> None:
    await served.create(template="")
    first = await one(served, spawn(1.0))
    await served.submit(update(first.first_entity_id, 5.0))
    assert (await served.step()).commands_rejected == 0
    assert served.server.container.engine.world("w").entity(first.first_entity_id)["Spot"]["x"] == 5.0


async def test_a_command_that_names_the_entity_of_a_cancelled_spawn_is_rejected(served: Served) -> None:
    await served.create(template="")
    first = await one(served, spawn(1.0))
    follow_up = await one(served, update(first.first_entity_id, 5.0))
    await served.commands.CancelCommand(pb.CancelCommandRequest(world="w", command_id=first.command_id))
    later = await one(served, spawn(2.0))
    assert later.first_entity_id > first.first_entity_id
    assert (await served.step()).commands_rejected == 1
    found = await served.commands.GetCommand(pb.GetCommandRequest(world="w", command_id=follow_up.command_id))
    assert found.outcome.state == REJECTED


async def test_retries_at_the_same_moment_are_one_command_and_all_wait_for_its_commit(served: Served) -> None:
    await served.create(template="")
    command = spawn(id=new_id())
    receipts = await asyncio.gather(*(one(served, command) for _ in range(30)))
    assert sum(not receipt.duplicate for receipt in receipts) == 1
    assert len({receipt.seq for receipt in receipts}) == 1
    await served.stop()
    await served.start()
    assert (await one(served, command)).duplicate
    assert (await served.step()).commands_applied == 1


async def test_ids_are_unique_in_a_world_not_beyond(served: Served) -> None:
    await served.create(template="")
    await served.create("other", template="")
    command = spawn(id=new_id())
    assert not (await one(served, command)).duplicate
    assert not (await one(served, command, world="other")).duplicate
