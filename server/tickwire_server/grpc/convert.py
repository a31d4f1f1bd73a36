"""Between the contract's messages and the services' plain values."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any
from uuid import UUID

from tickwire.v1 import command_pb2, command_service_pb2, world_pb2
from tickwire_engine import CommandType, ForkConfig, Submission, WorldConfig
from tickwire_engine.archetype import MAX_ID
from tickwire_engine.errors import (
    CommandTypeMismatchError,
    InvalidCommandError,
    InvalidRequestError,
)
from tickwire_engine.limits import DEFAULTS, Limits
from tickwire_engine.rejection import rejection_of
from tickwire_engine.storage.retention import Retention
from tickwire_engine.storage.rows import DecidedCommand
from tickwire_engine.submission import asked_for_next
from tickwire_server.grpc.errors import status_of
from tickwire_server.grpc.outcomes import id_text, outcome_proto
from tickwire_server.grpc.structs import (
    fill,
    plain,
    refuse_own_unknown_fields,
    refuse_unknown_fields,
)
from tickwire_server.grpc.wire import timestamp
from tickwire_server.services import RunState
from tickwire_server.services.worlds import WorldChanges

if TYPE_CHECKING:
    from collections.abc import Iterable

    from google.protobuf.duration_pb2 import Duration
    from google.protobuf.message import Message
    from google.protobuf.timestamp_pb2 import Timestamp

    from tickwire.v1 import world_service_pb2
    from tickwire_engine import Receipt
    from tickwire_engine.rollouts import BranchResult
    from tickwire_engine.storage.history import StoredCommand
    from tickwire_engine.storage.rows import CommandRow
    from tickwire_server.services.worlds import WorldView

_STATES = {
    RunState.IDLE: world_pb2.WORLD_STATE_IDLE,
    RunState.RUNNING: world_pb2.WORLD_STATE_RUNNING,
    RunState.PLAYING: world_pb2.WORLD_STATE_PLAYING,
    RunState.FAULTED: world_pb2.WORLD_STATE_FAULTED,
    RunState.DESTROYED: world_pb2.WORLD_STATE_DESTROYED,
}

# As google.protobuf says of its types.
_MAX_SECONDS = 315_576_000_000
_FIRST_SECOND, _LAST_SECOND = -62_135_596_800, 253_402_300_799
_TYPES = {command_pb2.CommandType.Value(f"COMMAND_TYPE_{kind.name}"): kind for kind in CommandType}
_MAX_REJECTED = 100
_PAYLOADS = {kind.value: (kind, number) for number, kind in _TYPES.items()}
"""By the payload's name: the type that it tells, and the type's number."""
_is_id = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}").fullmatch


def state_proto(state: RunState) -> world_pb2.WorldState.ValueType:
    """Return a run state as the contract's enum."""
    return _STATES[state]


def seconds(duration: Duration, *, field: str) -> float:
    """Return a Duration in seconds.

    Raises:
        InvalidRequestError: It is none, or negative.
    """
    if not (0 <= duration.seconds <= _MAX_SECONDS and 0 <= duration.nanos < 1_000_000_000):
        raise InvalidRequestError(f"{field} is no duration of 0 s or more", field=field)
    return float(duration.seconds) + duration.nanos / 1e9


def micros(timestamp: Timestamp, *, field: str) -> int:
    """Return a Timestamp in microseconds since the epoch; the default is 0.

    Raises:
        InvalidRequestError: It lies outside of the years 1 to 9999, or its nanos are no part of a second.
    """
    if not (_FIRST_SECOND <= timestamp.seconds <= _LAST_SECOND and 0 <= timestamp.nanos < 1_000_000_000):
        raise InvalidRequestError(f"{field} is no time in the years 1 to 9999", field=field)
    return timestamp.seconds * 1_000_000 + timestamp.nanos // 1_000


def parse_uuid(text: str, *, field: str) -> UUID:
    """Return an id.

    Raises:
        InvalidRequestError: It is no lower-case hyphenated UUID.
    """
    if not _is_id(text):
        raise InvalidRequestError(f"{text!r} is no lower-case hyphenated UUID", field=field)
    return UUID(text)


def command_types(
    values: Iterable[command_pb2.CommandType.ValueType], *, field: str
) -> tuple[CommandType, ...]:
    """Return types of commands.

    Raises:
        InvalidRequestError: One is none; `field` says which.
    """
    found = []
    for index, value in enumerate(values):
        name = _TYPES.get(value)
        if name is None:
            raise InvalidRequestError(f"{value} is no CommandType", field=f"{field}[{index}]")
        found.append(name)
    return tuple(found)


def type_protos(kinds: Iterable[str]) -> list[command_pb2.CommandType.ValueType]:
    """Return types of commands, given by their names, as the contract's enum."""
    return [command_pb2.CommandType.Value(f"COMMAND_TYPE_{kind.upper()}") for kind in kinds]


