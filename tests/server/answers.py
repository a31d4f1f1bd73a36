"""What servers answer, taken apart: statuses with their details, subscriptions tick by tick."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import grpc
import pyarrow as pa
from google.rpc import error_details_pb2, status_pb2

from tickwire.v1 import command_pb2, tick_service_pb2

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable

DETAILS = {
    "google.rpc.ErrorInfo": error_details_pb2.ErrorInfo,
    "google.rpc.BadRequest": error_details_pb2.BadRequest,
    "google.rpc.ResourceInfo": error_details_pb2.ResourceInfo,
    "google.rpc.PreconditionFailure": error_details_pb2.PreconditionFailure,
    "google.rpc.QuotaFailure": error_details_pb2.QuotaFailure,
    "google.rpc.RetryInfo": error_details_pb2.RetryInfo,
}


@dataclass
class Refusal:
    """A status and its details."""

    code: Any
    reason: str
    message: str
    metadata: dict[str, str]
    fields: list[str]
    kinds: set[str]
    retry_s: float = 0.0


def refusal_of(status: status_pb2.Status) -> Refusal:
    """Take a status apart."""
    info = error_details_pb2.ErrorInfo()
    bad = error_details_pb2.BadRequest()
    retry = error_details_pb2.RetryInfo()
    kinds = set()
    for detail in status.details:
        kind = detail.type_url.rpartition("/")[2]
        kinds.add(kind.rpartition(".")[2])
        assert kind in DETAILS
        if kind.endswith("ErrorInfo"):
            detail.Unpack(info)
        if kind.endswith("BadRequest"):
            detail.Unpack(bad)
        if kind.endswith("RetryInfo"):
            detail.Unpack(retry)
    assert info.domain == "tickwire"
    fields = [violation.field for violation in bad.field_violations]
    code = next(c for c in grpc.StatusCode if c.value[0] == status.code)
    assert status.ByteSize() <= 4096
    delay_s = retry.retry_delay.ToNanoseconds() / 1e9
    return Refusal(code, info.reason, status.message, dict(info.metadata), fields, kinds, delay_s)


def raised(error: grpc.aio.AioRpcError) -> Refusal:
    """Take apart what a call raised."""
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            found = refusal_of(status_pb2.Status.FromString(value))
            assert found.code is error.code()
            return found
    raise AssertionError(f"no details: {error.code()} {error.details()}")


async def refused(call: Any) -> Refusal:
    """Await a call that must fail; a stream is read to its end."""
    try:
        if hasattr(call, "__aiter__"):
            async for _ in call:
                pass
        else:
            await call
    except grpc.aio.AioRpcError as error:
        return raised(error)
    raise AssertionError("the call did not fail")


async def until(condition: Callable[[], object]) -> None:
    """Let the loop go on until `condition` holds; the test's timeout bounds it."""
    while not condition():  # noqa: ASYNC110  (what is awaited here sets no event)
        await asyncio.sleep(0)


def spawn(x: float = 0.0, **given: Any) -> command_pb2.Command:
    """Return a command that spawns a spot."""
    command = command_pb2.Command(**given)
    command.spawn.components.update({"Spot": {"x": x}})
    return command


def update(entity_id: int, x: Any, **given: Any) -> command_pb2.Command:
    """Return a command that moves a spot."""
    command = command_pb2.Command(**given)
    command.update.entity_ids.append(entity_id)
    command.update.components.update({"Spot": {"x": x}})
    return command


def despawn(*ids: int, **given: Any) -> command_pb2.Command:
    """Return a command that despawns."""
    return command_pb2.Command(despawn=command_pb2.Despawn(entity_ids=ids), **given)


@dataclass
class Tick:
    """A whole tick, as a subscriber puts it together."""

    tick: int
    chunks: int
    summary: tick_service_pb2.TickSummary
    rows: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    despawned: list[int] = field(default_factory=list)

    @property
    def active(self) -> dict[int, dict[str, Any]]:
        """Active rows by entity."""
        return {row["entity_id"]: row for rows in self.rows.values() for row in rows if row["is_active"]}


