"""Connections that break in every phase of a call: the client tries again, and what it asked for happens once."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.system.app import folded
from tests.system.cutting_proxy import CuttingProxy
from tickwire import AsyncClient, Client, RetryPolicy, TickMismatchError, commands
from tickwire_engine.ids import uuid7

if TYPE_CHECKING:
    from tests.system.conftest import StartServer

pytestmark = pytest.mark.system

ROOT = Path(__file__).parents[2]
APP = "tests.system.app:app"
QUICK = RetryPolicy(retry_for_s=30.0, initial_backoff_s=0.005, max_backoff_s=0.05)
PHASES = [
    # While connecting, in the middle of a request, just before its end; then the same of the answer.
    *({"sent": nbytes} for nbytes in (0, 10, 60, 120, 200, 300, 350, 400, 450, 500, 600)),
    *({"answered": nbytes} for nbytes in (0, 5, 20, 40, 60, 80, 100, 120, 150, 180, 220)),
]


async def test_a_submit_is_applied_once_wherever_its_connection_breaks(start_server: StartServer) -> None:
    server = await asyncio.to_thread(start_server, app=APP, root=ROOT)
    fold = sent = 0
    async with (
        CuttingProxy(server.address) as proxy,
        AsyncClient(proxy.address, retry=QUICK) as client,
        AsyncClient(server.address) as direct,
    ):
        world = await client.create_world("ledger", template="ledger")
        await world.play(hz=200)
        entity = (await world.spawn({"Tally": {}})).first_entity_id
        seqs: list[int] = []
        for wait in ("accepted", "applied"):
            for phase in PHASES:
                proxy.cut_after(**phase)
                # A long phase takes several calls to come.
                while proxy.is_armed:
                    sent += 1
                    message = commands.message({"number": sent}, channel="count", receiver_id=entity)
                    (receipt,) = await world.submit([message], wait=wait)
                    fold = folded(fold, sent)
                    seqs.append(receipt.seq)
        assert proxy.cuts >= 2 * len(PHASES)
        assert seqs == sorted(set(seqs))
        told = await direct.world("ledger")
        await told.pause()
        await told.step(1)
        (row,) = (await told.query(components=["Tally"])).to_pylist()
        assert (row["tally__count"], row["tally__fold"]) == (sent, fold)


async def test_a_stream_of_submits_is_applied_once_and_in_order_wherever_its_connection_breaks(
    start_server: StartServer,
) -> None:
    server = await asyncio.to_thread(start_server, app=APP, root=ROOT)
    fold = sent = 0
    async with CuttingProxy(server.address) as proxy, AsyncClient(proxy.address, retry=QUICK) as client:
        world = await client.create_world("ledger", template="ledger")
        await world.play(hz=200)
        entity = (await world.spawn({"Tally": {}})).first_entity_id
        seqs: list[int] = []
        async with world.submit_stream() as stream:
            for phase in PHASES:
                proxy.cut_after(**phase)
                while proxy.is_armed:
                    answers = []
                    # Some are on their way when it breaks.
                    for _ in range(4):
                        sent += 1
                        fold = folded(fold, sent)
                        message = commands.message({"number": sent}, channel="count", receiver_id=entity)
                        answers.append(await stream.send([message]))
                    for answer in answers:
                        (receipt,) = await answer
                        seqs.append(receipt.seq)
        assert proxy.cuts >= len(PHASES)
        assert seqs == sorted(set(seqs))
        await world.pause()
        await world.step(1)
        (row,) = (await world.query(components=["Tally"])).to_pylist()
        assert (row["tally__count"], row["tally__fold"]) == (sent, fold)


async def test_worlds_are_made_and_ticks_are_stepped_once_wherever_connections_break(
    start_server: StartServer,
) -> None:
    server = await asyncio.to_thread(start_server, app=APP, root=ROOT)
    async with CuttingProxy(server.address) as proxy, AsyncClient(proxy.address, retry=QUICK) as client:
        made = []
        for number, phase in enumerate(PHASES):
            proxy.cut_after(**phase)
            made.append(await client.create_world(f"w{number}", template="ledger", world_id=str(uuid7())))
        assert [info.name async for info in client.worlds()] == [f"w{n}" for n in range(len(PHASES))]
        world = made[0]
        for tick, phase in enumerate(PHASES):
            proxy.cut_after(**phase)
            # A repeat of a step that was done is told so, and does no harm.
            with contextlib.suppress(TickMismatchError):
                await world.step(1, expected_tick=tick)
            assert (await world.info()).tick == tick + 1


async def test_the_blocking_client_does_the_same(start_server: StartServer) -> None:
    server = await asyncio.to_thread(start_server, app=APP, root=ROOT)
    async with CuttingProxy(server.address) as proxy:

        def run(loop: asyncio.AbstractEventLoop) -> tuple[int, int]:
            with Client(proxy.address, retry=QUICK) as client:
                world = client.create_world("ledger", template="ledger")
                entity = world.spawn({"Tally": {}}).first_entity_id
                for number, phase in enumerate(PHASES, 1):
                    loop.call_soon_threadsafe(lambda phase=phase: proxy.cut_after(**phase))  # type: ignore[misc]
                    world.submit([commands.message({"number": number}, channel="count", receiver_id=entity)])
                world.step(1)
                (row,) = world.query(components=["Tally"]).to_pylist()
                return row["tally__count"], row["tally__fold"]

        fold = 0
        for number in range(1, len(PHASES) + 1):
            fold = folded(fold, number)
        assert await asyncio.to_thread(run, asyncio.get_running_loop()) == (len(PHASES), fold)
        assert proxy.cuts > len(PHASES) // 2
