"""The run that is cut off: an engine at work on small limits, so that it seals, compacts and deletes all the time.

It tells the trace what it told the world: commands it acknowledged, ticks it published, with their hashes. Run in a process
of its own with `recorder.c` preloaded: ``python -m tests.system.powercut.workload DATA SEED ROUNDS``. Without it, it tells
its standard output.

Its clock runs two hundred times as fast, so that commands get past the horizon, and one of its worlds keeps only some ticks.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import random
import resource
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from tests.engine.parts import Drift, Place, Speed, setup
from tickwire_engine import Engine, WorldConfig
from tickwire_engine.command import CommandType
from tickwire_engine.ids import uuid7
from tickwire_engine.storage._upkeep import UpkeepLimits
from tickwire_engine.storage.archiver import ArchiveOptions
from tickwire_engine.storage.retention import Horizon
from tickwire_engine.storage.store import StoreOptions
from tickwire_engine.submission import Submission

if TYPE_CHECKING:
    from tickwire_engine import AsyncWorld
    from tickwire_engine.tick.pipeline import CommittedTick

OPTIONS = StoreOptions(
    segment_bytes=300_000,
    ballast_bytes=1 << 16,
    archive=ArchiveOptions(
        max_bytes=1 << 20,
        idle_s=0.2,
        ended_s=0.0,
        upkeep=UpkeepLimits(
            dataset_rows=40_000, unindexed_rows=15_000, idle_rows=1_000, dataset_ticks=4, kept_records=8
        ),
    ),
    horizon=Horizon(age_s=300.0, rows=25, least_s=60.0),
    clock_us=lambda: (time.time_ns() // 1000 - 1_760_000_000_000_000) * 200,
)
KEEP_TICKS, KEEP_EVERY = 12, 5
"""Of the world called brief."""
_BIG = 3_000


def note(**facts: Any) -> None:
    """Write a note into the trace: from here on it has been told."""
    text = json.dumps(facts).encode()
    if "TICKWIRE_TRACE" not in os.environ:
        sys.stdout.buffer.write(text + b"\n")
        sys.stdout.flush()
        return
    ctypes.CDLL(None).tickwire_trace_note(text, ctypes.c_size_t(len(text)))


class Run:
    """One engine, and what is done to it."""

    def __init__(self, engine: Engine, rng: random.Random) -> None:
        self.engine = engine
        self.rng = rng

    def id(self) -> bytes:
        """A new id, by the engine's clock."""
        return uuid7(self.engine.store.now_us() // 1000).bytes

    async def create(self, name: str, **limits: int) -> AsyncWorld:
        world = await self.engine.create_world(WorldConfig(name=name, seed=7, **limits))
        note(kind="world", world=name, id=world.world_id.hex)
        self.watch(world)
        return world

    async def destroy(self, name: str) -> None:
        note(kind="destroying", world=name)
        await self.engine.destroy_world(name)
        note(kind="destroyed", world=name)

    def watch(self, world: AsyncWorld) -> None:
        """Note every tick that the world publishes."""

        def published(tick: CommittedTick) -> None:
            note(
                kind="tick",
                world=world.name,
                tick=tick.summary.tick,
                hash=tick.summary.state_hash.hex(),
                frames={frame.stream: frame.hash.hex() for frame in tick.computed.frames},
                seqs=[outcome.seq for outcome in tick.computed.outcomes],
            )

        world.on_committed(published)

    async def submit(self, world: AsyncWorld, *submissions: Submission) -> int:
        """Submit, and note what was acknowledged; returns the first entity id."""
        receipts = await world.submit(submissions)
        for receipt in receipts:
            command = receipt.command
            assert command is not None
            note(
                kind="accepted",
                world=world.name,
                id=command.id.hex(),
                seq=command.seq,
                entity=command.first_entity_id,
                count=command.entity_count,
            )
        assert receipts[0].command is not None
        return receipts[0].command.first_entity_id

    async def round(self, world: AsyncWorld, ids: list[int]) -> None:
        """Some commands, some ticks."""
        for _ in range(self.rng.randrange(3)):
            place = {"Place": {"x": self.rng.random()}, "Speed": {"vx": 0.5}}
            await self.submit(world, spawn(self.id(), place))
        if ids:
            wanted = self.rng.choice(ids)
            await self.submit(world, update(self.id(), wanted, {"Place": {"y": self.rng.random()}}))
        for _ in range(self.rng.randrange(1, 4) + (3 if world.name == "brief" else 0)):
            await world.step()


def spawn(command_id: bytes, components: dict[str, Any]) -> Submission:
    return Submission(CommandType.SPAWN, {"components": components}, id=command_id)


def update(command_id: bytes, entity: int, components: dict[str, Any]) -> Submission:
    return Submission(CommandType.UPDATE, {"entity_ids": [entity], "components": components}, id=command_id)


def crowd(command_id: bytes, rng: random.Random) -> Submission:
    """A spawn whose table is too large for the journal."""
    values = np.random.default_rng(rng.randrange(1 << 30)).random((4, _BIG))
    names = ["place__x", "place__y", "speed__vx", "speed__vy"]
    table = pa.table(dict(zip(names, values, strict=True)))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return Submission(CommandType.SPAWN, {"table": sink.getvalue().to_pybytes()}, id=command_id)


async def begin(run: Run, rng: random.Random) -> None:
    """Make the worlds that are not there yet, and tell of those that are."""
    for world in run.engine.worlds:
        note(kind="world", world=world.name, id=world.world_id.hex)
        run.watch(world)
    known = {world.name for world in run.engine.worlds}
    if "small" not in known:
        small = await run.create("small")
        await small.add_processor(Drift())
        await run.submit(small, spawn(run.id(), {"Place": {}, "Speed": {}}))
    if "large" not in known:
        large = await run.create("large")
        await large.add_processor(Drift())
        await run.submit(large, crowd(run.id(), rng))
    if "brief" not in known:
        brief = await run.create("brief", keep_ticks=KEEP_TICKS, keep_every=KEEP_EVERY)
        await brief.add_processor(Drift())
        # One archetype changes in every tick, the other one never.
        await run.submit(brief, spawn(run.id(), {"Place": {}, "Speed": {}}), spawn(run.id(), {"Tag": {}}))


async def main(data: Path, seed: int, rounds: int) -> None:
    rng = random.Random(seed)
    engine = await Engine.open(data, setup(), options=OPTIONS)
    run = Run(engine, rng)
    await begin(run, rng)
    for number in range(rounds):
        for world in engine.worlds:
            ids = world.read([Place, Speed]).column("entity_id").to_pylist()
            await run.round(world, ids)
        if number % 4 == 3:
            for world in engine.worlds:
                await engine.store.archiver.archive_now(world.row.key)
                note(kind="archived", world=world.name, tick=world.tick - 1)
        if number % 5 == 2:
            for world in engine.worlds:
                if world.name.startswith("late"):
                    await run.destroy(world.name)
            await run.create(f"late-{seed}-{number}")
    await engine.close()
    note(kind="closed")


if __name__ == "__main__":
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
