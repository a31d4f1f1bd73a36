"""`tickwire demo`: the orrery from the source tree, run to its end and measured."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from tickwire import TickwireError
from tickwire_server.cli._options import AsJson
from tickwire_server.cli._output import console, print_error, print_json
from tickwire_server.cli._tree import require
from tickwire_server.cli.server_process import ServerProcessError

if TYPE_CHECKING:
    from examples.orrery.demo import DemoReport, DemoSettings

_WITH_EXAMPLES = "pip install 'tickwire[examples]'"
_NEEDS = {
    "examples.orrery": "It is in Tickwire's source tree: run `tickwire demo` from its root.",
    "astropy": f"The ephemeris needs it: {_WITH_EXAMPLES}",
    "matplotlib": f"The picture needs it: {_WITH_EXAMPLES}",
}


def demo(
    days: Annotated[
        int, typer.Option(min=2, max=36_500, help="How many days, a tick each, from 2026-01-01.")
    ] = 365,
    asteroids: Annotated[
        int, typer.Option(min=0, max=1_000_000, help="Massless bodies in the main belt.")
    ] = 10_000,
    out: Annotated[
        Path, typer.Option(metavar="PNG", dir_okay=False, help="Where the picture of orbits and errors goes.")
    ] = Path("orrery.png"),
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            file_okay=False,
            help="Keep the data there; a run on kept data goes on where the last ended.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seeds the asteroids.")] = 2026,
    port: Annotated[
        int, typer.Option(min=0, max=65_535, help="The server's port on loopback; 0: a free one.")
    ] = 0,
    as_json: AsJson = False,
) -> None:
    """Run the solar system through a server of its own, and measure it against the ephemeris.

    Exits with 1 where a body's error exceeds its bound.
    """
    require("the demo", _NEEDS)
    from examples.orrery.demo import DemoSettings

    settings = DemoSettings(days, asteroids, seed, out, data, f"127.0.0.1:{port}")
    report = _run(settings)
    if as_json:
        print_json(_document(report, settings))
    else:
        _print(report, settings)
    if not report.is_within:
        raise typer.Exit(1)


def _run(settings: DemoSettings) -> DemoReport:
    from examples.orrery import demo as orrery
    from examples.orrery.session import OtherWorldError

    columns = (
        TextColumn("day {task.completed:.0f}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    kept = settings.data
    try:
        with Progress(*columns, transient=True, disable=not sys.stdout.isatty()) as bar:
            task = bar.add_task("days", total=settings.days)
            work = orrery.run(settings, lambda tick: bar.update(task, completed=tick + 1))
            return asyncio.run(_until_terminated(work))
    except (KeyboardInterrupt, asyncio.CancelledError):
        problem = "interrupted"
    except OtherWorldError as error:
        problem = f"{error}: give the same, or another --data"
        kept = None
    except ServerProcessError as error:
        problem = "\n".join((str(error), *_notes(error)))
    except TickwireError as error:
        problem = "\n".join((error.message, *_notes(error)))
    print_error(
        problem, hint=f"The same command goes on from the last durable tick in {kept}." if kept else ""
    )
    raise typer.Exit(1)


def _notes(error: Exception) -> list[str]:
    return getattr(error, "__notes__", [])


async def _until_terminated(work: Coroutine[None, None, DemoReport]) -> DemoReport:
    """Do the work, and clear away on SIGTERM and at the terminal's end as on Ctrl-C."""
    working = asyncio.ensure_future(work)
    for number in (signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, working.cancel)
    return await working


def _print(report: DemoReport, settings: DemoSettings) -> None:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("body")
    for name in ("error au", "error km", "on day", "bound au", "of bound"):
        table.add_column(name, justify="right")
    table.add_column("")
    for body in report.accuracy:
        table.add_row(
            body.name,
            f"{body.error_au:.2e}",
            f"{body.error_au * 149_597_870.7:,.0f}",
            f"{body.day:.0f}",
            f"{body.bound_au:.2e}",
            f"{body.error_au / body.bound_au:.2f}",
            "[green]within[/]" if body.within else "[bold red]exceeded[/]",
        )
    output = console()
    output.print(
        f"{settings.days} days of {report.entities:,} bodies, and how far from astropy's positions they came:"
    )
    output.print(table)
    if report.resumed_from:
        output.print(
            f"Went on from tick {report.resumed_from}; the ticks before it came from the data directory."
        )
    seconds = ", ".join(f"{what} {spent:.1f} s" for what, spent in report.seconds.items())
    output.print(f"{sum(report.seconds.values()):.1f} s: {seconds}")
    output.print(f"State after the last tick: {report.state_hash.hex()}")
    output.print(f"Picture: {settings.picture}")


def _document(report: DemoReport, settings: DemoSettings) -> dict[str, object]:
    return {
        "days": settings.days,
        "entities": report.entities,
        "resumed_from": report.resumed_from,
        "within": report.is_within,
        "bodies": report.accuracy,
        "state_hash": report.state_hash,
        "seconds": report.seconds,
        "picture": settings.picture,
        "data": settings.data,
    }
