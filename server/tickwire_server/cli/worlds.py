"""`tickwire worlds`: make them, find them, look at them."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from tickwire import WorldInfo
from tickwire_server.cli._client import connected
from tickwire_server.cli._options import DEFAULT_SERVER, AsJson, Server, WorldRef
from tickwire_server.cli._output import console, listing, plain, print_json
from tickwire_server.cli._values import parse_pairs

app = typer.Typer(help="Make worlds, find them, look at them.", no_args_is_help=True)

Labels = Annotated[
    list[str] | None, typer.Option("--label", "-l", metavar="KEY=VALUE", help="A label. Repeat for several.")
]


@app.command("ls")
def ls(label: Labels = None, server: Server = DEFAULT_SERVER, as_json: AsJson = False) -> None:
    """List the worlds; with labels only those that have them all."""
    labels = parse_pairs(label, "label")
    with connected(server, as_json=as_json) as client:
        found = list(client.worlds(labels=labels))
    if as_json:
        print_json({"worlds": [_document(info) for info in found]})
    elif not found:
        typer.echo("no worlds; make one with `tickwire worlds create NAME`", err=True)
    else:
        columns = ("name", "tick", "state", "entities", "pending", "id")
        rows = (
            (info.name, info.tick, info.state.value, info.entities, info.pending_commands, info.id)
            for info in found
        )
        console().print(listing(columns, rows, right=("tick", "entities", "pending")))


@app.command("create")
def create(
    name: Annotated[
        str, typer.Argument(help="Lower-case letters, digits, _ and -, beginning with a letter.")
    ],
    template: Annotated[str, typer.Option(help="A world template of the server's app.")] = "",
    seed: Annotated[
        int | None, typer.Option(help="The root of all randomness in it; default: drawn by the server.")
    ] = None,
    label: Labels = None,
    keep_ticks: Annotated[
        int | None,
        typer.Option(min=0, help="Keep so many of the newest ticks without gaps; 0: all; default: 100,000."),
    ] = None,
    keep_every: Annotated[
        int | None, typer.Option(min=0, help="Of older ticks keep each so-many-th; 0: none, the default.")
    ] = None,
    keep_bytes: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Keep about so many bytes of archived history at most; 0: no bound; default: 8 GiB.",
        ),
    ] = None,
    world_id: Annotated[
        str,
        typer.Option("--id", metavar="UUID", help="A UUIDv7; the same request again finds the same world."),
    ] = "",
    server: Server = DEFAULT_SERVER,
    as_json: AsJson = False,
) -> None:
    """Make a world, durably."""
    labels = parse_pairs(label, "label")
    if keep_ticks is None and (keep_every, keep_bytes) != (None, None):
        from tickwire_engine.storage.retention import KEEP_TICKS

        keep_ticks = KEEP_TICKS
    with connected(server, as_json=as_json) as client:
        info = client.create_world(
            name,
            template=template,
            seed=seed,
            labels=labels,
            world_id=world_id or None,
            keep_ticks=keep_ticks,
            keep_every=keep_every,
            keep_bytes=keep_bytes,
        ).info()
    if as_json:
        print_json(_document(info))
    else:
        typer.echo(
            f"world {info.name} is there, id {info.id}; `tickwire step {info.name}` computes its first tick"
        )


@app.command("fork")
def fork(
    world: WorldRef,
    name: Annotated[str, typer.Argument(help="The new world's name; default: made by the server.")] = "",
    at: Annotated[
        int | None,
        typer.Option(
            "--at", min=0, metavar="TICK", help="The last tick to share; default: the last committed one."
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(help="The root of all randomness in it; default: one of its own."),
    ] = None,
    with_pending: Annotated[
        bool, typer.Option("--with-pending", help="Take along the commands that wait in the parent.")
    ] = False,
    label: Labels = None,
    world_id: Annotated[
        str,
        typer.Option("--id", metavar="UUID", help="A UUIDv7; the same request again finds the same fork."),
    ] = "",
    server: Server = DEFAULT_SERVER,
    as_json: AsJson = False,
) -> None:
    """Make a world that shares another one's history up to a tick; nothing is copied."""
    labels = parse_pairs(label, "label")
    with connected(server, as_json=as_json) as client:
        info = (
            client.world(world)
            .fork(
                name,
                at_tick=at,
                seed=seed,
                with_pending=with_pending,
                labels=labels,
                world_id=world_id or None,
            )
            .info()
        )
    if as_json:
        print_json(_document(info))
    else:
        typer.echo(
            f"world {info.name} is there, id {info.id}; it shares the ticks up to {info.fork_tick}, "
            f"and `tickwire step {info.name}` computes its first own"
        )


