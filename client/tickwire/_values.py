"""Python values on their way into and out of `google.protobuf.Struct`, and ids.

A Struct holds JSON: its only number is a double. What a double or JSON cannot hold travels as the text that
the server parses by the column's type: integers beyond 2^53 as digits, bytes as base64, times as RFC 3339,
durations as "1.5s", "NaN" and the infinities by name. The way back cannot know the column's type, so such
values stay text there; a query (`World.query`), whose rows are Arrow, keeps every type.
"""

from __future__ import annotations

import base64
import math
import numbers
import os
import time
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any, TypeAlias

import pyarrow as pa
from google.protobuf import duration_pb2, struct_pb2, timestamp_pb2

MAX_EXACT_INT = 2**53
"""Integers of a greater magnitude do not all survive as a double, and are sent as digits."""

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"


def to_struct(values: Mapping[str, Any]) -> struct_pb2.Struct:
    """Makes a Struct of a mapping, nested ones and sequences included.

    Args:
        values: str keys; values of None, bool, int, float, str, bytes, Decimal, UUID, Enum, datetime (with a
            time zone), date, timedelta, numpy and Arrow scalars, and mappings and sequences of these.

    Raises:
        TypeError: a value or key of another type; the message has its path.
        ValueError: a datetime without a time zone.
    """
    struct = struct_pb2.Struct()
    _fill_struct(struct, values, "")
    return struct


def from_struct(struct: struct_pb2.Struct) -> dict[str, Json]:
    """Makes a dict of a Struct, its keys sorted; whole numbers within 2^53 become int (1 == 1.0)."""
    return {key: _from_value(value) for key, value in sorted(struct.fields.items())}


def to_duration(seconds: float | None) -> duration_pb2.Duration | None:
    """Makes a Duration of seconds; None stays None, which leaves the field unset."""
    if seconds is None:
        return None
    duration = duration_pb2.Duration()
    duration.FromNanoseconds(round(seconds * 1e9))
    return duration


def to_timestamp(time: datetime) -> timestamp_pb2.Timestamp:
    """Makes a Timestamp of a time.

    Raises:
        ValueError: it has no time zone.
    """
    if time.tzinfo is None:
        raise ValueError(f"{time!r} has no time zone; give it one, such as datetime.UTC")
    stamp = timestamp_pb2.Timestamp()
    stamp.FromDatetime(time)
    return stamp


def new_id() -> str:
    """Makes a UUIDv7: the time in milliseconds, then 74 random bits; lower-case and hyphenated."""
    random_bits = int.from_bytes(os.urandom(10), "big")
    value = (time.time_ns() // 1_000_000 & (1 << 48) - 1) << 80
    value |= 0x7 << 76 | (random_bits >> 62 & 0xFFF) << 64
    value |= 0b10 << 62 | random_bits & (1 << 62) - 1
    return str(uuid.UUID(int=value))


def _fill_struct(struct: struct_pb2.Struct, values: Mapping[str, Any], path: str) -> None:
    # Naming the map makes an empty nested Struct present on the wire, so {} stays {} and not null.
    struct.SetInParent()
    for key, value in values.items():
        if not isinstance(key, str):
            raise TypeError(
                f"keys must be str, not {type(key).__name__} ({key!r} in {path or 'the mapping'})"
            )
        _fill_value(struct.fields[key], value, f"{path}.{key}" if path else key)


def _fill_value(slot: struct_pb2.Value, value: Any, path: str) -> None:
    match value:
        case None:
            slot.null_value = struct_pb2.NULL_VALUE
        case Enum():
            _fill_value(slot, value.value, path)
        case bool():
            slot.bool_value = value
        case str():
            slot.string_value = value
        case numbers.Integral():
            _fill_int(slot, int(value))
        case Decimal():
            slot.string_value = str(value)
        case numbers.Real():
            _fill_float(slot, float(value))
        case Mapping():
            _fill_struct(slot.struct_value, value, path)
        case bytes() | bytearray() | memoryview():
            slot.string_value = base64.b64encode(value).decode("ascii")
        case datetime():
            slot.string_value = _rfc3339(value, path)
        case date():
            slot.string_value = value.isoformat()
        case timedelta():
            slot.string_value = _duration_text(value)
        case uuid.UUID():
            slot.string_value = str(value)
        case Sequence():
            slot.list_value.SetInParent()
            for index, item in enumerate(value):
                _fill_value(slot.list_value.values.add(), item, f"{path}[{index}]")
        case _:
            _fill_value(slot, _foreign(value, path), path)


def _fill_int(slot: struct_pb2.Value, value: int) -> None:
    if abs(value) <= MAX_EXACT_INT:
        slot.number_value = value
    else:
        slot.string_value = str(value)


def _fill_float(slot: struct_pb2.Value, value: float) -> None:
    if math.isfinite(value):
        slot.number_value = value
    elif math.isnan(value):
        slot.string_value = "NaN"
    else:
        slot.string_value = "Infinity" if value > 0 else "-Infinity"


def _rfc3339(value: datetime, path: str) -> str:
    if value.tzinfo is None:
        raise ValueError(f"{path}: {value!r} has no time zone; give it one, such as datetime.UTC")
    return value.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _duration_text(value: timedelta) -> str:
    microseconds = value // timedelta(microseconds=1)
    sign = "-" if microseconds < 0 else ""
    whole, rest = divmod(abs(microseconds), 1_000_000)
    fraction = f".{rest:06d}".rstrip("0") if rest else ""
    return f"{sign}{whole}{fraction}s"


def _foreign(value: Any, path: str) -> Any:
    """Asks Arrow for the Python value of what is left: Arrow scalars, numpy's bool, arrays."""
    try:
        plain = value.as_py() if isinstance(value, pa.Scalar) else pa.scalar(value).as_py()
    except (pa.ArrowException, TypeError, ValueError):
        plain = value
    if type(plain) is type(value):
        raise TypeError(f"{path}: a value of type {type(value).__name__} cannot be sent")
    return plain


def _from_value(value: struct_pb2.Value) -> Json:
    match value.WhichOneof("kind"):
        case "bool_value":
            return value.bool_value
        case "number_value":
            return _number(value.number_value)
        case "string_value":
            return value.string_value
        case "struct_value":
            return from_struct(value.struct_value)
        case "list_value":
            return [_from_value(item) for item in value.list_value.values]
        case _:
            return None


def _number(number: float) -> int | float:
    negative_zero = number == 0 and math.copysign(1, number) < 0
    if number.is_integer() and abs(number) <= MAX_EXACT_INT and not negative_zero:
        return int(number)
    return number
