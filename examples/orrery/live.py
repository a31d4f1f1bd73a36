"""The live orrery: a server, a world that plays, and a table fed by an ordinary subscription. Ctrl-C ends all of it.

It shows nothing that another program could not: the subscriber is a plain client of the server it has started.
"""

from __future__ import annotations

import asyncio
import shutil
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from tickwire import AsyncClient, AsyncTickStream, Tick, TickwireError
from tickwire_server.cli.server_process import ServerProcess, ServerProcessError
from tickwire_server.cli.watch import Rate, lag

from .ephemeris import NAMES
from .observation import Observation
from .session import OtherWorldError, open_world, orrery_server

WORLD = "orrery"
_FRAMES_PER_SECOND = 12
_LINE_EVERY_S = 1.0


@dataclass(frozen=True, slots=True)
class LiveSettings:
    """What to play.

    Attributes:
        listen: host:port of the server.
        hz: Ticks, that is days, per second.
        asteroids: Massless bodies.
        seed: The seed of the world, and so of the asteroids.
        days: How many to play before it rests; 0: without end.
        data: The data directory to keep; None: a temporary one.
    """

    listen: str
    hz: float
    asteroids: int
    seed: int
    days: int
    data: Path | None


def command_line() -> str:
    """Return how `tickwire` is called from a new terminal in this folder: it may be in .venv only."""
    if shutil.which("tickwire"):
        return "tickwire"
    here = Path(sys.executable).with_name("tickwire")
    return str(here.relative_to(Path.cwd())) if here.is_relative_to(Path.cwd()) else str(here)


class Screen:
    """What is shown: set on the event loop, drawn on Rich's thread."""

    def __init__(self, address: str) -> None:
        self.rate = Rate()
        self._address = address
        self._seen: tuple[Tick, Observation, str] | None = None

    def show(self, tick: Tick, committed_tick: int) -> None:
        """Take a new tick."""
        self.rate.count()
        self._seen = tick, Observation.of(tick), lag(tick, committed_tick)

    def render(self) -> RenderableType:
        """Draw the newest tick."""
        if self._seen is None:
            return Text("waiting for the first tick", style="dim")
        tick, seen, behind = self._seen
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        table.add_column("body", style="bold")
        for column in ("distance au", "longitude", "speed km/s"):
            table.add_column(column, justify="right")
        for i, name in enumerate(NAMES):
            table.add_row(
                name,
                f"{seen.distance_au[i]:.4f}",
                f"{seen.longitude_deg[i]:.2f}°",
                f"{seen.speed_km_s[i]:.3f}",
            )
        head = Text.assemble(
            ("The solar system", "bold"),
            f"   {seen.date}   tick {tick.tick:,}   {self.rate.per_second:.1f} ticks/s   "
            f"{behind}   {tick.summary.entities:,} bodies",
        )
        return Group(
            head,
            table,
            Text.from_markup(self.invitation),
            Text("It rests after the days it was given; Ctrl-C ends it.", style="dim"),
        )

    @property
    def invitation(self) -> str:
        """How to talk to the server from elsewhere, in Rich's markup."""
        host, _, port = self._address.rpartition(":")
        tickwire = command_line()
        option = "" if self._address == "127.0.0.1:7601" else f" -s {self._address}"
        body = '{"name": "visitor", "gm": 0, "kind": "asteroid"}'
        position = '{"x": 1, "y": 0, "z": 0}'
        velocity = '{"x": 0, "y": 0.017, "z": 0}'
        return "\n".join(
            (
                f"[dim]Served at {self._address}. In another terminal:[/]",
                f"  {tickwire} watch{option} {WORLD} -c Body -c Observed --rows 10",
                f"  {tickwire} query{option} {WORLD} -c Body -c Position --limit 10",
                f"  {tickwire} spawn{option} {WORLD} --wait applied -c Observed -c 'Body:{body}' \\",
                f"    -c 'Position:{position}' -c 'Velocity:{velocity}'",
                f"  {tickwire} play{option} {WORLD} --hz 60",
                f"  grpcurl -plaintext {host}:{port} list",
            )
        )

    def line(self) -> str:
        """Say the newest tick in one line, for a pipe."""
        if self._seen is None:
            return "waiting for the first tick"
        tick, seen, behind = self._seen
        planets = "  ".join(
            f"{name} {seen.distance_au[i]:.3f} au {seen.longitude_deg[i]:.1f}°"
            for i, name in enumerate(NAMES)
            if name in ("Mercury", "Earth", "Mars", "Jupiter")
        )
        return f"tick {tick.tick}  {seen.date}  {self.rate.per_second:.1f} ticks/s  {behind}  {planets}"


