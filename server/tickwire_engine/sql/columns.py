"""The columns that an SQL text may name, and their types."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import pyarrow as pa

from tickwire_engine.archetype import ENTITY_ID, IS_ACTIVE
from tickwire_engine.errors import InvalidSqlError, UnknownComponentError

if TYPE_CHECKING:
    from tickwire_engine.component import ComponentCatalog, ComponentType

_OWN: dict[str, pa.DataType] = {ENTITY_ID: pa.int64(), IS_ACTIVE: pa.bool_()}


class ColumnTypes(Protocol):
    """Looks a column up by name; raises a `TickwireError` that says what there is instead."""

    def __call__(self, name: str, /) -> pa.DataType:
        """Return the type of the column `name`."""


def catalog_columns(catalog: ComponentCatalog) -> ColumnTypes:
    """Return the columns of all registered components: what a command may name, whatever the world holds."""

    def column(name: str) -> pa.DataType:
        if name in _OWN:
            return _OWN[name]
        kinds = {kind.prefix: kind for kind in catalog}
        prefix, mark, bare = name.partition("__")
        kind = kinds.get(prefix + mark)
        if kind is None:
            raise _unknown(name, kinds)
        index = kind.schema.get_field_index(bare)
        if index < 0:
            has = ", ".join(kind.prefixed_schema.names)
            raise InvalidSqlError(f"{kind.name} has no column {name} (it has {has})")
        found: pa.DataType = kind.schema.field(index).type
        return found

    return column


def batch_columns(schema: pa.Schema) -> ColumnTypes:
    """Return the columns of a batch: what can be evaluated on it."""

    def column(name: str) -> pa.DataType:
        index = schema.get_field_index(name)
        if index < 0:
            raise InvalidSqlError(f"there is no column {name} (there are {', '.join(schema.names)})")
        found: pa.DataType = schema.field(index).type
        return found

    return column


def _unknown(name: str, kinds: dict[str, ComponentType]) -> UnknownComponentError:
    lowered = {prefix.removesuffix("__"): kind for prefix, kind in kinds.items()}
    meant = lowered.get(name.lower().split("__")[0])
    if meant is not None:
        hint = f"write {meant.prefix}field, the component's name in lower case"
    else:
        hint = f"columns are component__field, entity_id and is_active (prefixes: {', '.join(sorted(kinds)) or 'none'})"
    return UnknownComponentError(f"column {name} belongs to no registered component: {hint}", component=name)
