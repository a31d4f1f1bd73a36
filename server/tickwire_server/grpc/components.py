"""Component types between the contract's messages and the engine."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from tickwire.v1 import world_pb2
from tickwire_engine import ComponentType
from tickwire_engine.component import wire_schema
from tickwire_engine.encoding import check_type, read_schema, schema_message
from tickwire_engine.errors import (
    InvalidArrowError,
    InvalidNameError,
    InvalidRequestError,
    SchemaMismatchError,
)
from tickwire_engine.fields import parse_type, type_text
from tickwire_engine.values import to_column, to_json
from tickwire_server.grpc.structs import dict_to_struct, struct_to_dict

if TYPE_CHECKING:
    from google.protobuf.struct_pb2 import Value

    from tickwire.v1 import world_service_pb2

MAX_FIELDS = 1_000
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9]*(_[A-Za-z0-9]+)*")
_FIELD = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*_?")
_MAX_NAME = 64


def component_type(request: world_service_pb2.RegisterComponentRequest) -> tuple[ComponentType, bool]:
    """Return the component that a request describes, and whether it says anything of defaults.

    Raises:
        InvalidNameError: Its name is none.
        InvalidArrowError: `arrow_schema` is no schema message.
        SchemaMismatchError: A type does not go into a column, or a default not into its field.
    """
    if not _NAME.fullmatch(request.name) or len(request.name) > _MAX_NAME:
        raise InvalidNameError(
            f"{request.name!r} is no component name: up to {_MAX_NAME} letters and digits, beginning with a letter, in "
            "parts joined by single underscores",
            field="name",
        )
    if request.arrow_schema and request.fields:
        raise InvalidRequestError("give arrow_schema or fields: not both", field="fields")
    given: dict[str, tuple[Any, str]] = {}
    if request.arrow_schema:
        schema = _decoded(request.arrow_schema)
        where = {name: f"arrow_schema.{name}" for name in schema.names}
    else:
        schema, where = _from_fields(request, given)
    for name, value in struct_to_dict(request.defaults, path="defaults").items():
        given[name] = value, f"defaults.{name}"
    return ComponentType(request.name, _checked(schema, where), _defaults(given, schema), "RPC"), bool(given)


def component_proto(entry: ComponentType) -> world_pb2.Component:
    """Return a component."""
    fields = []
    for column in entry.schema:
        field = world_pb2.Field(name=column.name, type=type_text(column.type), nullable=column.nullable)
        if column.name in entry.defaults:
            field.default.CopyFrom(
                dict_to_struct({"value": to_json(entry.defaults[column.name])}).fields["value"]
            )
        fields.append(field)
    origin = world_pb2.COMPONENT_ORIGIN_APP if entry.origin == "APP" else world_pb2.COMPONENT_ORIGIN_RPC
    return world_pb2.Component(
        name=entry.name,
        prefix=entry.prefix,
        arrow_schema=schema_message(entry.schema),
        fields=fields,
        defaults=dict_to_struct({name: to_json(value) for name, value in entry.defaults.items()}),
        origin=origin,
    )


def _decoded(message: bytes) -> pa.Schema:
    try:
        schema = read_schema(message)
    except (pa.ArrowException, OSError, EOFError, ValueError):
        raise InvalidArrowError(
            "arrow_schema is no encapsulated Arrow IPC schema message (pyarrow: schema.serialize())",
            field="arrow_schema",
        ) from None
    return wire_schema(schema)


def _from_fields(
    request: world_service_pb2.RegisterComponentRequest, given: dict[str, tuple[Any, str]]
) -> tuple[pa.Schema, dict[str, str]]:
    fields: list[pa.Field[Any]] = []
    where: dict[str, str] = {}
    for index, field in enumerate(request.fields):
        path = f"fields[{index}]"
        nullable = field.nullable if field.HasField("nullable") else True
        fields.append(pa.field(field.name, parse_type(field.type, path=f"{path}.type"), nullable=nullable))
        where[field.name] = f"{path}.name"
        if field.HasField("default"):
            given[field.name] = _plain(field.default, f"{path}.default"), f"{path}.default"
    return pa.schema(fields), where


def _plain(value: Value, path: str) -> Any:
    holder = world_pb2.Resource()
    holder.value.fields["value"].CopyFrom(value)
    return struct_to_dict(holder.value, path=path)["value"]


def _checked(schema: pa.Schema, where: dict[str, str]) -> pa.Schema:
    if len(schema) > MAX_FIELDS:
        raise SchemaMismatchError(f"{len(schema)} fields are more than {MAX_FIELDS}", field="fields")
    for field in schema:
        if not _FIELD.fullmatch(field.name) or len(field.name) > _MAX_NAME:
            raise InvalidNameError(
                f"{field.name!r} is no field name: up to {_MAX_NAME} of a-z, 0-9 and _, beginning with a letter, no two "
                "underscores in a row",
                field=where[field.name],
            )
        check_type(field.type, where[field.name])
    if len(set(schema.names)) != len(schema.names):
        raise SchemaMismatchError("a field is named twice", field="fields")
    return schema


def _defaults(given: dict[str, tuple[Any, str]], schema: pa.Schema) -> dict[str, Any]:
    defaults = {}
    for name, (value, path) in given.items():
        index = schema.get_field_index(name)
        if index < 0:
            raise SchemaMismatchError(f"{path}: there is no field {name!r}", field=path)
        field = schema.field(index)
        defaults[name] = to_column(value, field.type, nullable=field.nullable, path=path)
    return defaults
