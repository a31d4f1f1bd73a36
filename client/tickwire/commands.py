"""Builders of commands, for `World.submit` and `SubmitStream.send`.

    from tickwire import commands

    world.submit([
        commands.spawn({"Position": {"x": 1.0}, "Velocity": {"vx": 0.5}}),
        commands.update(17, {"Position": {"x": 2.0}}, tick=100),
    ])

Every builder makes its command's id, a UUIDv7, there and then: the same object may be submitted again after
a lost answer, and is applied once. Further keywords of each (`CommandOptions`) are `command_id`, `tick` (the
earliest to be applied in; default: the next) and `priority` (lower first, default 0). What they return is
the contract's message `tickwire.v1.command_pb2.Command`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias, TypedDict, Unpack, cast

import pyarrow as pa

from tickwire._arrow import to_ipc
from tickwire._rollouts import EpisodeOptions, RolloutOptions, episode_message, rollout_message
from tickwire._values import new_id, to_struct
from tickwire.v1 import command_pb2 as pb
from tickwire.v1 import world_pb2

__all__ = [
    "Command",
    "CommandOptions",
    "add_component",
    "add_processor",
    "add_sql_processor",
    "create_world",
    "custom",
    "despawn",
    "destroy_world",
    "fork_world",
    "message",
    "query_world",
    "remove_component",
    "remove_processor",
    "remove_resource",
    "run_episode",
    "run_rollout",
    "set_resource",
    "spawn",
    "update",
]

Command: TypeAlias = pb.Command
Components: TypeAlias = Mapping[str, Mapping[str, Any]]
EntityIds: TypeAlias = "int | Iterable[int] | pa.Array[Any] | pa.ChunkedArray[Any]"


class CommandOptions(TypedDict, total=False):
    """What every command takes."""

    command_id: str
    tick: int | None
    priority: int


def spawn(
    components: Components | None = None, *, table: Any = None, **options: Unpack[CommandOptions]
) -> Command:
    """Creates one entity of `components`, or one per row of `table`.

    Args:
        components: fields by component: {"Position": {"x": 1.0}}; fields left out take their defaults.
        table: an Arrow table (or what `pyarrow.table` takes) with columns `component__field`.
        **options: see CommandOptions.
    """
    return _command(
        options,
        spawn=pb.Spawn(
            components=None if components is None else to_struct(components),
            table=b"" if table is None else to_ipc(table),
        ),
    )


def despawn(
    entity_ids: EntityIds | None = None,
    *,
    where: str = "",
    skip_missing: bool = False,
    **options: Unpack[CommandOptions],
) -> Command:
    """Removes entities, by id or by a SQL condition over `component__field`; given both, those in both."""
    return _command(
        options,
        despawn=pb.Despawn(entity_ids=entity_id_list(entity_ids), where=where, skip_missing=skip_missing),
    )


def update(
    entity_ids: EntityIds | None = None,
    components: Components | None = None,
    *,
    where: str = "",
    table: Any = None,
    skip_missing: bool = False,
    **options: Unpack[CommandOptions],
) -> Command:
    """Changes fields of components that entities have; fields not named stay as they are.

    Args:
        entity_ids: the entities to change.
        components: the new values for all of them: {"Position": {"x": 1.0}}.
        where: a SQL condition, instead of ids or to choose among them.
        table: instead of the above, a row per entity: `entity_id` and columns `component__field`.
        skip_missing: pass over ids that are not alive, rather than rejecting the command.
        **options: see CommandOptions.
    """
    return _command(
        options,
        update=pb.Update(
            entity_ids=entity_id_list(entity_ids),
            where=where,
            components=None if components is None else to_struct(components),
            table=b"" if table is None else to_ipc(table),
            skip_missing=skip_missing,
        ),
    )


def add_component(
    entity_ids: EntityIds | None = None,
    components: Components | None = None,
    *,
    where: str = "",
    table: Any = None,
    skip_missing: bool = False,
    **options: Unpack[CommandOptions],
) -> Command:
    """Gives entities further components; arguments as in `update`."""
    return _command(
        options,
        add_component=pb.AddComponent(
            entity_ids=entity_id_list(entity_ids),
            where=where,
            components=None if components is None else to_struct(components),
            table=b"" if table is None else to_ipc(table),
            skip_missing=skip_missing,
        ),
    )


def remove_component(
    entity_ids: EntityIds | None = None,
    components: Iterable[str] = (),
    *,
    where: str = "",
    skip_missing: bool = False,
    **options: Unpack[CommandOptions],
) -> Command:
    """Takes components, named by class, from entities."""
    return _command(
        options,
        remove_component=pb.RemoveComponent(
            entity_ids=entity_id_list(entity_ids),
            where=where,
            components=components,
            skip_missing=skip_missing,
        ),
    )


def add_processor(
    name: str,
    *,
    processor_type: str = "",
    params: Mapping[str, Any] | None = None,
    order: int | None = None,
    **options: Unpack[CommandOptions],
) -> Command:
    """Adds a processor of a class that the server's app registered.

    Args:
        name: its name within the world.
        processor_type: the class; empty: the name.
        params: passed to the class.
        order: the processor's priority within a tick, lower first; None: the class's own.
        **options: see CommandOptions; `priority` there is the command's.
    """
    return _command(
        options,
        add_processor=pb.AddProcessor(
            name=name,
            type=processor_type,
            params=None if params is None else to_struct(params),
            priority=order,
        ),
    )


def add_sql_processor(
    name: str,
    components: Iterable[str],
    assignments: Mapping[str, str],
    *,
    where: str = "",
    order: int | None = None,
    **options: Unpack[CommandOptions],
) -> Command:
    """Adds a processor of SQL: {"position__x": "position__x + velocity__vx"}, no code on the server."""
    sql = world_pb2.SqlProcessor(components=components, assignments=assignments, where=where)
    return _command(options, add_processor=pb.AddProcessor(name=name, sql=sql, priority=order))


def remove_processor(name: str, **options: Unpack[CommandOptions]) -> Command:
    """Removes a processor."""
    return _command(options, remove_processor=pb.RemoveProcessor(name=name))


def set_resource(name: str, value: Mapping[str, Any], **options: Unpack[CommandOptions]) -> Command:
    """Sets a resource to a whole new value."""
    return _command(options, set_resource=pb.SetResource(name=name, value=to_struct(value)))


def remove_resource(name: str, **options: Unpack[CommandOptions]) -> Command:
    """Removes a resource."""
    return _command(options, remove_resource=pb.RemoveResource(name=name))


def create_world(
    name: str,
    *,
    template: str = "",
    seed: int | None = None,
    labels: Mapping[str, str] | None = None,
    **options: Unpack[CommandOptions],
) -> Command:
    """Lets the world make another one; the outcome has its id."""
    return _command(
        options, create_world=pb.CreateWorld(name=name, template=template, seed=seed, labels=labels or {})
    )


def destroy_world(world: str, **options: Unpack[CommandOptions]) -> Command:
    """Destroys a world, named by id or name, at a tick boundary."""
    return _command(options, destroy_world=pb.DestroyWorld(world=world))


def fork_world(
    name: str = "",
    *,
    world: str = "",
    at_tick: int | None = None,
    seed: int | None = None,
    with_pending: bool = False,
    labels: Mapping[str, str] | None = None,
    **options: Unpack[CommandOptions],
) -> Command:
    """Forks a world (default: the one the command is sent to) after `at_tick` (default: the last committed one)."""
    return _command(
        options,
        fork_world=pb.ForkWorld(
            world=world, name=name, at_tick=at_tick, seed=seed, with_pending=with_pending, labels=labels or {}
        ),
    )


def query_world(
    sql: str = "",
    *,
    components: Iterable[str] = (),
    where: str = "",
    entity_ids: EntityIds | None = None,
    limit: int = 0,
    **options: Unpack[CommandOptions],
) -> Command:
    """Reads the world inside its tick, before the processors; the rows are the outcome's table."""
    return _command(
        options,
        query_world=pb.QueryWorld(
            sql=sql, components=components, where=where, entity_ids=entity_id_list(entity_ids), limit=limit
        ),
    )


