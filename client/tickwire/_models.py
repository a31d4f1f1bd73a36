"""What calls answer, as immutable Python values made from the contract's messages.

Values of enums that this version does not know read as UNKNOWN, so that a newer server does not break an
older client.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Self

import pyarrow as pa

from tickwire._arrow import from_ipc
from tickwire._error_translation import from_status
from tickwire._errors import TickwireError
from tickwire._values import Json, from_struct
from tickwire.v1 import (
    command_pb2,
    command_service_pb2,
    query_service_pb2,
    server_service_pb2,
    simulation_service_pb2,
    world_pb2,
)

if TYPE_CHECKING:
    from google.protobuf import timestamp_pb2


class WorldState(StrEnum):
    """What a world is doing."""

    UNKNOWN = "unknown"
    IDLE = "idle"
    RUNNING = "running"
    PLAYING = "playing"
    FAULTED = "faulted"
    DESTROYED = "destroyed"


class CommandState(StrEnum):
    """How far a command has come; APPLIED, REJECTED and CANCELLED are final."""

    UNKNOWN = "unknown"
    PENDING = "pending"
    APPLIED = "applied"
    REJECTED = "rejected"
    CANCELLED = "cancelled"


_WORLD_STATES = {
    world_pb2.WORLD_STATE_IDLE: WorldState.IDLE,
    world_pb2.WORLD_STATE_RUNNING: WorldState.RUNNING,
    world_pb2.WORLD_STATE_PLAYING: WorldState.PLAYING,
    world_pb2.WORLD_STATE_FAULTED: WorldState.FAULTED,
    world_pb2.WORLD_STATE_DESTROYED: WorldState.DESTROYED,
}
_COMMAND_STATES = {
    command_pb2.COMMAND_STATE_PENDING: CommandState.PENDING,
    command_pb2.COMMAND_STATE_APPLIED: CommandState.APPLIED,
    command_pb2.COMMAND_STATE_REJECTED: CommandState.REJECTED,
    command_pb2.COMMAND_STATE_CANCELLED: CommandState.CANCELLED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Archetype:
    """A set of component types, and the entities that have exactly these."""

    name: str
    components: tuple[str, ...]
    entities: int
    schema: pa.Schema | None

    @classmethod
    def from_message(cls, message: world_pb2.Archetype) -> Self:
        """Reads the contract's message."""
        schema = pa.ipc.read_schema(pa.py_buffer(message.arrow_schema)) if message.arrow_schema else None
        return cls(
            name=message.name,
            components=tuple(message.components),
            entities=message.entities,
            schema=schema,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class WorldInfo:
    """A world as of its last durable tick.

    Attributes:
        tick: the next tick to compute; the last committed one is `committed_tick`.
        earliest_tick: the oldest tick from which every later one is kept.
        archived_tick: the last tick in LanceDB, -1 before the first.
        hz: the rate asked for by `play`; 0: as fast as possible, or not playing.
        fault: the processor's error while the state is FAULTED.
        keep_ticks: how many of the newest ticks are kept without gaps; 0: all.
        keep_every: of older ticks each so-many-th is kept; 0: none.
        keep_bytes: about how many bytes of archived history are kept, the oldest go first; 0: no bound.
    """

    id: str
    name: str
    tick: int
    run_id: str
    state: WorldState
    entities: int
    archetypes: tuple[Archetype, ...]
    parent_id: str
    fork_tick: int
    seed: int
    created_at: datetime | None
    fault: TickwireError | None
    labels: dict[str, str]
    keep_ticks: int
    keep_every: int
    keep_bytes: int
    pending_commands: int
    etag: str
    earliest_tick: int
    archived_tick: int
    hz: float
    max_entities: int

    @property
    def committed_tick(self) -> int:
        """The last committed tick, -1 at birth."""
        return self.tick - 1

    @classmethod
    def from_message(cls, message: world_pb2.World) -> Self:
        """Reads the contract's message."""
        fault: TickwireError | None = None
        if message.HasField("fault_status"):
            fault = from_status(message.fault_status)
        elif message.fault:
            fault = TickwireError(message.fault)
        return cls(
            id=message.id,
            name=message.name,
            tick=message.tick,
            run_id=message.run_id,
            state=_WORLD_STATES.get(message.state, WorldState.UNKNOWN),
            entities=message.entities,
            archetypes=tuple(Archetype.from_message(item) for item in message.archetypes),
            parent_id=message.parent_id,
            fork_tick=message.fork_tick,
            seed=message.seed,
            created_at=to_datetime(message.created_at) if message.HasField("created_at") else None,
            fault=fault,
            labels=dict(message.labels),
            keep_ticks=message.retention.keep_ticks,
            keep_every=message.retention.keep_every,
            keep_bytes=message.retention.keep_bytes,
            pending_commands=message.pending_commands,
            etag=message.etag,
            earliest_tick=message.earliest_tick,
            archived_tick=message.archived_tick,
            hz=message.hz,
            max_entities=message.max_entities,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a command.

    Attributes:
        tick: the tick that decided it; -1 while pending and when cancelled.
        error: why it was rejected.
        first_entity_id: the first entity that a spawn created; the others follow without gaps. 0 otherwise.
        entity_count: how many entities were spawned, despawned or changed.
        world_id: the world that the command made; empty: none.
        table: the rows of a query, rollout or episode, where they came inline (up to 1 MiB).
        table_bytes: the size of that table, inline or not.
        value: what the handler of a custom command returned.
        outcome_seq: its number among the world's outcomes, from 1; 0 while pending.
        missing_entity_ids: ids that were not alive, the first 100.
    """

    command_id: str
    seq: int
    state: CommandState
    tick: int
    error: TickwireError | None
    first_entity_id: int
    entity_count: int
    world_id: str
    table: pa.Table | None
    table_bytes: int
    value: dict[str, Json] | None
    outcome_seq: int
    missing_entity_ids: tuple[int, ...]

    @classmethod
    def from_message(cls, message: command_pb2.CommandOutcome) -> Self:
        """Reads the contract's message."""
        return cls(
            command_id=message.command_id,
            seq=message.seq,
            state=_COMMAND_STATES.get(message.state, CommandState.UNKNOWN),
            tick=message.tick,
            error=from_status(message.error) if message.HasField("error") else None,
            first_entity_id=message.first_entity_id,
            entity_count=message.entity_count,
            world_id=message.world_id,
            table=from_ipc([message.table]) if message.table else None,
            table_bytes=message.table_bytes,
            value=from_struct(message.value) if message.HasField("value") else None,
            outcome_seq=message.outcome_seq,
            missing_entity_ids=tuple(message.missing_entity_ids),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """The acknowledgement of a command: it is on disk, and will be applied or rejected whatever happens.

    Attributes:
        command_id: the command's id.
        seq: its place in the world's journal.
        due_tick: the earliest tick it can be applied in.
        first_entity_id: the first of the ids reserved for a spawn, usable at once; 0 otherwise.
        entity_count: how many ids were reserved, consecutive from the first.
        duplicate: the id was known already, and nothing new was journaled.
        outcome: what became of it, if the call waited long enough to know.
        error: it was refused (with `allow_partial`), and nothing was journaled for it.
    """

    command_id: str
    seq: int
    due_tick: int
    first_entity_id: int
    entity_count: int
    duplicate: bool
    outcome: Outcome | None
    error: TickwireError | None

    @property
    def entity_ids(self) -> range:
        """The ids reserved for a spawn; empty for other commands."""
        return range(self.first_entity_id, self.first_entity_id + self.entity_count)

    def raise_for_error(self) -> Self:
        """Raises the error of a refused or rejected command; answers itself otherwise."""
        error = self.error or (self.outcome.error if self.outcome else None)
        if error is not None:
            raise error
        return self

    @classmethod
    def from_message(cls, message: command_service_pb2.CommandReceipt) -> Self:
        """Reads the contract's message."""
        return cls(
            command_id=message.command_id,
            seq=message.seq,
            due_tick=message.due_tick,
            first_entity_id=message.first_entity_id,
            entity_count=message.entity_count,
            duplicate=message.duplicate,
            outcome=Outcome.from_message(message.outcome) if message.HasField("outcome") else None,
            error=from_status(message.error) if message.HasField("error") else None,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class StepResult:
    """Which ticks a step computed; all of them are durable."""

    first_tick: int
    last_tick: int
    run_id: str
    commands_applied: int
    commands_rejected: int

    @classmethod
    def from_message(cls, message: simulation_service_pb2.StepResponse) -> Self:
        """Reads the contract's message."""
        return cls(
            first_tick=message.first_tick,
            last_tick=message.last_tick,
            run_id=message.run_id,
            commands_applied=message.commands_applied,
            commands_rejected=message.commands_rejected,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RunProgress:
    """How far a run has come: `ticks_done` of `ticks_total` are durable, `tick` is the last."""

    tick: int
    ticks_done: int
    ticks_total: int
    ticks_per_second: float

    @classmethod
    def from_message(cls, message: simulation_service_pb2.RunResponse) -> Self:
        """Reads the contract's message."""
        return cls(
            tick=message.tick,
            ticks_done=message.ticks_done,
            ticks_total=message.ticks_total,
            ticks_per_second=message.ticks_per_second,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a caller can reckon with; 0: no limit. Names and units are the contract's."""

    max_request_bytes: int
    max_table_bytes: int
    max_subscribe_message_bytes: int
    max_page_size: int
    commands_per_tick: int
    cost_units_per_day: int
    max_entities: int
    max_worlds: int
    command_id_horizon_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerInfo:
    """What the server is; without credentials only `version` is filled."""

    version: str
    app: str
    features: tuple[str, ...]
    hash_algorithm: str
    limits: Limits

    @classmethod
    def from_message(cls, message: server_service_pb2.GetServerInfoResponse) -> Self:
        """Reads the contract's message."""
        limits = message.limits
        return cls(
            version=message.version,
            app=message.app,
            features=tuple(message.features),
            hash_algorithm=message.hash_algorithm,
            limits=Limits(
                max_request_bytes=limits.max_request_bytes,
                max_table_bytes=limits.max_table_bytes,
                max_subscribe_message_bytes=limits.max_subscribe_message_bytes,
                max_page_size=limits.max_page_size,
                commands_per_tick=limits.commands_per_tick,
                cost_units_per_day=limits.cost_units_per_day,
                max_entities=limits.max_entities,
                max_worlds=limits.max_worlds,
                command_id_horizon_s=limits.command_id_horizon.ToNanoseconds() / 1e9,
            ),
        )


def components_of(message: query_service_pb2.GetEntityResponse) -> dict[str, Json]:
    """The components of an entity by class name, each a dict of its fields."""
    return from_struct(message.components)


def to_datetime(stamp: timestamp_pb2.Timestamp) -> datetime:
    """Makes an aware datetime in UTC; nanoseconds are cut to microseconds."""
    return stamp.ToDatetime(tzinfo=UTC)
