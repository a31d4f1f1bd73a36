"""Shares of work: an actor alone has all of it, one that floods beside others a few requests at a time, in their order."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from tests.server.answers import spawn
from tests.server.secured import secured
from tickwire.v1 import command_service_pb2
from tickwire_server.services.turns import LEAST, SHARE, Turns

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


async def taken(turns: Turns, actor: str, commands: int = 1) -> Any:
    """Return a turn that is there at once, or None and the task that waits for it."""
    task = asyncio.ensure_future(turns.take(actor, commands))
    await asyncio.sleep(0)
    return task


async def test_who_is_alone_waits_for_nobody() -> None:
    turns = Turns()
    tasks = [await taken(turns, "ann", 1_000) for _ in range(100)]
    assert all(task.done() for task in tasks)
    for task in tasks:
        task.result().end()
    assert not turns._senders


async def test_beside_others_an_actor_has_a_share_and_the_others_theirs_at_once() -> None:
    turns = Turns()
    (await turns.take("bob", 1)).end()
    small = [await taken(turns, "ann") for _ in range(20)]
    assert [task.done() for task in small] == [True] * (SHARE // LEAST) + [False] * 12
    assert (await taken(turns, "bob")).done()
    small[3].result().end()
    small[3].result().end()
    await asyncio.sleep(0)
    assert [task.done() for task in small] == [True] * 9 + [False] * 11


async def test_a_large_request_is_in_work_alone_and_small_ones_do_not_overtake_it() -> None:
    turns = Turns()
    (await turns.take("bob", 1)).end()
    first = await taken(turns, "ann", 1)
    large = await taken(turns, "ann", 10 * SHARE)
    last = await taken(turns, "ann", 1)
    assert (first.done(), large.done(), last.done()) == (True, False, False)
    first.result().end()
    await asyncio.sleep(0)
    assert (large.done(), last.done()) == (True, False)
    large.result().end()
    await asyncio.sleep(0)
    last.result().end()
    assert set(turns._senders) <= {"bob"}


async def test_requests_after_one_that_is_read_in_parts_wait_until_it_is_done() -> None:
    turns = Turns()
    turn = await turns.take("ann", 10 * SHARE)
    (await turns.take("bob", 1)).end()
    pausing = asyncio.ensure_future(turn.pause())
    await asyncio.sleep(0)
    later = await taken(turns, "ann")
    await pausing
    assert not later.done()
    turn.end()
    (await later).end()
    assert not turns._senders


async def test_whoever_gives_up_waiting_leaves_no_trace() -> None:
    turns = Turns()
    (await turns.take("bob", 1)).end()
    held = await turns.take("ann", SHARE)
    waiting = [await taken(turns, "ann", SHARE) for _ in range(3)]
    waiting[0].cancel()
    held.end()
    waiting[1].cancel()
    await asyncio.gather(*waiting[:2], return_exceptions=True)
    (await waiting[2]).end()
    assert not turns._senders


async def test_streams_of_two_that_flood_are_answered_in_their_order(tmp_path: Path) -> None:
    async with secured(tmp_path / "data", commands_per_tick=0) as made:
        await made.create("w", template="")
        tokens = [(await made.token("player")).secret for _ in range(2)]

        async def requests() -> AsyncIterator[Any]:
            for number in range(20):
                count = 3 * SHARE if number % 3 == 0 else 2
                commands = [spawn(float(number)) for _ in range(count)]
                yield command_service_pb2.SubmitStreamRequest(world="w", commands=commands)

        async def flood(token: str) -> list[int]:
            pb = command_service_pb2
            stream = made.channel.stream_stream(
                "/tickwire.v1.CommandService/SubmitStream",
                pb.SubmitStreamRequest.SerializeToString,
                pb.SubmitStreamResponse.FromString,
            )(requests(), metadata=[("authorization", f"Bearer {token}")])
            return [receipt.seq async for answer in stream for receipt in answer.receipts]

        seqs = await asyncio.gather(*map(flood, tokens))
        for one in seqs:
            assert one == sorted(one)
        assert sorted(seqs[0] + seqs[1]) == [*range(1, 1 + sum(map(len, seqs)))]
