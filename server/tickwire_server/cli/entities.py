"""`tickwire spawn`, `update`, `despawn`: the commands that make, change and end entities."""

from __future__ import annotations

import typer

from tickwire import commands
from tickwire_server.cli._options import (
    DEFAULT_SERVER,
    AsJson,
    CommandId,
    Components,
    DueTick,
    EntityIds,
    MaxWait,
    Priority,
    Server,
    SkipMissing,
    TableFile,
    Wait,
    WaitName,
    Where,
    WorldRef,
)
from tickwire_server.cli._submitting import command_options, submit_one
from tickwire_server.cli._values import parse_components, read_table


def spawn(
    world: WorldRef,
    component: Components = None,
    table: TableFile = "",
    tick: DueTick = None,
    priority: Priority = 0,
    command_id: CommandId = "",
    wait: Wait = WaitName.ACCEPTED,
    max_wait: MaxWait = 30.0,
    server: Server = DEFAULT_SERVER,
    as_json: AsJson = False,
) -> None:
    """Make an entity of components, or one per row of a table."""
    components, rows = parse_components(component), read_table(table)
    if (components is None) == (rows is None):
        raise typer.BadParameter("""give components, as -c 'Position:{"x": 1}', or --table FILE""")
    command = commands.spawn(components, table=rows, **command_options(command_id, tick, priority))
    submit_one(world, command, wait, max_wait, server, as_json=as_json)


def update(
    world: WorldRef,
    entity_ids: EntityIds = None,
    component: Components = None,
    where: Where = "",
    table: TableFile = "",
    skip_missing: SkipMissing = False,
    tick: DueTick = None,
    priority: Priority = 0,
    command_id: CommandId = "",
    wait: Wait = WaitName.ACCEPTED,
    max_wait: MaxWait = 30.0,
    server: Server = DEFAULT_SERVER,
    as_json: AsJson = False,
) -> None:
    """Change fields of entities; those not named stay as they are."""
    components, rows = parse_components(component), read_table(table)
    if rows is None and not ((entity_ids or where) and components):
        raise typer.BadParameter(
            """give entity ids or --where, and components, as 7 -c 'Position:{"x": 1}', or --table FILE"""
        )
    if rows is not None and (entity_ids or components):
        raise typer.BadParameter("a table has its own column entity_id: give it alone")
    command = commands.update(
        entity_ids or None,
        components,
        where=where,
        table=rows,
        skip_missing=skip_missing,
        **command_options(command_id, tick, priority),
    )
    submit_one(world, command, wait, max_wait, server, as_json=as_json)


def despawn(
    world: WorldRef,
    entity_ids: EntityIds = None,
    where: Where = "",
    skip_missing: SkipMissing = False,
    tick: DueTick = None,
    priority: Priority = 0,
    command_id: CommandId = "",
    wait: Wait = WaitName.ACCEPTED,
    max_wait: MaxWait = 30.0,
    server: Server = DEFAULT_SERVER,
    as_json: AsJson = False,
) -> None:
    """End entities."""
    if not (entity_ids or where):
        raise typer.BadParameter("give the ids of the entities to end, or --where")
    command = commands.despawn(
        entity_ids or None,
        where=where,
        skip_missing=skip_missing,
        **command_options(command_id, tick, priority),
    )
    submit_one(world, command, wait, max_wait, server, as_json=as_json)
