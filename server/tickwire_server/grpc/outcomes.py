"""What became of a command, as every RPC and every stream tells it: one conversion."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tickwire.v1 import command_pb2
from tickwire_engine.rejection import rejection_of
from tickwire_server.grpc.errors import status_of
from tickwire_server.grpc.structs import dict_to_struct

if TYPE_CHECKING:
    from tickwire_engine.storage.rows import DecidedCommand


def id_text(raw: bytes) -> str:
    """Return an id's 16 bytes lower-case and hyphenated."""
    text = raw.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def outcome_proto(decided: DecidedCommand, *, table: bytes = b"") -> command_pb2.CommandOutcome:
    """Return what became of a command: the one form that every RPC tells it in."""
    outcome = decided.outcome
    if outcome.cancelled:
        state = command_pb2.COMMAND_STATE_CANCELLED
    else:
        state = command_pb2.COMMAND_STATE_APPLIED if outcome.applied else command_pb2.COMMAND_STATE_REJECTED
    message = command_pb2.CommandOutcome(
        command_id=id_text(decided.command_id),
        seq=outcome.seq,
        state=state,
        tick=decided.tick,
        first_entity_id=outcome.first_entity_id,
        entity_count=outcome.entity_count,
        world_id=outcome.world_id,
        table=table,
        table_bytes=outcome.table_bytes,
        outcome_seq=decided.outcome_seq,
        missing_entity_ids=outcome.missing,
    )
    if state == command_pb2.COMMAND_STATE_REJECTED:
        message.error.CopyFrom(status_of(rejection_of(outcome)))
    if outcome.value:
        message.value.CopyFrom(dict_to_struct(json.loads(outcome.value)))
    return message
