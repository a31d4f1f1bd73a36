"""`tickwire verify`: a world computed once more from its journal, and held to what it recorded."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tickwire_server.cli import _apps
from tickwire_server.cli._offline import errors_told, fail
from tickwire_server.cli._options import AppName, AsJson, DataDirectory, WorldRef
from tickwire_server.cli._output import print_error, print_json
from tickwire_server.cli._process import ensure_environment

if TYPE_CHECKING:
    from collections.abc import Callable

    from tickwire_engine.replay import EnvironmentChange, Replayed
    from tickwire_engine.storage.reader import StoreReader
    from tickwire_engine.storage.rows import WorldRow
    from tickwire_server.app import App


def verify(
    world: WorldRef,
    data: DataDirectory = Path("./tickwire-data"),
    app: AppName = "",
    from_tick: Annotated[
        int | None,
        typer.Option(
            "--from", min=0, metavar="TICK", help="The first tick to compute; default: the first that can be."
        ),
    ] = None,
    to_tick: Annotated[
        int | None,
        typer.Option("--to", min=0, metavar="TICK", help="The last one; default: the last committed."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compute a world's ticks again from the journal, and compare their state hashes.

    It only reads: a server may be serving the data meanwhile. It needs the app that the world ran with.
    """
    ensure_environment()
    try:
        application = _apps.load(app)
    except _apps.AppNotFoundError as error:
        raise typer.BadParameter(str(error)) from None
    except _apps.AppBrokenError as error:
        fail(str(error), as_json=as_json)
    hint = "" if app else "If the world ran with an app, give it: --app module:attribute, or TICKWIRE_APP."
    with errors_told(f"read {data}", as_json=as_json):
        with_store(
            data,
            lambda store: _verify(store, world, application, from_tick, to_tick, hint=hint, as_json=as_json),
        )


def with_store(data: Path, use: Callable[[StoreReader], None]) -> None:
    """Open a data directory for reading, and close it again."""
    from tickwire_engine.storage.reader import StoreReader

    store = StoreReader(data)
    try:
        use(store)
    finally:
        store.close()


def _verify(
    store: StoreReader,
    world: str,
    application: App,
    first: int | None,
    last: int | None,
    *,
    hint: str,
    as_json: bool,
) -> None:
    from tickwire_engine import Engine
    from tickwire_engine.replay import environment_changes, replay

    row = find_world(store, world)

    async def run() -> tuple[Replayed, list[EnvironmentChange]]:
        engine = Engine.over(store, application.setup())
        found = await replay(engine, row, from_tick=first, to_tick=last)
        return found, list(environment_changes(engine, row, store.starts(), found.first_tick))

    found, changes = asyncio.run(run())
    _report(row.name, found, changes, hint=hint, as_json=as_json)
    if found.difference is not None:
        raise typer.Exit(1)


def find_world(store: StoreReader, world: str) -> WorldRow:
    """Find a world by id, or a living one by name."""
    from tickwire_engine.errors import WorldNotFoundError

    for row in store.worlds():
        if world in (_uuid(row.id), row.id.hex()) or (row.name == world and not row.destroyed_at_us):
            return row
    known = ", ".join(sorted(row.name for row in store.worlds() if not row.destroyed_at_us)) or "none"
    raise WorldNotFoundError(f"no world {world!r} in this data directory (there are: {known})", world=world)


def _report(
    world: str, found: Replayed, changes: list[EnvironmentChange], *, hint: str, as_json: bool
) -> None:
    difference = found.difference
    if as_json:
        print_json(
            {
                "world": world,
                "first_tick": found.first_tick,
                "last_tick": found.last_tick,
                "difference": difference,
                "environment_changes": changes,
            }
        )
        return
    ticks = found.last_tick - found.first_tick + 1
    if ticks > 0:
        typer.echo(
            f"{world}: ticks {found.first_tick} to {found.last_tick} come out as recorded ({ticks} ticks)"
        )
    for change in changes:
        what = ", ".join(
            f"{name} {old or '-'} -> {new or '-'}" for name, (old, new) in change.changed.items()
        )
        typer.echo(f"{world}: from tick {change.tick} on computed by other software or hardware: {what}")
    if difference is not None:
        print_error(f"{world}: {difference}", hint=hint)
    elif ticks <= 0:
        typer.echo(f"{world}: no tick to compute")


def _uuid(raw: bytes) -> str:
    from uuid import UUID

    return str(UUID(bytes=raw))