def message(
    content: Mapping[str, Any],
    *,
    channel: str = "",
    sender_id: int = 0,
    receiver_id: int = 0,
    **options: Unpack[CommandOptions],
) -> Command:
    """Puts a message into the world's mailbox, for the processors of the tick that applies it."""
    return _command(
        options,
        message=pb.EntityMessage(
            sender_id=sender_id, receiver_id=receiver_id, channel=channel, content=to_struct(content)
        ),
    )


def run_rollout(
    ticks: int, *, rollout: RolloutOptions | None = None, **options: Unpack[CommandOptions]
) -> Command:
    """Tries futures of the world beside its ticks; the outcome's table has the branches' rows, its value a word on each.

    Args:
        ticks: how many each branch computes.
        rollout: see RolloutOptions.
        **options: see CommandOptions.
    """
    return _command(options, run_rollout=rollout_message(ticks, rollout or {}))


def run_episode(
    max_ticks: int, *, episode: EpisodeOptions | None = None, **options: Unpack[CommandOptions]
) -> Command:
    """Tries futures from beginnings that are drawn; the outcome's table is the summary, a row for each branch.

    Args:
        max_ticks: ends a branch that did not stop.
        episode: see EpisodeOptions.
        **options: see CommandOptions.
    """
    return _command(options, run_episode=episode_message(max_ticks, episode or {}))


def custom(name: str, body: Mapping[str, Any] | None = None, **options: Unpack[CommandOptions]) -> Command:
    """Calls a handler that the server's app registered under a name."""
    return _command(options, custom=pb.Custom(name=name, body=to_struct(body or {})))


def _command(options: CommandOptions, **payload: Any) -> Command:
    return Command(
        id=options.get("command_id") or new_id(),
        tick=options.get("tick"),
        priority=options.get("priority", 0),
        **payload,
    )


def entity_id_list(entity_ids: EntityIds | None) -> list[int]:
    """Makes a list of whatever names entities: one id, several, an Arrow column; None: an empty list.

    Raises:
        ValueError: a selection of no entities, which on the wire would mean no restriction.
    """
    if entity_ids is None:
        return []
    if isinstance(entity_ids, pa.Array | pa.ChunkedArray):
        ids = cast("list[int]", entity_ids.to_pylist())
    else:
        ids = list(entity_ids) if isinstance(entity_ids, Iterable) else [entity_ids]
    if not ids:
        raise ValueError("entity_ids is empty; leave it out to mean all that `where` selects")
    return ids
