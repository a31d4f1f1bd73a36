"""A message of a stream of ticks as it came: what is small of it parsed, and the rows where they lie."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Self

import pyarrow as pa

from tickwire._cutting import cut, first_size
from tickwire.v1 import tick_service_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Sequence

_ROWS = (
    pb.SubscribeResponse.CHUNKS_FIELD_NUMBER,
    pb.TickChunk.BATCHES_FIELD_NUMBER,
    pb.ArchetypeBatch.BATCH_FIELD_NUMBER,
)
_LEAST_BYTES = 64 << 10
"""With smaller chunks than this it is cheaper to parse a message whole."""
_ALIGNMENT = 8


class Received(NamedTuple):
    """A message, and the Arrow messages of its batches.

    Attributes:
        message: as it was sent; without the batches' `batch` where `rows` has them.
        rows: the `batch` of all batches of all chunks, in order; None: they are in the message.
    """

    message: pb.SubscribeResponse
    rows: Sequence[pa.Buffer] | None = None

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Reads a message.

        Raises:
            google.protobuf.message.DecodeError: it is none.
        """
        view = memoryview(data)
        rows: list[memoryview] = []
        try:
            if first_size(view) >= _LEAST_BYTES:
                rest = pb.SubscribeResponse.FromString(cut(view, _ROWS, rows))
                return cls(rest, [_aligned(batch) for batch in rows])
        except ValueError:
            pass  # The generated classes say what is wrong with it.
        return cls(pb.SubscribeResponse.FromString(data))


def _aligned(data: memoryview) -> pa.Buffer:
    """Wraps bytes for Arrow, whose buffers begin at multiples of eight; copies those that do not."""
    buffer = pa.py_buffer(data)
    return pa.py_buffer(bytes(data)) if buffer.address % _ALIGNMENT else buffer
