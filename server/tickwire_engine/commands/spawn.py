"""SPAWN: one entity from component values, or many from an Arrow table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tickwire_engine.commands.operation import Applied, Operation, TickDraft, Vocabulary, refuse_unknown
from tickwire_engine.commands.rows import component_values, spawn_batch
from tickwire_engine.errors import InvalidCommandError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pyarrow as pa

    from tickwire_engine.archetype import Signature
    from tickwire_engine.storage.rows import CommandRow


@dataclass(frozen=True, slots=True)
class SpawnOne(Operation):
    """One entity."""

    components: dict[str, dict[str, Any]]

    @property
    def entity_count(self) -> int:
        """One id."""
        return 1

    def apply(self, draft: TickDraft, row: CommandRow) -> Applied:
        """Add the entity."""
        draft.entities.spawn(row.first_entity_id, self.components)
        return Applied(row.first_entity_id, 1)


@dataclass(frozen=True, slots=True)
class SpawnTable(Operation):
    """As many entities as a table has rows."""

    signature: Signature
    rows: pa.RecordBatch

    @property
    def entity_count(self) -> int:
        """An id for each row."""
        return int(self.rows.num_rows)

    def apply(self, draft: TickDraft, row: CommandRow) -> Applied:
        """Add the entities, in the table's order."""
        if self.rows.num_rows:
            draft.entities.spawn_rows(row.first_entity_id, self.signature, self.rows)
        return Applied(row.first_entity_id, int(self.rows.num_rows))


def parse(payload: Mapping[str, Any], table: bytes, vocabulary: Vocabulary) -> Operation:
    """Validate a spawn: components or a table, not both."""
    refuse_unknown(payload, table, type_name="spawn", known=("components", "table"))
    if bool(table) == ("components" in payload):
        raise InvalidCommandError("spawn takes components or a table: exactly one of them", field="spawn")
    if table:
        rows = spawn_batch(table, vocabulary.components, path="spawn.table", limits=vocabulary.limits)
        return SpawnTable(*rows)
    values = component_values(
        payload["components"], vocabulary.components, path="spawn.components", whole=True
    )
    return SpawnOne(values)
