"""`tickwire components` and `tickwire processors`: what a server knows, and what a world runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
import typer

from tickwire import ComponentInfo, ProcessorInfo, commands
from tickwire_server.cli._client import connected
from tickwire_server.cli._groups import ListingGroup
from tickwire_server.cli._options import (
    DEFAULT_SERVER,
    AsJson,
    CommandId,
    DueTick,
    MaxWait,
    Priority,
    Server,
    Wait,
    WaitName,
    WorldRef,
)
from tickwire_server.cli._output import console, listing, plain, print_json
from tickwire_server.cli._submitting import command_options, submit_one
from tickwire_server.cli._values import parse_object, parse_pairs

components = typer.Typer(
    help="List the components that commands may name, or register one.",
    cls=ListingGroup,
    no_args_is_help=False,
)
processors = typer.Typer(
    help="List the processors of a world, add one, or take one out.", cls=ListingGroup, no_args_is_help=True
)


@components.command("ls")
def list_components(server: Server = DEFAULT_SERVER, as_json: AsJson = False) -> None:
    """List the components that commands may name, with their fields."""
    with connected(server, as_json=as_json) as client:
        found = client.components()
    if as_json:
        print_json({"components": [_component(component) for component in found]})
        return
    rows = (
        (component.name, component.prefix, ", ".join(map(_field, component.schema)), component.origin)
        for component in found
    )
    console().print(listing(("component", "column prefix", "fields", "origin"), rows))


@components.command("register")
def register(
    name: Annotated[
        str, typer.Argument(help="As a class name: letters and digits, beginning with a letter.")
    ],
    field: Annotated[
        list[str] | None,
        typer.Option(
            "--field",
            "-f",
            metavar="NAME=TYPE",
            help="A field, as -f fuel=float64 or -f 'crew=list<string>?'; with a ? it may be null. Repeat for several.",
        ),
    ] = None,
    schema: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            dir_okay=False,
            exists=True,
            help="Fields as those of an Arrow IPC or Parquet file.",
        ),
    ] = None,
    defaults: Annotated[
        dict | None,  # type: ignore[type-arg]
        typer.Option(
            parser=parse_object, metavar="JSON", help="The values of fields that a spawn leaves out."
        ),
    ] = None,
    server: Server = DEFAULT_SERVER,
    as_json: AsJson = False,
) -> None:
    """Define a component for all worlds, or let it grow by new fields; the same again changes nothing."""
    if field and schema is not None:
        raise typer.BadParameter("give fields, or a file with a schema: not both")
    fields = parse_pairs(field, "field") if schema is None else _schema_of(schema)
    with connected(server, as_json=as_json) as client:
        known = client.register_component(name, fields, defaults=defaults)
    if as_json:
        print_json(_component(known))
    else:
        told = ", ".join(map(_field, known.schema)) or "no fields"
        typer.echo(f"component {known.name}: {told}; columns {known.prefix}...")


@processors.command("ls")
def list_processors(world: WorldRef, server: Server = DEFAULT_SERVER, as_json: AsJson = False) -> None:
    """List a world's processors in the order they run, and how each ran last."""
    with connected(server, as_json=as_json) as client:
        found = client.world(world).processors()
    if as_json:
        print_json({"processors": [_processor(processor) for processor in found]})
        return
    rows = (
        (
            processor.name,
            processor.priority,
            ", ".join(processor.components),
            processor.path,
            None if processor.last_s is None else f"{processor.last_s * 1e3:.3f}",
            _settings(processor),
        )
        for processor in found
    )
    columns = ("processor", "priority", "components", "path", "last ms", "params")
    console().print(listing(columns, rows, right=("priority", "last ms")))


@processors.command("add")
def add(
    world: WorldRef,
    name: Annotated[str, typer.Argument(help="Unique in the world.")],
    type_: Annotated[
        str, typer.Option("--type", help="A processor class of the server's app; default: the name itself.")
    ] = "",
    params: Annotated[
        dict | None,  # type: ignore[type-arg]
        typer.Option(parser=parse_object, metavar="JSON", help="What its constructor is called with."),
    ] = None,
    assign: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="COLUMN=SQL",
            help="Of SQL instead of a class: a column and its expression, as --set 'position__x=position__x + 1'. "
            "Repeat for several; all read the row as it was.",
        ),
    ] = None,
    component: Annotated[
        list[str] | None,
        typer.Option("--component", "-c", metavar="NAME", help="With --set: what entities must have."),
    ] = None,
    where: Annotated[str, typer.Option(metavar="SQL", help="With --set: the rows it is for.")] = "",
    order: Annotated[
        int | None, typer.Option("--order", help="Among processors lower ones run first; default: its own.")
    ] = None,
    tick: DueTick = None,
    priority: Priority = 0,
    command_id: CommandId = "",
    wait: Wait = WaitName.ACCEPTED,
    max_wait: MaxWait = 30.0,
    server: Server = DEFAULT_SERVER,
    as_json: AsJson = False,
) -> None:
    """Run a processor from a tick on: a class of the app, or SQL."""
    options = command_options(command_id, tick, priority)
    if assign:
        if type_ or params:
            raise typer.BadParameter("give --set, or --type and --params: not both")
        if not component:
            raise typer.BadParameter("name the components of the columns, as -c Position")
        pairs = parse_pairs(assign, "set")
        command = commands.add_sql_processor(name, component, pairs, where=where, order=order, **options)
    elif component or where:
        raise typer.BadParameter("--component and --where go with --set")
    else:
        command = commands.add_processor(name, processor_type=type_, params=params, order=order, **options)
    submit_one(world, command, wait, max_wait, server, as_json=as_json)


@processors.command("rm")
def rm(
    world: WorldRef,
    name: Annotated[str, typer.Argument(help="The processor.")],
    tick: DueTick = None,
    priority: Priority = 0,
    command_id: CommandId = "",
    wait: Wait = WaitName.ACCEPTED,
    max_wait: MaxWait = 30.0,
    server: Server = DEFAULT_SERVER,
    as_json: AsJson = False,
) -> None:
    """Run a processor no longer, from a tick on."""
    command = commands.remove_processor(name, **command_options(command_id, tick, priority))
    submit_one(world, command, wait, max_wait, server, as_json=as_json)


def _schema_of(file: Path) -> pa.Schema:
    import pyarrow.parquet as pq

    try:
        if file.suffix.lower() == ".parquet":
            return pq.read_schema(file)
        content = file.read_bytes()
        opened = pa.ipc.open_file(content) if content[:6] == b"ARROW1" else pa.ipc.open_stream(content)
        return opened.schema
    except (OSError, pa.ArrowException) as error:
        raise typer.BadParameter(f"{file} is no readable Arrow or Parquet file: {error}") from None


def _field(field: pa.Field[Any]) -> str:
    return f"{field.name}: {field.type}{'?' if field.nullable else ''}"


def _settings(processor: ProcessorInfo) -> str:
    told = [f"{key}={value}" for key, value in (processor.params | processor.assignments).items()]
    return ", ".join(told) + (f" where {processor.where}" if processor.where else "")


def _component(component: ComponentInfo) -> dict[str, Any]:
    return {
        "name": component.name,
        "prefix": component.prefix,
        "fields": [
            {"name": field.name, "type": str(field.type), "nullable": field.nullable}
            for field in component.schema
        ],
        "defaults": component.defaults,
        "origin": component.origin,
    }


def _processor(processor: ProcessorInfo) -> dict[str, Any]:
    document = plain(processor)
    last_s = document.pop("last_s")
    return {**document, "last_time_ms": None if last_s is None else last_s * 1e3}
