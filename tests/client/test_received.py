"""Large rows are taken out of a message before it is parsed: the ticks are the same."""

from __future__ import annotations

import pyarrow as pa
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from tests.client.peer import TickWriter, positions
from tickwire import ProtocolError
from tickwire._assembler import TickAssembler
from tickwire._cutting import cut
from tickwire._received import Received
from tickwire.v1 import tick_service_pb2 as pb

ROWS = (1, 4, 3)
LARGE = positions(*range(20_000))

batches = st.builds(
    pb.ArchetypeBatch,
    stream=st.integers(0, 2**32 - 1),
    schema=st.binary(max_size=20),
    batch=st.binary(min_size=1, max_size=300),
    rows=st.integers(-(2**63), 2**63 - 1),
    archetype=st.text(max_size=5),
)
chunks = st.builds(
    pb.TickChunk,
    tick=st.integers(-(2**63), 2**63 - 1),
    index=st.integers(0, 2**32 - 1),
    last=st.booleans(),
    batches=st.lists(batches, max_size=3),
    summary=st.builds(pb.TickSummary, run_id=st.text(max_size=5), hz=st.floats(allow_nan=False)),
    despawned=st.lists(st.integers(-(2**63), 2**63 - 1), max_size=5),
)
messages = st.builds(pb.SubscribeResponse, chunks=st.lists(chunks, max_size=3))


@given(messages)
def test_a_message_without_the_rows_and_the_rows_are_the_message(message: pb.SubscribeResponse) -> None:
    rows: list[memoryview] = []
    rest = pb.SubscribeResponse.FromString(cut(memoryview(message.SerializeToString()), ROWS, rows))
    left = iter(rows)
    for chunk in rest.chunks:
        for batch in chunk.batches:
            assert not batch.batch
            batch.batch = bytes(next(left))
    assert next(left, None) is None
    assert rest == message


@given(messages, st.data())
def test_what_is_no_message_is_refused_or_read_as_the_generated_classes_do(
    message: pb.SubscribeResponse, data: st.DataObject
) -> None:
    encoded = bytearray(message.SerializeToString())
    if encoded and data.draw(st.booleans()):
        encoded[data.draw(st.integers(0, len(encoded) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    encoded = encoded[: data.draw(st.integers(0, len(encoded)))]
    rows: list[memoryview] = []
    try:
        pb.SubscribeResponse.FromString(cut(memoryview(bytes(encoded)), ROWS, rows))
    except ValueError:
        pass  # Then `Received` leaves it to them.
    except DecodeError:
        with pytest.raises(DecodeError):
            pb.SubscribeResponse.FromString(bytes(encoded))


@pytest.mark.parametrize("padding", range(8))
def test_large_rows_are_the_same_and_lie_where_arrow_wants_them(padding: int) -> None:
    chunks = TickWriter().chunks(3, ("P" * (padding + 1), LARGE), ("Small", positions(1, 2)))
    data = pb.SubscribeResponse(chunks=chunks).SerializeToString()
    received = Received.parse(data)
    assert received.rows is not None
    assert not any(batch.batch for chunk in received.message.chunks for batch in chunk.batches)
    (tick,) = TickAssembler(pb.TICK_MODE_FULL).feed(received.message.chunks, received.rows)
    assert tick.tables["P" * (padding + 1)] == pa.Table.from_batches([LARGE])
    assert tick.tables["Small"].num_rows == 2
    for table in tick.tables.values():
        for column in table.columns:
            for buffer in column.chunk(0).buffers():
                assert buffer is None or buffer.address % 8 == 0


def test_small_ticks_are_parsed_whole() -> None:
    chunks = TickWriter().chunks(3, ("Position", positions(1, 2)))
    for message in (pb.SubscribeResponse(chunks=chunks), pb.SubscribeResponse()):
        assert Received.parse(message.SerializeToString()) == Received(message)


def test_rows_that_did_not_come_are_not_made_up() -> None:
    chunks = TickWriter().chunks(3, ("Position", LARGE))
    with pytest.raises(ProtocolError, match="without its rows"):
        TickAssembler(pb.TICK_MODE_FULL).feed(chunks, [])
