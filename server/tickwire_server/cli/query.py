"""`tickwire query`: the rows of a world at a tick, or over a range of ticks."""

from __future__ import annotations

from typing import Annotated

import typer

from tickwire import World
from tickwire_server.cli._client import connected
from tickwire_server.cli._options import DEFAULT_SERVER, AsJson, ComponentNames, Server, WorldRef
from tickwire_server.cli._rows import AsCsv, OutFile, show_rows
from tickwire_server.cli._values import parse_ticks

Ticks = Annotated[
    str,
    typer.Option("--ticks", metavar="FROM:TO", help="Every tick of a range, as 10:20, 10: or : (all kept)."),
]


def query(
    world: WorldRef,
    component: ComponentNames = None,
    entity_id: Annotated[
        list[int] | None, typer.Option("--entity", "-e", metavar="ID", help="Only these. Repeat for several.")
    ] = None,
    where: Annotated[
        str,
        typer.Option("--where", "-w", metavar="SQL", help="Only rows for which it holds: position__x > 3."),
    ] = "",
    at_tick: Annotated[
        int | None,
        typer.Option("--at-tick", min=0, help="The state after that tick; default: the last committed."),
    ] = None,
    ticks: Ticks = "",
    limit: Annotated[int, typer.Option(min=0, help="At most so many rows; 0: all.")] = 100,
    out: OutFile = None,
    server: Server = DEFAULT_SERVER,
    as_csv: AsCsv = False,
    as_json: AsJson = False,
) -> None:
    """Read the active rows of a world, in the order of ticks and entity ids."""
    if ticks and at_tick is not None:
        raise typer.BadParameter("give --at-tick or --ticks, not both")
    with connected(server, as_json=as_json) as client:
        found = client.world(world)
        rows = found.query(
            at_tick=at_tick,
            ticks=tick_range(found, ticks) if ticks else None,
            components=component or (),
            where=where,
            entity_ids=entity_id or None,
            limit=limit,
        )
    more = "; --limit 0 reads all" if limit and rows.num_rows == limit else ""
    show_rows(rows.table, out=out, as_json=as_json, as_csv=as_csv, more=more)


def tick_range(world: World, text: str) -> tuple[int, int] | None:
    """Read a range of ticks; an end that is left out is where the kept ticks end. None: there are no ticks yet."""
    first, last = parse_ticks(text)
    if first is None or last is None:
        info = world.info()
        if info.tick == info.earliest_tick:
            return None
        first = info.earliest_tick if first is None else first
        last = info.tick - 1 if last is None else last
    return first, last
