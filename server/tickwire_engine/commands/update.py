"""UPDATE: write the named fields of entities, by ids, by an SQL condition, or row by row from an Arrow table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tickwire_engine.commands.operation import (
    Applied,
    Operation,
    TickDraft,
    Vocabulary,
    entity_id_list,
    refuse_unknown,
)
from tickwire_engine.commands.rows import component_values, update_batch
from tickwire_engine.commands.selecting import ids_where, rows_where, where_of
from tickwire_engine.errors import InvalidCommandError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    import numpy as np
    import pyarrow as pa

    from tickwire_engine.sql import SqlCondition
    from tickwire_engine.storage.rows import CommandRow


@dataclass(frozen=True, slots=True)
class UpdateIds(Operation):
    """The same values for every named entity, where a condition holds if there is one."""

    entity_ids: tuple[int, ...]
    where: SqlCondition | None
    components: dict[str, dict[str, Any]]
    skip_missing: bool

    @property
    def named_ids(self) -> Collection[int]:
        """The entities to be changed."""
        return self.entity_ids

    def apply(self, draft: TickDraft, row: CommandRow) -> Applied:
        """Write the fields."""
        ids, missing = ids_where(draft, self.entity_ids, self.where, skip_missing=self.skip_missing)
        absent = draft.entities.update(ids, self.components, skip_missing=self.skip_missing)
        return Applied(0, len(set(ids)) - len(absent), missing or absent)


@dataclass(frozen=True, slots=True)
class UpdateWhere(Operation):
    """The same values for every entity where a condition holds."""

    where: SqlCondition
    components: dict[str, dict[str, Any]]

    def apply(self, draft: TickDraft, row: CommandRow) -> Applied:
        """Write the fields."""
        return Applied(0, draft.entities.update_where(self.where, self.components))


@dataclass(frozen=True, slots=True)
class UpdateTable(Operation):
    """Each row of a table into the entity it names, where a condition holds if there is one."""

    entity_ids: np.ndarray
    rows: pa.RecordBatch
    where: SqlCondition | None
    skip_missing: bool

    def apply(self, draft: TickDraft, row: CommandRow) -> Applied:
        """Write the rows."""
        ids, rows, missing = rows_where(
            draft, self.entity_ids, self.rows, self.where, skip_missing=self.skip_missing
        )
        absent = draft.entities.update_rows(ids, rows, skip_missing=self.skip_missing)
        return Applied(0, len(ids) - len(absent), missing or absent)


def parse(payload: Mapping[str, Any], table: bytes, vocabulary: Vocabulary) -> Operation:
    """Validate an update: components for entity_ids or a condition, or a table with an entity_id column."""
    known = ("entity_ids", "where", "components", "table", "skip_missing")
    refuse_unknown(payload, table, type_name="update", known=known)
    where = where_of(payload, vocabulary, type_name="update")
    ids = entity_id_list(payload, type_name="update")
    skip_missing = bool(payload.get("skip_missing", False))
    if table:
        if ids or "components" in payload:
            raise InvalidCommandError(
                "update takes a table, or entity_ids with components: not both", field="update.table"
            )
        named, rows = update_batch(
            table, vocabulary.components, path="update.table", limits=vocabulary.limits
        )
        return UpdateTable(named.to_numpy(), rows, where, skip_missing)
    if not ids and where is None:
        raise InvalidCommandError("update selects nothing: give entity_ids, where or a table", field="update")
    values = component_values(
        payload.get("components"), vocabulary.components, path="update.components", whole=False
    )
    if where is not None and not ids:
        return UpdateWhere(where, values)
    return UpdateIds(ids, where, values, skip_missing)
