"""The engine alone, in this process."""

from __future__ import annotations

import tempfile
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from bench.report import Figure, Stopwatch, figure
from bench.worlds import app, labels, movers
from tickwire_engine import AsyncWorld, Engine, RunConfig, WorldConfig

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

SIZES = (1, 1_000, 10_000, 100_000)


async def ticks(*, quick: bool) -> AsyncIterator[Figure]:
    """Tick time by entities: awaited steps, then pipelined runs."""
    for size in SIZES:
        steps = max(20, min(300, 400_000 // size)) // (4 if quick else 1)
        async with moving(size) as world:
            awaited = [await _step_ms(world) for _ in range(steps)]
            yield figure("in process", f"awaited step @{size:,}", awaited, "ms")
            runs = []
            for _ in range(3):
                watch = Stopwatch()
                await world.run(RunConfig(num_steps=steps))
                runs.append(watch.seconds / steps * 1e3)
            yield figure("in process", f"tick of a run @{size:,}", runs, "ms", f"{steps} ticks a run")


async def flatness(*, quick: bool) -> AsyncIterator[Figure]:
    """Whether a tick costs the same after much history, and beside many static entities."""
    with tempfile.TemporaryDirectory() as data:
        async with await Engine.open(data, app.setup()) as engine:
            world = await _moving(engine, 1_000)
            young = [await _step_ms(world) for _ in range(200)]
            await world.run(RunConfig(num_steps=1_000 if quick else 10_000))
            # What the archiver costs while it copies is the case `archiving`.
            await engine.store.archiver.archive_now(world.row.key)
            old = [await _step_ms(world) for _ in range(200)]
            yield figure("flat", "step @1,000 after 10 ticks", young, "ms")
            ratio = sorted(old)[100] / sorted(young)[100]
            yield figure("flat", f"step @1,000 after {world.tick:,} ticks", old, "ms", f"{ratio:.2f}x")
            watch = Stopwatch()
            await world.create_entities_from_arrow(labels(100_000 if quick else 1_000_000))
            await world.step()
            yield figure("flat", "spawn of the static entities", [watch.seconds], "s")
            await engine.store.archiver.archive_now(world.row.key)
            beside = [await _step_ms(world) for _ in range(200)]
            ratio = sorted(beside)[100] / sorted(old)[100]
            yield figure("flat", "step @1,000 beside the static ones", beside, "ms", f"{ratio:.2f}x")


async def spawns(*, quick: bool) -> AsyncIterator[Figure]:
    """Entities spawned from an Arrow table, durable."""
    count = 100_000 if quick else 1_000_000
    table = movers(count)
    rates = []
    for _ in range(3):
        with tempfile.TemporaryDirectory() as data:
            async with await Engine.open(data, app.setup()) as engine:
                world = await engine.create_world(WorldConfig(name="spawns", template="moving"))
                watch = Stopwatch()
                await world.create_entities_from_arrow(table)
                await world.step()
                rates.append(count / watch.seconds)
    yield figure("in process", f"spawn {count:,} from Arrow, and their first tick", rates, "entities/s")


@asynccontextmanager
async def moving(size: int) -> AsyncIterator[AsyncWorld]:
    """Open an engine of its own with a world of `size` moving entities that has warmed up."""
    with tempfile.TemporaryDirectory() as data:
        async with await Engine.open(data, app.setup()) as engine:
            yield await _moving(engine, size)


async def _moving(engine: Engine, size: int) -> AsyncWorld:
    world = await engine.create_world(WorldConfig(name="moving", template="moving"))
    await world.create_entities_from_arrow(movers(size))
    for _ in range(10):
        await world.step()
    return world


async def _step_ms(world: AsyncWorld) -> float:
    watch = Stopwatch()
    await world.step()
    return watch.seconds * 1e3
