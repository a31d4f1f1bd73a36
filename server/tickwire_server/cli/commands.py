"""`tickwire commands`: what was asked of a world, and what became of it."""

from __future__ import annotations

import json
import sys
from datetime import datetime
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer
from google.protobuf.json_format import MessageToDict

from tickwire import CommandRecord, CommandState, Outcome
from tickwire.v1 import command_pb2
from tickwire_server.cli._client import PATIENCE_S, connected
from tickwire_server.cli._groups import ListingGroup
from tickwire_server.cli._options import DEFAULT_SERVER, AsJson, Server, WorldRef
from tickwire_server.cli._output import console, counted, listing, plain, print_json, rows_table
from tickwire_server.cli._values import write_table

app = typer.Typer(help="Look at commands, and take back those that wait.", cls=ListingGroup)


class StateName(StrEnum):
    """How far commands have come."""

    PENDING = "pending"
    APPLIED = "applied"
    REJECTED = "rejected"
    CANCELLED = "cancelled"


_TYPES = [name.removeprefix("COMMAND_TYPE_") for name in command_pb2.CommandType.keys()[1:]]
TypeName = StrEnum("TypeName", {name: name.lower() for name in _TYPES})  # type: ignore[misc]

CommandRef = Annotated[str, typer.Argument(metavar="COMMAND_ID", help="The command's id.")]
Actor = Annotated[
    str, typer.Option("--actor", metavar="ID", help="Only this actor's; default: all you may see.")
]


def parse_time(text: str) -> datetime:
    """Read a time of ISO 8601; one without a zone is this machine's.

    Raises:
        BadParameter: It is none.
    """
    try:
        return datetime.fromisoformat(text).astimezone()
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no time; it should look like 2026-01-31T15:00") from None


@app.command("ls")
def ls(
    world: WorldRef,
    state: Annotated[
        list[StateName] | None, typer.Option("--state", help="Only those in it. Repeat for several.")
    ] = None,
    kind: Annotated[
        list[TypeName] | None, typer.Option("--type", help="Only those that do this. Repeat for several.")
    ] = None,
    actor: Actor = "",
    since: Annotated[
        datetime | None,
        typer.Option(parser=parse_time, metavar="TIME", help="Only those accepted at this time or later."),
    ] = None,
    limit: Annotated[int, typer.Option(min=0, help="At most so many; 0: all.")] = 50,
    server: Server = DEFAULT_SERVER,
    as_json: AsJson = False,
) -> None:
    """List commands, the newest first: those that wait, those that were decided, archived ones too."""
    with connected(server, as_json=as_json) as client:
        found = client.world(world).commands(
            states=[name.value for name in state or ()],
            types=[name.value for name in kind or ()],
            actor_id=actor,
            from_time=since,
            page_size=min(limit, 1000),
        )
        records = list(islice(found, limit or None))
    if as_json:
        for record in records:
            print_json(document(record))
        return
    columns = ("seq", "type", "state", "tick", "id", "outcome")
    rows = (
        (
            record.outcome.seq,
            record.type,
            record.outcome.state.value,
            tick_of(record),
            record.id,
            came_of(record.outcome),
        )
        for record in records
    )
    console().print(listing(columns, rows, right=("seq", "tick"), whole=("seq", "state", "tick", "id")))
    if limit and len(records) == limit:
        typer.echo(f"{limit} commands; --limit 0 lists all", err=True)


@app.command("show")
def show(
    world: WorldRef, command_id: CommandRef, server: Server = DEFAULT_SERVER, as_json: AsJson = False
) -> None:
    """Show a command, what it asked for and what became of it."""
    with connected(server, as_json=as_json) as client:
        record = client.world(world).command(command_id)
    if as_json:
        print_json(document(record))
        return
    outcome = record.outcome
    facts: list[tuple[str, object]] = [
        ("id", record.id),
        ("type", record.type),
        ("state", outcome.state.value),
        ("tick", tick_of(record)),
        ("seq", outcome.seq),
        ("priority", record.command.priority),
        ("actor", record.command.actor_id),
        ("accepted", record.accepted_at.astimezone().isoformat(timespec="milliseconds")),
    ]
    if outcome.outcome_seq:
        facts.append(("outcome number", outcome.outcome_seq))
    if came_of(outcome):
        facts.append(("outcome", came_of(outcome)))
    if outcome.missing_entity_ids:
        facts.append(("not alive", ", ".join(map(str, outcome.missing_entity_ids))))
    if outcome.value is not None:
        facts.append(("value", json.dumps(outcome.value, ensure_ascii=False)))
    payload = asked(record)[record.type] if record.type else {}
    facts.append((record.type, json.dumps(payload, ensure_ascii=False)))
    console().print(listing(("command", ""), facts))
    if outcome.table is not None:
        console().print(rows_table(outcome.table))
    elif outcome.table_bytes:
        typer.echo(f"its table: `tickwire commands result {world} {record.id}`", err=True)


