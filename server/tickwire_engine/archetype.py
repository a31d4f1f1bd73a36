"""Archetypes: entities with the same set of components share one Arrow table.

A signature is the sorted tuple of component names. The columns of an archetype's table are ``entity_id`` (int64),
``is_active`` (bool), then ``component__field`` in (component, field) order; rows stand in ascending ``entity_id``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Iterable
    from uuid import UUID

    from tickwire_engine.component import ComponentType

Signature = tuple[str, ...]

ENTITY_ID = "entity_id"
IS_ACTIVE = "is_active"
WORLD_KEY = b"tickwire.world_id"
ARCHETYPE_KEY = b"tickwire.archetype"

FIRST_ENTITY_ID = 1
FIRST_ISSUED_ENTITY_ID = 1 << 52
"""Entities that processors spawn take their ids from here on: their counter is part of the tick."""
MAX_ID = (1 << 53) - 1
"""Ticks, seqs and entity ids stay below 2^53, so that JSON and JavaScript hold them exactly."""


def signature(components: Iterable[str]) -> Signature:
    """Return the canonical signature of a set of component names."""
    return tuple(sorted(set(components)))


def archetype_name(sig: Signature) -> str:
    """Return the name that people see, as ``"Position+Velocity"``."""
    return "+".join(sig)


def archetype_schema(components: Iterable[ComponentType], *, world_id: UUID) -> pa.Schema:
    """Return the schema of the archetype that has exactly `components`."""
    ordered = sorted(components, key=lambda entry: entry.name)
    fields: list[pa.Field[Any]] = [
        pa.field(ENTITY_ID, pa.int64(), nullable=False),
        pa.field(IS_ACTIVE, pa.bool_(), nullable=False),
    ]
    for entry in ordered:
        fields.extend(entry.prefixed_schema)
    name = archetype_name(tuple(entry.name for entry in ordered))
    return pa.schema(fields, metadata={WORLD_KEY: str(world_id).encode(), ARCHETYPE_KEY: name.encode()})
