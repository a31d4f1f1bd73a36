"""Protobuf's free-form values as plain Python, and back: one conversion for every message, by its descriptor."""

from __future__ import annotations

import base64
from functools import cache
from math import isfinite, isnan
from typing import TYPE_CHECKING, Any

from google.protobuf import struct_pb2
from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet

from tickwire_engine.errors import InvalidCommandError, InvalidRequestError
from tickwire_engine.limits import DEFAULTS, Limits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from google.protobuf.descriptor import Descriptor, FieldDescriptor

MAX_NAME = 100
"""Of a key that somebody sent, as much is repeated in a path."""


def struct_to_dict(
    struct: struct_pb2.Struct, *, limits: Limits = DEFAULTS, path: str = "", depth: int = 1
) -> dict[str, Any]:
    """Return a Struct as a dictionary; numbers that are no JSON become "NaN", "Infinity" and "-Infinity".

    Raises:
        InvalidRequestError: It is nested deeper, or has a longer string, than the limits allow; `field` says where.
        InvalidCommandError: It has a field that this version does not know.
    """
    name = ""
    fields = struct.fields
    result: dict[str, Any] = {}
    try:
        if depth > limits.struct_depth:
            raise _too_deep(limits)
        if len(unknown := UnknownFieldSet(struct)):
            raise _of_another_version(unknown)
        # Every update brings one of these: by key, not items(), which is Python's own; numbers and structs without a call.
        for name in fields:
            value = fields[name]
            kind = value.WhichOneof("kind")
            if len(unknown := UnknownFieldSet(value)):
                raise _of_another_version(unknown)
            if kind == "number_value":
                number = value.number_value
                result[name] = number if isfinite(number) else _number_name(number)
            elif kind == "struct_value":
                result[name] = struct_to_dict(value.struct_value, limits=limits, depth=depth + 1)
            else:
                result[name] = _value(value, limits, depth)
    except InvalidRequestError as error:
        raise _inside(_inside(error, name), path) from None
    return result


def _number_name(number: float) -> str:
    return "NaN" if isnan(number) else ("Infinity" if number > 0 else "-Infinity")


def _value(value: struct_pb2.Value, limits: Limits, depth: int) -> Any:
    kind = value.WhichOneof("kind")
    if kind == "number_value":
        number = value.number_value
        return number if isfinite(number) else _number_name(number)
    if kind == "string_value":
        return require_short(value.string_value, limits)
    if kind == "bool_value":
        return value.bool_value
    if kind == "struct_value":
        return struct_to_dict(value.struct_value, limits=limits, depth=depth + 1)
    if kind == "list_value":
        return _list(value.list_value, limits, depth + 1)
    if kind is None:
        raise InvalidRequestError("a Value without a value: null is null_value")
    return None


def _list(values: struct_pb2.ListValue, limits: Limits, depth: int) -> list[Any]:
    if depth > limits.struct_depth:
        raise _too_deep(limits)
    if len(unknown := UnknownFieldSet(values)):
        raise _of_another_version(unknown)
    found: list[Any] = []
    try:
        for value in values.values:
            if len(unknown := UnknownFieldSet(value)):
                raise _of_another_version(unknown)
            found.append(_value(value, limits, depth))
    except InvalidRequestError as error:
        raise _inside(error, f"[{len(found)}]") from None
    return found


def _too_deep(limits: Limits) -> InvalidRequestError:
    most = limits.struct_depth
    return InvalidRequestError(
        f"nested deeper than {most} levels, the server's limit (struct_depth): write it flatter", limit=most
    )


def _of_another_version(unknown: UnknownFieldSet) -> InvalidCommandError:
    number = unknown[0].field_number
    return InvalidCommandError(
        f"a free-form value has a field that this version does not know (number {number})"
    )


def require_short(text: str, limits: Limits) -> str:
    """Return `text`, unless it is too long.

    Raises:
        InvalidRequestError: It is.
    """
    most = limits.string_bytes
    if 4 * len(text) > most and len(text.encode(errors="replace")) > most:
        raise InvalidRequestError(
            f"a string is longer than {most} bytes, the server's limit (string_bytes)", limit=most
        )
    return text


def _inside(error: InvalidRequestError, name: str) -> InvalidRequestError:
    between = "." if name and error.field and not error.field.startswith("[") else ""
    error.field = f"{name[:MAX_NAME]}{between}{error.field}"
    return error


def dict_to_struct(values: Mapping[str, Any]) -> struct_pb2.Struct:
    """Return JSON-like values as a Struct."""
    struct = struct_pb2.Struct()
    struct.update(values)
    return struct


