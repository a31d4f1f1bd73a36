"""Our engine on the world of `archetype_ecs.py`, in a process of its own: prints the same JSON.

Usage: python -m bench.peers.tickwire_engine SIZE STEPS
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import tempfile

import structlog

from bench.report import Stopwatch
from bench.worlds import app, movers
from tickwire_engine import Engine, RunConfig, WorldConfig


async def main(size: int, steps: int) -> None:
    """Spawn, warm up, measure awaited steps and then a run."""
    with tempfile.TemporaryDirectory() as data:
        async with await Engine.open(data, app.setup()) as engine:
            world = await engine.create_world(WorldConfig(name="bench", template="moving"))
            await world.create_entities_from_arrow(movers(size))
            for _ in range(3):
                await world.step()
            samples = []
            for _ in range(steps):
                watch = Stopwatch()
                await world.step()
                samples.append(watch.seconds * 1e3)
            watch = Stopwatch()
            await world.run(RunConfig(num_steps=steps))
            print(json.dumps({"step_ms": samples, "run_ms": watch.seconds / steps * 1e3}))


if __name__ == "__main__":
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))
