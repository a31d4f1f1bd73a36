"""What a server defines besides worlds, as immutable Python values: component types, processors at work, API tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import pyarrow as pa

from tickwire._models import to_datetime
from tickwire._values import Json, from_struct
from tickwire.v1 import auth_service_pb2, command_pb2, world_pb2

if TYPE_CHECKING:
    from datetime import datetime

_ORIGINS = {world_pb2.COMPONENT_ORIGIN_APP: "app", world_pb2.COMPONENT_ORIGIN_RPC: "rpc"}
_PATHS = {
    world_pb2.PROCESSOR_PATH_FAST: "fast",
    world_pb2.PROCESSOR_PATH_DAFT: "daft",
    world_pb2.PROCESSOR_PATH_ARROW: "arrow",
    world_pb2.PROCESSOR_PATH_SQL: "sql",
}
_TYPE = "COMMAND_TYPE_"


@dataclass(frozen=True, slots=True)
class ComponentInfo:
    """A component type, shared by all worlds of a server.

    Attributes:
        prefix: what its columns begin with, "position__".
        schema: its fields without prefix.
        defaults: the values of fields that a spawn leaves out.
        origin: "app": a class of the server's app; "rpc": registered by a client.
    """

    name: str
    prefix: str
    schema: pa.Schema
    defaults: dict[str, Json]
    origin: str

    @classmethod
    def from_message(cls, message: world_pb2.Component) -> Self:
        """Reads the contract's message."""
        return cls(
            name=message.name,
            prefix=message.prefix,
            schema=pa.ipc.read_schema(pa.py_buffer(message.arrow_schema)),
            defaults=from_struct(message.defaults),
            origin=_ORIGINS.get(message.origin, ""),
        )


@dataclass(frozen=True, slots=True)
class ProcessorInfo:
    """A processor at work in a world.

    Attributes:
        priority: lower runs first.
        components: it runs on every archetype that has them all.
        path: how it ran last: "fast" (recorded expressions), "daft" (a plan), "arrow" or "sql"; "" before that.
        assignments: of an SQL processor: expression by column.
        where: of an SQL processor: the rows it is for.
        last_s: how long it took in the last tick, in seconds; None before that.
    """

    name: str
    type: str
    priority: int
    components: tuple[str, ...]
    path: str
    params: dict[str, Json]
    assignments: dict[str, str]
    where: str
    last_s: float | None

    @classmethod
    def from_message(cls, message: world_pb2.Processor) -> Self:
        """Reads the contract's message."""
        return cls(
            name=message.name,
            type=message.type,
            priority=message.priority,
            components=tuple(message.components),
            path=_PATHS.get(message.path, ""),
            params=from_struct(message.params),
            assignments=dict(message.sql.assignments),
            where=message.sql.where,
            last_s=message.last_time.ToNanoseconds() / 1e9 if message.HasField("last_time") else None,
        )


@dataclass(frozen=True, slots=True)
class TokenInfo:
    """An API token, without its secret.

    Attributes:
        worlds: globs of the worlds it is good for.
        allowed_commands: types of commands, as "spawn", that restrict its roles; empty: they do not.
        expires_at: None: it does not end by itself.
        revoked_at: None: it is good.
        secret: only in the answer of `create_token`; "" everywhere else.
    """

    id: str
    name: str
    roles: tuple[str, ...]
    worlds: tuple[str, ...]
    allowed_commands: tuple[str, ...]
    created_at: datetime | None
    expires_at: datetime | None
    revoked_at: datetime | None
    created_by: str
    secret: str = ""

    @classmethod
    def from_message(cls, message: auth_service_pb2.Token, *, secret: str = "") -> Self:
        """Reads the contract's message."""
        return cls(
            id=message.id,
            name=message.name,
            roles=tuple(message.roles),
            worlds=tuple(message.worlds),
            allowed_commands=tuple(map(_type_name, message.allowed_commands)),
            created_at=to_datetime(message.created_at) if message.HasField("created_at") else None,
            expires_at=to_datetime(message.expires_at) if message.HasField("expires_at") else None,
            revoked_at=to_datetime(message.revoked_at) if message.HasField("revoked_at") else None,
            created_by=message.created_by,
            secret=secret,
        )


def type_value(name: str) -> command_pb2.CommandType.ValueType:
    """Answers the contract's value of a type of command.

    Raises:
        ValueError: there is no such type.
    """
    try:
        return command_pb2.CommandType.Value(f"{_TYPE}{name.upper()}")
    except ValueError:
        known = ", ".join(n.removeprefix(_TYPE).lower() for n in command_pb2.CommandType.keys()[1:])
        raise ValueError(f"{name!r} is no type of command; there are {known}") from None


def _type_name(value: command_pb2.CommandType.ValueType) -> str:
    return command_pb2.CommandType.Name(value).removeprefix(_TYPE).lower()
