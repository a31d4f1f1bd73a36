"""Commands over gRPC, durable: one a call, and a thousand a request. The server is a process of its own."""

from __future__ import annotations

import asyncio
import statistics
from typing import TYPE_CHECKING

import grpc.aio

from bench.bare import ECHO
from bench.report import Figure, Stopwatch, figure
from bench.serving import WORLD, serving, update, yardstick
from tickwire.v1 import command_service_pb2
from tickwire_engine.ids import uuid7

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

IN_FLIGHT = 64
BATCH = 1_000
WARM_UP = 200
_ROUNDS = 5


async def submits(*, quick: bool) -> AsyncIterator[Figure]:
    """Durable unary Submits in flight, against unary calls that do nothing, in turn."""
    calls = 2_000 if quick else 6_400
    echoes, durables = [], []
    async with serving(1) as served:
        with yardstick("bare") as bare:
            async with grpc.aio.insecure_channel(bare["address"]) as channel:
                echo = channel.unary_unary(ECHO)
                request = command_service_pb2.SubmitRequest(world=WORLD, commands=[update(1)])
                spent = served.cpu_s()
                for _ in range(_ROUNDS):
                    echoes.append(await _rate(lambda: echo(b""), calls))
                    durables.append(await _rate(lambda: served.commands.Submit(request), calls))
        spent = (served.cpu_s() - spent) / (_ROUNDS * (calls + WARM_UP)) * 1e6
    yield figure("commands", f"empty unary echo, {IN_FLIGHT} in flight", echoes, "calls/s")
    ratio = statistics.median(d / e for d, e in zip(durables, echoes, strict=True))
    note = f"{ratio:.2f}x the echo; {spent:.0f} us of the server's CPU a call"
    yield figure("commands", f"durable unary Submit, {IN_FLIGHT} in flight", durables, "calls/s", note)


async def batches(*, quick: bool) -> AsyncIterator[Figure]:
    """Durable updates through SubmitStream, 1,000 a request, with ids of the client's; then the ticks that apply them."""
    count = 10 if quick else 40
    rates, applied, spent = [], [], []
    async with serving(BATCH) as served:
        for number in range(_ROUNDS):
            requests = [batch(number) for _ in range(count)]

            async def sent(
                requests: list[command_service_pb2.SubmitStreamRequest] = requests,
            ) -> AsyncIterator[command_service_pb2.SubmitStreamRequest]:
                for request in requests:
                    yield request

            before = served.cpu_s()
            watch = Stopwatch()
            async for answer in served.commands.SubmitStream(sent()):
                assert len(answer.receipts) == BATCH, answer.error
            rates.append(count * BATCH / watch.seconds)
            spent.append((served.cpu_s() - before) / (count * BATCH) * 1e6)
            watch = Stopwatch()
            assert (await served.step()).commands_applied == count * BATCH
            applied.append(count * BATCH / watch.seconds)
    note = f"{statistics.median(spent):.0f} us of the server's CPU a command"
    yield figure("commands", f"durable updates, {BATCH:,} a SubmitStream request", rates, "commands/s", note)
    yield figure("commands", "the tick that applies them", applied, "commands/s")


def batch(number: int = 0) -> command_service_pb2.SubmitStreamRequest:
    """Return a request of updates, each of another entity, with ids."""
    commands = [update(entity, float(number), id=str(uuid7())) for entity in range(1, BATCH + 1)]
    return command_service_pb2.SubmitStreamRequest(world=WORLD, commands=commands)


async def _rate(call: Callable[[], Awaitable[object]], count: int) -> float:
    async def worker(share: int) -> None:
        for _ in range(share):
            await call()

    await worker(WARM_UP)
    watch = Stopwatch()
    await asyncio.gather(*(worker(count // IN_FLIGHT) for _ in range(IN_FLIGHT)))
    return count / watch.seconds
