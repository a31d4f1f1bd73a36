"""Rows of a view as record batch messages: cut to a size, compressed if asked. Pure; any thread."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa

from tickwire_engine.storage.rows import Frame
from tickwire_server.hub.view import Compression

if TYPE_CHECKING:
    from collections.abc import Iterator

_LEAST_BYTES = 4096


def frame_of(
    batch: pa.RecordBatch, *, stream: int, max_bytes: int, compression: Compression = Compression.NONE
) -> Frame:
    """Encode rows in messages of at most `max_bytes`, unless one row is larger; without a hash."""
    messages, rows = [], []
    for piece in _cut(batch, max(max_bytes, _LEAST_BYTES)):
        messages.append(_message(piece, compression))
        rows.append(piece.num_rows)
    return Frame(stream, batch.num_rows, tuple(messages), tuple(rows), b"")


def fits(frame: Frame, max_bytes: int) -> bool:
    """Whether each message of a frame is small enough, or cannot be smaller."""
    return all(
        len(message) <= max_bytes or rows <= 1
        for message, rows in zip(frame.messages, frame.message_rows, strict=True)
    )


def _message(batch: pa.RecordBatch, compression: Compression) -> bytes:
    if compression is Compression.NONE:
        return batch.serialize().to_pybytes()
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression=compression.value)
    with pa.ipc.new_stream(sink, batch.schema, options=options) as writer:
        writer.write_batch(batch)
        end = sink.tell()
    # The stream begins with the schema's message, which goes on the wire once and by itself.
    start = batch.schema.serialize().size
    return sink.getvalue().slice(start, end - start).to_pybytes()


def _cut(batch: pa.RecordBatch, max_bytes: int) -> Iterator[pa.RecordBatch]:
    size = pa.ipc.get_record_batch_size(batch)
    total = batch.num_rows
    if size <= max_bytes or total <= 1:
        yield batch
        return
    # The padding of each buffer is the same however few the rows.
    padding = 64 * (batch.num_columns + 4)
    step = max(1, total * max(max_bytes - padding, 0) // size)
    start = 0
    while start < total:
        count = min(step, total - start)
        while count > 1 and pa.ipc.get_record_batch_size(batch.slice(start, count)) > max_bytes:
            count //= 2
        yield batch.slice(start, count)
        start += count
