"""`tickwire demo`: days of the solar system through a real server, and how far they are from the ephemeris.

Everything goes over gRPC: the world is made by a template of the server's app, its ticks are computed by Run, and what
is measured is what a subscription delivers. A run on a kept data directory goes on where an earlier one ended, however
that ended.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tickwire import AsyncClient, UnavailableError
from tickwire_server.cli.server_process import ServerProcess, ServerProcessError

from . import accuracy, plot
from .observation import Observation, belt
from .session import open_world, orrery_server

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from tickwire import AsyncWorld, Tick

    from .accuracy import Accuracy
    from .bodies import Floats

WORLD = "orrery"


@dataclass(frozen=True, slots=True)
class DemoSettings:
    """What to run.

    Attributes:
        days: How far, in ticks of a day, those of earlier runs on the same data included.
        asteroids: How many massless bodies there are besides the ten massive ones.
        seed: The seed of the world, and so of the asteroids.
        picture: Where the PNG goes; None: nowhere.
        data: The data directory to keep; None: a temporary one.
        listen: host:port of the server.
    """

    days: int
    asteroids: int
    seed: int
    picture: Path | None
    data: Path | None
    listen: str = "127.0.0.1:0"


@dataclass(frozen=True, slots=True)
class DemoReport:
    """What came of it.

    Attributes:
        accuracy: Each massive body's largest error, beside its bound.
        entities: How many bodies there were.
        resumed_from: The tick that this run began with; 0: a new world.
        state_hash: Of the last tick: equal hashes, equal worlds.
        seconds: Wall-clock time by what it was spent on.
    """

    accuracy: list[Accuracy]
    entities: int
    resumed_from: int
    state_hash: bytes
    seconds: dict[str, float]

    @property
    def is_within(self) -> bool:
        """Whether every body kept within its bound."""
        return all(body.within for body in self.accuracy)


class Stopwatch:
    """Wall-clock time by what it was spent on."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._since = time.perf_counter()

    def lap(self, name: str) -> None:
        """Book the time since the last lap under a name."""
        now = time.perf_counter()
        self.seconds[name] = now - self._since
        self._since = now


async def run(settings: DemoSettings, on_tick: Callable[[int], None]) -> DemoReport:
    """Run the demo to its end.

    Args:
        settings: What to run.
        on_tick: Called with every tick that the subscription delivers.

    Raises:
        ServerProcessError: The server did not start, or ended on the way.
        OtherWorldError: The data directory has another orrery.
        TickwireError: A call failed.
    """
    watch = Stopwatch()
    async with orrery_server(settings.data, settings.listen) as server:
        watch.lap("start the server")
        async with AsyncClient(server.address) as client:
            world = await open_world(client, WORLD, asteroids=settings.asteroids, seed=settings.seed)
            first = (await world.info()).tick
            watch.lap("make or find the world")
            ticks = _compute_and_follow(world, first, settings.days, on_tick)
            observations, last = await _while_it_runs(server, ticks)
            watch.lap("compute and follow the ticks")
    watch.lap("stop the server")
    days = np.array([observation.day for observation in observations])
    track = np.stack([observation.position for observation in observations])
    errors = accuracy.errors_au(track, days)
    assessed = accuracy.assess(errors, days)
    watch.lap("compare with the ephemeris")
    if settings.picture is not None:
        await asyncio.to_thread(_draw, settings.picture, days, track, belt(last), errors)
        watch.lap("draw")
    return DemoReport(assessed, last.summary.entities, first, last.summary.state_hash, watch.seconds)


async def _compute_and_follow(
    world: AsyncWorld, first: int, days: int, on_tick: Callable[[int], None]
) -> tuple[list[Observation], Tick]:
    """Let the missing ticks be computed, while all of them, from tick 0 on, come over the subscription."""
    following = asyncio.create_task(_follow(world, days, on_tick))
    computing = asyncio.create_task(_compute(world, first, days - first))
    try:
        # The first error of either ends both.
        return (await asyncio.gather(following, computing))[0]
    finally:
        following.cancel()
        computing.cancel()
        await asyncio.wait([following, computing])


async def _compute(world: AsyncWorld, first: int, ticks: int) -> None:
    if ticks > 0:
        async for _ in world.run(ticks, expected_tick=first):
            pass


async def _follow(
    world: AsyncWorld, days: int, on_tick: Callable[[int], None]
) -> tuple[list[Observation], Tick]:
    observations = []
    last: Tick | None = None
    async with world.ticks(from_tick=0, until_tick=days - 1) as stream:
        async for last in stream:
            observations.append(Observation.of(last))
            on_tick(last.tick)
    assert last is not None
    return observations, last


async def _while_it_runs(
    server: ServerProcess, work: Awaitable[tuple[list[Observation], Tick]]
) -> tuple[list[Observation], Tick]:
    """Do the work, unless the server ends before it: then waiting for its return would be in vain."""
    working = asyncio.ensure_future(work)
    try:
        while not (await asyncio.wait([working], timeout=0.25))[0]:
            if not server.is_running:
                raise ServerProcessError("the server ended on the way")
        return working.result()
    except UnavailableError:
        # The connection breaks a moment before the process can be seen to have ended.
        if await asyncio.to_thread(server.wait, 1.0) is None:
            raise
        raise ServerProcessError("the server ended on the way") from None
    finally:
        working.cancel()
        await asyncio.wait([working])


def _draw(path: Path, days: Floats, track: Floats, asteroids: Floats, errors: Floats) -> None:
    title = f"{len(days)} days of the solar system with {asteroids.shape[1]:,} asteroids, over gRPC"
    plot.draw(path, days=days, track=track, asteroids=asteroids, errors=errors, title=title)
