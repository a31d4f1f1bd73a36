"""What a fork is made of: its row in the registry, where it leaves its parent, and what waits in it from the start."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING
from uuid import UUID

import xxhash

from tickwire_engine.archetype import FIRST_ISSUED_ENTITY_ID, WORLD_KEY
from tickwire_engine.encoding import read_schema, schema_message
from tickwire_engine.errors import InvalidRequestError, TickInTheFutureError, TickNotKeptError
from tickwire_engine.storage.rows import WorldRow

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tickwire_engine.config import ForkConfig
    from tickwire_engine.storage._forking import ForkPoint
    from tickwire_engine.storage.command_history import CommandHistory
    from tickwire_engine.storage.history import History
    from tickwire_engine.storage.rows import CommandRow, Stream
    from tickwire_engine.world import AsyncWorld

SEED_BITS = 52


def fork_tick(parent: AsyncWorld, at_tick: int | None) -> int:
    """Return the last tick that a fork shares; -1: none, the parent has not ticked yet.

    Raises:
        InvalidRequestError: It is negative.
        TickInTheFutureError: It is not durable yet.
    """
    last = parent.tick - 1
    if at_tick is None:
        return last
    if at_tick < 0:
        raise InvalidRequestError("at_tick must not be negative", field="at_tick")
    if at_tick > last:
        raise TickInTheFutureError(
            f"tick {at_tick} is not committed yet: the last one is {last}",
            field="at_tick",
            tick=at_tick,
            committed_tick=last,
        )
    return at_tick


def fork_row(parent: AsyncWorld, config: ForkConfig, name: str, tick: int) -> WorldRow:
    """Return the row of a fork that shares its parent's history up to a tick."""
    seed = derived_seed(parent.row.seed, config.world_id.bytes) if config.seed is None else config.seed
    return WorldRow(
        key=0,
        id=config.world_id.bytes,
        name=name,
        seed=seed,
        created_at_us=time.time_ns() // 1000,
        template=parent.row.template,
        labels=config.labels,
        retention=parent.row.retention,
        max_entities=parent.row.max_entities,
        request_hash=fork_hash(parent.world_id, config),
        parent_key=parent.row.key,
        fork_tick=tick,
    )


def fork_hash(parent: UUID, config: ForkConfig) -> bytes:
    """Return what tells one request for a fork from another."""
    text = f"fork {parent} {config.model_dump_json(exclude={'world_id'})}"
    return xxhash.xxh3_128_digest(text.encode())


def derived_seed(seed: int, salt: bytes) -> int:
    """Return another seed that follows from one."""
    digest = xxhash.xxh3_64_intdigest(seed.to_bytes(8, "big") + salt)
    return digest >> (64 - SEED_BITS)


def read_point(history: History, row: WorldRow) -> ForkPoint:
    """Read where a fork leaves its parent; the streams' schemas name the fork. Blocks.

    Raises:
        TickNotKeptError: The tick is no longer kept.
    """
    try:
        point = history.fork_point(row.parent_key, row.fork_tick)
    except TickNotKeptError as error:
        error.field = "at_tick"
        raise
    world_id = UUID(bytes=row.id)
    return point._replace(streams=tuple(_of_world(stream, world_id) for stream in point.streams))


def read_pending(
    history: CommandHistory, parent: int, ids: Sequence[bytes], point: ForkPoint
) -> list[CommandRow]:
    """Read the commands that wait in a parent, numbered anew for the fork. Blocks.

    What processors spawn in ticks after the fork tick is not taken along: the fork's own will.

    Args:
        parent: The parent's key.
        ids: Of the commands, in the order of their seqs.
        point: Where the fork leaves its parent.
    """
    rows: list[CommandRow] = []
    for command_id in ids:
        stored = history.find(parent, command_id)
        if stored is not None and stored.command.first_entity_id < point.next_issued_id:
            rows.append(stored.command._replace(seq=len(rows) + 1))
    return rows


def next_entity_id(pending: Sequence[CommandRow], point: ForkPoint) -> int:
    """Return the id that the next entity of a fork gets."""
    reserved = (row.first_entity_id + row.entity_count for row in pending)
    return (
        max((first for first in reserved if first < FIRST_ISSUED_ENTITY_ID), default=0)
        or point.next_entity_id
    )


def _of_world(stream: Stream, world_id: UUID) -> Stream:
    schema = read_schema(stream.schema)
    metadata = {**(schema.metadata or {}), WORLD_KEY: str(world_id).encode()}
    return replace(stream, schema=schema_message(schema.with_metadata(metadata)))
