"""Every limit is a setting, refuses what is over it by name, and takes what is at it."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from tests.hostile.tables import stream_of
from tests.server.answers import Refusal, refusal_of, refused, spawn
from tests.server.conftest import Served
from tickwire.v1 import (
    command_pb2,
    command_service_pb2,
    query_service_pb2,
    server_service_pb2,
    simulation_service_pb2,
    world_pb2,
)
from tickwire_engine.ids import uuid7
from tickwire_engine.limits import Limits
from tickwire_server.config import ServerConfig

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

INVALID = grpc.StatusCode.INVALID_ARGUMENT
EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED


@asynccontextmanager
async def limited(path: Path, **settings: Any) -> AsyncIterator[Served]:
    made = Served(path / "data")
    await made.start(**settings)
    try:
        await made.create("w", template="")
        yield made
    finally:
        await made.stop()


def despawn_where(sql: str) -> command_pb2.Command:
    return command_pb2.Command(despawn=command_pb2.Despawn(where=sql))


def sql_processor(sql: str) -> command_pb2.Command:
    made = world_pb2.SqlProcessor(components=["Spot"], assignments={"spot__x": sql})
    return command_pb2.Command(add_processor=command_pb2.AddProcessor(name=f"p{len(sql)}", sql=made))


def mark(name: str) -> command_pb2.Command:
    command = command_pb2.Command()
    command.spawn.components.update({"Mark": {"name": name}})
    return command


def message(depth: int) -> command_pb2.Command:
    command = command_pb2.Command(message=command_pb2.EntityMessage(channel="c"))
    value: Any = 1
    for _ in range(depth - 1):
        value = {"in": value}
    command.message.content.update({"in": value})
    return command


def table(**columns: Any) -> command_pb2.Command:
    return command_pb2.Command(spawn=command_pb2.Spawn(table=stream_of(columns)))


Send = tuple[command_pb2.Command, ...]
CASES: dict[str, tuple[int, Send, Send, Any, str, str]] = {
    # limit: its value; what is at it; what is over it; code, reason and field of the refusal
    "pending_commands": (2, (spawn(),) * 2, (spawn(),), EXHAUSTED, "QUEUE_FULL", ""),
    "batch_commands": (2, (spawn(),) * 2, (spawn(),) * 3, INVALID, "INVALID_REQUEST", "commands"),
    "world_entities": (2, (spawn(),) * 2, (spawn(),), EXHAUSTED, "WORLD_FULL", ""),
    "struct_depth": (
        *(3, (message(3),), (message(4),), INVALID, "INVALID_REQUEST"),
        "commands[0].message.content.in.in.in",
    ),
    "string_bytes": (
        *(64, (mark("é" * 32),), (mark("é" * 33),), INVALID, "INVALID_REQUEST"),
        "commands[0].spawn.components.Mark.name",
    ),
    "sql_chars": (
        *(12, (despawn_where("spot__x=1234"),), (despawn_where("spot__x=12345"),)),
        *(INVALID, "INVALID_SQL", "commands[0].despawn.where"),
    ),
    "table_rows": (
        *(2, (table(spot__x=[1.0] * 2),), (table(spot__x=[1.0] * 3),)),
        *(INVALID, "INVALID_ARROW", "commands[0].spawn.table"),
    ),
    "table_columns": (
        *(1, (table(spot__x=[1.0]),), (table(spot__x=[1.0], spot__y=[1.0]),)),
        *(INVALID, "INVALID_ARROW", "commands[0].spawn.table"),
    ),
    "table_bytes": (
        *(1 << 20, (table(spot__x=[1.0] * 65_536),), (table(spot__x=[1.0] * 65_537),)),
        *(INVALID, "INVALID_ARROW", "commands[0].spawn.table"),
    ),
}
OF_THEIR_OWN = frozenset(
    ("worlds", "result_bytes", "rollout_branches", "rollout_entity_ticks", "rollout_depth")
)
"""Limits of what no simple command brings: their tests are below, and where the rollouts are."""


def test_no_limit_is_without_a_test_and_a_setting_of_the_same_name_and_default() -> None:
    names = {field.name for field in fields(Limits)}
    assert names == set(CASES) | OF_THEIR_OWN
    assert ServerConfig().limits == Limits()


@pytest.mark.parametrize("name", CASES)
async def test_what_is_at_a_limit_is_taken_and_what_is_over_it_is_refused_by_its_name(
    tmp_path: Path, name: str
) -> None:
    value, at, over, code, reason, field = CASES[name]
    async with limited(tmp_path, **{name: value}) as served:
        await served.submit(*at)
        refusal = await refused(served.submit(*over))
        assert (refusal.code, refusal.reason) == (code, reason)
        assert refusal.metadata["limit"] == str(value)
        assert str(value) in refusal.message
        if field:
            assert refusal.fields == [field]
        else:
            assert "QuotaFailure" in refusal.kinds
        assert (await served.step()).commands_applied == len(at)
        if code is INVALID and name != "batch_commands":
            # Whoever sends a stream, or takes what goes, meets the same.
            assert (await in_a_stream(served, over)).fields == [field]


async def in_a_stream(served: Served, commands: Send) -> Refusal:
    request = command_service_pb2.SubmitStreamRequest(world="w", commands=commands, allow_partial=True)
    answers = [answer async for answer in served.commands.SubmitStream(iter([request]))]
    return refusal_of(answers[0].receipts[0].error)


async def test_a_limit_is_met_by_every_part_of_a_batch_that_may_be_taken_in_part(tmp_path: Path) -> None:
    async with limited(tmp_path, string_bytes=64) as served:
        answer = await served.submit(spawn(), mark("x" * 65), mark("x" * 64), allow_partial=True)
        assert [bool(receipt.seq) for receipt in answer.receipts] == [True, False, True]
        refusal = refusal_of(answer.receipts[1].error)
        assert refusal.fields == ["commands[1].spawn.components.Mark.name"]


async def test_sql_of_processors_and_streams_has_the_same_limit(tmp_path: Path) -> None:
    async with limited(tmp_path, sql_chars=12) as served:
        await served.submit(sql_processor("1" * 12))
        refusal = await refused(served.submit(sql_processor("1" * 13)))
        assert refusal.fields == ["commands[0].add_processor.sql.assignments.spot__x"]
        await served.step()
        refusal = await refused(served.subscribe(where="spot__x=12345"))
        assert (refusal.reason, refusal.fields) == ("INVALID_SQL", ["where"])


async def test_what_a_command_answers_is_no_larger_than_its_limit(tmp_path: Path) -> None:
    async with limited(tmp_path, result_bytes=1024) as served:
        await served.submit(*(spawn() for _ in range(60)))
        query = command_pb2.Command(id=str(uuid7()), query_world=command_pb2.QueryWorld(components=["Spot"]))
        few = command_pb2.Command(id=str(uuid7()))
        few.query_world.limit = 2
        await served.submit(query, few)
        await served.step()
        over, at = (await served.submit(query, few)).receipts
        refusal = refusal_of(over.outcome.error)
        assert (refusal.code, refusal.reason) == (EXHAUSTED, "RESULT_TOO_LARGE")
        assert refusal.metadata["limit"] == "1024"
        assert 0 < at.outcome.table_bytes <= 1024


async def test_worlds_are_so_many_and_one_that_is_gone_makes_room(tmp_path: Path) -> None:
    async with limited(tmp_path, worlds=2) as served:
        made = await served.create("v", template="", world_id=str(uuid7()))
        refusal = await refused(served.create("u"))
        assert (refusal.code, refusal.reason) == (EXHAUSTED, "WORLD_LIMIT")
        assert refusal.metadata["limit"] == "2"
        assert "QuotaFailure" in refusal.kinds
        # The same request again makes none.
        assert (await served.create("v", template="", world_id=made.id)).id == made.id
        await served.server.container.world_service.remove_world("v")
        await served.create("u")


async def test_a_world_keeps_the_number_of_entities_that_it_was_made_with(tmp_path: Path) -> None:
    async with limited(tmp_path, world_entities=2) as served:
        await served.submit(spawn(), spawn())
    async with restarted(tmp_path, world_entities=5) as served:
        assert (await refused(served.submit(spawn()))).reason == "WORLD_FULL"
        await served.create("v", template="")
        await served.submit(*(spawn() for _ in range(5)), world="v")


@asynccontextmanager
async def restarted(path: Path, **settings: Any) -> AsyncIterator[Served]:
    made = Served(path / "data")
    await made.start(**settings)
    try:
        yield made
    finally:
        await made.stop()


async def test_what_waits_under_a_limit_that_was_lowered_is_still_applied(tmp_path: Path) -> None:
    async with limited(tmp_path) as served:
        await served.submit(mark("x" * 100), table(spot__x=[1.0] * 9), despawn_where("spot__x > 100000"))
        await served.submit(sql_processor("spot__x + 1.0"))
        await served.step()
        await served.submit(mark("x" * 100), table(spot__x=[1.0] * 9), despawn_where("spot__x > 100000"))
    async with restarted(tmp_path, string_bytes=64, table_rows=2, sql_chars=5, world_entities=1) as served:
        stepped = await served.step()
        assert (stepped.commands_applied, stepped.commands_rejected) == (3, 0)
        found = await served.queries.Query(
            query_service_pb2.QueryRequest(world="w", components=["Spot"], format=2)
        ).read()
        assert sorted(record["spot__x"] for record in found.records) == [2.0] * 9 + [3.0] * 9


async def test_a_request_over_the_size_that_is_taken_is_refused_with_its_reason(tmp_path: Path) -> None:
    async with limited(tmp_path, max_receive_bytes=1 << 20) as served:
        over = table(spot__x=[1.0] * 140_000)
        refusal = await refused(served.submit(over))
        assert (refusal.code, refusal.reason) == (EXHAUSTED, "MESSAGE_TOO_LARGE")
        assert refusal.metadata["limit"] == str(1 << 20)
        assert "QuotaFailure" in refusal.kinds
        assert (await served.step()).commands_applied == 0
        request = command_service_pb2.SubmitStreamRequest(world="w", commands=[over])

        async def stream() -> None:
            async for _ in served.commands.SubmitStream(iter([request])):
                pass

        assert (await refused(stream())).reason == "MESSAGE_TOO_LARGE"
        await served.submit(spawn())


async def test_the_info_tells_the_limits(tmp_path: Path) -> None:
    settings = {"table_bytes": 2 << 20, "world_entities": 7, "worlds": 3, "max_receive_bytes": 3 << 20}
    async with limited(tmp_path, **settings) as served:
        limits = (await served.info.GetServerInfo(server_service_pb2.GetServerInfoRequest())).limits
        assert limits.max_table_bytes == 2 << 20
        assert limits.max_entities == 7
        assert limits.max_worlds == 3
        assert limits.max_request_bytes == 3 << 20


async def test_inputs_of_steps_are_values_like_others(tmp_path: Path) -> None:
    async with limited(tmp_path, struct_depth=2, string_bytes=64) as served:
        request = simulation_service_pb2.StepRequest(world="w")
        request.inputs.update({"a": {"b": {"c": 1}}})
        assert (await refused(served.simulation.Step(request))).fields == ["inputs.a.b"]
        request.inputs.Clear()
        request.inputs.update({"a": ["x" * 65]})
        assert (await refused(served.simulation.Step(request))).fields == ["inputs.a[0]"]