def submission(
    command: command_pb2.Command, *, index: int, actor: str, limits: Limits = DEFAULTS
) -> Submission:
    """Return a command as its sender made it.

    Raises:
        TickwireError: It has unknown fields, no payload, or a type that its payload denies; `field` says where.
    """
    path = f"commands[{index}]"
    # A command has one message inside, its payload: no need to look for it in a list of fields.
    refuse_own_unknown_fields(command, path=path)
    payload_name = command.WhichOneof("payload")
    if payload_name is None:
        raise InvalidCommandError(f"{path} has no payload: set one of spawn, update, ...", field=path)
    kind, number = _PAYLOADS[payload_name]
    if command.type and command.type != number:
        raise CommandTypeMismatchError(
            f"{path} is of type {command.type}, and its payload is {payload_name}: leave type out",
            field=f"{path}.type",
            type=_type_name(command.type),
            payload=payload_name,
        )
    if command.actor_id:
        raise InvalidCommandError(f"{path}.actor_id is set by the server", field=f"{path}.actor_id")
    if command.seq:
        raise InvalidCommandError(f"{path}.seq is set by the server", field=f"{path}.seq")
    text = command.id
    if text and not _is_id(text):
        raise InvalidCommandError(f"{text!r} is no lower-case hyphenated UUID", field=f"{path}.id")
    return Submission(
        kind,
        payload_of(getattr(command, payload_name), f"{path}.{payload_name}", limits),
        bytes.fromhex(text.replace("-", "")) if text else None,
        command.tick if command.HasField("tick") else None,
        command.priority,
        command.version or 1,
        actor,
    )


def _type_name(number: int) -> str:
    kind = _TYPES.get(number)  # type: ignore[call-overload]  # the stubs know no numbers that are none
    return str(number) if kind is None else f"COMMAND_TYPE_{kind.name}"


def payload_of(message: Message, path: str, limits: Limits) -> dict[str, Any]:
    """Return a message as plain values.

    Raises:
        TickwireError: It has unknown fields, or values that are too large; `field` says where.
    """
    refuse_unknown_fields(message, path=path)
    try:
        return plain(message, limits=limits)
    except InvalidRequestError as error:
        raise error.at(path) from None


def receipt_proto(
    receipt: Receipt, *, table: bytes = b"", reached: bool = True
) -> command_service_pb2.CommandReceipt:
    """Return a receipt.

    Args:
        receipt: Of a command that was accepted, or refused.
        table: What its outcome's table is, if it goes along.
        reached: Whether it has come as far as the call waited for; else its outcome is not told.
    """
    command = receipt.command
    if command is None:
        assert receipt.error is not None
        return command_service_pb2.CommandReceipt(error=status_of(receipt.error))
    outcome = None
    if command.settled is not None and reached:
        outcome = outcome_proto(
            DecidedCommand(
                command.id,
                command.actor,
                command.settled.outcome_seq,
                command.settled.tick,
                command.settled.outcome,
            ),
            table=table,
        )
    return command_service_pb2.CommandReceipt(
        command_id=id_text(command.id),
        seq=command.seq,
        due_tick=command.tick,
        first_entity_id=command.first_entity_id,
        entity_count=command.entity_count,
        duplicate=receipt.duplicate,
        outcome=outcome,
    )


def stored_outcome_proto(stored: StoredCommand, *, table: bytes = b"") -> command_pb2.CommandOutcome:
    """Return what became of a command of history, or that it is pending."""
    command, outcome = stored.command, stored.outcome
    if outcome is None:
        return command_pb2.CommandOutcome(
            command_id=id_text(command.id),
            seq=command.seq,
            state=command_pb2.COMMAND_STATE_PENDING,
            tick=-1,
        )
    decided = DecidedCommand(command.id, command.actor, outcome.outcome_seq, stored.tick, outcome)
    return outcome_proto(decided, table=table)


def command_proto(row: CommandRow, *, with_table: bool = True) -> command_pb2.Command:
    """Return a command as it was submitted, with what the server set."""
    message = command_pb2.Command(
        id=id_text(row.id),
        tick=None if asked_for_next(row) else row.tick,
        actor_id=actor_text(row.actor),
        type=command_pb2.CommandType.Value(f"COMMAND_TYPE_{row.type.upper()}"),
        priority=row.priority,
        version=row.version,
        seq=row.seq,
    )
    payload = getattr(message, row.type)
    payload.SetInParent()
    if row.payload:
        fill(payload, json.loads(row.payload))
    if row.table and with_table:
        payload.table = row.table
    return message


