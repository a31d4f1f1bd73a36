"""Arrow IPC streams of strangers: bounded before they are decoded, validated before anything looks at a value.

A stream of some hundred bytes can claim any number of rows, decompress to any size, and name one long string a million
times; a flipped bit can point an offset outside of its buffer. So the messages' own headers are read first, here, and what
they promise is held against the limits; only then Arrow decodes them, and every array is validated in full before its
size, let alone a value, is asked for.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tickwire_engine.commands.casting import first_line
from tickwire_engine.errors import InvalidArrowError, SchemaMismatchError
from tickwire_engine.expressions import single_batch
from tickwire_engine.limits import DEFAULTS, Limits

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_NESTING = 8
"""Lists and structs inside one another, in a column's type."""
_FILE_MAGIC = b"ARROW1"
_END_OF_STREAM = b"\xff\xff\xff\xff\x00\x00\x00\x00"
# Arrow lets a writer leave the marker out; we do not: a stream cut between two messages would pass for a whole one.
_UNREADABLE = (pa.ArrowException, OSError, EOFError, MemoryError, OverflowError)
_FLAT = (
    *(pa.types.is_null, pa.types.is_boolean, pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal),
    *(pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view),
    *(pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view, pa.types.is_fixed_size_binary),
    *(pa.types.is_timestamp, pa.types.is_date, pa.types.is_duration),
)
_LISTS = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
_TEXT = (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary)
_VIEWS = (pa.types.is_string_view, pa.types.is_binary_view)


def read_stream(data: bytes, *, path: str, limits: Limits = DEFAULTS) -> pa.RecordBatch:
    """Return the rows of an Arrow IPC stream as one batch, validated in full.

    Raises:
        InvalidArrowError: The bytes are no whole stream, or hold more than the limits allow.
        SchemaMismatchError: A column has a type that no component has, or a string that is too long.
    """
    if data.startswith(_FILE_MAGIC):
        raise InvalidArrowError(
            f"{path}: these bytes are an Arrow IPC file; send a stream (pyarrow: ipc.new_stream)", field=path
        )
    buffer = pa.py_buffer(data)
    try:
        _check_messages(buffer, limits, path)
        with pa.ipc.open_stream(buffer) as reader:
            _check_schema(reader.schema, limits, path)
            batches = []
            size = 0
            for batch in reader:
                batch.validate(full=True)
                size += sum(
                    _check_column(column, limits, f"{path}.{name}")
                    for name, column in zip(batch.schema.names, batch.columns, strict=True)
                )
                if size > limits.table_bytes:
                    raise _too_large(limits, path)
                batches.append(batch)
            table = pa.Table.from_batches(batches, schema=reader.schema)
    except UnicodeDecodeError:
        raise InvalidArrowError(f"{path}: the name of a column is no UTF-8", field=path) from None
    except _UNREADABLE as error:
        raise InvalidArrowError(
            f"{path}: no readable Arrow IPC stream: {first_line(error)}", field=path
        ) from None
    return single_batch(table)


def _too_large(limits: Limits, path: str) -> InvalidArrowError:
    return InvalidArrowError(
        f"{path}: more than {limits.table_bytes} bytes when decoded, the server's limit (table_bytes): send several "
        "tables",
        field=path,
        limit=limits.table_bytes,
    )


# The messages' headers


class _Batch(NamedTuple):
    """What the header of a record batch, or of a dictionary's, promises."""

    rows: int
    nodes: np.ndarray
    """Lengths and null counts of the arrays, children too."""
    buffers: np.ndarray
    """Offsets and lengths in the body."""
    compressed: bool


