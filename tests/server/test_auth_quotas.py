"""Quotas by actor: what is used up, what is told about it, and what a restart does not forget."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import pytest

from tests.server.answers import Refusal, refused, spawn, update
from tests.server.secured import Secured, invoke, secured
from tickwire.v1 import (
    command_pb2,
    command_service_pb2,
    server_service_pb2,
    simulation_service_pb2,
    tick_service_pb2,
)
from tickwire_engine import CommandType
from tickwire_engine.ids import uuid7

if TYPE_CHECKING:
    from pathlib import Path

EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED


def submit(made: Secured, *commands: Any, token: str, world: str = "w", **given: Any) -> Any:
    request = command_service_pb2.SubmitRequest(world=world, commands=commands, **given)
    return made.call("CommandService.Submit", request, token=token)


async def step(made: Secured, world: str = "w") -> Any:
    return await made.call("SimulationService.Step", simulation_service_pb2.StepRequest(world=world))


def is_quota(refusal: Refusal, reason: str, limit: int) -> bool:
    return (
        refusal.code is EXHAUSTED
        and refusal.reason == reason
        and refusal.metadata["limit"] == str(limit)
        and {"QuotaFailure", "RetryInfo"} <= refusal.kinds
    )


async def test_an_actor_queues_so_many_commands_for_a_tick_and_each_has_its_own_count(tmp_path: Path):
    async with secured(tmp_path / "data", commands_per_tick=3) as made:
        await made.create("w", template="")
        await made.create("v", template="")
        ann, bob = [(await made.token("player")).secret for _ in range(2)]
        kept = [spawn(id=str(uuid7())) for _ in range(3)]
        await submit(made, *kept, token=ann)
        assert is_quota(await refused(submit(made, spawn(), token=ann)), "QUOTA_TICK", 3)
        # A retry is none; another tick, another world and another actor have their own.
        assert (await submit(made, *kept, token=ann)).receipts[2].duplicate
        await submit(made, spawn(tick=7), token=ann)
        await submit(made, spawn(), token=ann, world="v")
        await submit(made, spawn(), spawn(), spawn(), token=bob)
        await step(made)
        await submit(made, spawn(), spawn(), spawn(), token=ann)


async def test_a_batch_over_the_quota_is_refused_whole_or_in_part_as_it_asks(tmp_path: Path):
    async with secured(tmp_path / "data", commands_per_tick=3) as made:
        await made.create("w", template="")
        ann = (await made.token("player")).secret
        five = [spawn(float(i)) for i in range(5)]
        assert is_quota(await refused(submit(made, *five, token=ann)), "QUOTA_TICK", 3)
        answer = await submit(made, *five, token=ann, allow_partial=True)
        assert [bool(receipt.seq) for receipt in answer.receipts] == [True, True, True, False, False]
        assert answer.receipts[4].error.code == EXHAUSTED.value[0]
        assert (await step(made)).commands_applied == 3


async def test_what_waits_since_before_a_restart_counts(tmp_path: Path):
    async with secured(tmp_path / "data", commands_per_tick=2) as made:
        await made.create("w", template="")
        ann, admin = (await made.token("player")).secret, made.admin
        await submit(made, spawn(), token=ann)
    async with secured(tmp_path / "data", admin=admin, commands_per_tick=2) as made:
        await submit(made, spawn(), token=ann)
        assert is_quota(await refused(submit(made, spawn(), token=ann)), "QUOTA_TICK", 2)


async def test_a_days_cost_units_are_kept_across_a_restart_and_come_back_the_next_day(tmp_path: Path):
    quota = {"cost_units_per_day": 12, "command_costs": {CommandType.SPAWN: 5}}
    async with secured(tmp_path / "data", **quota) as made:
        await made.create("w", template="")
        ann, admin = (await made.token("player")).secret, made.admin
        await submit(made, spawn(), spawn(), token=ann)
        assert is_quota(await refused(submit(made, spawn(), token=ann)), "QUOTA_DAY", 12)
        # What was refused cost nothing, and cheaper commands still go.
        await submit(made, update(1, 1.0), token=ann)
    async with secured(tmp_path / "data", admin=admin, **quota) as made:
        refusal = await refused(submit(made, spawn(), token=ann))
        assert is_quota(refusal, "QUOTA_DAY", 12)
        assert refusal.metadata["used"] == "11"
        assert 0 < refusal.retry_s <= 86_400
        day_later = made.server.identities.clock() + 86_400
        made.server.identities.quotas.account(await key_of(made, ann)).clock = lambda: day_later
        await submit(made, spawn(), spawn(), token=ann)


async def key_of(made: Secured, token: str) -> str:
    actor = (await made.call("ServerService.WhoAmI", token=token)).actor_ctx
    return str(actor.id).replace("-", "")


async def test_a_command_costs_what_its_type_does(tmp_path: Path):
    async with secured(tmp_path / "data", cost_units_per_day=16) as made:
        await made.create("w", template="")
        ann = (await made.token("operator")).secret
        wind = command_pb2.Command(set_resource=command_pb2.SetResource(name="Wind"))
        push = command_pb2.Command(add_processor=command_pb2.AddProcessor(name="Push"))
        await submit(made, spawn(), wind, push, token=ann)
        assert is_quota(await refused(submit(made, spawn(), token=ann)), "QUOTA_DAY", 16)


async def test_zero_is_no_quota_and_the_info_says_what_there_is(tmp_path: Path):
    async with secured(tmp_path / "data", commands_per_tick=0, cost_units_per_day=0) as made:
        await made.create("w", template="")
        ann = (await made.token("player")).secret
        await submit(made, *(spawn() for _ in range(600)), token=ann)
        request = server_service_pb2.GetServerInfoRequest()
        limits = (await made.call("ServerService.GetServerInfo", request, token=ann)).limits
        assert (limits.commands_per_tick, limits.cost_units_per_day) == (0, 0)


async def test_an_actor_has_so_many_streams_whatever_connections_they_come_over(tmp_path: Path):
    async with secured(tmp_path / "data", streams_per_actor=2) as made:
        await made.create("w")
        ann, bob = [(await made.token("viewer")).secret for _ in range(2)]

        async def subscribe(token: str) -> Any:
            stream = made.call(
                "TickService.Subscribe", tick_service_pb2.SubscribeRequest(world="w"), token=token
            )
            assert (await stream.read()).HasField("started")
            return stream

        first, second = await subscribe(ann), await subscribe(ann)
        third = made.call("TickService.Subscribe", tick_service_pb2.SubscribeRequest(world="w"), token=ann)
        assert is_quota(await refused(third), "STREAM_LIMIT", 2)
        await subscribe(bob)
        first.cancel()
        account = made.server.identities.quotas.account(await key_of(made, ann))
        while account.streams == 2:
            await made.call("ServerService.WhoAmI", token=ann)
        await subscribe(ann)
        second.cancel()


async def test_an_actors_calls_come_over_so_many_connections(tmp_path: Path):
    async with secured(tmp_path / "data", connections_per_actor=1) as made:
        await made.create("w")
        ann, bob = [(await made.token("viewer")).secret for _ in range(2)]
        stream = made.call("TickService.Subscribe", tick_service_pb2.SubscribeRequest(world="w"), token=ann)
        assert (await stream.read()).HasField("started")
        address = f"localhost:{made.server.port}"
        async with grpc.aio.insecure_channel(
            address, options=[("grpc.use_local_subchannel_pool", 1)]
        ) as other:
            refusal = await refused(invoke(other, "WorldService.ListWorlds", token=ann))
            assert is_quota(refusal, "CONNECTION_LIMIT", 1)
            await invoke(other, "WorldService.ListWorlds", token=bob)
        await made.call("WorldService.ListWorlds", token=ann)
        stream.cancel()


@pytest.mark.parametrize("setting", ["commands_per_tick", "cost_units_per_day", "streams_per_actor"])
async def test_the_local_administrator_has_no_quotas(tmp_path: Path, setting: str):
    async with secured(tmp_path / "data", auth=False, **{setting: 1}) as made:
        await made.create("w", template="")
        await submit(made, *(spawn() for _ in range(5)), token="")
        streams = [
            made.call("TickService.Subscribe", tick_service_pb2.SubscribeRequest(world="w"), token="")
            for _ in range(3)
        ]
        for stream in streams:
            assert (await stream.read()).HasField("started")
            stream.cancel()