def actor_text(actor: str) -> str:
    """Return an actor as the contract names it: by its id; code in the server has names of its own."""
    try:
        return str(UUID(hex=actor)) if len(actor) == 32 else actor
    except ValueError:
        return actor


def actor_key(text: str) -> str:
    """Return an actor as commands are kept by."""
    try:
        return UUID(text).hex
    except ValueError:
        return text


def world_config(request: world_service_pb2.CreateWorldRequest) -> WorldConfig:
    """Return the world that a request asks for."""
    given: dict[str, Any] = {
        "name": request.name,
        "labels": dict(request.labels),
        "template": request.template,
    }
    if request.world_id:
        given["world_id"] = _new_world_id(request.world_id)
    if request.HasField("seed"):
        given["seed"] = _seed(request.seed)
    if request.HasField("retention"):
        given |= _retention(request.retention, field="retention")
    return WorldConfig(**given)


def fork_config(request: world_service_pb2.ForkWorldRequest) -> ForkConfig:
    """Return the fork that a request asks for."""
    given: dict[str, Any] = {
        "name": request.name,
        "labels": dict(request.labels),
        "with_pending": request.with_pending,
    }
    if request.world_id:
        given["world_id"] = _new_world_id(request.world_id)
    if request.HasField("at_tick"):
        given["at_tick"] = request.at_tick
    if request.HasField("seed"):
        given["seed"] = _seed(request.seed)
    return ForkConfig(**given)


def branch_facts(result: BranchResult) -> dict[str, Any]:
    """Return what came of a branch, by the fields of RunRolloutResponse and RunEpisodeResponse."""
    return {
        "branch": result.number,
        "name": result.name,
        "last_tick": result.last_tick,
        "table": result.table,
        "world_id": result.world_id,
        "stopped": result.stopped,
        "error": None if result.error is None else status_of(result.error),
        "score": result.score,
        "rejected": [status_of(rejection_of(outcome)) for outcome in result.rejected[:_MAX_REJECTED]],
    }


def _new_world_id(text: str) -> UUID:
    world_id = parse_uuid(text, field="world_id")
    if world_id.version != 7:
        raise InvalidRequestError(f"world_id {world_id} is no UUIDv7", field="world_id")
    return world_id


def _seed(seed: int) -> int:
    if not 0 <= seed < 1 << 53:
        raise InvalidRequestError("seed must lie in [0, 2^53)", field="seed")
    return seed


def _retention(message: world_pb2.Retention, *, field: str) -> dict[str, int]:
    given = {"keep_ticks": message.keep_ticks, "keep_every": message.keep_every}
    if message.HasField("keep_bytes"):
        given["keep_bytes"] = message.keep_bytes
    for name, value in given.items():
        if not 0 <= value <= MAX_ID:
            raise InvalidRequestError(f"{name} must lie in [0, 2^53)", field=f"{field}.{name}")
    return given


def world_changes(request: world_service_pb2.UpdateWorldRequest) -> WorldChanges:
    """Return what a request changes of a world.

    Raises:
        InvalidRequestError: Its mask names what cannot be changed, or a value is none.
    """
    changes = request.changes
    given: dict[str, Any] = {}
    for index, path in enumerate(request.update_mask.paths):
        match path:
            case "name":
                given["name"] = changes.name
            case "labels":
                given["labels"] = dict(changes.labels)
            case "retention":
                given["retention"] = Retention().stored
                if changes.HasField("retention"):
                    given["retention"] = _retention(changes.retention, field="changes.retention")
            case _:
                raise InvalidRequestError(
                    f"{path!r} cannot be changed: name, labels and retention can, each as a whole",
                    field=f"update_mask.paths[{index}]",
                )
    return WorldChanges(**given)


def world_proto(view: WorldView) -> world_pb2.World:
    """Return a world."""
    message = world_pb2.World(
        id=str(view.world_id),
        name=view.name,
        tick=view.tick,
        run_id=str(view.run_id),
        state=state_proto(view.state),
        entities=view.entities,
        archetypes=[
            world_pb2.Archetype(
                name=archetype.name,
                components=archetype.components,
                entities=archetype.entities,
                arrow_schema=archetype.schema,
            )
            for archetype in view.archetypes
        ],
        seed=view.seed,
        created_at=timestamp(view.created_at_us),
        labels=view.labels,
        retention=world_pb2.Retention(**Retention.of(view.retention).stored),
        pending_commands=view.pending_commands,
        etag=view.etag,
        earliest_tick=view.earliest_tick,
        hz=view.hz,
        max_entities=view.max_entities,
        archived_tick=view.archived_tick,
        parent_id="" if view.parent_id is None else str(view.parent_id),
        fork_tick=0 if view.parent_id is None else view.fork_tick,
    )
    if view.fault is not None:
        message.fault = view.fault.message
        message.fault_status.CopyFrom(status_of(view.fault))
    return message
