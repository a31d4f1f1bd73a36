"""How commands that read rows show them: a table, JSON, CSV, or a file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import pyarrow as pa
import pyarrow.csv
import typer

from tickwire_server.cli._output import (
    console,
    counted,
    fitting,
    flat,
    print_json,
    rows_table,
    without_active,
)
from tickwire_server.cli._values import write_table

AsCsv = Annotated[bool, typer.Option("--csv", help="Print CSV, with a line of column names.")]
OutFile = Annotated[
    Path | None,
    typer.Option("--out", metavar="FILE", help="Write them to an .arrow, .parquet or .csv file instead."),
]
ShownRows = Annotated[int, typer.Option("--rows", min=0, help="Rows of the table on the screen; 0: all.")]


def show_rows(
    rows: pa.Table, *, out: Path | None, as_json: bool, as_csv: bool, shown: int = 0, more: str = ""
) -> None:
    """Print rows as they were asked for.

    Args:
        rows: The rows.
        out: The file to write them to instead.
        as_json: As JSON.
        as_csv: As CSV.
        shown: Rows of the table for people; 0: all.
        more: What to say where there may be more.

    Raises:
        BadParameter: The file cannot be written, or two forms were asked for.
    """
    if as_json and as_csv:
        raise typer.BadParameter("--json and --csv exclude each other")
    if out is not None:
        write_table(rows, out)
        if as_json:
            print_json({"rows": rows.num_rows, "file": str(out)})
        else:
            typer.echo(f"{counted(rows.num_rows, 'row')} in {out}")
    elif as_json:
        print_json({"rows": rows})
    elif as_csv:
        sys.stdout.flush()
        pa.csv.write_csv(flat(rows), sys.stdout.buffer)
        sys.stdout.flush()
    else:
        cut = rows.slice(0, shown) if shown else rows
        print_table(cut)
        said = f"; {cut.num_rows:,} shown, --rows 0 shows all" if cut.num_rows < rows.num_rows else more
        typer.echo(f"{counted(rows.num_rows, 'row')}{said}", err=True)


def print_table(rows: pa.Table) -> None:
    """Print rows as a table; on a terminal, the columns that fit."""
    terminal = console()
    shown = without_active(rows)
    fits = fitting(shown, terminal.width) if terminal.is_terminal else shown
    terminal.print(rows_table(fits))
    hidden = shown.num_columns - fits.num_columns
    if hidden:
        typer.echo(f"{hidden} more columns do not fit here; --csv and --json have them all", err=True)
