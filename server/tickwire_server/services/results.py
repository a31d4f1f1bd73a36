"""Tables that commands answered, cut into pieces that together are one Arrow IPC stream."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NamedTuple

import pyarrow as pa

from tickwire_engine.encoding import encode, schema_message

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

PIECE_BYTES = 1 << 20
END_OF_STREAM = b"\xff\xff\xff\xff\x00\x00\x00\x00"


class Piece(NamedTuple):
    """Whole IPC messages, and how many rows they hold."""

    ipc: bytes
    rows: int


async def pieces(table: bytes) -> AsyncIterator[Piece]:
    """Yield a table, an Arrow IPC stream, in pieces of about a MiB; a larger one holds a single row."""
    with pa.ipc.open_stream(pa.py_buffer(table)) as reader:
        head = schema_message(reader.schema)
        for batch in reader:
            if not batch.num_rows:
                continue
            frame = await asyncio.to_thread(encode, batch, stream=0, max_message_bytes=PIECE_BYTES)
            for message, rows in zip(frame.messages, frame.message_rows, strict=True):
                yield Piece(head + message, rows)
                head = b""
    yield Piece(head + END_OF_STREAM, 0)
