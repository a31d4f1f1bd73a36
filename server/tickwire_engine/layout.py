"""Arrow types that hold the same values in another layout, so that a cast between them is never a decision."""

from __future__ import annotations

from typing import Any

import pyarrow as pa


def same_values(given: Any, wanted: Any) -> bool:
    """Whether two types differ in layout only; Daft gives text and lists back as large ones."""
    if pa.types.is_null(given):
        return True
    families = (
        (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view),
        (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view),
        (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list),
    )
    for family in families:
        if any(test(given) for test in family) and any(test(wanted) for test in family):
            # Lists also when their items agree.
            if not pa.types.is_nested(given):
                return True
            lists: tuple[Any, Any] = (given, wanted)
            return same_values(lists[0].value_type, lists[1].value_type)
    if pa.types.is_struct(given) and pa.types.is_struct(wanted):
        pairs = [(given.field(i), wanted.field(i)) for i in range(given.num_fields)]
        return given.num_fields == wanted.num_fields and all(
            a.name == b.name and same_values(a.type, b.type) for a, b in pairs
        )
    return bool(given == wanted)
