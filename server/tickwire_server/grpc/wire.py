"""A tick as wire bytes: `SubscribeResponse` messages, put together around the very bytes of the tick log.

The envelope is written by hand, so that a megabyte of rows is copied once and never parsed; a test holds the result
equal to what the generated classes make of the same tick.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

from google.protobuf.timestamp_pb2 import Timestamp

from tickwire import _varint as varint
from tickwire.v1 import tick_service_pb2 as pb
from tickwire_server.grpc.outcomes import outcome_proto
from tickwire_server.hub.view import ENVELOPE_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tickwire_engine.storage.rows import TickSummary
    from tickwire_server.hub import TickMessage

DEFAULT_MESSAGE_BYTES = 1 << 20
MIN_MESSAGE_BYTES = 64 << 10
_Piece = tuple[bytes, ...]
"""An encoded field of a chunk, in parts."""
_IDS_AT_ONCE = 4096
"""So many despawned ids take less than the smallest message."""


class WireEncoder:
    """Encodes ticks as any view shows them; stateless, so one serves all worlds."""

    def encode(self, message: TickMessage, *, max_bytes: int = DEFAULT_MESSAGE_BYTES) -> list[bytes]:
        """Return the tick's messages, each at most `max_bytes` unless a frame's one message or a schema is larger."""
        groups = _grouped(_pieces(message), max_bytes - ENVELOPE_BYTES)
        last = len(groups) - 1
        return [
            _message(_chunk(message, index, group, last=index == last)) for index, group in enumerate(groups)
        ]


def summary_proto(summary: TickSummary) -> pb.TickSummary:
    """Return a tick's summary as the contract has it."""
    message = pb.TickSummary(
        run_id=_uuid(summary.run_id),
        entities=summary.entities,
        rows=summary.rows,
        spawned=summary.spawned,
        despawned=summary.despawned,
        commands_applied=summary.commands_applied,
        commands_rejected=summary.commands_rejected,
        state_hash=summary.state_hash,
        committed_at=timestamp(summary.committed_at_us),
        tick=summary.tick,
        hz=summary.hz,
    )
    message.compute.FromMicroseconds(summary.compute_us)
    return message


def timestamp(micros: int) -> Timestamp:
    """Return microseconds since the Unix epoch as a Timestamp."""
    message = Timestamp()
    message.FromMicroseconds(micros)
    return message


def _message(chunk: list[bytes]) -> bytes:
    # The one place where rows are copied: all before it passes the log's own bytes along.
    return b"".join((varint.encode(1 << 3 | 2), varint.encode(sum(map(len, chunk))), *chunk))


def _chunk(message: TickMessage, index: int, pieces: list[_Piece], *, last: bool) -> list[bytes]:
    head = pb.TickChunk(tick=message.summary.tick, index=index, last=last).SerializeToString()
    summary = b""
    if last:
        summary = pb.TickChunk(summary=summary_proto(message.summary)).SerializeToString()
    tail = b""
    if index == 0 and (message.snapshot or message.skipped):
        tail = pb.TickChunk(snapshot=message.snapshot, skipped=message.skipped).SerializeToString()
    return [head, *(part for piece in pieces for part in piece), summary, tail]


def _pieces(message: TickMessage) -> Iterator[_Piece]:
    """Yield encoded fields of chunks, in the order in which they are sent."""
    unknown = set(message.unknown)
    for stream, frame in message.frames:
        for encoded, rows in zip(frame.messages, frame.message_rows, strict=True):
            # In CHANGES a stream may come twice, for its departures and its arrivals.
            with_schema = stream.number in unknown
            unknown.discard(stream.number)
            batch = (
                _number(1, stream.number),
                _field(2, stream.schema) if with_schema else b"",
                varint.encode(3 << 3 | 2),
                varint.encode(len(encoded)),
                encoded,
                _number(4, rows),
                _field(5, stream.archetype.encode()) if with_schema else b"",
            )
            yield (varint.encode(4 << 3 | 2), varint.encode(sum(map(len, batch))), *batch)
    # Empty in FULL: there the inactive rows tell.
    for start in range(0, len(message.despawned), _IDS_AT_ONCE):
        ids = message.despawned[start : start + _IDS_AT_ONCE]
        yield (pb.TickChunk(despawned=ids).SerializeToString(),)
    for decided in message.outcomes:
        yield (pb.TickChunk(outcomes=[outcome_proto(decided)]).SerializeToString(),)


def _grouped(pieces: Iterator[_Piece], max_bytes: int) -> list[list[_Piece]]:
    groups: list[list[_Piece]] = [[]]
    size = 0
    for piece in pieces:
        more = sum(map(len, piece))
        if groups[-1] and size + more > max_bytes:
            groups.append([])
            size = 0
        groups[-1].append(piece)
        size += more
    return groups


def _field(number: int, value: bytes) -> bytes:
    return varint.encode(number << 3 | 2) + varint.encode(len(value)) + value


def _number(number: int, value: int) -> bytes:
    return varint.encode(number << 3) + varint.encode(value) if value else b""


def _uuid(raw: bytes) -> str:
    return str(UUID(bytes=raw)) if raw else ""
