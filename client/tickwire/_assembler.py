"""Puts ticks together from the messages of one subscription; only whole ticks come out.

Pure: no network, no clock. One assembler lives as long as one connection of a stream, since the numbers of
its schemas do; the rows it gives out refer to the bytes received, nothing is copied.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

import pyarrow as pa
import pyarrow.compute as pc

from tickwire._errors import ProtocolError
from tickwire._models import Outcome
from tickwire._tick import Tick, TickSummary, join
from tickwire.v1 import tick_service_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


@dataclass(slots=True)
class _Partial:
    """A tick whose last chunk has not come yet."""

    tick: int
    next_index: int = 0
    batches: dict[str, list[pa.RecordBatch]] = field(default_factory=dict)
    despawned: list[int] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)
    skipped: int = 0
    snapshot: bool = False


class TickAssembler:
    """Takes the chunks of one connection in order, gives ticks."""

    def __init__(self, mode: pb.TickMode.ValueType) -> None:
        self._mode = mode
        self._streams: dict[int, tuple[str, pa.Schema]] = {}
        self._partial: _Partial | None = None

    def feed(self, chunks: Iterable[pb.TickChunk], rows: Iterable[pa.Buffer] | None = None) -> list[Tick]:
        """Takes the chunks of a message.

        Args:
            chunks: in order.
            rows: what their batches' `batch` was, if that was taken out of them; see `Received`.

        Returns:
            The ticks that are whole now, ascending.

        Raises:
            ProtocolError: chunks out of order, or rows whose schema never came.
        """
        taken = None if rows is None else iter(rows)
        return [tick for chunk in chunks if (tick := self._take(chunk, taken)) is not None]

    def _take(self, chunk: pb.TickChunk, rows: Iterator[pa.Buffer] | None) -> Tick | None:
        partial = self._partial or _Partial(tick=chunk.tick)
        if (chunk.tick, chunk.index) != (partial.tick, partial.next_index):
            raise ProtocolError(
                f"chunk {chunk.index} of tick {chunk.tick} came where chunk {partial.next_index} "
                f"of tick {partial.tick} was to be next"
            )
        self._partial = partial
        for batch in chunk.batches:
            archetype, decoded = self._decode(batch, rows)
            partial.batches.setdefault(archetype, []).append(decoded)
        partial.despawned.extend(chunk.despawned)
        partial.outcomes.extend(Outcome.from_message(outcome) for outcome in chunk.outcomes)
        partial.skipped = max(partial.skipped, chunk.skipped)
        partial.snapshot = partial.snapshot or chunk.snapshot
        partial.next_index += 1
        if not chunk.last:
            return None
        self._partial = None
        return self._complete(partial, TickSummary.from_message(chunk.summary))

    def _decode(
        self, batch: pb.ArchetypeBatch, rows: Iterator[pa.Buffer] | None
    ) -> tuple[str, pa.RecordBatch]:
        if batch.schema:
            schema = pa.ipc.read_schema(pa.py_buffer(batch.schema))
            self._streams[batch.stream] = (batch.archetype, schema)
        known = self._streams.get(batch.stream)
        if known is None:
            raise ProtocolError(f"rows of stream {batch.stream} came without a schema")
        archetype, schema = known
        encoded = pa.py_buffer(batch.batch) if rows is None else next(rows, None)
        if encoded is None:
            raise ProtocolError(f"a batch of stream {batch.stream} came without its rows")
        return archetype, pa.ipc.read_record_batch(encoded, schema)

    def _complete(self, partial: _Partial, summary: TickSummary) -> Tick:
        tables = {archetype: _table_of(batches) for archetype, batches in partial.batches.items()}
        # In FULL mode the server names no despawns, for its inactive rows are just these.
        derive = self._mode != pb.TICK_MODE_CHANGES and summary.despawned > 0
        return Tick(
            tick=partial.tick,
            tables=tables,
            summary=summary,
            despawned=_inactive_ids(tables.values()) if derive else tuple(partial.despawned),
            skipped=partial.skipped,
            snapshot=partial.snapshot,
            outcomes=tuple(partial.outcomes),
        )


def _table_of(batches: list[pa.RecordBatch]) -> pa.Table:
    schema = batches[0].schema
    if all(batch.schema.equals(schema) for batch in batches):
        return pa.Table.from_batches(batches, schema)
    return join([pa.Table.from_batches([batch]) for batch in batches])


def _inactive_ids(tables: Iterable[pa.Table]) -> tuple[int, ...]:
    ids: list[int] = []
    for table in tables:
        ended = table.filter(pc.invert(table["is_active"]))["entity_id"]
        ids.extend(cast("list[int]", ended.to_pylist()))
    return tuple(sorted(ids))
