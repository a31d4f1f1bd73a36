"""DESPAWN: entities, by id or by an SQL condition, have their last row (``is_active=false``) in the tick that applies it."""

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
from tickwire_engine.commands.selecting import ids_where, where_of
from tickwire_engine.errors import InvalidCommandError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from tickwire_engine.sql import SqlCondition
    from tickwire_engine.storage.rows import CommandRow


@dataclass(frozen=True, slots=True)
class Despawn(Operation):
    """Named entities, where a condition holds if there is one."""

    entity_ids: tuple[int, ...]
    where: SqlCondition | None
    skip_missing: bool

    @property
    def named_ids(self) -> Collection[int]:
        """The entities to go."""
        return self.entity_ids

    def apply(self, draft: TickDraft, row: CommandRow) -> Applied:
        """Mark them."""
        ids, missing = ids_where(draft, self.entity_ids, self.where, skip_missing=self.skip_missing)
        count, absent = draft.entities.despawn(ids, skip_missing=self.skip_missing)
        return Applied(0, count, missing or absent)


@dataclass(frozen=True, slots=True)
class DespawnWhere(Operation):
    """Every entity where a condition holds."""

    where: SqlCondition

    def apply(self, draft: TickDraft, row: CommandRow) -> Applied:
        """Mark them."""
        return Applied(0, draft.entities.despawn_where(self.where))


def parse(payload: Mapping[str, Any], table: bytes, vocabulary: Vocabulary) -> Operation:
    """Validate a despawn: entity ids, a condition, or both."""
    refuse_unknown(payload, table, type_name="despawn", known=("entity_ids", "where", "skip_missing"))
    where = where_of(payload, vocabulary, type_name="despawn")
    ids = entity_id_list(payload, type_name="despawn")
    if ids:
        return Despawn(ids, where, bool(payload.get("skip_missing", False)))
    if where is not None:
        return DespawnWhere(where)
    raise InvalidCommandError("despawn selects nothing: give entity_ids, or where", field="despawn")
