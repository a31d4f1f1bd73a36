"""Arrow IPC streams that go wrong: cut, flipped, contradicting themselves, promising more than anybody has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa

if TYPE_CHECKING:
    import random

_WORDS = (b"\xff\xff\xff\x7f", b"\xff\xff\xff\xff", b"\0\0\0\x80", b"\0\0\0\0", b"\1\0\0\0")
_LONG_WORDS = (b"\xff" * 7 + b"\x7f", b"\xff" * 8, b"\0" * 8, b"\0\0\0\0\1\0\0\0", b"\0" * 7 + b"\x80")


def stream(columns: dict[str, Any], **options: Any) -> bytes:
    """Return columns as an Arrow IPC stream."""
    table = pa.table(columns)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(table, max_chunksize=20)
    return sink.getvalue().to_pybytes()


def good_streams(number: str, text: str, other: str) -> list[bytes]:
    """Return streams of every layout that a reader meets, over three columns: of a number, of text and of any kind."""
    many = 45
    numbers = pa.array([float(i) for i in range(many)])
    texts = ["abc" * (i % 9) for i in range(many)]
    ids = pa.array(range(1, many + 1), pa.int64())
    plain = {number: numbers, text: texts, "entity_id": ids}
    return [
        stream({number: numbers, text: texts}),
        stream(plain),
        stream(plain, compression="zstd"),
        stream(plain, compression="lz4"),
        stream({text: pa.array(texts, pa.string_view()), number: pa.nulls(many)}),
        stream({text: pa.array(texts).dictionary_encode(), number: pa.array(range(many), pa.int8())}),
        stream(
            {text: pa.array(texts, pa.large_string()), other: pa.array([{"a": [1, None]}, None, None] * 15)}
        ),
        stream({other: pa.array([[1.0, 2.0]] * many, pa.list_(pa.float64(), 2)), "entity_id": ids}),
        stream({other: pa.array([["a", None], [], None] * 15, pa.large_list(pa.large_string()))}),
        stream({other: pa.array(range(many), pa.timestamp("us")), number: pa.array([True] * many)}),
        stream({number: pa.array(range(many), pa.decimal128(20, 2)), text: pa.array([b"a"] * many)}),
    ]


def damaged(rng: random.Random, whole: bytes) -> bytes:
    """Return a stream with some of its bits, bytes or words changed, and sometimes its end cut off or repeated."""
    data = bytearray(whole)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 16))):
        at = rng.randrange(len(data))
        match rng.randrange(6):
            case 0 | 1 | 2:
                data[at] ^= 1 << rng.randrange(8)
            case 3:
                data[at] = rng.choice((0, 1, 127, 128, 255))
            case 4:
                data[at : at + 4] = rng.choice(_WORDS)
            case _:
                data[at : at + 8] = rng.choice(_LONG_WORDS)
    if rng.random() < 0.05:
        del data[rng.randrange(len(data)) :]
    elif rng.random() < 0.02:
        data += whole
    return bytes(data)


def bombs(number: str, text: str) -> dict[str, bytes]:
    """Return small streams that promise much: each would be far more than `TINY_LIMITS` of the tests once it is decoded."""
    million = 1_000_000
    long_text = pa.array(["x" * 100_000])
    one = pa.array(["x" * 100_000], pa.string_view()).buffers()
    assert one[1] is not None
    views = pa.py_buffer(one[1].to_pybytes() * 2_000)
    same_view = pa.Array.from_buffers(pa.string_view(), 2_000, [None, views, one[2]])
    same_word = pa.DictionaryArray.from_arrays(pa.array([0] * 2_000, pa.int16()), long_text)
    nulls_in_list = pa.FixedSizeListArray.from_arrays(pa.nulls(500 * million), 500 * million)
    return {
        "rows without bytes": stream_of({number: pa.nulls(2_000 * million)}),
        "nulls in a list": stream_of({number: nulls_in_list}),
        "zstd": stream_of({number: pa.array([0.0]).take(pa.array([0] * 20 * million))}, compression="zstd"),
        "lz4": stream_of({text: pa.array(["\0" * (150 * million)])}, compression="lz4"),
        "one word, again and again": stream_of({text: same_word}),
        "one view, again and again": stream_of({text: same_view}),
    }


def stream_of(columns: dict[str, Any], **options: Any) -> bytes:
    """Return columns as a stream of one batch."""
    table = pa.table(columns)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()
