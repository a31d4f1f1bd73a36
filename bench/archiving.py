"""Tick latency beside the archiver: how much its work shows in the slowest ticks."""

from __future__ import annotations

import asyncio
import tempfile
from typing import TYPE_CHECKING

from bench.report import Figure, Stopwatch, figure
from bench.worlds import app, movers
from tickwire_engine import AsyncWorld, Engine, WorldConfig
from tickwire_engine.storage.archiver import ArchiveOptions
from tickwire_engine.storage.store import StoreOptions

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

SIZE = 10_000
HZ = 60.0
IDLE = StoreOptions(archive=ArchiveOptions(max_bytes=1 << 40, max_rows=1 << 40, idle_s=3_600.0))
BUSY = StoreOptions(archive=ArchiveOptions(max_bytes=8 << 20, idle_s=0.5))
"""Comes around some times a second; copies, seals, compacts and deletes."""


async def archiving(*, quick: bool) -> AsyncIterator[Figure]:
    """The same world at 60 Hz, with an archiver that does nothing, and with one that does not stop."""
    ticks = 300 if quick else 1_800
    slowest: dict[str, float] = {}
    for name, options in (("idle", IDLE), ("at work", BUSY)):
        with tempfile.TemporaryDirectory() as data:
            async with await Engine.open(data, app.setup(), options=options) as engine:
                config = WorldConfig(name="w", template="moving", keep_ticks=100, keep_every=50)
                world = await engine.create_world(config)
                await world.create_entities_from_arrow(movers(SIZE))
                samples = sorted(await _paced(world, ticks))
                slowest[name] = samples[ticks * 99 // 100]
                note = f"{world.history.archived_tick(world.row.key) + 1:,} ticks archived"
        yield figure("archiving", f"step @{SIZE:,} at {HZ:.0f} Hz, archiver {name}", samples, "ms", note)
        ratio = slowest[name] / slowest["idle"]
        yield figure("archiving", f"p99 of it, archiver {name}", [slowest[name]], "ms", f"{ratio:.2f}x")


async def _paced(world: AsyncWorld, ticks: int) -> list[float]:
    """Return what each step took, in milliseconds; a late one is not followed by a burst."""
    loop = asyncio.get_running_loop()
    samples = []
    due = loop.time()
    for _ in range(ticks):
        watch = Stopwatch()
        await world.step()
        samples.append(watch.seconds * 1e3)
        due = max(due + 1 / HZ, loop.time())
        await asyncio.sleep(due - loop.time())
    return samples
