"""Arrow IPC at the client's rim: tables into commands, streams out of queries."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Iterable


def to_ipc(table: Any) -> bytes:
    """Writes a table as an Arrow IPC stream.

    Args:
        table: a pyarrow Table or RecordBatch, or what `pyarrow.table` takes: a dict of columns, or any data
            frame with the Arrow C stream interface (polars, pandas, Daft).
    """
    arrow_table: pa.Table = pa.table(table)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, arrow_table.schema) as writer:
        writer.write_table(arrow_table)
    return sink.getvalue().to_pybytes()


def from_ipc(pieces: Iterable[bytes]) -> pa.Table:
    """Reads the Arrow IPC stream that the pieces concatenate to; no bytes at all: a table without columns.

    The columns refer to the joined bytes; nothing is copied a second time.
    """
    joined = b"".join(pieces)
    if not joined:
        return pa.table({})
    with pa.ipc.open_stream(pa.py_buffer(joined)) as reader:
        return reader.read_all()


class BatchReader:
    """Reads an Arrow IPC stream that comes in pieces, each of whole messages.

    Attributes:
        schema: its columns, once the first piece is read.
    """

    def __init__(self) -> None:
        self.schema: pa.Schema | None = None

    def feed(self, piece: bytes) -> list[pa.RecordBatch]:
        """Reads the next piece; answers its batches, which refer to its bytes."""
        batches: list[pa.RecordBatch] = []
        messages = pa.ipc.MessageReader.open_stream(pa.py_buffer(piece)) if piece else ()
        for message in messages:
            if message.type == "schema":
                self.schema = pa.ipc.read_schema(message)
            elif self.schema is not None:
                batches.append(pa.ipc.read_record_batch(message, self.schema))
        return batches
