"""Claims about the one encoding of a tick."""

from __future__ import annotations

import datetime
import decimal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tickwire_engine.encoding import canonical, decode, encode, hash_batch, schema_message
from tickwire_engine.errors import SchemaMismatchError

_UTC = datetime.UTC
_TIMES = st.datetimes(datetime.datetime(1970, 1, 2), datetime.datetime(2200, 1, 1))
_INT32 = st.integers(-(2**31), 2**31 - 1)
FIELDS: list[tuple[pa.DataType, st.SearchStrategy]] = [
    (pa.bool_(), st.booleans()),
    (pa.int8(), st.integers(-128, 127)),
    (pa.uint64(), st.integers(0, 2**64 - 1)),
    (pa.int64(), st.integers(-(2**63), 2**63 - 1)),
    (pa.float32(), st.floats(width=32, allow_nan=False)),
    (pa.float64(), st.floats(allow_nan=False)),
    (pa.string(), st.text(max_size=6)),
    (pa.binary(), st.binary(max_size=6)),
    (pa.date32(), st.dates()),
    (pa.timestamp("us", "UTC"), _TIMES.map(lambda t: t.replace(tzinfo=_UTC))),
    (pa.timestamp("us"), _TIMES),
    (pa.duration("us"), st.timedeltas(datetime.timedelta(0), datetime.timedelta(days=99))),
    (pa.decimal128(20, 4), st.integers(-(10**15), 10**15).map(lambda i: decimal.Decimal(i).scaleb(-4))),
    (pa.list_(pa.int32()), st.lists(st.none() | _INT32, max_size=3)),
    (pa.list_(pa.string(), 2), st.lists(st.none() | st.text(max_size=3), min_size=2, max_size=2)),
    (pa.list_(pa.list_(pa.string()), 1), st.lists(st.none() | st.just(["a", None]), min_size=1, max_size=1)),
    (pa.list_(pa.list_(pa.int16(), 2), 1), st.lists(st.none() | st.just([1, 2]), min_size=1, max_size=1)),
    (
        pa.list_(pa.list_(pa.bool_(), 3)),
        st.lists(st.lists(st.booleans(), min_size=3, max_size=3), max_size=2),
    ),
    (
        pa.struct([("x", pa.int32()), ("y", pa.string()), ("z", pa.list_(pa.float64(), 2))]),
        st.fixed_dictionaries(
            {"x": st.none() | _INT32, "y": st.text(max_size=3), "z": st.none() | st.just([0.5, 1.5])}
        ),
    ),
    (
        pa.list_(pa.struct([("x", pa.bool_()), ("y", pa.list_(pa.string()))])),
        st.lists(st.fixed_dictionaries({"x": st.booleans(), "y": st.just(["a", None])}), max_size=2),
    ),
]
_SCHEMA = pa.schema([(f"c{i}", kind) for i, (kind, _) in enumerate(FIELDS)])


@st.composite
def batches(draw: st.DrawFn) -> pa.RecordBatch:
    rows = draw(st.integers(0, 20))
    nullable = draw(st.booleans())
    columns = []
    for kind, values in FIELDS:
        value = st.none() | values if nullable else values
        columns.append(pa.array(draw(st.lists(value, min_size=rows, max_size=rows)), kind))
    return pa.RecordBatch.from_arrays(columns, schema=_SCHEMA)


def _embedded(batch: pa.RecordBatch, before: int, after: int) -> pa.RecordBatch:
    """The same rows as a slice from the middle of a longer batch, which is full of other values."""
    full = pa.Table.from_batches([batch] * (before + after + 1)).combine_chunks()
    return full.slice(before * batch.num_rows, batch.num_rows).to_batches()[0] if batch.num_rows else batch


@given(batches())
@settings(max_examples=60, deadline=None)
def test_a_decoded_frame_holds_the_rows_that_were_encoded(batch: pa.RecordBatch) -> None:
    frame = encode(batch, stream=3)
    decoded = decode(schema_message(batch.schema), frame.messages)
    assert decoded.equals(batch)
    decoded.validate(full=True)
    assert (frame.stream, frame.rows) == (3, batch.num_rows)


@given(batches(), st.integers(0, 2), st.integers(0, 2))
@settings(max_examples=60, deadline=None)
def test_bytes_and_hash_do_not_depend_on_how_rows_were_sliced(
    batch: pa.RecordBatch, before: int, after: int
) -> None:
    assert encode(_embedded(batch, before, after), stream=1) == encode(batch, stream=1)


@given(batches(), st.integers(600, 4000))
@settings(max_examples=60, deadline=None)
def test_the_hash_does_not_depend_on_the_messages_it_was_split_into(
    batch: pa.RecordBatch, limit: int
) -> None:
    frame = encode(batch, stream=1, max_message_bytes=limit)
    assert sum(frame.message_rows) == batch.num_rows
    assert (
        all(
            len(message) <= limit or rows == 1
            for message, rows in zip(frame.messages, frame.message_rows, strict=True)
        )
        or batch.num_rows == 0
    )
    decoded = decode(batch.schema, frame.messages)
    assert decoded.equals(batch)
    assert hash_batch(decoded) == frame.hash == hash_batch(batch)
    assert encode(decoded, stream=1, max_message_bytes=limit) == frame


