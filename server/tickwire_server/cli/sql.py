"""`tickwire sql`: SQL over worlds and their history."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from tickwire_server.cli._client import connected
from tickwire_server.cli._options import DEFAULT_SERVER, AsJson, Server
from tickwire_server.cli._rows import AsCsv, OutFile, ShownRows, show_rows


def sql(
    text: Annotated[
        str, typer.Argument(metavar="SELECT", help="One SELECT statement; - reads it from standard input.")
    ],
    at_tick: Annotated[
        int | None,
        typer.Option("--at-tick", min=0, help="The tables of that tick; default: of all kept ticks."),
    ] = None,
    shown: ShownRows = 100,
    out: OutFile = None,
    server: Server = DEFAULT_SERVER,
    as_csv: AsCsv = False,
    as_json: AsJson = False,
) -> None:
    """Read by SQL. Tables are WORLD.COMPONENT and WORLD.entities, with columns tick, entity_id, component__field.

    tickwire sql "SELECT tick, avg(position__x) FROM orbit.position WHERE tick > 100 GROUP BY tick ORDER BY tick"
    """
    if text == "-":
        text = sys.stdin.read()
    with connected(server, as_json=as_json) as client:
        rows = client.sql(text, at_tick=at_tick)
    show_rows(rows.table, out=out, as_json=as_json, as_csv=as_csv, shown=shown)
