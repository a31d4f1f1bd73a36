"""The one encoding of a tick: Arrow rows in, the bytes of the log, of the wire and of recovery out.

A batch is made *canonical* first, so that equal rows give equal bytes and one hash, however they were sliced,
chunked or computed: buffers start at offset 0 and end with the last row, null slots hold zeroes, a column
without nulls has no validity bitmap, the spare bits of a bitmap are zero; floats keep their bits (NaN
payloads and -0.0 included). Schema metadata is not part of the hash. Nothing here knows Daft, storage or
worlds; every function is pure, and safe to call from any thread.
"""

from __future__ import annotations

import operator
import struct
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import xxhash

from tickwire_engine._canonical import canonical_array, describe
from tickwire_engine._canonical import check_type as check_type
from tickwire_engine.storage.rows import Frame

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

HASH_ALGORITHM = "xxh3-128/1"
"""What `hash_batch` computes; a change of a single bit of it is a new version."""

MAX_MESSAGE_BYTES = 1 << 20
"""Default bound of one encoded message."""

_ABSENT = 0xFFFF_FFFF_FFFF_FFFF


def schema_message(schema: pa.Schema) -> bytes:
    """Encode a schema as one encapsulated IPC message (V5)."""
    return schema.serialize().to_pybytes()


def encode(batch: pa.RecordBatch, *, stream: int, max_message_bytes: int = MAX_MESSAGE_BYTES) -> Frame:
    """Encode one archetype's rows once, for the log, the wire and recovery.

    Args:
        batch: The rows, in entity order.
        stream: The number of the stream that they belong to.
        max_message_bytes: No message is larger, unless a single row is.

    Returns:
        The frame; a batch without rows has one message of zero rows.

    Raises:
        SchemaMismatchError: A column has a type that does not go on the wire.
    """
    batch, content_hash = _canonical_and_hash(batch)
    messages: list[bytes] = []
    rows: list[int] = []
    for piece in _split(batch, max_message_bytes):
        messages.append(piece.serialize().to_pybytes())
        rows.append(piece.num_rows)
    return Frame(stream, batch.num_rows, tuple(messages), tuple(rows), content_hash)


def decode(schema: pa.Schema | bytes, messages: Sequence[bytes]) -> pa.RecordBatch:
    """Put a frame's messages back together as one contiguous batch; one message is not copied.

    Args:
        schema: The schema, or its encapsulated IPC message.
        messages: The frame's messages, in order. They are trusted: this is for our own bytes.
    """
    if isinstance(schema, bytes):
        schema = read_schema(schema)
    batches = [pa.ipc.read_record_batch(message, schema) for message in messages]
    if len(batches) == 1 and not _needs_alignment(schema):
        return batches[0]
    return _join(batches)


@lru_cache(maxsize=1024)
def read_schema(message: bytes) -> pa.Schema:
    """Decode an encapsulated IPC schema message."""
    return pa.ipc.read_schema(pa.py_buffer(message))


def canonical(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return the same rows in the one physical form that they have on the wire.

    The batch itself is returned where it is canonical already (flat columns at offset 0 without nulls are).

    Raises:
        SchemaMismatchError: A column has a type that does not go on the wire.
    """
    _schema_prefix(batch.schema)
    return _canonical(batch)[0]


def hash_batch(batch: pa.RecordBatch) -> bytes:
    """Hash names, types, nullability and canonical content: 16 bytes, by `HASH_ALGORITHM`."""
    return _canonical_and_hash(batch)[1]


def _canonical(batch: pa.RecordBatch) -> tuple[pa.RecordBatch, list[pa.Array[Any]]]:
    columns = batch.columns
    canonical_columns = [canonical_array(column) for column in columns]
    if all(map(operator.is_, canonical_columns, columns)):
        return batch, columns
    return pa.RecordBatch.from_arrays(canonical_columns, schema=batch.schema), canonical_columns


def _canonical_and_hash(batch: pa.RecordBatch) -> tuple[pa.RecordBatch, bytes]:
    prefix = _schema_prefix(batch.schema)
    batch, columns = _canonical(batch)
    buffers: list[pa.Buffer | None] = []
    if batch.num_rows:
        for column in columns:
            # Without rows, what buffers an array has is the library's whim; nested columns may be empty too.
            buffers.extend(column.buffers() if column.type.num_fields == 0 else _nested_buffers(column))
    sizes = [_ABSENT if buffer is None else buffer.size for buffer in buffers]
    digest = xxhash.xxh3_128(prefix)
    digest.update(struct.pack(f"<{len(sizes) + 1}Q", batch.num_rows, *sizes))
    for buffer in buffers:
        if buffer is not None:
            digest.update(buffer)
    return batch, digest.digest()


def _nested_buffers(array: pa.Array[Any]) -> Iterator[pa.Buffer | None]:
    if len(array) == 0:
        return
    kind = array.type
    own = array.buffers()
    if isinstance(array, pa.StructArray):
        yield own[0]
        for index in range(kind.num_fields):
            yield from _nested_buffers(array.field(index))
    elif isinstance(array, pa.ListArray):
        yield from own[:2]
        yield from _nested_buffers(array.values)
    elif isinstance(array, pa.FixedSizeListArray):
        yield own[0]
        yield from _nested_buffers(array.values)
    else:
        yield from own


def _split(batch: pa.RecordBatch, max_bytes: int) -> Iterator[pa.RecordBatch]:
    size = pa.ipc.get_record_batch_size(batch)
    total = batch.num_rows
    if size <= max_bytes or total <= 1:
        yield batch
        return
    step = max(1, total * max_bytes // size)
    if step > 64:
        # Whole bytes of the bitmaps: such a slice is free.
        step -= step % 64
    start = 0
    while start < total:
        count = min(step, total - start)
        piece = canonical(batch.slice(start, count))
        while count > 1 and pa.ipc.get_record_batch_size(piece) > max_bytes:
            count //= 2
            piece = canonical(batch.slice(start, count))
        yield piece
        start += count


def _join(batches: list[pa.RecordBatch]) -> pa.RecordBatch:
    if len(batches) == 1:
        indices = pa.array(range(batches[0].num_rows), pa.int64())
        return batches[0].take(indices)
    joined: pa.RecordBatch = pa.concat_batches(batches)  # type: ignore[attr-defined]
    return joined


@lru_cache(maxsize=1024)
def _needs_alignment(schema: pa.Schema) -> bool:
    # IPC aligns to 8 bytes; readers of decimals in Rust insist on 16.
    return any(pa.types.is_decimal128(field.type) for field in schema)


@lru_cache(maxsize=1024)
def _schema_prefix(schema: pa.Schema) -> bytes:
    for field in schema:
        check_type(field.type, field.name)
    return "\n".join([HASH_ALGORITHM, *map(describe, schema)]).encode()
