"""A peer that speaks the protocol: a real server on a real socket, whose answers each test writes by hand."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, NoReturn

import grpc
import grpc.aio
import pyarrow as pa
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2

from tickwire.v1 import tick_service_pb2, world_pb2

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

WORLD_ID = "01930000-0000-7000-8000-000000000001"
WORLD = world_pb2.World(id=WORLD_ID, name="orbit", tick=7, state=world_pb2.WORLD_STATE_IDLE)


@asynccontextmanager
async def serving(*registrations: Callable[[Any], None], target: str = "127.0.0.1:0") -> AsyncIterator[str]:
    """Serves until the block ends; answers the address."""
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    for register in registrations:
        register(server)
    port = server.add_insecure_port(target)
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


def status(
    code: grpc.StatusCode,
    reason: str,
    message: str = "told by the peer",
    *,
    metadata: Mapping[str, str] | None = None,
    retry_s: float | None = None,
    violations: Sequence[tuple[str, str]] = (),
) -> status_pb2.Status:
    """A Status with the details that the contract names."""
    info = error_details_pb2.ErrorInfo(reason=reason, domain="tickwire", metadata=metadata or {})
    details: list[Any] = [info]
    if retry_s is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromNanoseconds(round(retry_s * 1e9))
        details.append(retry)
    if violations:
        bad = error_details_pb2.BadRequest()
        for field, description in violations:
            bad.field_violations.add(field=field, description=description)
        details.append(bad)
    packed = []
    for detail in details:
        any_message = any_pb2.Any()
        any_message.Pack(detail)
        packed.append(any_message)
    return status_pb2.Status(code=code.value[0], message=message, details=packed)


async def abort(context: Any, code: grpc.StatusCode, reason: str, **details: Any) -> NoReturn:
    """Ends a call as the contract says that errors end."""
    rich = status(code, reason, **details)
    trailing = (("grpc-status-details-bin", rich.SerializeToString()),)
    await context.abort(code, rich.message, trailing)
    raise AssertionError("abort raises")


class TickWriter:
    """Writes the chunks of one connection as the contract says: a schema when its stream first appears."""

    def __init__(self) -> None:
        self._streams: dict[tuple[str, bytes], int] = {}

    def batch(self, archetype: str, rows: pa.RecordBatch) -> tick_service_pb2.ArchetypeBatch:
        schema = rows.schema.serialize().to_pybytes()
        number = self._streams.get((archetype, schema))
        first = number is None
        if number is None:
            number = self._streams[archetype, schema] = len(self._streams) + 1
        return tick_service_pb2.ArchetypeBatch(
            stream=number,
            schema=schema if first else b"",
            archetype=archetype if first else "",
            batch=rows.serialize().to_pybytes(),
            rows=rows.num_rows,
        )

    def chunks(
        self, tick: int, *pieces: tuple[str, pa.RecordBatch], despawned: int = 0, skipped: int = 0
    ) -> list[tick_service_pb2.TickChunk]:
        """A tick with a chunk per piece, or one without rows."""
        batches = [[self.batch(archetype, rows)] for archetype, rows in pieces] or [[]]
        chunks = [
            tick_service_pb2.TickChunk(tick=tick, index=index, batches=batch, skipped=skipped)
            for index, batch in enumerate(batches)
        ]
        chunks[-1].last = True
        chunks[-1].summary.tick = tick
        chunks[-1].summary.despawned = despawned
        chunks[-1].summary.entities = sum(rows.num_rows for _, rows in pieces)
        return chunks


def positions(*xs: float, first_id: int = 1, active: bool = True) -> pa.RecordBatch:
    """Rows of the archetype Position."""
    ids = range(first_id, first_id + len(xs))
    return pa.record_batch(
        {
            "entity_id": pa.array(ids, pa.int64()),
            "is_active": pa.array([active] * len(xs), pa.bool_()),
            "position__x": pa.array(xs, pa.float64()),
        }
    )


def started(first_tick: int, world_id: str = WORLD_ID) -> tick_service_pb2.SubscribeResponse:
    return tick_service_pb2.SubscribeResponse(
        started=tick_service_pb2.Started(world_id=world_id, first_tick=first_tick)
    )


def message(*chunks: tick_service_pb2.TickChunk) -> tick_service_pb2.SubscribeResponse:
    return tick_service_pb2.SubscribeResponse(chunks=chunks)
