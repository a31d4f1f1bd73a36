"""Servers killed at every named place, and at any moment: under load, again and again, on the same data.

Each start is armed to die at the next place, start-up itself included. Whatever it was at: what was acknowledged is
applied once and in order, what was seen is history, and the server goes on.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.system.load import Load
from tests.system.test_retention_crashes import PREFIXES as OTHERS
from tests.system.torture import seeds
from tickwire_engine.failpoints import ENVIRONMENT, PLACES
from tickwire_server.cli.server_process import ServerProcess, ServerProcessError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
PATIENCE_S = 60.0
RARE = ("journal.checkpoint", "world_", "recovery", "compaction", "clean", "segment.delete", "segment.folder")
"""Places that are not reached many times a second."""
SELDOM = ("archive", "watermark", "trim")
"""Places that are reached some times a second."""

GROUPS = {
    "commands": ("accept", "journal", "world_"),
    "ticks": ("tick", "segment.write", "segment.fsync", "segment.folder"),
    "archive": ("archive", "watermark", "trim"),
    "upkeep": ("compaction", "clean"),
    "segments": ("segment.delete",),
    "recovery": ("recovery",),
}
UNREACHED = {place for place in PLACES if place.startswith(OTHERS)}
"""Reached only where less is kept, and for shorter, than here."""


class Subject:
    """One data directory, its server of the moment, and the load on it."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.server = ServerProcess(data, app="tests.system.app:app", root=ROOT)
        self.load = Load("")

    async def start(self, armed: str = "") -> bool:
        """Start the server; return whether it came up."""
        self.server = ServerProcess(
            self.data,
            app="tests.system.app:app",
            listen=self.server.address,
            root=ROOT,
            arguments=("--wait-for-data", "20"),
            variables={ENVIRONMENT: armed},
        )
        try:
            await asyncio.to_thread(self.server.start)
        except ServerProcessError:
            return False
        return True

    async def begin(self, *, bulk_entities: int = 6_000, bulk_hz: float = 10.0) -> None:
        """Start the server and the load."""
        assert await self.start()
        self.load = Load(self.server.address, bulk_entities=bulk_entities, bulk_hz=bulk_hz)
        await self.load.start()

    async def progress(self) -> None:
        """Wait until commands are acknowledged and ticks are seen anew."""
        acknowledged, ticks = self.load.progress
        async with asyncio.timeout(PATIENCE_S):
            while not (self.load.progress[0] > acknowledged + 5 and self.load.progress[1] > ticks + 5):
                self.load.failures()
                await asyncio.sleep(0.02)

    async def dies_at(self, place: str) -> None:
        """Wait until the server dies by its own hand."""
        code = await asyncio.to_thread(self.server.wait, PATIENCE_S)
        self.load.failures()
        assert code == -signal.SIGKILL, f"{place} was not reached in {PATIENCE_S} s (exit code {code})"
        self.server.kill()

    async def finish(self) -> None:
        """Let it run undisturbed, end the load, and check everything; then once more after another start."""
        await self.progress()
        await self.load.stop()
        await self.load.check()
        await asyncio.to_thread(self.server.kill)
        assert await self.start()
        await self.load.check()
        await self.load.abandon()
        assert await asyncio.to_thread(self.server.terminate) == 0
        for world in ("ledger", "bulk"):
            await asyncio.to_thread(self._verify, world)
        shutil.rmtree(self.data)

    def _verify(self, world: str) -> None:
        command = [sys.executable, "-m", "tickwire_server.cli", "verify", world, "--data", str(self.data)]
        done = subprocess.run(
            [*command, "--app", "tests.system.app:app"],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
async def subject(tmp_path: Path) -> AsyncIterator[Subject]:
    made = Subject(tmp_path / "data")
    yield made
    await made.load.abandon()
    if made.server.is_running:
        made.server.kill()


def test_every_place_is_in_the_matrix() -> None:
    prefixes = tuple(prefix for group in GROUPS.values() for prefix in group)
    assert {place for place in PLACES if place.startswith(prefixes)} | UNREACHED == set(PLACES)


@pytest.mark.parametrize("group", GROUPS)
async def test_a_server_that_dies_at_every_place_in_turn_keeps_its_word(subject: Subject, group: str) -> None:
    for seed in seeds(1, share=0.15):
        rng = random.Random(seed)
        places = [place for place in PLACES if place.startswith(GROUPS[group]) and place not in UNREACHED]
        rng.shuffle(places)
        if not subject.load.books:
            heavy = group == "segments"
            await subject.begin(bulk_entities=20_000 if heavy else 6_000, bulk_hz=40.0 if heavy else 10.0)
            await subject.progress()
        for place in places:
            await asyncio.to_thread(subject.server.kill)
            most = 1 if place.startswith(RARE) else 3 if place.startswith(SELDOM) else 12
            hits = rng.randint(1, most)
            # It may die before it serves: start-up reaches many places.
            await subject.start(f"{place}=kill:{hits}")
            await subject.dies_at(place)
        assert await subject.start()
        await subject.progress()
    await subject.finish()


async def test_a_server_that_is_killed_at_any_moment_keeps_its_word(subject: Subject) -> None:
    await subject.begin()
    for seed in seeds(6, share=0.25):
        rng = random.Random(seed)
        await subject.progress()
        # Not a wait for anything: the moment is the point.
        await asyncio.sleep(rng.random() * 0.5)
        await asyncio.to_thread(subject.server.kill)
        assert await subject.start()
    await subject.finish()
