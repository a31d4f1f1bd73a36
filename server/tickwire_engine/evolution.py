"""Components that grow: new fields have a default or may be null, and old rows get them when they are next used.

Anything else is no growth: a field that went away, or has another type, would change what was recorded. Rows of the past
stay as they are; readers see them in the shape that the component has now. From the tick on that finds a component grown,
its archetypes are recorded in new streams.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from tickwire_engine.component import COMPONENT_KEY, FIELD_KEY, ComponentType
from tickwire_engine.encoding import read_schema
from tickwire_engine.errors import ComponentExistsError, WorldFaultedError
from tickwire_engine.fields import type_text
from tickwire_engine.values import to_column, to_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tickwire_engine.component import ComponentCatalog
    from tickwire_engine.storage.rows import StoredComponent, Stream


def fields_text(schema: Iterable[pa.Field[Any]]) -> str:
    """Return a component's fields as people read them: ``(x: double, note: string?)``."""
    told = (f"{f.name}: {type_text(f.type)}{'?' * f.nullable}" for f in schema)
    return f"({', '.join(told)})"


def hindrance(old: pa.Schema, new: ComponentType) -> str:
    """Say why rows of `old` cannot become rows of `new`; "": they can."""
    for field in old:
        index = new.schema.get_field_index(field.name)
        if index < 0:
            return f"the field {field.name} is missing"
        grown = new.schema.field(index)
        if grown.type != field.type:
            return f"the field {field.name} was {type_text(field.type)} and is {type_text(grown.type)}"
        if field.nullable and not grown.nullable:
            return f"the field {field.name} may be null, and may be no longer"
    for field in new.schema:
        if old.get_field_index(field.name) < 0 and not field.nullable and field.name not in new.defaults:
            return f"the new field {field.name} has no default, and may not be null"
    return ""


def fitted(batch: pa.RecordBatch, schema: pa.Schema, catalog: ComponentCatalog) -> pa.RecordBatch:
    """Return an archetype's rows with the columns of `schema`; those that they lack hold the fields' defaults.

    Raises:
        WorldFaultedError: A column has another type by now.
    """
    arrays: list[pa.Array[Any]] = []
    for column in schema:
        index = batch.schema.get_field_index(column.name)
        if index < 0:
            metadata = column.metadata or {}
            kind = catalog.require(metadata[COMPONENT_KEY].decode())
            default = kind.defaults.get(metadata[FIELD_KEY].decode())
            filled: Any = pa.repeat(pa.scalar(default, column.type), batch.num_rows)
            arrays.append(filled)
        elif batch.schema.field(index).type != column.type:
            raise WorldFaultedError(
                f"this world holds {column.name} as {batch.schema.field(index).type}, and it is defined as {column.type} "
                "now: define it as it was, or give the new one another name"
            )
        else:
            arrays.append(batch.column(index))
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def require_growth(world: str, streams: Iterable[Stream], catalog: ComponentCatalog) -> None:
    """Refuse an application whose components are not those that a world holds, nor grown from them.

    Raises:
        ComponentExistsError: One is not; the message shows both.
    """
    latest: dict[tuple[str, ...], Stream] = {stream.components: stream for stream in streams}
    for stream in latest.values():
        for name, held in components_of(read_schema(stream.schema)):
            if name not in catalog:
                continue
            kind = catalog.require(name)
            why = hindrance(held, kind)
            if why:
                raise ComponentExistsError(
                    f"component {name} is defined as {fields_text(kind.schema)}, and world {world} holds it as "
                    f"{fields_text(held)}: {why}. New fields need a default, or may be null; old ones stay as they are",
                    component=name,
                )


def components_of(schema: pa.Schema) -> Iterator[tuple[str, pa.Schema]]:
    """Yield the components of an archetype, by name, with their bare fields."""
    found: dict[str, list[pa.Field[Any]]] = {}
    for column in schema:
        metadata = column.metadata or {}
        if COMPONENT_KEY in metadata:
            bare = pa.field(metadata[FIELD_KEY].decode(), column.type, nullable=column.nullable)
            found.setdefault(metadata[COMPONENT_KEY].decode(), []).append(bare)
    for name, fields in found.items():
        yield name, pa.schema(fields)


def stored_defaults(kind: ComponentType) -> bytes:
    """Return a component's defaults as the journal keeps them."""
    plain = {name: to_json(value) for name, value in kind.defaults.items()}
    return json.dumps(plain, sort_keys=True, separators=(",", ":")).encode()


def stored_component(stored: StoredComponent) -> ComponentType:
    """Return a component that was registered, as the journal keeps it."""
    schema = read_schema(stored.schema)
    defaults = {
        name: to_column(value, schema.field(name).type, nullable=True, path=f"{stored.name}.{name}")
        for name, value in json.loads(stored.defaults).items()
    }
    return ComponentType(stored.name, schema, defaults, stored.origin)
