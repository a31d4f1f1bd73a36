"""`tickwire history`: what an entity was, tick by tick."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Any

import pyarrow as pa
import typer
from rich import box
from rich.table import Table
from rich.text import Text

from tickwire_server.cli._client import connected
from tickwire_server.cli._options import DEFAULT_SERVER, AsJson, ComponentNames, Server, WorldRef
from tickwire_server.cli._output import cell, console
from tickwire_server.cli._rows import AsCsv, OutFile, print_table, show_rows
from tickwire_server.cli._sparkline import sparkline
from tickwire_server.cli.query import Ticks, tick_range

_FIRST = ("tick", "entity_id", "is_active")
_WIDEST = 60
_PIPED_WIDTH = 140


def history(
    world: WorldRef,
    entity_id: Annotated[int, typer.Argument(metavar="ENTITY_ID", help="The entity, by id.")],
    component: ComponentNames = None,
    ticks: Ticks = ":",
    rows: Annotated[int, typer.Option("--rows", min=0, help="So many of the newest ticks, row by row.")] = 10,
    out: OutFile = None,
    server: Server = DEFAULT_SERVER,
    as_csv: AsCsv = False,
    as_json: AsJson = False,
) -> None:
    """Show an entity's values over ticks: a line for every field, and the newest ones."""
    with connected(server, as_json=as_json) as client:
        found = client.world(world)
        past = found.history(entity_id, ticks=tick_range(found, ticks), components=component or ())
    if as_json or as_csv or out is not None:
        show_rows(past.table, out=out, as_json=as_json, as_csv=as_csv)
    elif not past.num_rows:
        typer.echo(f"no entity {entity_id} in these ticks of {world}", err=True)
        raise typer.Exit(1)
    else:
        _show(past.table, world, entity_id, rows)


def _show(past: pa.Table, world: str, entity_id: int, rows: int) -> None:
    terminal = console()
    seen = [int(tick.as_py()) for tick in past["tick"]]
    head = Text.assemble(
        (f"{world} / entity {entity_id}", "bold"),
        f"   ticks {seen[0]:,} to {seen[-1]:,}, {past.num_rows:,} of them",
    )
    width = terminal.width if terminal.is_terminal else _PIPED_WIDTH
    terminal.print(head, _fields(past, seen, width))
    if rows:
        print_table(past.slice(max(0, past.num_rows - rows)).drop_columns("entity_id"))


def _fields(past: pa.Table, seen: list[int], width: int) -> Table:
    """Return a line for each field: what it was at first and last, between what, and how it went."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name, justify in (("field", "left"), ("first", "right"), ("last", "right"), ("least", "right")):
        table.add_column(name, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    table.add_column("greatest", justify="right", no_wrap=True)
    table.add_column("over ticks", no_wrap=True)
    names = [name for name in past.column_names if name not in _FIRST]
    longest = max([len(name) for name in names], default=0)
    room = max(10, min(_WIDEST, width - longest - 4 * 12 - 12))
    for name in names:
        values = past[name].to_pylist()
        numbers = _numbers(past.schema.field(name).type, values)
        if numbers is None:
            changes = sum(a != b for a, b in pairwise(values))
            table.add_row(Text(name), *map(_short, (values[0], values[-1])), "", "", f"{changes:,} changes")
            continue
        there = [value for value in numbers if value is not None]
        ends = (values[0], values[-1], min(there, default=None), max(there, default=None))
        table.add_row(Text(name), *map(_short, ends), sparkline(_spread(seen, numbers), room))
    return table


def _numbers(kind: pa.DataType, values: list[Any]) -> list[float | None] | None:
    """Return what a sparkline draws; None: these are no numbers."""
    if pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return [None if value is None else float(value) for value in values]
    return None


def _spread(seen: list[int], numbers: list[float | None]) -> list[float | None]:
    """Put each value at its tick: where the entity was not alive, or ticks were thinned out, there is none."""
    span = seen[-1] - seen[0] + 1
    if span == len(seen) or span > 100 * len(seen):
        return numbers
    spread: list[float | None] = [None] * span
    for tick, number in zip(seen, numbers, strict=True):
        spread[tick - seen[0]] = number
    return spread


def _short(value: object) -> Text:
    text = cell(value)
    return Text(text if len(text) <= 24 else text[:23] + "…")
