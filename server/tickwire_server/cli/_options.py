"""The options and arguments that several commands share, named once."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from tickwire_server.cli._values import parse_object

DEFAULT_SERVER = "127.0.0.1:7601"


class WaitName(StrEnum):
    """How far a command must have come before its call returns."""

    ACCEPTED = "accepted"
    APPLIED = "applied"
    ARCHIVED = "archived"


Server = Annotated[
    str,
    typer.Option(
        "--server", "-s", envvar="TICKWIRE_SERVER", metavar="HOST:PORT", help="The server to talk to."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON: one document, or one a line for a stream.")]
DataDirectory = Annotated[
    Path,
    typer.Option(
        "--data", envvar="TICKWIRE_DATA", metavar="DIR", file_okay=False, help="The server's data directory."
    ),
]
AppName = Annotated[
    str,
    typer.Option(
        "--app", envvar="TICKWIRE_APP", metavar="MODULE:ATTR", help="The App that the worlds run with."
    ),
]
WorldRef = Annotated[str, typer.Argument(metavar="WORLD", help="The world's name or id.")]
EntityIds = Annotated[list[int] | None, typer.Argument(metavar="ENTITY_ID...", help="The entities, by id.")]
Components = Annotated[
    list[str] | None,
    typer.Option(
        "--component",
        "-c",
        metavar="NAME[:JSON]",
        help="""A component and its fields, as -c 'Position:{"x": 1}'; fields left out take their defaults. """
        "Repeat for several.",
    ),
]
ComponentNames = Annotated[
    list[str] | None,
    typer.Option(
        "--component",
        "-c",
        metavar="NAME",
        help="Only entities with it, and only its fields. Repeat for several.",
    ),
]
TableFile = Annotated[
    str,
    typer.Option(
        "--table",
        metavar="FILE",
        help="Rows instead: an Arrow IPC (.arrow), Parquet or CSV file with columns component__field.",
    ),
]
Where = Annotated[
    str,
    typer.Option(
        "--where",
        "-w",
        metavar="SQL",
        help='All entities for which it holds, as "position__x > 3"; with ids, those of them.',
    ),
]
SkipMissing = Annotated[
    bool,
    typer.Option("--skip-missing", help="Pass over ids that are not alive instead of rejecting the command."),
]
DueTick = Annotated[
    int | None, typer.Option("--tick", min=0, help="The earliest tick to apply it in; default: the next.")
]
Priority = Annotated[int, typer.Option("--priority", help="Within a tick lower ones are applied first.")]
CommandId = Annotated[
    str,
    typer.Option(
        "--id", metavar="UUID", help="A UUIDv7; sent again, it is applied once. Default: a new one."
    ),
]
Wait = Annotated[
    WaitName,
    typer.Option(help="Return once it is journaled, its tick is durable, or that tick is in the archive."),
]
MaxWait = Annotated[
    float, typer.Option("--max-wait", min=0.0, help="How long to wait for that, in seconds; it stays queued.")
]
Inputs = Annotated[
    dict | None,  # type: ignore[type-arg]
    typer.Option(
        parser=parse_object, metavar="JSON", help="An object that the processors are passed in every tick."
    ),
]
ExpectedTick = Annotated[
    int | None,
    typer.Option(
        "--expected-tick", min=0, help="Refuse unless this is the next tick: a repeat does no harm."
    ),
]
