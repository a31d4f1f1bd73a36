"""`tickwire watch`: a world's ticks as they come, over a subscription that resumes by itself."""

from __future__ import annotations

import sys
import time
from collections import deque
from datetime import UTC, datetime
from typing import Annotated

import pyarrow as pa
import pyarrow.compute as pc
import typer
from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from tickwire import Tick, TickStream, ViewOptions
from tickwire_server.cli._client import PATIENCE_S, connected
from tickwire_server.cli._options import DEFAULT_SERVER, AsJson, ComponentNames, Server, WorldRef
from tickwire_server.cli._output import console, print_json, rows_table

_FRAMES_PER_SECOND = 12


def watch(
    world: WorldRef,
    component: ComponentNames = None,
    entity_id: Annotated[
        list[int] | None, typer.Option("--entity", "-e", metavar="ID", help="Only these. Repeat for several.")
    ] = None,
    rows: Annotated[int, typer.Option(min=0, help="At most so many rows of a tick; 0: all.")] = 20,
    from_tick: Annotated[
        int | None,
        typer.Option("--from-tick", min=0, help="The first tick; default: the last committed one."),
    ] = None,
    until_tick: Annotated[int | None, typer.Option("--until-tick", min=0, help="The last tick.")] = None,
    server: Server = DEFAULT_SERVER,
    as_json: AsJson = False,
) -> None:
    """Show every tick of a world as it becomes durable, until Ctrl-C."""
    with connected(server, as_json=as_json) as client:
        # Asked for over a connection without patience, so that a typo is told at once.
        world_id = client.world(world).id
    view: ViewOptions = {"from_tick": from_tick, "at": "snapshot", "until_tick": until_tick}
    selection = _Selection(component or [], entity_id or [], rows)
    with connected(server, as_json=as_json, patience_s=PATIENCE_S) as client:
        try:
            _follow(client.world(world_id).ticks(**view), selection, world, as_json=as_json)
        except KeyboardInterrupt:
            return


class _Selection:
    """Which rows of a tick are shown."""

    def __init__(self, components: list[str], entity_ids: list[int], limit: int) -> None:
        self.components = components
        self.entity_ids = entity_ids
        self.limit = limit

    def of(self, tick: Tick) -> pa.Table:
        table = tick.table(*self.components)
        if self.entity_ids:
            table = table.filter(pc.is_in(table["entity_id"], pa.array(self.entity_ids, pa.int64())))
        return table.slice(0, self.limit) if self.limit else table


def _follow(stream: TickStream, selection: _Selection, world: str, *, as_json: bool) -> None:
    if as_json:
        for tick in stream:
            print_json(
                {
                    "tick": tick.tick,
                    "summary": tick.summary,
                    "despawned": tick.despawned,
                    "rows": selection.of(tick),
                }
            )
    elif sys.stdout.isatty():
        _show(stream, selection, world)
    else:
        for tick in stream:
            typer.echo(_line(tick))
            sys.stdout.flush()


def _show(stream: TickStream, selection: _Selection, world: str) -> None:
    screen = _Screen(selection, world)
    # Drawn by a thread of its own, at its own pace: a fast world must not wait for a terminal.
    with Live(get_renderable=screen.render, console=console(), refresh_per_second=_FRAMES_PER_SECOND):
        for tick in stream:
            screen.show(tick, stream.committed_tick)


class _Screen:
    """The newest tick as a table; drawn on another thread than the one that sets it."""

    def __init__(self, selection: _Selection, world: str) -> None:
        self._rate = Rate()
        self._selection = selection
        self._world = world
        self._seen: tuple[Tick, str] | None = None

    def show(self, tick: Tick, committed_tick: int) -> None:
        """Take a new tick."""
        self._rate.count()
        self._seen = tick, lag(tick, committed_tick)

    def render(self) -> RenderableType:
        """Draw the newest tick."""
        if self._seen is None:
            return Text(
                f"{self._world}: waiting for a tick; `tickwire play {self._world}` makes some", style="dim"
            )
        tick, behind = self._seen
        head = Text.assemble(
            (self._world, "bold"),
            f"   tick {tick.tick:,}   {self._rate.per_second:.1f} ticks/s   {tick.summary.entities:,} entities   ",
            f"{behind}   compute {tick.summary.compute_s * 1e3:.1f} ms",
        )
        table = self._selection.of(tick)
        hidden = tick.summary.rows - table.num_rows
        foot = f"{hidden:,} more rows (--rows, -c, -e choose); Ctrl-C ends" if hidden > 0 else "Ctrl-C ends"
        return Group(head, rows_table(table), Text(foot, style="dim"))


def _line(tick: Tick) -> str:
    summary = tick.summary
    return (
        f"tick {tick.tick}  entities {summary.entities}  spawned {summary.spawned}  despawned {summary.despawned}"
        f"  applied {summary.commands_applied}  rejected {summary.commands_rejected}"
        f"  compute {summary.compute_s * 1e3:.2f} ms  hash {summary.state_hash.hex()}"
    )


def lag(tick: Tick, committed_tick: int) -> str:
    """Say how far a reader that has just got `tick` is behind the world."""
    behind = committed_tick - tick.tick
    if behind > 0 or tick.summary.committed_at is None:
        return f"{behind:,} ticks behind"
    delay_s = (datetime.now(UTC) - tick.summary.committed_at).total_seconds()
    # A tick from before the stream began is no measure of it.
    return f"lag {delay_s * 1e3:.0f} ms" if 0.0 <= delay_s < 5.0 else "lag -"


class Rate:
    """How many ticks came in the last few seconds, per second."""

    def __init__(self, window_s: float = 3.0) -> None:
        self._window_s = window_s
        self._times: deque[float] = deque()

    def count(self) -> None:
        """Note that one came now."""
        now = time.monotonic()
        self._times.append(now)
        while now - self._times[0] > self._window_s:
            self._times.popleft()

    @property
    def per_second(self) -> float:
        """The rate; 0 until two have come, and once none came for a while."""
        times = list(self._times)
        if len(times) < 2 or time.monotonic() - times[-1] > self._window_s:
            return 0.0
        return (len(times) - 1) / max(times[-1] - times[0], 1e-9)
