"""Free-form values into columns, and back: the one set of rules for JSON-like input.

A string is parsed by the column's type: digits, RFC 3339, ``"1.5s"``, base64, ``"NaN"``/``"Infinity"``. A fraction,
or a number of 2^53 or more, does not go into an integer column: JSON numbers do not carry it exactly; send digits.
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import math
import re
from decimal import Decimal, InvalidOperation
from typing import Any

import pyarrow as pa

from tickwire_engine.errors import SchemaMismatchError

_EXACT = 1 << 53
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_DURATION = re.compile(r"-?\d+(\.\d{1,9})?s", re.ASCII)
_INT64 = range(-(1 << 63), 1 << 63)
_FLOAT_NAMES = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def to_column(value: Any, kind: pa.DataType, *, nullable: bool, path: str) -> Any:
    """Return `value` as `pyarrow.array(..., type=kind)` takes it.

    Args:
        value: A JSON-like value, or the Python value itself.
        kind: The column's type.
        nullable: Whether None is allowed.
        path: Where the value stands in the input, for the error.

    Raises:
        SchemaMismatchError: It does not fit; the error's field is `path`.
    """
    if value is None:
        if nullable:
            return None
        raise _mismatch(path, value, kind, "the column is not nullable")
    if pa.types.is_floating(kind):
        return _number(value, kind, path)
    if pa.types.is_integer(kind):
        return _integer(value, kind, path)
    if pa.types.is_boolean(kind):
        if isinstance(value, bool):
            return value
        raise _mismatch(path, value, kind, "expected true or false")
    if pa.types.is_string(kind):
        if not isinstance(value, str):
            raise _mismatch(path, value, kind, "expected a string")
        if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
            raise _mismatch(path, value, kind, "half a surrogate pair is no text")
        return value
    if pa.types.is_binary(kind):
        return _bytes(value, kind, path)
    if pa.types.is_timestamp(kind):
        return _timestamp(value, kind, path)
    if pa.types.is_date(kind):
        return _date(value, kind, path)
    if pa.types.is_duration(kind):
        return _duration(value, kind, path)
    if pa.types.is_decimal(kind):
        return _decimal(value, kind, path)
    if pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind):
        return _list(value, kind, path)
    if pa.types.is_struct(kind):
        return _struct(value, kind, path)
    raise _mismatch(path, value, kind, "the type is not supported")


def exact_type(kind: pa.DataType) -> type | None:
    """Return the Python type whose every value `to_column` takes as it is; None where it looks at values."""
    if pa.types.is_floating(kind):
        return float
    return bool if pa.types.is_boolean(kind) else None


def to_json(value: Any) -> Any:
    """Return a column's Python value under the same rules outward: what `to_column` reads back as it was."""
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        return value if -_EXACT < value < _EXACT else str(value)
    if isinstance(value, float):
        if math.isfinite(value):
            return value
        return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, dt.datetime):
        return _in_utc(value).isoformat(timespec="microseconds").replace("+00:00", "Z")
    if isinstance(value, dt.date):
        return value.isoformat()
    if isinstance(value, dt.timedelta):
        micros = value // dt.timedelta(microseconds=1)
        sign, micros = ("-", -micros) if micros < 0 else ("", micros)
        return f"{sign}{micros // 1_000_000}.{micros % 1_000_000:06d}s"
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, dict):
        return {name: to_json(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    raise TypeError(f"no JSON form for {type(value).__name__}")


def _mismatch(path: str, value: Any, kind: pa.DataType, why: str) -> SchemaMismatchError:
    shown = repr(value)
    return SchemaMismatchError(
        f"{path}: {shown if len(shown) <= 80 else shown[:77] + '...'} does not fit {kind}: {why}",
        field=path,
        expected=kind,
        actual=shown[:80],
    )


def _number(value: Any, kind: pa.DataType, path: str) -> float:
    if isinstance(value, float | int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            raise _mismatch(path, value, kind, "too large") from None
    if isinstance(value, str):
        if value in _FLOAT_NAMES:
            return _FLOAT_NAMES[value]
        # float() takes more than digits: "1_000", "inf", spaces.
        if _NUMBER.fullmatch(value) and math.isfinite(parsed := float(value)):
            return parsed
    raise _mismatch(path, value, kind, 'expected a number, digits, "NaN", "Infinity" or "-Infinity"')


def _integer(value: Any, kind: pa.DataType, path: str) -> int:
    if isinstance(value, bool):
        raise _mismatch(path, value, kind, "expected an integer")
    if isinstance(value, float):
        if not value.is_integer():
            raise _mismatch(path, value, kind, "it has a fraction")
        if abs(value) >= _EXACT:
            raise _mismatch(
                path, value, kind, "a JSON number of 2^53 or more is not exact: send its digits as a string"
            )
        value = int(value)
    elif isinstance(value, str):
        if not re.fullmatch(r"-?\d{1,20}", value, re.ASCII):
            raise _mismatch(path, value, kind, "expected digits")
        value = int(value)
    elif not isinstance(value, int):
        raise _mismatch(path, value, kind, "expected an integer")
    bits = kind.bit_width
    low, high = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1)
    if pa.types.is_unsigned_integer(kind):
        low, high = 0, (1 << bits) - 1
    if not low <= value <= high:
        raise _mismatch(path, value, kind, f"outside [{low}, {high}]")
    return int(value)


def _bytes(value: Any, kind: pa.DataType, path: str) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        try:
            return base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            pass
    raise _mismatch(path, value, kind, "expected base64")


def _timestamp(value: Any, kind: pa.DataType, path: str) -> dt.datetime:
    if isinstance(value, str):
        try:
            value = dt.datetime.fromisoformat(value)
        except ValueError:
            raise _mismatch(path, value, kind, "expected RFC 3339, as 2026-01-31T12:00:00Z") from None
    if not isinstance(value, dt.datetime):
        raise _mismatch(path, value, kind, "expected RFC 3339, as 2026-01-31T12:00:00Z")
    try:
        return _in_utc(value)
    except OverflowError:
        raise _mismatch(path, value, kind, "outside the years 1 to 9999 in UTC") from None


def _in_utc(value: dt.datetime) -> dt.datetime:
    return value.astimezone(dt.UTC) if value.tzinfo else value.replace(tzinfo=dt.UTC)


def _date(value: Any, kind: pa.DataType, path: str) -> dt.date:
    if isinstance(value, str):
        try:
            return dt.date.fromisoformat(value)
        except ValueError:
            pass
    elif isinstance(value, dt.date) and not isinstance(value, dt.datetime):
        return value
    raise _mismatch(path, value, kind, "expected a date, as 2026-01-31")


def _duration(value: Any, kind: pa.DataType, path: str) -> dt.timedelta:
    if isinstance(value, str) and _DURATION.fullmatch(value):
        micros = int(Decimal(value[:-1]) * 1_000_000)
        if micros not in _INT64:
            raise _mismatch(path, value, kind, "too long")
        return dt.timedelta(microseconds=micros)
    if isinstance(value, dt.timedelta):
        if value // dt.timedelta(microseconds=1) not in _INT64:
            raise _mismatch(path, value, kind, "too long")
        return value
    raise _mismatch(path, value, kind, "expected seconds, as 1.5s")


def _decimal(value: Any, kind: pa.DataType, path: str) -> Decimal:
    if isinstance(value, str | int) and not isinstance(value, bool):
        try:
            value = Decimal(value)
        except InvalidOperation:
            raise _mismatch(path, value, kind, "expected digits") from None
    if not isinstance(value, Decimal) or not value.is_finite():
        raise _mismatch(path, value, kind, "expected digits")
    try:
        pa.scalar(value, type=kind)
    except pa.ArrowInvalid:
        raise _mismatch(path, value, kind, "it does not fit precision and scale") from None
    return value


def _list(value: Any, kind: Any, path: str) -> list[Any]:
    if not isinstance(value, list | tuple):
        raise _mismatch(path, value, kind, "expected a list")
    if pa.types.is_fixed_size_list(kind) and len(value) != kind.list_size:
        raise _mismatch(path, value, kind, f"expected {kind.list_size} items, not {len(value)}")
    item = kind.value_field
    return [
        to_column(entry, item.type, nullable=item.nullable, path=f"{path}[{index}]")
        for index, entry in enumerate(value)
    ]


def _struct(value: Any, kind: pa.DataType, path: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _mismatch(path, value, kind, "expected an object")
    fields = {kind.field(i).name: kind.field(i) for i in range(kind.num_fields)}
    for name in value:
        if name not in fields:
            raise _mismatch(
                f"{path}.{name}", value[name], kind, f"no such field; there are {', '.join(fields)}"
            )
    return {
        name: to_column(value.get(name), f.type, nullable=f.nullable, path=f"{path}.{name}")
        for name, f in fields.items()
    }
