"""What people type, made into what the client takes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import typer

from tickwire_server.cli._output import flat


def parse_object(text: str) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        BadParameter: It is something else.
    """
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise typer.BadParameter(f"{text!r} is no JSON: {error}") from None
    if not isinstance(value, dict):
        raise typer.BadParameter(f'{text!r} is no JSON object; it should look like {{"x": 1}}')
    return value


def parse_components(texts: list[str] | None) -> dict[str, dict[str, Any]] | None:
    """Read `NAME` or `NAME:{"field": value}` options; None: there are none.

    Raises:
        BadParameter: One of them is neither, or names a component again.
    """
    if not texts:
        return None
    components: dict[str, dict[str, Any]] = {}
    for text in texts:
        name, _, fields = text.partition(":")
        name = name.strip()
        if name in components:
            raise typer.BadParameter(f"component {name} is given twice; put its fields into one object")
        components[name] = parse_object(fields) if fields.strip() else {}
    return components


def parse_pairs(texts: list[str] | None, what: str) -> dict[str, str]:
    """Read `KEY=VALUE` options.

    Raises:
        BadParameter: One has no equals sign.
    """
    pairs: dict[str, str] = {}
    for text in texts or ():
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise typer.BadParameter(f"{what} {text!r} should look like key=value")
        pairs[key] = value
    return pairs


def parse_ticks(text: str) -> tuple[int | None, int | None]:
    """Read a range of ticks, as `10:20`, `10:`, `:20` or `:`; one tick is a range too.

    Raises:
        BadParameter: It is none.
    """
    first, colon, last = text.partition(":")
    ends = [first, last if colon else first]
    if not all(end.strip().isdigit() or (colon and not end.strip()) for end in ends):
        raise typer.BadParameter(f"{text!r} is no range of ticks; it should look like 10:20, 10: or :")
    return (int(ends[0]) if ends[0].strip() else None), (int(ends[1]) if ends[1].strip() else None)


def read_table(file: str) -> pa.Table | None:
    """Read an Arrow IPC stream or file, a Parquet or a CSV file, by its suffix; "" reads nothing.

    Raises:
        BadParameter: It cannot be read as that.
    """
    if not file:
        return None
    try:
        return _read(Path(file))
    except OSError as error:
        raise typer.BadParameter(f"cannot read {file}: {error.strerror or error}") from None
    except pa.ArrowInvalid as error:
        raise typer.BadParameter(f"{file} is no readable table: {error}") from None


def _read(path: Path) -> pa.Table:
    match path.suffix.lower():
        case ".parquet":
            return pa.parquet.read_table(path)
        case ".csv":
            return pa.csv.read_csv(path)
        case ".arrow" | ".arrows" | ".ipc" | ".feather":
            content = path.read_bytes()
            # Arrow has two layouts under these suffixes; the file layout begins with its name.
            opened = pa.ipc.open_file(content) if content[:6] == b"ARROW1" else pa.ipc.open_stream(content)
            return opened.read_all()
    raise typer.BadParameter(f"{path.name}: a table's name ends in .arrow, .parquet or .csv")


def write_table(table: pa.Table, file: Path) -> None:
    """Write an Arrow IPC file, a Parquet or a CSV file, by the suffix.

    Raises:
        BadParameter: The suffix is none of these, or the file cannot be written.
    """
    try:
        match file.suffix.lower():
            case ".parquet":
                pa.parquet.write_table(table, file)
            case ".csv":
                pa.csv.write_csv(flat(table), file)
            case ".arrow":
                with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
                    writer.write_table(table)
            case _:
                raise typer.BadParameter(f"{file.name}: a table's name ends in .arrow, .parquet or .csv")
    except OSError as error:
        raise typer.BadParameter(f"cannot write {file}: {error.strerror or error}") from None
