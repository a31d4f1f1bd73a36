"""Which rows of two columns differ: by bits and nulls, for every type that goes on the wire. Pure; any thread.

A NaN equals the same NaN, and 0.0 is not -0.0: what a subscriber holds is what the log holds, bit for bit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    import numpy.typing as npt

    Mask = npt.NDArray[np.bool_]
    Words = npt.NDArray[np.unsignedinteger[Any]]


def rows_differ(one: pa.Array[Any], other: pa.Array[Any]) -> Mask:
    """Compare two arrays of one type and length row by row."""
    if not len(one):
        return np.zeros(0, bool)
    differ = _values_differ(one, other)
    if one.null_count or other.null_count:
        valid_one, valid_other = _valid(one), _valid(other)
        # What stands under a null is nothing.
        differ = (differ & valid_one & valid_other) | (valid_one != valid_other)
    return differ


def _values_differ(one: pa.Array[Any], other: pa.Array[Any]) -> Mask:
    kind = one.type
    if isinstance(one, pa.StructArray) and isinstance(other, pa.StructArray):
        differ = np.zeros(len(one), bool)
        for index in range(kind.num_fields):
            differ |= rows_differ(one.field(index), other.field(index))
        return differ
    if isinstance(one, pa.ListArray) and isinstance(other, pa.ListArray):
        return _lists_differ(one, other)
    if isinstance(kind, pa.FixedSizeListType):
        return _fixed_lists_differ(
            cast("pa.FixedSizeListArray[Any, Any]", one), cast("pa.FixedSizeListArray[Any, Any]", other), kind
        )
    if pa.types.is_boolean(kind) or pa.types.is_string(kind) or pa.types.is_binary(kind):
        unequal: pa.BooleanArray = pc.fill_null(cast("Any", pc).not_equal(one, other), False)
        return np.asarray(unequal.to_numpy(zero_copy_only=False), np.bool_)
    words_one, words_other = _words(one), _words(other)
    differ = words_one != words_other
    return cast("Mask", differ.any(axis=1) if differ.ndim > 1 else differ)


def _words(array: pa.Array[Any]) -> Words:
    """Return the values of a fixed-width array as unsigned integers: bits, whatever they mean."""
    width = array.type.bit_width // 8
    data = array.buffers()[1]
    if data is None:
        return np.zeros(len(array), np.uint8)
    view = memoryview(data)
    rows = slice(array.offset, array.offset + len(array))
    if width == 16:
        pairs: Words = np.frombuffer(view, np.uint64).reshape(-1, 2)[rows]
        return pairs
    words: Words = np.frombuffer(view, np.dtype(f"u{width}"))[rows]
    return words


def _lists_differ(one: pa.ListArray[Any], other: pa.ListArray[Any]) -> Mask:
    starts_one, lengths_one = _extents(one)
    starts_other, lengths_other = _extents(other)
    differ = lengths_one != lengths_other
    rows = np.flatnonzero(~differ & (lengths_one > 0))
    if rows.size:
        lengths = lengths_one[rows]
        begins = np.cumsum(lengths) - lengths
        within = np.arange(int(lengths.sum())) - np.repeat(begins, lengths)
        items = rows_differ(
            one.values.take(pa.array(np.repeat(starts_one[rows], lengths) + within)),
            other.values.take(pa.array(np.repeat(starts_other[rows], lengths) + within)),
        )
        differ[rows] = np.logical_or.reduceat(items, begins)
    return cast("Mask", differ)


def _extents(array: pa.ListArray[Any]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    offsets = np.asarray(array.offsets.to_numpy(), np.int64)
    lengths = np.diff(offsets)
    if array.null_count:
        lengths[~_valid(array)] = 0
    return offsets[:-1], lengths


def _fixed_lists_differ(
    one: pa.FixedSizeListArray[Any, Any],
    other: pa.FixedSizeListArray[Any, Any],
    kind: pa.FixedSizeListType[Any, Any],
) -> Mask:
    size = kind.list_size
    items = rows_differ(
        one.values.slice(one.offset * size, len(one) * size),
        other.values.slice(other.offset * size, len(other) * size),
    )
    return cast("Mask", items.reshape(-1, size).any(axis=1))


def _valid(array: pa.Array[Any]) -> Mask:
    return np.asarray(pc.is_valid(array).to_numpy(zero_copy_only=False), np.bool_)
