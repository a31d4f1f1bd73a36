"""QueryService over gRPC."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from tickwire.v1 import query_service_pb2 as pb
from tickwire.v1 import world_pb2
from tickwire_engine.encoding import schema_message
from tickwire_engine.errors import InvalidRequestError
from tickwire_engine.querying import RowQuery
from tickwire_engine.values import to_json
from tickwire_server.grpc.errors import answers, streams
from tickwire_server.grpc.structs import dict_to_struct
from tickwire_server.hub import Compression, frame_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    import pyarrow as pa

    from tickwire_server.container import ServiceContainer
    from tickwire_server.services.queries import Answer

MESSAGE_BYTES = 1 << 20
END_OF_STREAM = b"\xff\xff\xff\xff\x00\x00\x00\x00"
ROWS_A_MESSAGE = 500
COMPRESSIONS = {
    world_pb2.COMPRESSION_UNSPECIFIED: Compression.NONE,
    world_pb2.COMPRESSION_NONE: Compression.NONE,
    world_pb2.COMPRESSION_LZ4: Compression.LZ4,
    world_pb2.COMPRESSION_ZSTD: Compression.ZSTD,
}
R = TypeVar("R", pb.QueryResponse, pb.SqlResponse)


class QueryServicer:
    """Rows of the present and the past, as Arrow or for people."""

    def __init__(self, container: ServiceContainer) -> None:
        self._container = container

    @streams
    async def Query(self, request: pb.QueryRequest, context: Any) -> AsyncIterator[pb.QueryResponse]:
        """Read rows at a tick, or over a range of ticks."""
        service = self._container.query_service
        world = self._container.world_service.find(request.world)
        _require_format(request.format)
        if request.compression not in COMPRESSIONS:
            raise InvalidRequestError(
                f"compression {request.compression} is no Compression", field="compression"
            )
        self._container.limits.require_sql(request.where, path="where")
        query = RowQuery.parse(
            self._container.engine.setup.vocabulary.components,
            components=request.components,
            where=request.where,
            entity_ids=request.entity_ids,
            limit=request.limit,
        )
        range_ = request.WhichOneof("range")
        answer = await service.rows(
            world,
            query,
            at_tick=request.at_tick if range_ == "at_tick" else None,
            ticks=(request.ticks.from_tick, request.ticks.to_tick) if range_ == "ticks" else None,
        )
        as_rows = request.format == pb.FORMAT_ROWS
        made = _responses(
            answer, pb.QueryResponse, as_rows=as_rows, compression=COMPRESSIONS[request.compression]
        )
        async for response in service.read(answer, made):
            yield response

    @streams
    async def Sql(self, request: pb.SqlRequest, context: Any) -> AsyncIterator[pb.SqlResponse]:
        """Read by SQL over the worlds that the caller may see."""
        service = self._container.query_service
        _require_format(request.format)
        self._container.limits.require_sql(request.sql, path="sql")
        answer = service.sql_rows(
            request.sql, at_tick=request.at_tick if request.HasField("at_tick") else None
        )
        as_rows = request.format == pb.FORMAT_ROWS
        made = _responses(answer, pb.SqlResponse, as_rows=as_rows, compression=Compression.NONE)
        async for response in service.read(answer, made):
            yield response

    @answers
    async def GetEntity(self, request: pb.GetEntityRequest, context: Any) -> pb.GetEntityResponse:
        """Read one entity."""
        world = self._container.world_service.find(request.world)
        if request.entity_id <= 0:
            raise InvalidRequestError("entity_id must be positive", field="entity_id")
        tick, values = await self._container.query_service.entity(
            world, request.entity_id, at_tick=request.at_tick if request.HasField("at_tick") else None
        )
        return pb.GetEntityResponse(
            entity_id=request.entity_id, tick=tick, components=dict_to_struct(to_json(values))
        )


def _require_format(format_: int) -> None:
    if format_ not in (pb.FORMAT_UNSPECIFIED, pb.FORMAT_ARROW, pb.FORMAT_ROWS):
        raise InvalidRequestError(f"format {format_} is no Format", field="format")


def _responses(answer: Answer, response: type[R], *, as_rows: bool, compression: Compression) -> Iterator[R]:
    """Yield the messages of an answer; blocks."""
    schema = answer.begin()
    if as_rows:
        yield from _as_rows(answer, response)
    else:
        yield from _as_arrow(answer, response, schema, compression)


def _as_arrow(answer: Answer, response: type[R], schema: pa.Schema, compression: Compression) -> Iterator[R]:
    """Yield schema, record batches and end marker: by Arrow's definition they concatenate to one IPC stream."""
    head = schema_message(schema)
    for batch in answer.batches():
        if not batch.num_rows:
            continue
        frame = frame_of(batch, stream=0, max_bytes=MESSAGE_BYTES, compression=compression)
        for message, rows in zip(frame.messages, frame.message_rows, strict=True):
            yield response(ipc=head + message, rows=rows, tick=answer.tick)
            head = b""
    yield response(ipc=head + END_OF_STREAM, tick=answer.tick)


def _as_rows(answer: Answer, response: type[R]) -> Iterator[R]:
    page = response()
    size = 0
    for batch in answer.batches():
        for start in range(0, batch.num_rows, ROWS_A_MESSAGE):
            for row in batch.slice(start, ROWS_A_MESSAGE).to_pylist():
                record = dict_to_struct(to_json(row))
                size += record.ByteSize()
                if page.rows and (page.rows == ROWS_A_MESSAGE or size > MESSAGE_BYTES):
                    page.tick = answer.tick
                    yield page
                    page = response()
                    size = record.ByteSize()
                page.records.append(record)
                page.rows += 1
    page.tick = answer.tick
    yield page
