"""The engine alone, in this process."""

from __future__ import annotations

import statistics
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
    """Whether a tick costs the same after much history, and beside many static entities: steps in turn."""
    history, static = (1_000, 100_000) if quick else (10_000, 1_000_000)
    async with moving(1_000) as young, moving(1_000) as old, moving(1_000) as beside:
        await old.run(RunConfig(num_steps=history))
        await beside.create_entities_from_arrow(labels(static))
        watch = Stopwatch()
        await beside.step()
        yield figure("flat", f"the tick that spawns {static:,} static entities", [watch.seconds], "s")
        worlds = {
            "after 10 ticks": young,
            f"after {old.tick:,} ticks": old,
            f"beside {static:,} static entities": beside,
        }
        for world in worlds.values():
            # What the archiver costs while it copies is the case `archiving`.
            await world.archived(world.tick - 1)
        samples: dict[str, list[float]] = {name: [] for name in worlds}
        for _ in range(300):
            for name, world in worlds.items():
                samples[name].append(await _step_ms(world))
        least = statistics.median(samples["after 10 ticks"])
        for name, taken in samples.items():
            ratio = statistics.median(taken) / least
            yield figure("flat", f"step @1,000 {name}", taken, "ms", f"{ratio:.2f}x")


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
