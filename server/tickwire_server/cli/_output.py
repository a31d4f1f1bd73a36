"""What commands print: tables and lines for people, JSON for programs."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from collections.abc import Iterable, Mapping
from datetime import date, datetime
from enum import Enum
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tickwire import TickwireError

_LONG = 40
"""Characters that a column of text is given, however long its values are."""
_PIPED_WIDTH = 400
"""Columns where there is no terminal: a table in a pipe must not be cut to somebody's screen."""


def console() -> Console:
    """Return where results for people go."""
    return Console(width=None if sys.stdout.isatty() else _PIPED_WIDTH, highlight=False)


def print_json(document: object, *, err: bool = False) -> None:
    """Print one JSON document on a line of its own, at once: whoever reads a stream waits for it."""
    typer.echo(json.dumps(plain(document), ensure_ascii=False), err=err)
    sys.stdout.flush()


def print_error(message: str, *, hint: str = "") -> None:
    """Print what went wrong and what to do next on standard error."""
    typer.secho("error: ", fg=typer.colors.RED, bold=True, nl=False, err=True)
    typer.echo(message, err=True)
    if hint:
        typer.echo(hint, err=True)


def plain(value: Any) -> Any:
    """Return `value` as JSON has it: dataclasses as objects, bytes in hex, times in RFC 3339, tables as rows."""
    if isinstance(value, TickwireError):
        return {
            "code": value.code.name if value.code else "",
            "reason": value.reason,
            "message": value.message,
            "metadata": value.metadata,
            "violations": [{"field": v.field, "description": v.description} for v in value.violations],
        }
    if isinstance(value, Enum):
        return value.value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, pa.Table | pa.RecordBatch):
        return [plain(row) for row in value.to_pylist()]
    if isinstance(value, pa.Schema):
        return {field.name: str(field.type) for field in value}
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, Iterable):
        return [plain(item) for item in value]
    return str(value)


def without_active(table: pa.Table) -> pa.Table:
    """Return a table without the column is_active, where all rows are."""
    if "is_active" in table.column_names and pc.all(table["is_active"]).as_py() is not False:
        return table.drop_columns("is_active")
    return table


def rows_table(table: pa.Table) -> Table:
    """Return rows as a table for people; that they are active is said only where one is not."""
    shown = without_active(table)
    result = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in shown.schema:
        numeric = pa.types.is_integer(column.type) or pa.types.is_floating(column.type)
        result.add_column(Text(column.name), justify="right" if numeric else "left", no_wrap=numeric)
    for row in zip(*(column.to_pylist() for column in shown.columns), strict=True):
        result.add_row(*(Text(cell(value)) for value in row))
    return result


def fitting(table: pa.Table, width: int) -> pa.Table:
    """Return as many of a table's first columns as fit side by side, one at least; the last one may be cut."""
    chosen: list[str] = []
    left = width
    for name in table.column_names:
        longest = max([len(name), *(len(cell(value)) for value in table[name].to_pylist())])
        left -= min(longest, _LONG) + 3
        if left < 0 and chosen:
            break
        chosen.append(name)
    return table.select(chosen)


def listing(
    columns: Iterable[str],
    rows: Iterable[Iterable[object]],
    *,
    right: Iterable[str] = (),
    whole: Iterable[str] = (),
) -> Table:
    """Return a table for people of what there is.

    Args:
        columns: Their headings.
        rows: What is in them.
        right: The columns of numbers.
        whole: Columns to copy from: others are folded for them.
    """
    numbers, uncut = set(right), set(whole)
    result = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        result.add_column(
            column,
            justify="right" if column in numbers else "left",
            overflow="fold",
            no_wrap=column in uncut,
        )
    for row in rows:
        result.add_row(*(Text(cell(value)) for value in row))
    return result


def flat(table: pa.Table) -> pa.Table:
    """Return a table as CSV can have it: lists, structs and bytes as JSON."""
    columns = []
    for column in table.columns:
        kind = column.type
        if pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_duration(kind):
            texts = [
                None if value is None else json.dumps(plain(value), ensure_ascii=False)
                for value in column.to_pylist()
            ]
            columns.append(pa.chunked_array([pa.array(texts, pa.utf8())]))
        else:
            columns.append(column)
    return pa.table(columns, names=table.column_names)


def counted(count: int, noun: str, plural: str = "") -> str:
    """Return a number of things as people say it: 1 row, 2 rows."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def cell(value: object) -> str:
    """Return a value as people read it in a table."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)
