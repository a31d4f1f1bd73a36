"""Component values and Arrow tables from a payload, checked against the component schemas."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa

from tickwire_engine.archetype import ENTITY_ID, signature
from tickwire_engine.commands.casting import cast_column
from tickwire_engine.commands.ipc import read_stream
from tickwire_engine.errors import (
    InvalidArrowError,
    InvalidCommandError,
    SchemaMismatchError,
    UnknownComponentError,
)
from tickwire_engine.limits import DEFAULTS, Limits
from tickwire_engine.values import to_column

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tickwire_engine.archetype import Signature
    from tickwire_engine.component import ComponentCatalog, ComponentType


def component_values(
    components: Any, catalog: ComponentCatalog, *, path: str, whole: bool
) -> dict[str, dict[str, Any]]:
    """Return column values by component and field.

    Args:
        components: `{"Position": {"x": 1}}`, as it was sent.
        path: Where it stands in the command, for errors.
        whole: Fill absent fields with their defaults, and refuse when one has none.

    Raises:
        TickwireError: Unknown component or field, or a value that does not fit; `field` says where.
    """
    if not isinstance(components, dict) or not components:
        raise InvalidCommandError(
            f"{path}: expected an object of components by name, with at least one", field=path
        )
    result: dict[str, dict[str, Any]] = {}
    for name, values in components.items():
        try:
            kind = catalog.require(name)
        except UnknownComponentError as error:
            error.field = f"{path}.{name}"
            raise
        result[name] = _fields(kind, values, path=f"{path}.{name}", whole=whole)
    return result


def _fields(kind: ComponentType, values: Any, *, path: str, whole: bool) -> dict[str, Any]:
    if not isinstance(values, dict):
        raise SchemaMismatchError(f"{path}: expected an object of field values", field=path)
    fields = kind.fields
    for name in values:
        if name not in fields:
            raise SchemaMismatchError(
                f"{path}.{name}: {kind.name} has no such field (it has {', '.join(fields)})",
                field=f"{path}.{name}",
            )
    result: dict[str, Any] = {}
    for name, (field, exact) in fields.items():
        if name in values:
            value = values[name]
            if type(value) is not exact:
                value = to_column(value, field.type, nullable=field.nullable, path=f"{path}.{name}")
            result[name] = value
        elif whole:
            result[name] = _default(kind, field, f"{path}.{name}")
    return result


def component_defaults(components: Iterable[str], catalog: ComponentCatalog) -> dict[str, Any]:
    """Return the value of every column that may be left out, by column name; the others are required."""
    fill: dict[str, Any] = {}
    for kind in (catalog.require(name) for name in components):
        for field in kind.schema:
            if field.name in kind.defaults or field.nullable:
                fill[kind.prefix + field.name] = kind.defaults.get(field.name)
    return fill


def _default(kind: ComponentType, field: pa.Field[Any], path: str) -> Any:
    if field.name in kind.defaults:
        return kind.defaults[field.name]
    if field.nullable:
        return None
    raise SchemaMismatchError(
        f"{path}: {kind.name}.{field.name} has no default, so it must be given", field=path
    )


def spawn_batch(
    data: bytes, catalog: ComponentCatalog, *, path: str, limits: Limits = DEFAULTS
) -> tuple[Signature, pa.RecordBatch]:
    """Return (signature, rows in the archetype's column order) of a table of new entities.

    Raises:
        InvalidArrowError: The bytes are no whole stream, or hold more than the limits allow.
        SchemaMismatchError: A column does not fit its component.
        UnknownComponentError: A column is no component's.
    """
    source = read_stream(data, path=path, limits=limits)
    by_prefix = {kind.prefix: kind for kind in catalog}
    names: set[str] = set()
    for name in source.schema.names:
        names.add(_component_of(name, by_prefix, path).name)
    if not names:
        raise InvalidArrowError(f"{path}: no component columns (component__field)", field=path)
    sig = signature(names)
    kinds = [catalog.require(name) for name in sig]
    absent = sum(len(kind.schema) for kind in kinds) - len(source.schema)
    if source.nbytes + 8 * absent * source.num_rows > limits.table_bytes:
        raise InvalidArrowError(
            f"{path}: {source.num_rows} rows, with {absent} columns that are left out, are more than "
            f"{limits.table_bytes} bytes, the server's limit (table_bytes): send several tables",
            field=path,
            limit=limits.table_bytes,
        )
    fields: list[pa.Field[Any]] = []
    arrays: list[pa.Array[Any]] = []
    for kind in kinds:
        for bare, column in zip(kind.schema, kind.prefixed_schema, strict=True):
            index = source.schema.get_field_index(column.name)
            where = f"{path}.{column.name}"
            if index >= 0:
                arrays.append(cast_column(source.column(index), column, path=where))
            else:
                default = pa.scalar(_default(kind, bare, where), type=column.type)
                arrays.append(pa.repeat(default, source.num_rows))
            fields.append(column)
    return sig, pa.RecordBatch.from_arrays(arrays, schema=pa.schema(fields))


def update_batch(
    data: bytes, catalog: ComponentCatalog, *, path: str, limits: Limits = DEFAULTS
) -> tuple[pa.Array[Any], pa.RecordBatch]:
    """Return (entity ids, rows with prefixed columns) of a table of changes.

    Raises:
        InvalidArrowError: No ``entity_id`` column, or an id is named twice.
    """
    source = read_stream(data, path=path, limits=limits)
    index = source.schema.get_field_index(ENTITY_ID)
    if index < 0:
        raise InvalidArrowError(f"{path}: the column entity_id is missing", field=path)
    wanted = pa.field(ENTITY_ID, pa.int64(), nullable=False)
    ids = cast_column(source.column(index), wanted, path=f"{path}.{ENTITY_ID}")
    if len(ids.unique()) != len(ids):
        raise InvalidArrowError(f"{path}: an entity_id is named twice", field=f"{path}.{ENTITY_ID}")
    by_prefix = {kind.prefix: kind for kind in catalog}
    fields: list[pa.Field[Any]] = []
    arrays: list[pa.Array[Any]] = []
    for name in source.schema.names:
        if name == ENTITY_ID:
            continue
        column = _component_of(name, by_prefix, path).prefixed_schema.field(name)
        fields.append(column)
        arrays.append(cast_column(source.column(name), column, path=f"{path}.{name}"))
    if not fields:
        raise InvalidArrowError(f"{path}: no component columns (component__field)", field=path)
    return ids, pa.RecordBatch.from_arrays(arrays, schema=pa.schema(fields))


def _component_of(column: str, by_prefix: Mapping[str, ComponentType], path: str) -> ComponentType:
    prefix = column.partition("__")[0] + "__"
    kind = by_prefix.get(prefix)
    if kind is None:
        raise UnknownComponentError(
            f"{path}: column {column!r} belongs to no registered component "
            f"(prefixes: {', '.join(sorted(by_prefix)) or 'none'})",
            field=f"{path}.{column}",
        )
    if kind.prefixed_schema.get_field_index(column) < 0:
        raise SchemaMismatchError(
            f"{path}: {kind.name} has no field for column {column!r} (it has {', '.join(kind.schema.names)})",
            field=f"{path}.{column}",
        )
    return kind
