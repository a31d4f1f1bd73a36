"""Submits: what is retried, and with which ids."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc
import pytest

import tickwire
from tests.client.peer import abort, serving, status
from tickwire import AsyncClient, Client, RetryPolicy, commands
from tickwire.v1 import command_pb2, command_service_pb2, command_service_pb2_grpc

if TYPE_CHECKING:
    from tests.client.conftest import OneWorld


class Journal(command_service_pb2_grpc.CommandServiceServicer):
    """Acknowledges commands, after dropping the first `drops` requests; remembers all it was sent."""

    def __init__(self, drops: int = 0) -> None:
        self.drops = drops
        self.requests: list[Any] = []
        self.metadata: dict[str, Any] = {}

    async def Submit(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.requests.append(request)
        self.metadata = dict(context.invocation_metadata())
        if len(self.requests) <= self.drops:
            await abort(context, grpc.StatusCode.UNAVAILABLE, "STARTING", retry_s=0.01)
        return command_service_pb2.SubmitResponse(receipts=self._receipts(request))

    async def SubmitStream(self, requests: Any, context: Any) -> Any:  # noqa: N802
        async for request in requests:
            self.requests.append(request)
            if len(self.requests) == self.drops:
                await abort(context, grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN", retry_s=0.01)
            if request.commands[0].WhichOneof("payload") == "custom":
                refusal = status(grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL", retry_s=1)
                yield command_service_pb2.SubmitStreamResponse(error=refusal)
            else:
                yield command_service_pb2.SubmitStreamResponse(receipts=self._receipts(request))

    def register(self, server: Any) -> None:
        command_service_pb2_grpc.add_CommandServiceServicer_to_server(self, server)

    def _receipts(self, request: Any) -> list[command_service_pb2.CommandReceipt]:
        return [
            command_service_pb2.CommandReceipt(
                command_id=command.id, seq=seq, due_tick=7, first_entity_id=100, entity_count=2
            )
            for seq, command in enumerate(request.commands, 1)
        ]


async def test_a_retried_submit_carries_the_same_command_id(one_world: OneWorld, quick: RetryPolicy) -> None:
    journal = Journal(drops=2)
    async with (
        serving(one_world.register, journal.register) as target,
        AsyncClient(target, retry=quick) as client,
    ):
        world = await client.world("orbit")
        receipt = await world.spawn({"Position": {"x": 1.5}})
    first, second, third = journal.requests
    assert first == second == third
    assert first.commands[0].id == receipt.command_id
    assert first.world == world.id
    assert list(receipt.entity_ids) == [100, 101]


async def test_the_blocking_client_retries_with_the_same_id_too(
    one_world: OneWorld, quick: RetryPolicy
) -> None:
    journal = Journal(drops=1)

    def submit(target: str) -> list[tickwire.Receipt]:
        with Client(target, retry=quick, token="secret") as client:
            return client.world("orbit").submit(
                [commands.despawn(5), command_pb2.Command(despawn=command_pb2.Despawn(where="true"))]
            )

    async with serving(one_world.register, journal.register) as target:
        receipts = await asyncio.to_thread(submit, target)
    first, second = journal.requests
    assert first == second
    assert [receipt.command_id for receipt in receipts] == [command.id for command in first.commands]
    assert all(receipt.command_id for receipt in receipts)
    assert journal.metadata["authorization"] == "Bearer secret"


async def test_a_submit_gives_up_with_the_servers_error_once_the_time_to_retry_is_over(
    one_world: OneWorld,
) -> None:
    journal = Journal(drops=1_000)
    policy = RetryPolicy(retry_for_s=0.2, initial_backoff_s=0.02, max_backoff_s=0.05)
    async with (
        serving(one_world.register, journal.register) as target,
        AsyncClient(target, retry=policy) as client,
    ):
        world = await client.world("orbit")
        with pytest.raises(tickwire.StartingError) as caught:
            await world.despawn(5)
    assert len(journal.requests) > 1
    assert caught.value.retry_delay_s == pytest.approx(0.01)


async def test_a_submit_to_nobody_is_unavailable() -> None:
    async with AsyncClient("127.0.0.1:1", retry=RetryPolicy(retry_for_s=0)) as client:
        with pytest.raises(tickwire.UnavailableError):
            await client.world("orbit")


async def test_waiting_is_bounded_by_the_clients_time_limit_unless_told_otherwise(
    one_world: OneWorld,
) -> None:
    journal = Journal()
    async with (
        serving(one_world.register, journal.register) as target,
        AsyncClient(target, timeout_s=12) as client,
    ):
        world = await client.world("orbit")
        await world.despawn(1)
        await world.despawn(1, wait="applied")
        await world.despawn(1, wait="archived", max_wait_s=2.5)
    waits = [(request.wait, request.max_wait.ToNanoseconds() / 1e9) for request in journal.requests]
    assert waits == [
        (command_service_pb2.WAIT_LEVEL_ACCEPTED, 0),
        (command_service_pb2.WAIT_LEVEL_APPLIED, 12),
        (command_service_pb2.WAIT_LEVEL_ARCHIVED, 2.5),
    ]


async def test_a_submit_stream_sends_the_unanswered_again_with_the_same_ids(
    one_world: OneWorld, quick: RetryPolicy
) -> None:
    journal = Journal(drops=3)
    sent = [commands.despawn(entity_id) for entity_id in range(1, 11)]
    async with (
        serving(one_world.register, journal.register) as target,
        AsyncClient(target, retry=quick) as client,
    ):
        world = await client.world("orbit")
        async with world.submit_stream(window=4) as stream:
            answers = [await stream.send([command]) for command in sent]
            receipts = [(await answer)[0] for answer in answers]
    assert [receipt.command_id for receipt in receipts] == [command.id for command in sent]
    arrived = [request.commands[0].id for request in journal.requests]
    assert list(dict.fromkeys(arrived)) == [command.id for command in sent]
    assert len(arrived) > len(sent)


async def test_a_request_that_fails_whole_fails_its_own_answer_and_not_the_stream(
    one_world: OneWorld,
) -> None:
    journal = Journal()
    async with serving(one_world.register, journal.register) as target, AsyncClient(target) as client:
        world = await client.world("orbit")
        async with world.submit_stream() as stream:
            refused = await stream.send([commands.custom("dock")])
            accepted = await stream.send([commands.despawn(1)])
            assert len(await accepted) == 1
            with pytest.raises(tickwire.QueueFullError):
                await refused


async def test_a_submit_stream_that_cannot_go_on_fails_every_answer(one_world: OneWorld) -> None:
    journal = Journal(drops=1)
    never = RetryPolicy(retry_for_s=0)
    async with (
        serving(one_world.register, journal.register) as target,
        AsyncClient(target, retry=never) as client,
    ):
        world = await client.world("orbit")
        with pytest.raises(tickwire.ShuttingDownError):
            async with world.submit_stream() as stream:
                answer = await stream.send([commands.despawn(1)])
        with pytest.raises(tickwire.ShuttingDownError):
            await answer