def _check_messages(buffer: pa.Buffer, limits: Limits, path: str) -> None:
    source = pa.BufferReader(buffer)
    reader = pa.ipc.MessageReader.open_stream(source)
    rows, size = 0, 0
    for message in _messages(reader):
        if message.type == "schema":
            continue
        try:
            batch = _header(message.metadata.to_pybytes(), message.type)
            size += _decoded_bytes(batch, message.body)
        except (struct.error, ValueError, IndexError, OverflowError):
            raise InvalidArrowError(
                f"{path}: the header of a {message.type} is damaged", field=path
            ) from None
        rows += batch.rows if message.type == "record batch" else 0
        if size > limits.table_bytes:
            raise _too_large(limits, path)
        if rows > limits.table_rows:
            raise InvalidArrowError(
                f"{path}: more than {limits.table_rows} rows, the server's limit (table_rows): send several tables",
                field=path,
                limit=limits.table_rows,
            )
    if source.tell() != buffer.size or not buffer.slice(max(buffer.size - 8, 0)).equals(_END):
        raise InvalidArrowError(
            f"{path}: the Arrow IPC stream does not end where its bytes end: its end marker is missing, "
            "or something follows it",
            field=path,
        )


_END = pa.py_buffer(_END_OF_STREAM)


def _messages(reader: Any) -> Iterator[Any]:
    while True:
        try:
            yield reader.read_next_message()
        except StopIteration:
            return


def _header(metadata: bytes, kind: str) -> _Batch:
    message = _Table.root(metadata)
    header = message.table(2)
    if kind == "dictionary":
        header = header.table(1)
    elif kind != "record batch":
        raise ValueError(kind)
    return _Batch(header.int64(0), header.pairs(1), header.pairs(2), header.has(3))


def _decoded_bytes(batch: _Batch, body: pa.Buffer | None) -> int:
    """Return what the buffers take in memory once they are decompressed.

    Raises:
        ValueError: The header contradicts itself or the body.
    """
    available = 0 if body is None else body.size
    lengths, offsets, sizes = batch.nodes[:, 0], batch.buffers[:, 0], batch.buffers[:, 1]
    if batch.rows < 0 or (lengths < 0).any() or (batch.nodes[:, 1] < 0).any():
        raise ValueError("negative")
    if (offsets < 0).any() or (sizes < 0).any() or (offsets > available).any() or (sizes > available).any():
        raise ValueError("outside of the body")
    if ((offsets + sizes) > available).any():
        raise ValueError("outside of the body")
    total = int(sizes.sum(dtype=np.float64))
    if batch.compressed and body is not None:
        total = 0
        for offset, size in batch.buffers[sizes > 0].tolist():
            if size < _PREFIX.size:
                raise ValueError("a compressed buffer without its size")
            (plain,) = _PREFIX.unpack(body.slice(offset, _PREFIX.size).to_pybytes())
            if plain < -1:
                raise ValueError("negative")
            total += size if plain == -1 else plain
    return total


_PREFIX = struct.Struct("<q")


class _Table:
    """A table of a flatbuffer, read by its field numbers; whatever points outside raises `struct.error` or `ValueError`."""

    __slots__ = ("_data", "_fields", "_start")

    def __init__(self, data: bytes, start: int) -> None:
        self._data = data
        self._start = start
        vtable = start - _at("<i", data, start)
        size = _at("<H", data, vtable)
        self._fields = struct.unpack_from(f"<{max(size - 4, 0) // 2}H", data, vtable + 4)

    @classmethod
    def root(cls, data: bytes) -> _Table:
        return cls(data, _at("<I", data, 0))

    def has(self, field: int) -> bool:
        return field < len(self._fields) and self._fields[field] != 0

    def int64(self, field: int) -> int:
        return _at("<q", self._data, self._start + self._fields[field]) if self.has(field) else 0

    def table(self, field: int) -> _Table:
        return _Table(self._data, self._target(field))

    def pairs(self, field: int) -> np.ndarray:
        """Return a vector of structs of two int64 as an array with a row for each."""
        if not self.has(field):
            return np.empty((0, 2), np.int64)
        start = self._target(field)
        count = _at("<I", self._data, start)
        if start + 4 + 16 * count > len(self._data):
            raise ValueError("outside of the header")
        return np.frombuffer(self._data, "<i8", 2 * count, start + 4).reshape(count, 2)

    def _target(self, field: int) -> int:
        if not self.has(field):
            raise ValueError("missing")
        at: int = self._start + self._fields[field]
        return at + _at("<I", self._data, at)


