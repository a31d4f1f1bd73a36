"""The canonical physical form of one Arrow array, type by type (see `tickwire_engine.encoding`)."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tickwire_engine.errors import SchemaMismatchError

_BITS_OF_BYTE = 8
_Number = TypeVar("_Number", bound=np.generic)


def describe(field: pa.Field[Any]) -> str:
    """Spell a field's name, type and nullability in our own words: no library release rewords a hash."""
    return f"{field.name!r}:{_describe_type(field.type)}:{'null' if field.nullable else 'not null'}"


def _describe_type(kind: pa.DataType) -> str:
    if isinstance(kind, pa.StructType):
        return f"struct<{','.join(describe(kind.field(i)) for i in range(kind.num_fields))}>"
    if isinstance(kind, pa.FixedSizeListType):
        return f"fixed_size_list<{describe(kind.value_field)};{kind.list_size}>"
    if isinstance(kind, pa.ListType):
        return f"list<{describe(kind.value_field)}>"
    if isinstance(kind, pa.TimestampType):
        return f"timestamp<{kind.unit};{kind.tz or ''}>"
    if isinstance(kind, pa.DurationType):
        return f"duration<{kind.unit}>"
    if isinstance(kind, pa.Decimal128Type):
        return f"decimal128<{kind.precision};{kind.scale}>"
    return _FLAT_NAMES[kind]


_FLAT_NAMES: dict[pa.DataType, str] = {
    pa.bool_(): "bool",
    pa.int8(): "int8",
    pa.int16(): "int16",
    pa.int32(): "int32",
    pa.int64(): "int64",
    pa.uint8(): "uint8",
    pa.uint16(): "uint16",
    pa.uint32(): "uint32",
    pa.uint64(): "uint64",
    pa.float32(): "float32",
    pa.float64(): "float64",
    pa.string(): "utf8",
    pa.binary(): "binary",
    pa.date32(): "date32",
}


def check_type(kind: pa.DataType, name: str) -> None:
    """Refuse a type that does not go on the wire.

    Raises:
        SchemaMismatchError: It names the column and the type.
    """
    if isinstance(kind, pa.StructType):
        if not kind.num_fields:
            raise SchemaMismatchError(
                f"{name}: a struct without fields holds nothing; leave it out", field=name
            )
        for index in range(kind.num_fields):
            check_type(kind.field(index).type, f"{name}.{kind.field(index).name}")
    elif isinstance(kind, (pa.FixedSizeListType, pa.ListType)):
        if isinstance(kind, pa.FixedSizeListType) and not kind.list_size:
            raise SchemaMismatchError(f"{name}: a list of no items holds nothing; leave it out", field=name)
        check_type(kind.value_type, f"{name}[]")
    elif isinstance(kind, (pa.TimestampType, pa.DurationType)):
        if kind.unit != "us":
            raise SchemaMismatchError(f"{name}: {kind} must have the unit us (microseconds)", field=name)
    elif kind not in _FLAT_NAMES and not isinstance(kind, pa.Decimal128Type):
        message = f"{name}: {kind} does not go on the wire; cast it to a plain type first"
        raise SchemaMismatchError(message, field=name)


def canonical_array(array: pa.Array[Any]) -> pa.Array[Any]:
    """Return the array in canonical form: itself, where it is so already."""
    if len(array) == 0:
        return _empty(array.type)
    width = _byte_width(array.type)
    if width:
        return _fixed(array, width)
    if isinstance(array, pa.BooleanArray):
        return _boolean(array)
    if isinstance(array, pa.StructArray):
        return _struct(array)
    if isinstance(array, pa.FixedSizeListArray):
        return _fixed_size_list(array)
    if isinstance(array, pa.ListArray):
        return _list(array)
    return _text(array)


@lru_cache(maxsize=256)
def _byte_width(kind: pa.DataType) -> int:
    if isinstance(kind, pa.Decimal128Type):
        return 16
    if pa.types.is_primitive(kind) and not pa.types.is_boolean(kind):
        return kind.bit_width // _BITS_OF_BYTE
    return 0


@lru_cache(maxsize=256)
def _empty(kind: pa.DataType) -> pa.Array[Any]:
    return pa.array([], kind)


