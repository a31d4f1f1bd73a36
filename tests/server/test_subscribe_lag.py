"""Subscribers that read more slowly than ticks come, and the joints between ring, tick log and archive."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from tests.engine.parts import stream
from tests.server.answers import Assembler, Replica, raised, rest, ticks_of, until, update
from tickwire.v1 import command_pb2, tick_service_pb2
from tickwire_engine.storage.archive import LanceArchive

if TYPE_CHECKING:
    from tests.server.answers import Tick
    from tests.server.conftest import Served
    from tickwire_engine.storage.archive import Dataset

CHANGES = tick_service_pb2.TICK_MODE_CHANGES
SKIP = tick_service_pb2.LAG_POLICY_SKIP_TO_LATEST
DISCONNECT = tick_service_pb2.LAG_POLICY_DISCONNECT
ROWS = 50_000
"""A tick of more than a megabyte: a few dozen fill what lies between a server and a client that does not read."""


async def large(served: Served) -> None:
    """Make a world whose ticks are large, and do its first one."""
    await served.create()
    table = stream({"spot__x": [float(i) for i in range(ROWS)]})
    await served.submit(command_pb2.Command(spawn=command_pb2.Spawn(table=table)))
    await served.step()


async def stuck(served: Served) -> None:
    """Step until a tick was committed that a subscriber who does not read has no room for, and some more."""
    for _ in range(60):
        await served.submit(update(1, 1.0))
        await served.step()


async def hear(call: Any, heard: list[int]) -> None:
    """Read a stream to its end, and note the ticks that came whole."""
    assembler = Assembler()
    async for message in rest(call):
        heard += [tick.tick for chunk in message.chunks if (tick := assembler.add(chunk)) is not None]


@pytest.mark.parametrize("mode", [tick_service_pb2.TICK_MODE_FULL, CHANGES])
async def test_one_that_skips_gets_the_newest_tick_and_what_was_left_out_in_its_counts(
    served: Served, mode: Any
) -> None:
    await large(served)
    call = served.subscribe(from_tick=0, until_tick=60, lag=SKIP, mode=mode)
    assert (await call.read()).started.first_tick == 0
    await stuck(served)
    heard: list[tuple[int, int, tick_service_pb2.TickSummary]] = []
    replica = Replica()
    async for message in rest(call):
        for chunk in message.chunks:
            if chunk.index == 0:
                skipped = chunk.skipped
                if mode == CHANGES:
                    assert chunk.snapshot == (skipped > 0 or not heard)
            replica.apply(chunk)
            if chunk.last:
                heard.append((chunk.tick, skipped, chunk.summary))
    numbers = [number for number, _, _ in heard]
    assert numbers == sorted(set(numbers))
    assert (numbers[0], numbers[-1]) == (0, 60)
    assert sum(skipped for _, skipped, _ in heard) + len(heard) == 61
    assert len(heard) < 61
    assert sum(summary.commands_applied for _, _, summary in heard[1:]) == 60
    (last,) = [tick async for tick in ticks_of(served.subscribe(from_tick=60, until_tick=60))]
    if mode == CHANGES:
        assert replica.rows == last.active


async def test_one_that_asked_for_it_is_disconnected_with_where_to_go_on(served: Served) -> None:
    await served.stop()
    await served.start(stalled_write_s=0.2)
    await large(served)
    call = served.subscribe(from_tick=0, lag=DISCONNECT)
    await call.read()
    hub = served.server.container.hub(served.mover().world)
    await stuck(served)
    await until(lambda: not hub.subscribers)
    heard: list[int] = []
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await hear(call, heard)
    refusal = raised(error.value)
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.ABORTED, "SUBSCRIBER_TOO_SLOW")
    assert heard == list(range(int(refusal.metadata["next_tick"])))
    assert len(heard) < 61


async def test_one_that_falls_out_of_the_ring_is_disconnected_if_it_asked(served: Served) -> None:
    await large(served)
    call = served.subscribe(from_tick=0, lag=DISCONNECT)
    await call.read()
    served.server.container.hub(served.mover().world).ring.max_bytes = 1
    await stuck(served)
    heard: list[int] = []
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await hear(call, heard)
    refusal = raised(error.value)
    assert refusal.reason == "SUBSCRIBER_TOO_SLOW"
    assert heard == list(range(int(refusal.metadata["next_tick"])))
    assert len(heard) < 61


async def test_one_that_catches_up_gets_every_tick_later(served: Served) -> None:
    await large(served)
    call = served.subscribe(from_tick=0, until_tick=60)
    await call.read()
    await stuck(served)
    heard: list[int] = []
    await hear(call, heard)
    assert heard == list(range(61))


async def test_one_that_starts_in_the_past_is_not_too_slow(served: Served) -> None:
    await served.create()
    hub = served.server.container.hub(served.mover().world)
    hub.ring.max_bytes = 1
    await served.step(50)
    found = [tick async for tick in ticks_of(served.subscribe(from_tick=0, until_tick=49, lag=DISCONNECT))]
    assert len(found) == 50


async def test_small_ticks_share_messages_when_a_subscriber_is_behind(served: Served) -> None:
    await served.create()
    await served.step(200)
    for shrunk in (False, True):
        if shrunk:
            ring = served.server.container.hub(served.mover().world).ring
            ring.max_bytes = 1
            ring.shrink()
        messages = [message async for message in served.subscribe(from_tick=0, until_tick=199)]
        assert [chunk.tick for message in messages for chunk in message.chunks] == list(range(200))
        # Started, what came from the disk, what came from memory.
        assert len(messages) <= 3


async def test_no_tick_is_missing_or_sent_twice_where_ring_log_and_archive_meet(served: Served) -> None:
    """Subscribers start anywhere in archive, log and ring while the world plays, the archive grows and the ring shrinks."""
    await served.create()
    seed = random.Random(7)
    world = served.mover().world
    hub, archiver = served.server.container.hub(world), served.server.container.engine.store.archiver
    await served.step(150)
    await archiver.archive_now(world.row.key)
    await served.step(150)
    hub.ring.max_bytes = hub.ring.held // 4
    hub.ring.shrink()
    first_in_ring = hub.ring.first_tick
    assert first_in_ring is not None
    assert first_in_ring > 151
    joints = [0, 148, 149, 150, 151, first_in_ring - 1, first_in_ring, first_in_ring + 1, 299, 300]
    starts = joints + [seed.randrange(300) for _ in range(6)]
    last = 600
    full = [served.subscribe(from_tick=start, until_tick=last) for start in starts]
    changing = [served.subscribe(from_tick=start, until_tick=last, mode=CHANGES) for start in starts]
    await served.play(0.0, max_ticks=last - 299)
    reading = asyncio.gather(*(collected(call) for call in full))
    replicas = asyncio.gather(*(held_at_the_end(call) for call in changing))
    while world.state.tick <= last:
        hub.ring.max_bytes = seed.randrange(1, 20_000)
        await archiver.archive_now(world.row.key)
    everything: dict[int, Tick] = {}
    for start, ticks in zip(starts, await reading, strict=True):
        assert [tick.tick for tick in ticks] == list(range(start, last + 1))
        for tick in ticks:
            known = everything.setdefault(tick.tick, tick)
            assert (tick.rows, tick.summary) == (known.rows, known.summary)
    for start, (numbers, rows) in zip(starts, await replicas, strict=True):
        assert numbers == list(range(start, last + 1))
        assert rows == everything[last].active


async def collected(call: Any) -> list[Tick]:
    return [tick async for tick in ticks_of(call)]


async def held_at_the_end(call: Any) -> tuple[list[int], dict[int, Any]]:
    replica, numbers = Replica(), []
    async for message in call:
        for chunk in message.chunks:
            replica.apply(chunk)
            if chunk.last:
                numbers.append(chunk.tick)
    return numbers, replica.rows


async def test_history_is_read_by_many_ticks_at_a_time(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    await served.create()
    await served.step(300)
    world = served.mover().world
    await served.server.container.engine.store.archiver.archive_now(world.row.key)
    hub = served.server.container.hub(world)
    hub.ring.max_bytes = 1
    hub.ring.shrink()
    reads: list[str] = []
    read = LanceArchive.read

    def counted(archive: LanceArchive, dataset: Dataset, where: str, columns: Any = None) -> Any:
        reads.append(where)
        return read(archive, dataset, where, columns)

    monkeypatch.setattr(LanceArchive, "read", counted)
    for mode in (tick_service_pb2.TICK_MODE_FULL, CHANGES):
        reads.clear()
        ticks = [message async for message in served.subscribe(from_tick=0, until_tick=299, mode=mode)]
        assert [chunk.tick for message in ticks for chunk in message.chunks] == list(range(300))
        assert 0 < len(reads) < 30


async def test_heartbeats_come_while_a_slow_disk_is_read(served: Served) -> None:
    await served.create()
    await served.step(3)
    hub = served.server.container.hub(served.mover().world)
    hub.ring.max_bytes = 1
    hub.ring.shrink()
    async with hub._threads._reading, hub._threads._reading:
        call = served.subscribe(from_tick=0, until_tick=2, heartbeat=Duration(seconds=1))
        await call.read()
        assert (await call.read()).HasField("heartbeat")
    assert [chunk.tick async for message in rest(call) for chunk in message.chunks] == [0, 1, 2]