def _at(form: str, data: bytes, offset: int) -> int:
    if offset < 0:
        raise ValueError("outside of the header")
    (value,) = struct.unpack_from(form, data, offset)
    return int(value)


# The schema, and what it makes of the buffers


def _check_schema(schema: pa.Schema, limits: Limits, path: str) -> None:
    if len(schema.names) > limits.table_columns:
        raise InvalidArrowError(
            f"{path}: {len(schema.names)} columns are more than {limits.table_columns}, the server's limit "
            "(table_columns)",
            field=path,
            limit=limits.table_columns,
        )
    if len(set(schema.names)) != len(schema.names):
        raise InvalidArrowError(f"{path}: column names must be unique", field=path)
    for field in schema:
        kind: Any = field.type
        if pa.types.is_dictionary(kind):
            kind = kind.value_type
            if pa.types.is_nested(kind) or pa.types.is_dictionary(kind):
                raise _strange(field, f"{path}.{field.name}")
        if not _is_plain(kind, 0):
            raise _strange(field, f"{path}.{field.name}")


def _strange(field: pa.Field[Any], path: str) -> SchemaMismatchError:
    return SchemaMismatchError(f"{path}: {str(field.type)[:100]} is no type that components have", field=path)


def _is_plain(kind: Any, depth: int) -> bool:
    if depth > MAX_NESTING or isinstance(kind, pa.BaseExtensionType):
        return False
    if any(test(kind) for test in _LISTS):
        return _is_plain(kind.value_type, depth + 1)
    if pa.types.is_struct(kind):
        fields = [kind.field(i) for i in range(kind.num_fields)]
        # Names are decoded when they are asked for.
        return all(field.name and _is_plain(field.type, depth + 1) for field in fields)
    return any(test(kind) for test in _FLAT)


def _check_column(array: Any, limits: Limits, path: str) -> int:
    """Return the bytes that a validated column takes once its layout is plain.

    Raises:
        SchemaMismatchError: It has a string that is too long.
    """
    kind = array.type
    if pa.types.is_dictionary(kind):
        # One long string, named a million times.
        sizes = _item_bytes(array.dictionary)
        _require_short(int(sizes.max(initial=0)), limits, path)
        taken = array.indices.drop_null().to_numpy(zero_copy_only=False)
        return int(sizes[taken].sum())
    if any(test(kind) for test in _VIEWS):
        sizes = _item_bytes(array)
        _require_short(int(sizes.max(initial=0)), limits, path)
        return int(sizes.sum()) + 4 * len(array)
    if any(test(kind) for test in _TEXT):
        longest = pc.max(pc.binary_length(array)).as_py()
        _require_short(longest or 0, limits, path)
        return int(array.nbytes)
    if any(test(kind) for test in _LISTS):
        return _check_column(array.flatten(), limits, f"{path}[]") + 8 * len(array)
    if pa.types.is_struct(kind):
        parts = zip((kind.field(i).name for i in range(kind.num_fields)), array.flatten(), strict=True)
        return len(array) + sum(_check_column(part, limits, f"{path}.{name}") for name, part in parts)
    return max(int(array.nbytes), 8 * len(array) if pa.types.is_null(kind) else 0)


def _item_bytes(array: Any) -> np.ndarray:
    kind = array.type
    if any(test(kind) for test in _VIEWS):
        # A view has 16 bytes and begins with the length.
        end = array.offset + len(array)
        views = np.frombuffer(array.buffers()[1], "<i4", 4 * end) if end else np.empty(0, "<i4")
        lengths = views.reshape(-1, 4)[array.offset :, 0]
        valid = array.is_valid().to_numpy(zero_copy_only=False)
        return np.where(valid, lengths, 0).astype(np.int64)
    if any(test(kind) for test in _TEXT):
        found: np.ndarray = (
            pc.binary_length(array).fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
        )
        return found
    return np.full(len(array), 8, np.int64)


def _require_short(length: int, limits: Limits, path: str) -> None:
    if length > limits.string_bytes:
        raise SchemaMismatchError(
            f"{path}: a value of {length} bytes is longer than {limits.string_bytes}, the server's limit (string_bytes)",
            field=path,
            limit=limits.string_bytes,
        )
