"""Reading the past: one tick out of many, one entity over many ticks, and SQL over them."""

from __future__ import annotations

import asyncio
import tempfile
from typing import TYPE_CHECKING

from bench.report import Figure, Stopwatch, figure
from bench.worlds import app, movers
from tickwire_engine import RunConfig, WorldConfig
from tickwire_server.container import ServiceContainer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from tickwire_engine import AsyncWorld

ENTITIES = 3_000
TICKS = 1_000
"""Of an entity's history."""


async def histories(*, quick: bool) -> AsyncIterator[Figure]:
    """One tick's rows and one entity's 1,000 ticks, out of a history of 3M rows, and of more."""
    lengths = (TICKS,) if quick else (TICKS, 4 * TICKS)
    with tempfile.TemporaryDirectory() as data:
        container = ServiceContainer(data, app=app)
        world = await container.engine.create_world(WorldConfig(name="past", template="moving"))
        await world.create_entities_from_arrow(movers(ENTITIES))
        query, sql = container.query_service.query, container.query_service.sql
        for length in lengths:
            await world.run(RunConfig(num_steps=length - world.tick))
            await _archived(world)
            rows = f"{length * ENTITIES / 1e6:,.0f}M rows"

            async def tick(length: int = length) -> int:
                return int((await query(world, at_tick=length // 2)).num_rows)

            async def entity(length: int = length) -> int:
                return int((await query(world, ticks=(length - TICKS, length - 1), entity_ids=[77])).num_rows)

            async def average(length: int = length) -> int:
                text = f"SELECT avg(position__x) FROM past.position WHERE tick = {length // 2}"
                return int((await sql(text)).num_rows)

            yield figure("history", f"one tick out of {rows}", await _ms(tick, ENTITIES), "ms")
            yield figure(
                "history", f"an entity's {TICKS:,} ticks out of {rows}", await _ms(entity, TICKS), "ms"
            )
            yield figure("history", f"SQL over one tick out of {rows}", await _ms(average, 1), "ms")
        await container.shutdown()


async def _archived(world: AsyncWorld) -> None:
    """Wait until all is archived, and the archiver has nothing left to do."""
    archiver = world._store.archiver
    await archiver.archive_now(world.row.key)
    while archiver._untidy:  # noqa: ASYNC110  (nobody tells)
        await asyncio.sleep(0.1)


async def _ms(read: Callable[[], Awaitable[int]], rows: int) -> list[float]:
    samples = []
    for _ in range(22):
        watch = Stopwatch()
        found = await read()
        samples.append(watch.seconds * 1e3)
        assert found == rows
    # The first ones open what the others find open.
    return samples[2:]
