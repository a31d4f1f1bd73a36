"""Chunks become ticks."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.client.peer import TickWriter, positions
from tickwire import ProtocolError
from tickwire._assembler import TickAssembler
from tickwire.v1 import tick_service_pb2 as pb


def bodies(*xs: float, first_id: int) -> pa.RecordBatch:
    rows = positions(*xs, first_id=first_id)
    return pa.record_batch(
        {**dict(zip(rows.schema.names, rows.columns, strict=True)), "mass__kg": pa.array(xs)}
    )


def test_a_tick_comes_out_with_its_last_chunk_and_not_before() -> None:
    chunks = TickWriter().chunks(
        3,
        ("Position", positions(1, 2)),
        ("Mass+Position", bodies(7, first_id=10)),
        ("Position", positions(3, first_id=3)),
    )
    assembler = TickAssembler(pb.TICK_MODE_FULL)
    assert assembler.feed(chunks[:1]) == []
    assert assembler.feed(chunks[1:2]) == []
    (tick,) = assembler.feed(chunks[2:])
    assert tick.tables["Position"]["entity_id"].to_pylist() == [1, 2, 3]
    assert tick.tables["Mass+Position"]["mass__kg"].to_pylist() == [7]


def test_the_schema_of_a_stream_serves_later_ticks_of_the_connection() -> None:
    writer = TickWriter()
    assembler = TickAssembler(pb.TICK_MODE_FULL)
    chunks = [*writer.chunks(1, ("Position", positions(1))), *writer.chunks(2, ("Position", positions(2)))]
    assert [bool(chunk.batches[0].schema) for chunk in chunks] == [True, False]
    first, second = assembler.feed(chunks)
    assert first.tables["Position"].schema == second.tables["Position"].schema


def test_a_table_of_components_joins_the_archetypes_that_have_them() -> None:
    pieces = [("Position", positions(1, 2)), ("Mass+Position", bodies(7, first_id=10))]
    (tick,) = TickAssembler(pb.TICK_MODE_FULL).feed(TickWriter().chunks(1, *pieces))
    assert tick.table("Position").column_names == ["entity_id", "is_active", "position__x"]
    assert tick.table("Position")["entity_id"].to_pylist() == [1, 2, 10]
    assert tick.table("Position", "Mass")["mass__kg"].to_pylist() == [7]
    assert tick.table()["mass__kg"].to_pylist() == [None, None, 7]
    assert tick.table("Velocity").num_rows == 0


def test_inactive_rows_are_the_despawned_of_a_full_tick() -> None:
    pieces = [("Position", positions(1, 2)), ("Mass+Position", bodies(7, first_id=10))]
    gone = ("Position", positions(4, 4, first_id=20, active=False))
    (tick,) = TickAssembler(pb.TICK_MODE_FULL).feed(TickWriter().chunks(1, *pieces, gone, despawned=2))
    assert tick.despawned == (20, 21)


def test_departures_from_a_view_are_not_despawns_in_changes_mode() -> None:
    gone = ("Position", positions(4, 4, first_id=20, active=False))
    chunks = TickWriter().chunks(1, gone, despawned=1)
    chunks[0].despawned.append(21)
    (tick,) = TickAssembler(pb.TICK_MODE_CHANGES).feed(chunks)
    assert tick.despawned == (21,)


@pytest.mark.parametrize("broken", ["repeated", "left out", "of another tick"])
def test_chunks_out_of_order_are_refused(broken: str) -> None:
    writer = TickWriter()
    first, second, third = writer.chunks(1, *[("Position", positions(1))] * 3)
    (other,) = writer.chunks(2, ("Position", positions(1)))
    sequence = {"repeated": [first, first], "left out": [first, third], "of another tick": [first, other]}
    with pytest.raises(ProtocolError):
        TickAssembler(pb.TICK_MODE_FULL).feed(sequence[broken])
    assert second.index == 1


def test_rows_without_a_schema_are_refused() -> None:
    writer = TickWriter()
    writer.chunks(1, ("Position", positions(1)))
    with pytest.raises(ProtocolError):
        TickAssembler(pb.TICK_MODE_FULL).feed(writer.chunks(2, ("Position", positions(1))))


@given(st.lists(st.lists(st.integers(1, 5), max_size=4), min_size=1, max_size=6), st.data())
def test_ticks_do_not_depend_on_how_chunks_share_messages(
    ticks: list[list[int]], data: st.DataObject
) -> None:
    writer = TickWriter()
    chunks = [
        chunk
        for number, sizes in enumerate(ticks)
        for chunk in writer.chunks(number, *[("Position", positions(*range(size))) for size in sizes])
    ]
    assembler = TickAssembler(pb.TICK_MODE_FULL)
    seen = []
    while chunks:
        cut = data.draw(st.integers(1, len(chunks)))
        seen += assembler.feed(chunks[:cut])
        chunks = chunks[cut:]
    assert [tick.tick for tick in seen] == list(range(len(ticks)))
    assert [sum(table.num_rows for table in tick.tables.values()) for tick in seen] == [sum(s) for s in ticks]