@given(batches())
@settings(max_examples=60, deadline=None)
def test_canonical_changes_no_value_and_is_its_own_fixed_point(batch: pa.RecordBatch) -> None:
    once = canonical(batch)
    once.validate(full=True)
    assert once.equals(batch)
    assert encode(once, stream=1) == encode(batch, stream=1)


@given(st.sampled_from(FIELDS), st.data())
@settings(max_examples=80, deadline=None)
def test_what_hides_under_a_null_does_not_show(
    field: tuple[pa.DataType, st.SearchStrategy], data: st.DataObject
) -> None:
    kind, values = field
    some = pa.array(data.draw(st.lists(values, min_size=3, max_size=3)), kind)
    children = None
    own = some.buffers()[1:]
    if isinstance(kind, pa.StructType):
        own, children = [], [some.field(i) for i in range(kind.num_fields)]
    elif isinstance(kind, pa.FixedSizeListType):
        own, children = [], [some.values]
    elif isinstance(kind, pa.ListType):
        own, children = own[:1], [some.values]
    dirty = pa.Array.from_buffers(kind, 3, [pa.py_buffer(bytes([0b101])), *own], -1, 0, children)
    clean = pa.array([value.as_py() for value in dirty], kind)
    one, two = (pa.record_batch([column], names=["c"]) for column in (dirty, clean))
    assert encode(one, stream=1) == encode(two, stream=1)


def test_flat_columns_without_nulls_are_canonical_as_they_are() -> None:
    batch = pa.record_batch({"entity_id": np.arange(9), "is_active": pa.array([True] * 9), "x": np.ones(9)})
    assert canonical(batch) is batch


def test_a_bitmap_without_nulls_is_left_out() -> None:
    data = pa.py_buffer(np.arange(4).tobytes())
    array = pa.Array.from_buffers(pa.int64(), 4, [pa.py_buffer(b"\xff"), data])
    assert canonical(pa.record_batch([array], names=["c"])).column(0).buffers()[0] is None


def test_floats_are_compared_by_their_bits() -> None:
    plus, minus = (pa.record_batch({"x": np.array([zero])}) for zero in (0.0, -0.0))
    assert hash_batch(plus) != hash_batch(minus)
    nan = np.array([0x7FF8000000000001], np.uint64).view(np.float64)
    assert hash_batch(pa.record_batch({"x": nan})) != hash_batch(pa.record_batch({"x": np.array([np.nan])}))
    kept = decode(pa.schema([("x", pa.float64())]), encode(pa.record_batch({"x": nan}), stream=1).messages)
    assert kept.column(0).to_numpy().view(np.uint64)[0] == 0x7FF8000000000001


@pytest.mark.parametrize(
    "other",
    [
        pa.record_batch({"y": pa.array([1, 2])}),
        pa.record_batch({"x": pa.array([1, 2], pa.uint64())}),
        pa.record_batch([pa.array([1, 2])], schema=pa.schema([pa.field("x", pa.int64(), nullable=False)])),
        pa.record_batch({"x": pa.array([1, 3])}),
        pa.record_batch({"x": pa.array([1])}),
        pa.record_batch({"x": pa.array([1, None])}),
    ],
)
def test_names_types_nullability_and_values_all_tell_in_the_hash(other: pa.RecordBatch) -> None:
    assert hash_batch(other) != hash_batch(pa.record_batch({"x": pa.array([1, 2])}))


def test_schema_metadata_does_not_tell_in_the_hash() -> None:
    batch = pa.record_batch({"x": pa.array([1, 2])})
    assert hash_batch(batch.replace_schema_metadata({"a": "b"})) == hash_batch(batch)


def test_the_hash_is_the_one_that_was_journaled_by_earlier_releases() -> None:
    batch = pa.record_batch({"entity_id": pa.array([1, 2]), "name": pa.array(["a", None])})
    assert hash_batch(batch).hex() == "7c4fee9f15ed563a4e6a299feea2778d"


def test_an_emptied_archetype_is_one_message_of_no_rows() -> None:
    batch = pa.record_batch({"x": pa.array([], pa.int64()), "s": pa.array([], pa.string())})
    frame = encode(batch, stream=1)
    assert (frame.rows, frame.message_rows) == (0, (0,))
    assert decode(batch.schema, frame.messages).equals(batch)


def test_messages_are_padded_to_eight_bytes_and_stand_alone() -> None:
    batch = pa.record_batch({"s": pa.array(["abc"] * 1000)})
    frame = encode(batch, stream=1, max_message_bytes=2048)
    assert len(frame.messages) > 1
    for message, rows in zip(frame.messages, frame.message_rows, strict=True):
        assert len(message) % 8 == 0
        stream = schema_message(batch.schema) + message
        assert pa.ipc.open_stream(stream).read_next_batch().num_rows == rows


@pytest.mark.parametrize(
    "kind",
    [
        pa.large_string(),
        pa.dictionary(pa.int32(), pa.string()),
        pa.timestamp("ns"),
        pa.null(),
        pa.struct([]),
        pa.list_(pa.int8(), 0),
    ],
    ids=str,
)
def test_a_type_that_is_not_on_the_wire_is_refused_by_name(kind: pa.DataType) -> None:
    batch = pa.record_batch([pa.array([], kind)], names=["odd"])
    with pytest.raises(SchemaMismatchError, match="odd"):
        encode(batch, stream=1)
