"""`tickwire doctor`: what a data directory's files are worth, and what can be put right without guessing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tickwire_server.cli._offline import errors_told, fail
from tickwire_server.cli._options import AsJson, DataDirectory
from tickwire_server.cli._output import console, counted, listing, print_error, print_json

if TYPE_CHECKING:
    from tickwire_engine.storage.doctor import Damage, Diagnosis

_SHOWN = 20


def doctor(
    data: DataDirectory = Path("./tickwire-data"),
    repair: Annotated[
        bool, typer.Option("--repair", help="Delete what is left over; it is listed, and asked for, first.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="With --repair: do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Read a data directory from end to end and tell what is damaged, by file, world and tick.

    It changes nothing, and a server may be serving the data meanwhile. Ends with 1 if anything that was acknowledged, and
    is kept, cannot be read. Damage cannot be repaired, only restored from a backup; --repair deletes leftovers, of which
    nothing depends.
    """
    from tickwire_engine.storage import doctor as engine

    if as_json and repair and not yes:
        raise typer.BadParameter(
            "--repair asks before it does anything: give --yes with --json", param_hint="--yes"
        )
    with errors_told(f"read {data}", as_json=as_json):
        found = engine.examine(data)
        _report(found, as_json=as_json)
        if repair and _agreed(found, yes=yes, as_json=as_json):
            engine.repair(data, found.leftovers)
            if not as_json:
                typer.echo(f"deleted {counted(len(found.leftovers), 'leftover')}")
    if not found.healthy:
        raise typer.Exit(1)


def _agreed(found: Diagnosis, *, yes: bool, as_json: bool) -> bool:
    if found.served_by is not None:
        fail("a server is at work here: stop it, then repair", as_json=as_json)
    if not found.leftovers:
        if not as_json:
            typer.echo("nothing to repair")
        return False
    if yes:
        return True
    return typer.confirm(f"delete {counted(len(found.leftovers), 'leftover')}?")


def _report(found: Diagnosis, *, as_json: bool) -> None:
    if as_json:
        print_json({"healthy": found.healthy, "diagnosis": found})
        return
    if found.served_by is not None:
        owner = found.served_by
        at = f" at {owner['listen']}" if owner["listen"] else ""
        typer.echo(f"served by process {owner['pid']} on {owner['host']}{at} since {owner['since']}")
    elif found.unclean:
        typer.echo("not served; its last server was killed: the next start recovers by itself")
    else:
        typer.echo("not served; its last server ended in order")
    typer.echo(", ".join(f"{name} {nbytes / 1e6:,.1f} MB" for name, nbytes in found.files.items()))
    _report_worlds(found)
    damage = [*found.damage, *(damage for world in found.worlds for damage in world.damage)]
    for each in damage[:_SHOWN]:
        print_error(_sentence(each))
    if len(damage) > _SHOWN:
        print_error(f"... and {len(damage) - _SHOWN} more; --json lists all")
    for leftover in found.leftovers:
        typer.echo(f"left over: {leftover.path} ({leftover.nbytes / 1e6:,.1f} MB): {leftover.why}")
    if found.healthy:
        typer.echo("healthy: everything that is kept can be read as it was written")
    else:
        typer.echo(
            "damaged: what is not named above is whole; restore the rest from a backup (tickwire restore)"
        )


def _report_worlds(found: Diagnosis) -> None:
    rows = [
        (
            world.name,
            world.id,
            "destroyed" if world.destroyed else "damaged" if world.damage else "whole",
            f"{world.first_tick} - {world.last_tick}" if world.last_tick >= world.first_tick else "none",
            world.whole_ticks,
            world.archived_tick,
        )
        for world in found.worlds
    ]
    if rows:
        columns = ("world", "id", "state", "ticks", "readable", "archived to")
        console().print(listing(columns, rows, right=("readable", "archived to")))


def _sentence(damage: Damage) -> str:
    place = ", ".join(
        filter(
            None,
            (
                damage.file,
                damage.world and f"world {damage.world}",
                "" if damage.tick is None else f"tick {damage.tick}",
            ),
        )
    )
    return f"{place}: {damage.problem}" if place else damage.problem
