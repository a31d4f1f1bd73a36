"""Commands: every change to a world is one, whoever makes it and however it arrives."""

from __future__ import annotations

import base64
import functools
import json
from datetime import datetime
from enum import Enum
from json import encoder
from typing import TYPE_CHECKING, Any, Self
from uuid import UUID

import pyarrow as pa
import xxhash
from pydantic import BaseModel, ConfigDict, Field

from tickwire_engine.archetype import MAX_ID
from tickwire_engine.ids import uuid7
from tickwire_engine.values import to_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=to_json)


def _reused_encoder() -> Callable[[Any, int], Iterable[str]]:
    """Return what `_ENCODER` makes anew for every value, which takes as long as encoding a command does."""
    make: Any = getattr(encoder, "c_make_encoder", None)
    if make is None:
        return _ENCODER.iterencode  # type: ignore[return-value]
    keys = (":", ",", True, False, True)
    chunks: Callable[[Any, int], Iterable[str]] = make(
        None, _ENCODER.default, encoder.encode_basestring, None, *keys
    )
    return chunks


_chunks = _reused_encoder()
NO_ACTOR = UUID(int=0)
TABLE_KEY = "table"


class CommandType(str, Enum):
    """What a command does; the values are the contract's names in lower case."""

    SPAWN = "spawn"
    DESPAWN = "despawn"
    UPDATE = "update"
    ADD_COMPONENT = "add_component"
    REMOVE_COMPONENT = "remove_component"
    ADD_PROCESSOR = "add_processor"
    REMOVE_PROCESSOR = "remove_processor"
    CREATE_WORLD = "create_world"
    DESTROY_WORLD = "destroy_world"
    FORK_WORLD = "fork_world"
    RUN_ROLLOUT = "run_rollout"
    RUN_EPISODE = "run_episode"
    QUERY_WORLD = "query_world"
    MESSAGE = "message"
    CUSTOM = "custom"
    SET_RESOURCE = "set_resource"
    REMOVE_RESOURCE = "remove_resource"


class ActorCtx(BaseModel):
    """Who sends a command: set by the server from its credentials, never believed from a client."""

    model_config = ConfigDict(frozen=True)

    id: UUID
    subject: str = ""
    roles: tuple[str, ...] = ()
    worlds: tuple[str, ...] = ("*",)
    allowed_commands: tuple[CommandType, ...] = ()
    expires_at: datetime | None = None


@functools.total_ordering
class Command(BaseModel):
    """One command, as users write it; ordered by (tick, priority, seq), lower first.

    Attributes:
        id: UUIDv7 made by the sender: the idempotency key, unique per world.
        tick: The command is applied at this tick, not before; None: at the next one.
        payload: The fields of the contract's message for `type`, as plain values; an Arrow IPC stream goes under
            ``table`` as bytes.
        seq: Given by the journal at acceptance; 0 before.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: UUID = Field(default_factory=uuid7)
    tick: int | None = Field(default=None, ge=0, le=MAX_ID)
    actor_id: UUID = NO_ACTOR
    type: CommandType
    payload: dict[str, Any] = Field(default_factory=dict)
    priority: int = Field(default=0, ge=-(1 << 15), lt=1 << 15)
    version: int = Field(default=1, ge=1, lt=1 << 7)
    seq: int = Field(default=0, ge=0, le=MAX_ID)

    def __lt__(self, other: Command) -> bool:
        return (self.tick or 0, self.priority, self.seq) < (other.tick or 0, other.priority, other.seq)

    @staticmethod
    def arrow_schema() -> pa.Schema:
        """Return the canonical schema of stored commands, fit for Parquet."""
        return pa.schema(
            [  # type: ignore[arg-type]  # the stubs know no list of fields of several types
                pa.field("id", pa.binary(16), nullable=False),
                pa.field("tick", pa.int64()),
                pa.field("actor_id", pa.binary(16), nullable=False),
                pa.field("type", pa.utf8(), nullable=False),
                pa.field("payload", pa.utf8(), nullable=False),
                pa.field("priority", pa.int16(), nullable=False),
                pa.field("version", pa.int8(), nullable=False),
                pa.field("seq", pa.int64(), nullable=False),
            ]
        )

    def to_arrow(self) -> pa.RecordBatch:
        """Return this command as one row of `arrow_schema`; bytes in the payload become base64."""
        row = {
            "id": self.id.bytes,
            "tick": self.tick,
            "actor_id": self.actor_id.bytes,
            "type": self.type.value,
            "payload": canonical_json(self.payload),
            "priority": self.priority,
            "version": self.version,
            "seq": self.seq,
        }
        return pa.RecordBatch.from_pylist([row], schema=self.arrow_schema())

    @classmethod
    def from_arrow(cls, batch: pa.RecordBatch | pa.Table) -> list[Self]:
        """Return the commands of a batch or table of `arrow_schema`, one a row."""
        return [
            cls(
                id=UUID(bytes=row["id"]),
                tick=row["tick"],
                actor_id=UUID(bytes=row["actor_id"]),
                type=CommandType(row["type"]),
                payload=_restore_table(json.loads(row["payload"])),
                priority=row["priority"],
                version=row["version"],
                seq=row["seq"],
            )
            for row in batch.to_pylist()
        ]


def split_table(payload: dict[str, Any]) -> tuple[bytes, bytes]:
    """Return (canonical JSON of the payload without its table, the table's bytes)."""
    if TABLE_KEY not in payload:
        return canonical_json(payload).encode(), b""
    rest = {name: value for name, value in payload.items() if name != TABLE_KEY}
    return canonical_json(rest).encode(), payload[TABLE_KEY]


def content_hash(
    kind: CommandType, *, tick: int | None, priority: int, version: int, payload: bytes, table: bytes
) -> bytes:
    """Return what tells a retry from a reused id: 16 bytes over everything that the sender chose."""
    head = f"{kind.value} {tick} {priority} {version} {len(payload)} ".encode()
    if not table:
        return xxhash.xxh3_128_digest(head + payload)
    digest = xxhash.xxh3_128(head + payload)
    digest.update(table)
    return digest.digest()


def canonical_json(value: Any) -> str:
    """Return values as JSON with sorted keys and no blanks: equal values give equal text."""
    return "".join(_chunks(value, 0))


def _restore_table(payload: dict[str, Any]) -> dict[str, Any]:
    if isinstance(payload.get(TABLE_KEY), str):
        payload[TABLE_KEY] = base64.b64decode(payload[TABLE_KEY])
    return payload