@app.command("change")
def change(
    world: WorldRef,
    name: Annotated[str | None, typer.Option(help="A new name.")] = None,
    label: Labels = None,
    no_labels: Annotated[bool, typer.Option("--no-labels", help="Take all labels away.")] = False,
    keep_ticks: Annotated[
        int | None, typer.Option(min=0, help="Keep so many of the newest ticks without gaps; 0: all.")
    ] = None,
    keep_every: Annotated[
        int | None, typer.Option(min=0, help="Of older ticks keep each so-many-th; 0: none.")
    ] = None,
    keep_bytes: Annotated[
        int | None,
        typer.Option(min=0, help="Keep about so many bytes of archived history at most; 0: no bound."),
    ] = None,
    etag: Annotated[
        str, typer.Option(help="As `worlds show --json` told it: refuse if the world was changed since.")
    ] = "",
    server: Server = DEFAULT_SERVER,
    as_json: AsJson = False,
) -> None:
    """Rename a world, or change its labels or what it keeps; what is not named stays as it is."""
    if label and no_labels:
        raise typer.BadParameter("give labels, or --no-labels: not both")
    labels = {} if no_labels else parse_pairs(label, "label") if label else None
    keeps = (keep_ticks, keep_every, keep_bytes)
    if name is None and labels is None and keeps == (None, None, None):
        raise typer.BadParameter(
            "give what to change: --name, --label, --keep-ticks, --keep-every or --keep-bytes"
        )
    with connected(server, as_json=as_json) as client:
        handle = client.world(world)
        before = handle.info()
        if keeps != (None, None, None):
            keep_ticks = before.keep_ticks if keep_ticks is None else keep_ticks
            keep_every = before.keep_every if keep_every is None else keep_every
            # Half of it is what was seen: let nobody change it in between.
            etag = etag or before.etag
        info = handle.change(
            name=name,
            labels=labels,
            keep_ticks=keep_ticks,
            keep_every=keep_every,
            keep_bytes=keep_bytes,
            etag=etag,
        )
    if as_json:
        print_json(_document(info))
        return
    kept = f"the newest {info.keep_ticks:,} ticks" if info.keep_ticks else "all ticks"
    if info.keep_ticks and info.keep_every:
        kept += f" and each {info.keep_every}th of the older ones"
    if info.keep_bytes:
        kept += f", in {info.keep_bytes:,} bytes"
    told = ", ".join(f"{key}={value}" for key, value in sorted(info.labels.items())) or "no labels"
    typer.echo(f"world {info.name}: {told}; keeps {kept}")


@app.command("rm")
def rm(
    world: WorldRef,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    server: Server = DEFAULT_SERVER,
    as_json: AsJson = False,
) -> None:
    """Destroy a world after the tick in hand, with its history; forks keep what they share."""
    with connected(server, as_json=as_json) as client:
        handle = client.world(world)
        info = handle.info()
        if not yes:
            _ask(info)
        ended = handle.destroy()
    if as_json:
        print_json(_document(ended))
    else:
        typer.echo(f"world {ended.name} was destroyed at tick {ended.tick} (id {ended.id})")


def _ask(info: WorldInfo) -> None:
    if not sys.stdin.isatty():
        raise typer.BadParameter("nobody is there to ask: give --yes")
    typer.confirm(
        f"Destroy world {info.name} (id {info.id}) with {info.entities:,} entities and {info.tick:,} ticks?",
        abort=True,
    )


@app.command("show")
def show(world: WorldRef, server: Server = DEFAULT_SERVER, as_json: AsJson = False) -> None:
    """Show a world as of its last durable tick."""
    with connected(server, as_json=as_json) as client:
        info = client.world(world).info()
    if as_json:
        print_json(_document(info))
        return
    facts: list[tuple[str, object]] = [
        ("name", info.name),
        ("id", info.id),
        ("state", info.state.value),
        ("next tick", info.tick),
        ("kept from tick", info.earliest_tick),
        ("entities", f"{info.entities:,} of at most {info.max_entities:,}"),
        ("pending commands", info.pending_commands),
        ("seed", info.seed),
        ("created", info.created_at.isoformat(timespec="seconds") if info.created_at else "-"),
        ("run", info.run_id),
    ]
    if info.parent_id:
        facts.append(("forked from", f"{info.parent_id} after tick {info.fork_tick}"))
    if info.hz:
        facts.append(("hz", info.hz))
    if info.labels:
        facts.append(("labels", ", ".join(f"{key}={value}" for key, value in sorted(info.labels.items()))))
    if info.fault:
        facts.append(("fault", info.fault.message))
    output = console()
    output.print(listing(("world", ""), facts))
    if info.archetypes:
        rows = ((", ".join(kind.components), kind.entities) for kind in info.archetypes)
        output.print(listing(("archetype", "entities"), rows, right=("entities",)))


def _document(info: WorldInfo) -> object:
    document = plain(info)
    document["committed_tick"] = info.committed_tick
    return document