def _fixed(array: pa.Array[Any], width: int) -> pa.Array[Any]:
    count, offset = len(array), array.offset
    validity, data = array.buffers()
    assert data is not None
    nulls = array.null_count
    if not nulls:
        if validity is None and offset == 0 and data.size == count * width:
            return array
        return _build(array.type, count, [None, data.slice(offset * width, count * width)], 0)
    valid = _valid(array)
    values = _view(data, np.uint8, count * width, offset * width).reshape(count, width).copy()
    values[~valid] = 0
    return _build(array.type, count, [_pack(valid), _buffer(values)], nulls)


def _boolean(array: pa.BooleanArray) -> pa.Array[Any]:
    count, offset = len(array), array.offset
    validity, data = array.buffers()
    assert data is not None
    nulls = array.null_count
    size = (count + 7) // 8
    if not nulls and offset % 8 == 0:
        spare = count % 8
        last = memoryview(data)[offset // 8 + size - 1]
        if not spare or last >> spare == 0:
            if validity is None and offset == 0 and data.size == size:
                return array
            return _build(array.type, count, [None, data.slice(offset // 8, size)], 0)
    values = _bits(data, offset, count)
    if not nulls:
        return _build(array.type, count, [None, _pack(values)], 0)
    valid = _valid(array)
    return _build(array.type, count, [_pack(valid), _pack(values & valid)], nulls)


def _text(array: pa.Array[Any]) -> pa.Array[Any]:
    count = len(array)
    nulls = array.null_count
    validity, offsets_buffer, data = array.buffers()
    offsets = _offsets(array)
    if nulls:
        valid = _valid(array)
        if np.diff(offsets)[~valid].any():
            # Nulls that still hold bytes: write the column anew without them.
            nothing = pa.scalar("" if pa.types.is_string(array.type) else b"", array.type)
            return _with_validity(_text(pc.fill_null(array, nothing)), valid, nulls)
        bitmap: pa.Buffer | None = _pack(valid)
    else:
        bitmap = None
    start, end = int(offsets[0]), int(offsets[-1])
    assert offsets_buffer is not None
    exact = array.offset == 0 and start == 0 and offsets_buffer.size == offsets.nbytes
    if exact and bitmap is None and validity is None and data is not None and data.size == end:
        return array
    body = data.slice(start, end - start) if data is not None else pa.py_buffer(b"")
    return _build(array.type, count, [bitmap, _buffer(offsets - offsets[0]), body], nulls)


def _list(array: pa.ListArray[Any]) -> pa.Array[Any]:
    count = len(array)
    nulls = array.null_count
    validity, offsets_buffer = array.buffers()[:2]
    offsets = _offsets(array)
    values = array.values
    bitmap: pa.Buffer | None = None
    if nulls:
        valid = _valid(array)
        bitmap = _pack(valid)
        lengths = np.diff(offsets)
        if lengths[~valid].any():
            # `flatten` leaves out what hides under nulls.
            child = canonical_array(array.flatten())
            lengths[~valid] = 0
            packed = np.zeros(count + 1, np.int32)
            np.cumsum(lengths, out=packed[1:])
            return _build(array.type, count, [bitmap, _buffer(packed)], nulls, [child])
    start, end = int(offsets[0]), int(offsets[-1])
    whole = start == 0 and end == len(values)
    part = values if whole else values.slice(start, end - start)
    child = canonical_array(part)
    assert offsets_buffer is not None
    exact = (
        array.offset == 0 and offsets_buffer.size == offsets.nbytes and bitmap is None and validity is None
    )
    if exact and whole and child is values:
        return array
    return _build(array.type, count, [bitmap, _buffer(offsets - offsets[0])], nulls, [child])


def _fixed_size_list(array: pa.FixedSizeListArray[Any, Any]) -> pa.Array[Any]:
    count, offset, size = len(array), array.offset, array.type.list_size
    nulls = array.null_count
    values = array.values
    whole = offset == 0 and len(values) == count * size
    part = values if whole else values.slice(offset * size, count * size)
    if nulls:
        valid = _valid(array)
        child = canonical_array(_defaults_where(part, np.repeat(~valid, size)))
        return _build(array.type, count, [_pack(valid)], nulls, [child])
    child = canonical_array(part)
    if whole and child is values and array.buffers()[0] is None:
        return array
    return _build(array.type, count, [None], 0, [child])


def _struct(array: pa.StructArray) -> pa.Array[Any]:
    count = len(array)
    nulls = array.null_count
    fields = [array.field(index) for index in range(array.type.num_fields)]
    if nulls:
        valid = _valid(array)
        children = [canonical_array(_defaults_where(field, ~valid)) for field in fields]
        return _build(array.type, count, [_pack(valid)], nulls, children)
    children = [canonical_array(field) for field in fields]
    same = all(child is field for child, field in zip(children, fields, strict=True))
    if same and array.offset == 0 and array.buffers()[0] is None:
        return array
    return _build(array.type, count, [None], 0, children)


def _defaults_where(array: pa.Array[Any], mask: npt.NDArray[np.bool_]) -> pa.Array[Any]:
    """Put the type's zero in the masked slots: what hides under a null must not tell equal columns apart."""
    chosen = np.arange(len(array), dtype=np.int64)
    chosen[mask] = len(array)
    return pa.concat_arrays([array, zeroes(array.type)]).take(chosen)


@lru_cache(maxsize=256)
def zeroes(kind: pa.DataType) -> pa.Array[Any]:
    """Return one row of the type's zero: 0, false, the empty text or list, a struct of zeroes; not null."""
    if isinstance(kind, pa.StructType):
        fields = [kind.field(index) for index in range(kind.num_fields)]
        return pa.StructArray.from_arrays([zeroes(field.type) for field in fields], fields=fields)
    if isinstance(kind, pa.FixedSizeListType):
        parts = [zeroes(kind.value_type)] * kind.list_size
        child = pa.concat_arrays(parts) if parts else _empty(kind.value_type)
        return _build(kind, 1, [None], 0, [child])
    if isinstance(kind, pa.ListType):
        return pa.array([[]], kind)
    if pa.types.is_string(kind) or pa.types.is_binary(kind):
        return pa.array([""], pa.string()).cast(kind)
    return _build(kind, 1, [None, pa.py_buffer(bytes(16))], 0)


def _with_validity(array: pa.Array[Any], valid: npt.NDArray[np.bool_], nulls: int) -> pa.Array[Any]:
    return _build(array.type, len(array), [_pack(valid), *array.buffers()[1:]], nulls)


def _build(
    kind: pa.DataType,
    count: int,
    buffers: list[pa.Buffer | None],
    nulls: int,
    children: list[pa.Array[Any]] | None = None,
) -> pa.Array[Any]:
    return pa.Array.from_buffers(kind, count, buffers, nulls, 0, children)


def _offsets(array: pa.Array[Any]) -> npt.NDArray[np.int32]:
    buffer = array.buffers()[1]
    assert buffer is not None
    return _view(buffer, np.int32, len(array) + 1, array.offset * 4)


def _valid(array: pa.Array[Any]) -> npt.NDArray[np.bool_]:
    buffer = array.buffers()[0]
    assert buffer is not None
    return _bits(buffer, array.offset, len(array))


def _bits(buffer: pa.Buffer, offset: int, count: int) -> npt.NDArray[np.bool_]:
    first = offset // 8
    size = (offset + count + 7) // 8 - first
    bits: npt.NDArray[np.uint8] = np.unpackbits(_view(buffer, np.uint8, size, first), bitorder="little")
    start = offset - first * 8
    selected: npt.NDArray[np.bool_] = bits[start : start + count].view(np.bool_)
    return selected


def _pack(bits: npt.NDArray[np.bool_]) -> pa.Buffer:
    return _buffer(np.packbits(bits, bitorder="little"))


def _view(buffer: pa.Buffer, kind: type[_Number], count: int, offset: int) -> npt.NDArray[_Number]:
    return np.frombuffer(memoryview(buffer), kind, count, offset)


def _buffer(values: npt.NDArray[Any]) -> pa.Buffer:
    return pa.py_buffer(values.data)