def plain(message: Message, *, limits: Limits = DEFAULTS) -> dict[str, Any]:
    """Return the fields that are set, as plain values under their proto names; bytes stay bytes.

    Raises:
        InvalidRequestError: A free-form value or a string is larger than the limits allow; `field` says where.
    """
    readers = _readers(message.DESCRIPTOR)
    name = ""
    result: dict[str, Any] = {}
    try:
        for field, value in message.ListFields():
            name, read = readers[field.number]
            result[name] = value if read is None else read(value, limits)
    except InvalidRequestError as error:
        raise _inside(error, name) from None
    return result


@cache
def _readers(kind: Descriptor) -> Mapping[int, tuple[str, Callable[[Any, Limits], Any] | None]]:
    """Look a message type through once: by field number, its name and what reads it (None: as it is)."""
    return {field.number: (field.name, _reader(field)) for field in kind.fields}


def _reader(field: FieldDescriptor) -> Callable[[Any, Limits], Any] | None:
    if _is_map(field):
        return _plain_map
    if field.is_repeated:
        return _plain_list
    if field.message_type is not None or field.type == field.TYPE_STRING:
        return _plain_item
    return None


def _is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and bool(field.message_type.GetOptions().map_entry)


def _plain_map(values: Mapping[Any, Any], limits: Limits) -> dict[Any, Any]:
    return {_plain_item(key, limits): _plain_item(item, limits) for key, item in values.items()}


def _plain_list(values: Iterable[Any], limits: Limits) -> list[Any]:
    found = list(values)
    if found and isinstance(found[0], str | Message):
        return [_plain_item(item, limits) for item in found]
    return found


def _plain_item(value: Any, limits: Limits) -> Any:
    if isinstance(value, str):
        return require_short(value, limits)
    if isinstance(value, struct_pb2.Struct):
        return struct_to_dict(value, limits=limits)
    return plain(value, limits=limits) if isinstance(value, Message) else value


def fill(message: Message, values: Mapping[str, Any]) -> None:
    """Set fields from what `plain` made of them and JSON has kept: bytes as base64, the rest as it is."""
    fields = message.DESCRIPTOR.fields_by_name
    for name, value in values.items():
        field = fields.get(name)
        if field is None or value is None:
            # Written by a later version, or by code in the server: there is no place for it.
            continue
        kind = field.message_type
        if kind is not None and kind.GetOptions().map_entry:
            _fill_map(getattr(message, name), kind.fields_by_name["value"].message_type is not None, value)
        elif kind is not None and field.is_repeated:
            for item in value:
                _fill_message(getattr(message, name).add(), item)
        elif kind is not None:
            _fill_message(getattr(message, name), value)
        elif field.is_repeated:
            getattr(message, name).extend(value)
        elif isinstance(getattr(message, name), bytes):
            setattr(message, name, base64.b64decode(value))
        else:
            setattr(message, name, value)


def _fill_map(target: Any, of_messages: bool, values: Mapping[str, Any]) -> None:
    for key, item in values.items():
        if of_messages:
            _fill_message(target[key], item)
        else:
            target[key] = item


def _fill_message(message: Message, value: Any) -> None:
    message.SetInParent()
    if isinstance(message, struct_pb2.Struct):
        message.update(value)
    else:
        fill(message, value)


def refuse_own_unknown_fields(message: Message, *, path: str) -> None:
    """Refuse fields of the message itself that this version does not know, whatever is in the messages inside.

    Raises:
        InvalidCommandError: There is one.
    """
    unknown = UnknownFieldSet(message)
    if len(unknown):
        raise InvalidCommandError(
            f"{path} has a field that this version does not know (number {unknown[0].field_number})",
            field=path,
        )


def refuse_unknown_fields(message: Message, *, path: str) -> None:
    """Refuse fields that this version does not know, at any depth: doing half of a command is worse than nothing.

    Free-form values are left to those who read them, `struct_to_dict` and `plain`.

    Raises:
        InvalidCommandError: There is one.
    """
    refuse_own_unknown_fields(message, path=path)
    looked_into = _looked_into(message.DESCRIPTOR)
    if not looked_into:
        return
    for field, value in message.ListFields():
        if field.number in looked_into:
            for item in value if field.is_repeated else (value,):
                refuse_unknown_fields(item, path=f"{path}.{field.name}")


@cache
def _looked_into(kind: Descriptor) -> frozenset[int]:
    """Return the numbers of the fields that hold messages of the contract's own."""
    return frozenset(
        field.number
        for field in kind.fields
        if field.message_type is not None
        and field.message_type.full_name != "google.protobuf.Struct"
        and not _is_map(field)
    )
