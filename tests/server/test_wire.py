"""The hand-made wire bytes against what the generated classes make of the same tick."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING
from uuid import UUID

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tickwire.v1 import command_pb2
from tickwire.v1 import tick_service_pb2 as pb
from tickwire_engine.encoding import encode, schema_message
from tickwire_engine.ids import uuid7
from tickwire_engine.storage.rows import DecidedCommand, Outcome, Stream, TickSummary
from tickwire_server.grpc.wire import WireEncoder, summary_proto
from tickwire_server.hub import Selected, TickMessage, View
from tickwire_server.hub._selecting import Selector
from tickwire_server.hub.ticks import FullTick

if TYPE_CHECKING:
    from tickwire_engine.storage.rows import Frame
    from tickwire_server.hub import TickEncoder

ENCODER: TickEncoder = WireEncoder()
RUN = uuid7()


def summary(tick: int, rows: int, run_id: bytes = RUN.bytes) -> TickSummary:
    return TickSummary(
        tick=tick,
        run_id=run_id,
        entities=rows,
        rows=rows,
        spawned=rows,
        despawned=0,
        commands_applied=3,
        commands_rejected=1,
        state_hash=b"\x01" * 16,
        committed_at_us=1_769_860_800_123_456,
        compute_us=1_234_567,
        hz=2.5,
    )


def frame(number: int, rows: int, *, width: int = 8) -> tuple[Stream, Frame]:
    batch = pa.RecordBatch.from_pydict(
        {
            "entity_id": pa.array(range(rows), pa.int64()),
            "data": pa.array([os.urandom(width) for _ in range(rows)], pa.binary()),
        }
    )
    stream = Stream(number, f"A{number}", ("A",), schema_message(batch.schema))
    return stream, encode(batch, stream=number)


def sent(
    tick: int,
    frames: list[tuple[Stream, Frame]],
    known: frozenset[int] = frozenset(),
    *,
    max_bytes: int = 1 << 20,
) -> TickMessage:
    """Return what a subscriber of everything is sent, who knows some streams."""
    full = FullTick(summary(tick, sum(f.rows for _, f in frames)), {s.number: (s, f) for s, f in frames}, ())
    shown = Selector(Selected(), None).show(View(max_bytes=max_bytes), full, None)
    return TickMessage(full.summary, shown.frames, unknown=shown.streams - known)


def by_generated_classes(shown: TickMessage) -> pb.SubscribeResponse:
    """Return the tick in one chunk, as anybody would write it."""
    chunk = pb.TickChunk(tick=shown.summary.tick, index=0, last=True, summary=summary_proto(shown.summary))
    for stream, encoded in shown.frames:
        for position, (message, rows) in enumerate(zip(encoded.messages, encoded.message_rows, strict=True)):
            batch = pb.ArchetypeBatch(stream=stream.number, batch=message, rows=rows)
            if stream.number in shown.unknown and position == 0:
                batch.schema = stream.schema
                batch.archetype = stream.archetype
            chunk.batches.append(batch)
    return pb.SubscribeResponse(chunks=[chunk])


@given(
    tick=st.integers(0, (1 << 53) - 1),
    rows=st.lists(st.integers(0, 40), max_size=4),
    known=st.frozensets(st.integers(1, 4)),
)
@settings(max_examples=50, deadline=None)
def test_a_small_tick_is_what_the_generated_classes_make_of_it(
    tick: int, rows: list[int], known: frozenset[int]
) -> None:
    shown = sent(tick, [frame(n, count) for n, count in enumerate(rows, 1)], known)
    (message,) = ENCODER.encode(shown, max_bytes=1 << 20)
    parsed = pb.SubscribeResponse.FromString(message)
    assert parsed == by_generated_classes(shown)
    assert parsed.SerializeToString() == message


def test_what_only_some_ticks_carry_is_what_the_generated_classes_make_of_it() -> None:
    decided = DecidedCommand(b"\1" * 16, "", 3, 5, Outcome(7, applied=True))
    shown = replace(
        sent(3, [frame(1, 2)]),
        despawned=tuple(range(10_000)),
        snapshot=True,
        skipped=5,
        outcomes=(decided,),
    )
    (message,) = ENCODER.encode(shown, max_bytes=1 << 20)
    expected = by_generated_classes(shown)
    expected.chunks[0].MergeFrom(pb.TickChunk(despawned=range(10_000), snapshot=True, skipped=5))
    outcome = command_pb2.CommandOutcome(
        command_id=str(UUID(bytes=decided.command_id)),
        seq=7,
        state=command_pb2.COMMAND_STATE_APPLIED,
        tick=5,
        outcome_seq=3,
    )
    expected.chunks[0].MergeFrom(pb.TickChunk(outcomes=[outcome]))
    assert pb.SubscribeResponse.FromString(message) == expected


def test_ids_that_fill_messages_are_spread_over_them() -> None:
    shown = replace(sent(3, []), despawned=tuple(range(1 << 52, (1 << 52) + 50_000)), snapshot=True)
    messages = ENCODER.encode(shown, max_bytes=64 << 10)
    assert max(map(len, messages)) <= 64 << 10
    chunks = [chunk for m in messages for chunk in pb.SubscribeResponse.FromString(m).chunks]
    assert [i for chunk in chunks for i in chunk.despawned] == list(shown.despawned)
    assert [chunk.snapshot for chunk in chunks] == [True] + [False] * (len(chunks) - 1)
    assert [chunk.last for chunk in chunks] == [False] * (len(chunks) - 1) + [True]


@pytest.mark.parametrize("max_bytes", [64 << 10, 100_000, 1 << 20])
@pytest.mark.parametrize("known", [frozenset(), frozenset({1, 2})], ids=["new", "known"])
def test_a_large_tick_comes_in_chunks_that_fit_and_are_whole_together(
    max_bytes: int, known: frozenset[int]
) -> None:
    frames = [frame(1, 9000, width=40), frame(2, 5000, width=300), frame(4, 10)]
    messages = ENCODER.encode(sent(7, frames, known, max_bytes=max_bytes), max_bytes=max_bytes)
    assert len(messages) > 1
    assert all(len(message) <= max_bytes for message in messages)
    chunks = [chunk for m in messages for chunk in pb.SubscribeResponse.FromString(m).chunks]
    assert len(chunks) == len(messages)
    assert [(c.tick, c.index) for c in chunks] == [(7, i) for i in range(len(chunks))]
    assert [c.last for c in chunks] == [False] * (len(chunks) - 1) + [True]
    assert [c.HasField("summary") for c in chunks] == [c.last for c in chunks]
    for stream, encoded in frames:
        batches = [b for c in chunks for b in c.batches if b.stream == stream.number]
        assert [bool(b.schema) for b in batches] == [
            position == 0 and stream.number not in known for position in range(len(batches))
        ]
        schema = pa.ipc.read_schema(pa.py_buffer(stream.schema))
        decoded = [pa.ipc.read_record_batch(b.batch, schema) for b in batches]
        whole = [pa.ipc.read_record_batch(message, schema) for message in encoded.messages]
        assert sum(b.rows for b in batches) == encoded.rows
        assert pa.Table.from_batches(decoded).equals(pa.Table.from_batches(whole))


def test_a_row_larger_than_a_message_comes_alone() -> None:
    messages = ENCODER.encode(sent(0, [frame(1, 3, width=100_000)], max_bytes=64 << 10), max_bytes=64 << 10)
    rows = [b.rows for m in messages for c in pb.SubscribeResponse.FromString(m).chunks for b in c.batches]
    assert rows == [1, 1, 1]


def test_messages_of_ticks_concatenate() -> None:
    ticks = [sent(tick, [frame(1, 2)], frozenset({1})) for tick in range(3)]
    joined = b"".join(m for shown in ticks for m in ENCODER.encode(shown, max_bytes=1 << 20))
    assert [chunk.tick for chunk in pb.SubscribeResponse.FromString(joined).chunks] == [0, 1, 2]


def test_a_summary_says_it_in_the_contracts_types() -> None:
    told = summary_proto(summary(5, 2))
    assert UUID(told.run_id) == RUN
    assert told.tick == 5
    assert told.committed_at.ToMicroseconds() == 1_769_860_800_123_456
    assert told.compute.ToMicroseconds() == 1_234_567
    assert summary_proto(summary(5, 2, run_id=b"")).run_id == ""