class Assembler:
    """Puts chunks together by the contract's rules, and checks them."""

    def __init__(self) -> None:
        self.schemas: dict[int, tuple[str, bytes]] = {}
        self.partial: Tick | None = None

    def add(self, chunk: tick_service_pb2.TickChunk) -> Tick | None:
        """Take a chunk; return the tick that it completes."""
        if self.partial is None:
            assert chunk.index == 0
            self.partial = Tick(chunk.tick, 0, chunk.summary)
        partial = self.partial
        assert (partial.tick, partial.chunks) == (chunk.tick, chunk.index)
        partial.chunks += 1
        partial.despawned.extend(chunk.despawned)
        for batch in chunk.batches:
            if batch.schema:
                assert batch.archetype
                self.schemas[batch.stream] = (batch.archetype, batch.schema)
            archetype, schema = self.schemas[batch.stream]
            decoded = pa.ipc.read_record_batch(batch.batch, pa.ipc.read_schema(pa.py_buffer(schema)))
            decoded.validate(full=True)
            assert decoded.num_rows == batch.rows
            partial.rows.setdefault(archetype, []).extend(decoded.to_pylist())
        if not chunk.last:
            assert not chunk.HasField("summary")
            return None
        assert chunk.summary.tick == chunk.tick
        partial.summary = chunk.summary
        self.partial = None
        return partial


def chunks_of(messages: Iterable[bytes]) -> list[tick_service_pb2.TickChunk]:
    """Return the chunks of encoded messages."""
    return [c for message in messages for c in tick_service_pb2.SubscribeResponse.FromString(message).chunks]


async def rest(call: Any) -> AsyncIterator[Any]:
    """Yield what is left of a stream of which messages were read before."""
    while (message := await call.read()) is not grpc.aio.EOF:  # type: ignore[attr-defined]
        yield message


class Replica:
    """A client that holds the state, by the contract's rules alone: rows come, change and go in the order sent."""

    def __init__(self) -> None:
        self.rows: dict[int, dict[str, Any]] = {}
        self.ended: set[int] = set()
        self.snapshots: dict[int, bool] = {}
        self.needless = 0
        """Rows that told nothing new."""
        self._schemas: dict[int, pa.Schema] = {}

    def apply(self, chunk: tick_service_pb2.TickChunk) -> None:
        """Apply a chunk of changes."""
        if chunk.snapshot:
            assert chunk.index == 0
            self.rows.clear()
            self.snapshots[chunk.tick] = True
        for batch in chunk.batches:
            if batch.schema:
                self._schemas[batch.stream] = pa.ipc.read_schema(pa.py_buffer(batch.schema))
            decoded = pa.ipc.read_record_batch(batch.batch, self._schemas[batch.stream])
            ids = decoded.column("entity_id").to_pylist()
            assert ids == sorted(set(ids))
            assert len(ids) == batch.rows
            for row in decoded.to_pylist():
                self._apply(row, is_snapshot=chunk.tick in self.snapshots)

    def _apply(self, row: dict[str, Any], *, is_snapshot: bool) -> None:
        entity = row["entity_id"]
        if row["is_active"]:
            self.needless += repr(self.rows.get(entity)) == repr(row)
            self.rows[entity] = row
        else:
            self.needless += not is_snapshot and entity not in self.rows
            self.ended.add(entity)
            self.rows.pop(entity, None)


async def ticks_of(stream: Any, *, every: int = 1) -> AsyncIterator[Tick]:
    """Yield whole ticks of a subscription; Started must come first and ticks without gap or repeat."""
    assembler = Assembler()
    wanted: int | None = None
    async for message in stream:
        if wanted is None:
            assert message.HasField("started")
            wanted = message.started.first_tick
            continue
        assert not message.HasField("started")
        for chunk in message.chunks:
            tick = assembler.add(chunk)
            if tick is not None:
                assert tick.tick == wanted
                wanted += every
                yield tick
