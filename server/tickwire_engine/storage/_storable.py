"""Types that Lance's file format cannot keep, kept as ones that it can.

Lance 2.1 has lists of fixed size of plain numbers only: of strings, lists or structs they panic or are refused. Such
columns are archived as lists of any size and turned back when read. Both ways are our own: Arrow's cast to a list of
fixed size crashes on a column of nulls.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from tickwire_engine._canonical import canonical_array, zeroes


def storable_schema(schema: pa.Schema) -> pa.Schema:
    """Return the schema in types that Lance keeps; the same object, if it is in them already."""
    kinds = [storable_type(field.type) for field in schema]
    if all(kind is field.type for kind, field in zip(kinds, schema, strict=True)):
        return schema
    return pa.schema([field.with_type(kind) for field, kind in zip(schema, kinds, strict=True)])


def storable_type(kind: pa.DataType) -> pa.DataType:
    """Return a type that Lance keeps."""
    if isinstance(kind, pa.StructType):
        fields = [kind.field(index) for index in range(kind.num_fields)]
        changed = [storable_type(field.type) for field in fields]
        if all(new is field.type for new, field in zip(changed, fields, strict=True)):
            return kind
        return pa.struct([field.with_type(new) for field, new in zip(fields, changed, strict=True)])
    if isinstance(kind, (pa.ListType, pa.FixedSizeListType)):
        item = kind.value_field
        inner = storable_type(item.type)
        if isinstance(kind, pa.ListType):
            return kind if inner is item.type else pa.list_(item.with_type(inner))
        numbers = pa.types.is_primitive(inner) or pa.types.is_decimal(inner)
        return kind if numbers or isinstance(inner, pa.FixedSizeListType) else pa.list_(item.with_type(inner))
    return kind


def convert(array: pa.Array[Any], kind: pa.DataType) -> pa.Array[Any]:
    """Turn a column into its storable type, or back."""
    if array.type == kind:
        return array
    array = canonical_array(array)
    validity = array.buffers()[0]
    count, nulls = len(array), array.null_count
    if isinstance(array, pa.StructArray) and isinstance(kind, pa.StructType):
        children = [convert(array.field(i), kind.field(i).type) for i in range(kind.num_fields)]
        return pa.Array.from_buffers(kind, count, [validity], nulls, 0, children)
    if isinstance(array, pa.ListArray) and isinstance(kind, pa.ListType):
        child = convert(array.values, kind.value_type)
        return pa.Array.from_buffers(kind, count, array.buffers()[:2], nulls, 0, [child])
    valid = array.is_valid().to_numpy(zero_copy_only=False)
    if isinstance(array, pa.FixedSizeListArray) and isinstance(kind, pa.ListType):
        lengths = np.where(valid, array.type.list_size, 0)
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
        child = convert(array.flatten(), kind.value_type)
        return pa.Array.from_buffers(kind, count, [validity, pa.py_buffer(offsets.data)], nulls, 0, [child])
    if isinstance(array, pa.ListArray) and isinstance(kind, pa.FixedSizeListType):
        values = convert(array.flatten(), kind.value_type)
        chosen = np.full((count, kind.list_size), len(values))
        chosen[valid] = np.arange(len(values)).reshape(-1, kind.list_size)
        child = pa.concat_arrays([values, zeroes(kind.value_type)]).take(chosen.reshape(-1))
        return pa.Array.from_buffers(kind, count, [validity], nulls, 0, [child])
    return array.cast(kind)
