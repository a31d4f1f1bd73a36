"""`tickwire step`, `run`, `play`, `pause`: what moves a world on."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from tickwire import RunProgress
from tickwire_server.cli._client import connected
from tickwire_server.cli._options import DEFAULT_SERVER, AsJson, ExpectedTick, Inputs, Server, WorldRef
from tickwire_server.cli._output import counted, plain, print_json


def step(
    world: WorldRef,
    ticks: Annotated[int, typer.Argument(min=1, help="How many.")] = 1,
    inputs: Inputs = None,
    expected_tick: ExpectedTick = None,
    server: Server = DEFAULT_SERVER,
    as_json: AsJson = False,
) -> None:
    """Compute ticks; returns once the last is durable."""
    with connected(server, as_json=as_json) as client:
        result = client.world(world).step(ticks, inputs=inputs, expected_tick=expected_tick)
    if as_json:
        print_json(result)
        return
    which = f"tick {result.first_tick}" if ticks == 1 else f"ticks {result.first_tick} to {result.last_tick}"
    rejected = f", {result.commands_rejected} rejected" if result.commands_rejected else ""
    typer.echo(f"{which} durable; {counted(result.commands_applied, 'command')} applied{rejected}")


def run(
    world: WorldRef,
    ticks: Annotated[int, typer.Argument(min=1, help="How many.")],
    inputs: Inputs = None,
    expected_tick: ExpectedTick = None,
    server: Server = DEFAULT_SERVER,
    as_json: AsJson = False,
) -> None:
    """Compute many ticks and show how far it is; Ctrl-C stops after the tick in hand."""
    with connected(server, as_json=as_json) as client:
        progress = client.world(world).run(ticks, inputs=inputs, expected_tick=expected_tick)
        if as_json:
            for item in progress:
                print_json(item)
            return
        last = _followed(progress, ticks)
    if last is None or last.ticks_done < ticks:
        done = last.ticks_done if last else 0
        typer.echo(f"stopped after {done} of {ticks} ticks: somebody paused the world", err=True)
        raise typer.Exit(1)
    typer.echo(
        f"{last.ticks_done} ticks durable, the last is {last.tick}; {last.ticks_per_second:.1f} ticks/s"
    )


def play(
    world: WorldRef,
    hz: Annotated[float, typer.Option(min=0.0, help="Ticks per second; 0: as fast as possible.")] = 0.0,
    max_ticks: Annotated[int, typer.Option(min=0, help="Pause after so many; 0: never.")] = 0,
    inputs: Inputs = None,
    expected_tick: ExpectedTick = None,
    server: Server = DEFAULT_SERVER,
    as_json: AsJson = False,
) -> None:
    """Let ticks follow each other until paused; on a playing world, change the rate."""
    with connected(server, as_json=as_json) as client:
        info = client.world(world).play(hz, max_ticks, inputs=inputs, expected_tick=expected_tick)
    if as_json:
        print_json(plain(info))
    else:
        rate = f"at {hz:g} ticks/s" if hz else "as fast as possible"
        typer.echo(f"{info.name} plays {rate} from tick {info.tick}; `tickwire pause {info.name}` stops it")


def pause(world: WorldRef, server: Server = DEFAULT_SERVER, as_json: AsJson = False) -> None:
    """End a play or run; returns once the last tick is durable."""
    with connected(server, as_json=as_json) as client:
        info = client.world(world).pause()
    if as_json:
        print_json(plain(info))
    else:
        typer.echo(f"{info.name} is paused; {info.tick} is its next tick")


def _followed(progress: Iterator[RunProgress], ticks: int) -> RunProgress | None:
    columns = (
        TextColumn("tick {task.fields[tick]}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]:.1f}/s"),
        TimeRemainingColumn(),
    )
    last: RunProgress | None = None
    # The bar is for eyes only: what a pipe reads is the sentence at the end.
    with Progress(*columns, transient=True, disable=not sys.stdout.isatty()) as bar:
        task = bar.add_task("run", total=ticks, tick="-", rate=0.0)
        for last in progress:
            bar.update(task, completed=last.ticks_done, tick=last.tick, rate=last.ticks_per_second)
    return last