async def play(settings: LiveSettings, stop: asyncio.Event) -> int:
    """Serve, play and show until `stop`; return the last tick seen."""
    async with orrery_server(settings.data, settings.listen) as server, AsyncClient(server.address) as client:
        world = await open_world(client, WORLD, asteroids=settings.asteroids, seed=settings.seed)
        await world.play(hz=settings.hz, max_ticks=settings.days)
        screen = Screen(server.address)
        async with world.ticks(at="snapshot") as stream:
            await _show(screen, stream, server, stop)
        if server.is_running:
            return (await world.pause()).committed_tick
        raise ServerProcessError("the server ended")


async def _show(screen: Screen, stream: AsyncTickStream, server: ServerProcess, stop: asyncio.Event) -> None:
    following = asyncio.create_task(_follow(screen, stream))
    stopping = asyncio.create_task(stop.wait())
    drawing = asyncio.create_task(_draw(screen))
    try:
        while server.is_running:
            done, _ = await asyncio.wait(
                [following, stopping], timeout=0.5, return_when=asyncio.FIRST_COMPLETED
            )
            if following in done:
                following.result()
            if done:
                return
    finally:
        for task in (following, stopping, drawing):
            task.cancel()
        await asyncio.gather(following, stopping, drawing, return_exceptions=True)


async def _follow(screen: Screen, stream: AsyncTickStream) -> None:
    async for tick in stream:
        screen.show(tick, stream.committed_tick)


async def _draw(screen: Screen) -> None:
    console = Console(highlight=False)
    if not console.is_terminal:
        print(console.render_str(screen.invitation).plain, flush=True)
        while True:
            print(screen.line(), flush=True)
            await asyncio.sleep(_LINE_EVERY_S)
    with Live(get_renderable=screen.render, console=console, auto_refresh=False) as live:
        while True:
            live.refresh()
            await asyncio.sleep(1.0 / _FRAMES_PER_SECOND)


async def _play_until_signalled(settings: LiveSettings) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    # SIGHUP: somebody closed the terminal.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stop.set)
    return await play(settings, stop)


def live(
    listen: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="Where the server listens.")
    ] = "127.0.0.1:7601",
    hz: Annotated[float, typer.Option(min=0.0, help="Days per second; 0: as fast as possible.")] = 10.0,
    asteroids: Annotated[int, typer.Option(min=0, help="Massless bodies in the main belt.")] = 10_000,
    seed: Annotated[int, typer.Option(min=0, help="Seeds the asteroids.")] = 2026,
    # Every day of 10,000 bodies is 1.2 MB of history, all of it kept: ten years are what a temporary folder should bear.
    days: Annotated[int, typer.Option(min=0, help="Days until the world rests; 0: never.")] = 3_652,
    data: Annotated[
        Path | None,
        typer.Option(metavar="DIR", file_okay=False, help="Keep the data there, and go on from it."),
    ] = None,
) -> None:
    """Serve the solar system, play it and show it, until Ctrl-C."""
    started = time.monotonic()
    try:
        last = asyncio.run(_play_until_signalled(LiveSettings(listen, hz, asteroids, seed, days, data)))
    except (ServerProcessError, OtherWorldError, TickwireError) as error:
        message = error.message if isinstance(error, TickwireError) else str(error)
        print(f"error: {message}", *getattr(error, "__notes__", ()), sep="\n", file=sys.stderr)
        raise typer.Exit(1) from None
    kept = f"kept in {data}" if data else "gone with its temporary directory"
    print(f"Stopped after tick {last}, {time.monotonic() - started:.0f} s; the world is {kept}.")


def main() -> None:
    """Run `live` as this process's command."""
    typer.run(live)
