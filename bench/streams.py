"""Ticks as subscribers get them. The server is a process of its own; this one holds the subscribers."""

from __future__ import annotations

import asyncio
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import grpc.aio
from pyarrow import flight

from bench.bare import BEAT, HEAD, HZ
from bench.in_process import moving
from bench.report import Figure, Stopwatch, figure, quantile
from bench.serving import OPTIONS, WORLD, Served, serving, yardstick
from tickwire import AsyncClient, Client
from tickwire.v1 import (
    simulation_service_pb2,
    tick_service_pb2,
    tick_service_pb2_grpc,
)
from tickwire_engine import RunConfig

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_ROUNDS = 5
_SMALL_WINDOW = (*OPTIONS, ("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 65_535))
"""Who does not read stalls the stream soon: otherwise gRPC takes megabytes off the wire for it."""


async def runs(*, quick: bool) -> AsyncIterator[Figure]:
    """A run over gRPC with a subscriber that reads every frame, against the run in process, in turn."""
    ticks = 100 if quick else 300
    alone, followed, rates = [], [], []
    async with moving(10_000) as world, serving(10_000) as served:
        for _ in range(_ROUNDS):
            # The archiver of the one that ran before would take its time from the next.
            await served.archived()
            watch = Stopwatch()
            await world.run(RunConfig(num_steps=ticks))
            alone.append(watch.seconds / ticks * 1e3)
            await world.archived(world.tick - 1)
            first = (await served.step()).last_tick + 1
            reader = asyncio.create_task(_followed(served.process.address, first, ticks))
            watch = Stopwatch()
            await served.run(ticks)
            size = await reader
            followed.append(watch.seconds / ticks * 1e3)
            rates.append(size / watch.seconds / 1e6)
    yield figure("streams", "tick of a run @10,000, in process", alone, "ms")
    note = f"{statistics.median(followed) / statistics.median(alone):.2f}x the run in process"
    yield figure("streams", "tick of a run @10,000 over gRPC with a subscriber", followed, "ms", note)
    yield figure("streams", "frames to that subscriber", rates, "MB/s")


async def full_state(*, quick: bool) -> AsyncIterator[Figure]:
    """Ticks of 100,000 rows that are there already, read whole by 1 and 8 subscribers; against Flight's DoGet, in turn."""
    rows, ticks = 100_000, 6 if quick else 12
    async with serving(rows) as served:
        with yardstick("flight", str(rows), str(ticks)) as peer:
            first = (await served.step()).last_tick + 1
            await served.run(ticks)
            for readers in (1, 8):
                ours, theirs = [], []
                for _ in range(_ROUNDS):
                    watch = Stopwatch()
                    await _together(readers, _subscribed, served.process.address, first, ticks, rows)
                    ours.append(readers * ticks * peer["bytes"] / watch.seconds / 1e6)
                    watch = Stopwatch()
                    await _together(readers, _got, peer["address"], ticks, rows)
                    theirs.append(readers * ticks * peer["bytes"] / watch.seconds / 1e6)
                what = f"{ticks} ticks of {rows:,} rows to {readers} subscribers"
                yield figure("streams", f"{what}: pyarrow.flight", theirs, "MB/s")
                note = f"{statistics.median(ours) / statistics.median(theirs):.2f}x Flight"
                yield figure("streams", f"{what}: Subscribe", ours, "MB/s", note)


async def catching_up(*, quick: bool) -> AsyncIterator[Figure]:
    """Ticks of a small world out of the archive: of a server that has just started, and has none in memory."""
    ticks = 2_000 if quick else 10_000
    rates = []
    async with serving(100) as served:
        await served.run(ticks)
        await served.archived()
        for _ in range(_ROUNDS):
            await asyncio.to_thread(served.process.terminate)
            await asyncio.to_thread(served.process.start)
            async with grpc.aio.insecure_channel(served.process.address) as channel:
                stub: Any = tick_service_pb2_grpc.TickServiceStub(channel)
                watch = Stopwatch()
                await _read(stub, 0, ticks - 1)
                rates.append(ticks / watch.seconds)
    yield figure("streams", f"catching up on {ticks:,} ticks @100 from the archive", rates, "ticks/s")


async def latency(*, quick: bool) -> AsyncIterator[Figure]:
    """From a tick's commit to its frame at a subscriber, at 60 Hz; beside a bare stream of messages of that size."""
    frames = 180 if quick else 900
    async with serving(1_000) as served:
        play = simulation_service_pb2.PlayRequest(world=WORLD, hz=HZ)
        await served.simulation.Play(play)
        ours, size = await _frame_delays(served, frames)
        await served.simulation.Pause(simulation_service_pb2.PauseRequest(world=WORLD))
    with yardstick("bare") as bare:
        async with grpc.aio.insecure_channel(bare["address"]) as channel:
            beats = channel.unary_stream(BEAT)(HEAD.pack(size))
            theirs = []
            async for message in beats:
                theirs.append((time.time_ns() - HEAD.unpack_from(message)[0]) / 1e6)
                if len(theirs) == frames:
                    break
            beats.cancel()
    for share in (50, 99):
        bare_ms, ours_ms = quantile(theirs, share / 100), quantile(ours, share / 100)
        yield figure("streams", f"a bare grpc.aio stream at 60 Hz, p{share}", [bare_ms], "ms")
        note = f"+{ours_ms - bare_ms:.2f} ms, the commit's sync included"
        yield figure(
            "streams", f"tick computed to its frame at 60 Hz @1,000, p{share}", [ours_ms], "ms", note
        )


async def idle(*, quick: bool) -> AsyncIterator[Figure]:
    """Ticks while subscribers hang on whose clients take nothing off the wire: they cost the engine nothing."""
    ticks = 100 if quick else 300
    async with serving(1_000) as served:
        counts = (0, 1, 16, 256)
        samples: dict[int, list[float]] = {count: [] for count in counts}
        for _ in range(_ROUNDS):
            for count in counts:
                async with grpc.aio.insecure_channel(
                    served.process.address, options=_SMALL_WINDOW
                ) as channel:
                    subscribe = channel.unary_stream(
                        "/tickwire.v1.TickService/Subscribe",
                        request_serializer=tick_service_pb2.SubscribeRequest.SerializeToString,
                    )
                    calls = [subscribe(tick_service_pb2.SubscribeRequest(world=WORLD)) for _ in range(count)]
                    for call in calls:
                        await call.read()
                    await served.run(150)
                    watch = Stopwatch()
                    await served.run(ticks)
                    samples[count].append(watch.seconds / ticks * 1e3)
                    for call in calls:
                        call.cancel()
        base = statistics.median(samples[0])
        for count in counts:
            note = f"{statistics.median(samples[count]) / base:.2f}x" if count else ""
            yield figure("flat", f"tick @1,000 with {count} idle subscribers", samples[count], "ms", note)


async def _followed(address: str, first: int, ticks: int) -> int:
    """Take ticks as a user does, as Arrow tables; returns how many bytes they are."""
    async with AsyncClient(address) as client:
        world = await client.world(WORLD)
        size = 0
        async with world.ticks(from_tick=first, until_tick=first + ticks - 1) as stream:
            async for tick in stream:
                size += sum(table.nbytes for table in tick.tables.values())
        return size


async def _read(ticks: tick_service_pb2_grpc.TickServiceAsyncStub, first: int, last: int) -> int:
    request = tick_service_pb2.SubscribeRequest(world=WORLD, from_tick=first, until_tick=last)
    size = 0
    async for message in ticks.Subscribe(request):
        size += message.ByteSize()
    return size


async def _frame_delays(served: Served, frames: int) -> tuple[list[float], int]:
    """Return milliseconds from each tick's `committed_at` to its arrival, and the size of a message."""
    delays: list[float] = []
    size = 0
    stream = served.ticks.Subscribe(tick_service_pb2.SubscribeRequest(world=WORLD))
    async for message in stream:
        now_ns = time.time_ns()
        for chunk in message.chunks:
            if chunk.last:
                delays.append((now_ns - chunk.summary.committed_at.ToNanoseconds()) / 1e6)
                size = message.ByteSize()
        if len(delays) >= frames:
            break
    stream.cancel()
    return delays, size


async def _together(readers: int, read: object, *arguments: object) -> None:
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(readers) as pool:
        await asyncio.gather(*(loop.run_in_executor(pool, read, *arguments) for _ in range(readers)))  # type: ignore[arg-type]


def _subscribed(address: str, first: int, ticks: int, rows: int) -> None:
    with Client(address) as client:
        seen = 0
        for tick in client.world(WORLD).ticks(from_tick=first, until_tick=first + ticks - 1):
            seen += sum(table.num_rows for table in tick.tables.values())
        assert seen == ticks * rows, seen


def _got(address: str, ticks: int, rows: int) -> None:
    with flight.FlightClient(address) as client:
        seen = sum(chunk.data.num_rows for chunk in client.do_get(flight.Ticket(b"")))
        assert seen == ticks * rows, seen
