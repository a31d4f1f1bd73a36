"""Forks of large worlds, and many futures of a small one."""

from __future__ import annotations

import tempfile
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from bench.report import Figure, Stopwatch, figure
from bench.worlds import Position, app, movers
from tickwire_engine import ArrowProcessor, Engine, ForkConfig, TickRandom, WorldConfig
from tickwire_engine.rollouts import parse_rollout

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Wander(ArrowProcessor):
    """A step by chance: every branch another one, so that each computes by itself."""

    components = (Position,)

    def process_batch(self, batch: pa.RecordBatch, **kwargs: Any) -> pa.RecordBatch:
        """Add a normal number to x."""
        drawn = kwargs["resources"].require(TickRandom).generator().normal(size=batch.num_rows)
        index = batch.schema.get_field_index("position__x")
        column = pa.array(batch.column(index).to_numpy() + drawn)
        return batch.set_column(index, batch.schema.field(index), column)


BRANCHES = 64
TICKS = 100


async def forks(*, quick: bool) -> AsyncIterator[Figure]:
    """Forks of a world at a past tick, its rows in the tick log, then in the archive; and reading them at first use."""
    count = 100_000 if quick else 1_000_000
    with tempfile.TemporaryDirectory() as data:
        async with await Engine.open(data, app.setup()) as engine:
            world = await engine.create_world(WorldConfig(name="parent", template="moving"))
            await world.create_entities_from_arrow(movers(count))
            for _ in range(10):
                await world.step()
            for where in ("the tick log", "the archive"):
                made = [await _fork_ms(engine) for _ in range(12)]
                yield figure(
                    "futures", f"fork of {count:,} entities at a past tick, in {where}", made[2:], "ms"
                )
                fork = engine.worlds[-1]
                watch = Stopwatch()
                await fork.load()
                yield figure("futures", f"its first use, from {where}", [watch.seconds], "s")
                await engine.store.archiver.archive_now(world.row.key)


async def rollouts(*, quick: bool) -> AsyncIterator[Figure]:
    """Branches with a command each, by ticks; the last rows of each come back."""
    for size, wanders in ((1_000, False), (1_000, True), (10_000, False))[: 2 if quick else 3]:
        with tempfile.TemporaryDirectory() as data:
            setup = app.setup()
            setup.vocabulary.processors.register(Wander)
            async with await Engine.open(data, setup) as engine:
                world = await engine.create_world(WorldConfig(name="w", template="moving"))
                if wanders:
                    await world.add_processor(Wander())
                await world.create_entities_from_arrow(movers(size))
                await world.step()
                branches = [_branch(number) for number in range(BRANCHES)]
                given = {"ticks": TICKS, "components": ["Position"], "branches": branches}
                plan = parse_rollout(given, engine.setup.vocabulary)
                samples = []
                for _ in range(4):
                    watch = Stopwatch()
                    async for result in engine.rollouts.run(world, plan):
                        assert result.error is None
                    samples.append(watch.seconds)
                name = f"{BRANCHES} rollouts x {TICKS} ticks of {size:,} entities"
                name += ", each by chance" if wanders else ""
                yield figure("futures", name, samples[1:], "s")


def _branch(number: int) -> dict[str, Any]:
    update = {"entity_ids": [1], "components": {"Velocity": {"vx": float(number)}}}
    return {"commands": [{"update": update}]}


async def _fork_ms(engine: Engine) -> float:
    watch = Stopwatch()
    await engine.fork_world("parent", ForkConfig(at_tick=4))
    return watch.seconds * 1e3