@app.command("cancel")
def cancel(
    world: WorldRef, command_id: CommandRef, server: Server = DEFAULT_SERVER, as_json: AsJson = False
) -> None:
    """Take back a command that waits; one that a tick has decided stays decided."""
    with connected(server, as_json=as_json) as client:
        outcome = client.world(world).cancel(command_id)
    if as_json:
        print_json(outcome)
    else:
        typer.echo(f"{outcome.state.value} (command {outcome.command_id})")


@app.command("watch")
def watch(
    world: WorldRef,
    after: Annotated[
        int | None,
        typer.Option(min=0, help="Begin after this outcome; 0: with the first kept. Default: from now on."),
    ] = None,
    actor: Actor = "",
    limit: Annotated[int, typer.Option(min=0, help="End after so many; 0: go on until Ctrl-C.")] = 0,
    server: Server = DEFAULT_SERVER,
    as_json: AsJson = False,
) -> None:
    """Follow what becomes of commands, outcome by outcome, until Ctrl-C."""
    with connected(server, as_json=as_json) as client:
        # Asked for over a connection without patience, so that a typo is told at once.
        world_id = client.world(world).id
    with connected(server, as_json=as_json, patience_s=PATIENCE_S) as client:
        try:
            stream = client.world(world_id).outcomes(after=after, actor_id=actor)
            for outcome in islice(stream, limit or None):
                if as_json:
                    print_json(outcome)
                else:
                    typer.echo(f"{outcome.outcome_seq}  {sentence(outcome)}")
                    # Whoever reads a pipe waits for it.
                    sys.stdout.flush()
        except KeyboardInterrupt:
            return


@app.command("result")
def result(
    world: WorldRef,
    command_id: CommandRef,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="FILE", help="Write an .arrow, .parquet or .csv file instead."),
    ] = None,
    server: Server = DEFAULT_SERVER,
    as_json: AsJson = False,
) -> None:
    """Read the table that a command answered; waits while the command does."""
    with connected(server, as_json=as_json) as client:
        rows = client.world(world).read_result(command_id)
    if out is not None:
        write_table(rows, out)
    if as_json:
        print_json({"rows": rows.num_rows, "file": str(out)} if out else {"rows": rows})
    elif out is not None:
        typer.echo(f"{counted(rows.num_rows, 'row')} in {out}")
    elif not rows.num_columns:
        typer.echo("it answered no table", err=True)
    else:
        console().print(rows_table(rows))


def asked(record: CommandRecord) -> dict[str, Any]:
    """Return the command in the contract's JSON form: what `tickwire submit` reads."""
    return MessageToDict(record.command, preserving_proto_field_name=True)


def document(record: CommandRecord) -> dict[str, Any]:
    """Return a command and its outcome as JSON has them."""
    return {
        "command": asked(record),
        "outcome": plain(record.outcome),
        "accepted_at": record.accepted_at.isoformat(),
    }


def tick_of(record: CommandRecord) -> int | None:
    """Return the tick that decided a command, or that it waits for; None: the next, or none."""
    if record.outcome.state is CommandState.PENDING and record.command.HasField("tick"):
        return record.command.tick
    return record.outcome.tick if record.outcome.tick >= 0 else None


def came_of(outcome: Outcome) -> str:
    """Say in some words what an outcome tells beyond its state."""
    if outcome.error is not None:
        return f"{outcome.error.reason}: {outcome.error.message}"
    parts = []
    if outcome.first_entity_id:
        last = outcome.first_entity_id + outcome.entity_count - 1
        ids = str(last) if outcome.entity_count == 1 else f"{outcome.first_entity_id} to {last}"
        parts.append(f"entity {ids}" if outcome.entity_count == 1 else f"entities {ids}")
    elif outcome.entity_count:
        parts.append(f"{outcome.entity_count} entit{'y' if outcome.entity_count == 1 else 'ies'}")
    if outcome.missing_entity_ids:
        parts.append(f"{len(outcome.missing_entity_ids)} not alive")
    if outcome.world_id:
        parts.append(f"world {outcome.world_id}")
    if outcome.table_bytes:
        parts.append(f"a table of {outcome.table_bytes:,} bytes")
    return ", ".join(parts)


def sentence(outcome: Outcome) -> str:
    """Return an outcome in one line."""
    state = plain(outcome.state)
    place = f"{state} in tick {outcome.tick}" if outcome.tick >= 0 else state
    more = came_of(outcome)
    return f"{place}{': ' if more else ''}{more} (command {outcome.command_id})"
