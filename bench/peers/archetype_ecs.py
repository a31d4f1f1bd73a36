"""archetype-ecs 0.6.3 on the same world; run by its own interpreter, prints one JSON line a figure.

Usage: python archetype_ecs.py SIZE STEPS
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
import time

from archetype import ArchetypeRuntime, AsyncProcessor, Component
from daft import col


class Position(Component):
    """Where an entity is."""

    x: float = 0.0
    y: float = 0.0


class Velocity(Component):
    """How fast it moves."""

    vx: float = 1.0
    vy: float = 0.5


class Move(AsyncProcessor):
    """Euler's step."""

    components = (Position, Velocity)
    priority = 10

    async def process(self, df, **kwargs):
        """Add velocity to position."""
        return df.with_columns(
            {
                "position__x": col("position__x") + col("velocity__vx") * 0.1,
                "position__y": col("position__y") + col("velocity__vy") * 0.1,
            }
        )


async def main(size: int, steps: int) -> None:
    """Spawn, warm up, measure awaited steps and then a run."""
    async with ArchetypeRuntime() as runtime:
        world = runtime.world("bench")
        await world.add_processor(Move())
        await world.spawn_many([[Position(x=float(n)), Velocity()] for n in range(size)])
        for _ in range(3):
            await world.step()
        samples = []
        for _ in range(steps):
            started = time.perf_counter()
            await world.step()
            samples.append((time.perf_counter() - started) * 1e3)
        started = time.perf_counter()
        await world.run(steps=steps)
        run = (time.perf_counter() - started) / steps * 1e3
        print(json.dumps({"step_ms": samples, "run_ms": run}))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))
