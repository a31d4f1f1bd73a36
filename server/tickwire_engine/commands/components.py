"""ADD_COMPONENT and REMOVE_COMPONENT: entities move to another archetype, and keep their ids and other values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tickwire_engine.archetype import signature
from tickwire_engine.commands.operation import (
    Applied,
    Operation,
    TickDraft,
    Vocabulary,
    entity_id_list,
    refuse_unknown,
)
from tickwire_engine.commands.rows import component_defaults, component_values, update_batch
from tickwire_engine.commands.selecting import ids_where, rows_where, where_of
from tickwire_engine.errors import InvalidCommandError, UnknownComponentError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    import numpy as np
    import pyarrow as pa

    from tickwire_engine.archetype import Signature
    from tickwire_engine.sql import SqlCondition
    from tickwire_engine.storage.rows import CommandRow


@dataclass(frozen=True, slots=True)
class AddToIds(Operation):
    """The same components for every named entity, where a condition holds if there is one."""

    entity_ids: tuple[int, ...]
    where: SqlCondition | None
    whole: dict[str, dict[str, Any]]
    named: dict[str, dict[str, Any]]
    skip_missing: bool

    @property
    def named_ids(self) -> Collection[int]:
        """The entities to be extended."""
        return self.entity_ids

    def apply(self, draft: TickDraft, row: CommandRow) -> Applied:
        """Move them."""
        ids, missing = ids_where(draft, self.entity_ids, self.where, skip_missing=self.skip_missing)
        absent = draft.entities.add_components(ids, self.whole, self.named, skip_missing=self.skip_missing)
        return Applied(0, len(set(ids)) - len(absent), missing or absent)


@dataclass(frozen=True, slots=True)
class AddWhere(Operation):
    """The same components for every entity where a condition holds."""

    where: SqlCondition
    whole: dict[str, dict[str, Any]]
    named: dict[str, dict[str, Any]]

    def apply(self, draft: TickDraft, row: CommandRow) -> Applied:
        """Move them."""
        return Applied(0, draft.entities.add_components_where(self.where, self.whole, self.named))


@dataclass(frozen=True, slots=True)
class AddFromTable(Operation):
    """Each row of a table to the entity it names, where a condition holds if there is one."""

    entity_ids: np.ndarray
    rows: pa.RecordBatch
    where: SqlCondition | None
    components: Signature
    fill: dict[str, Any]
    skip_missing: bool

    def apply(self, draft: TickDraft, row: CommandRow) -> Applied:
        """Move them."""
        ids, rows, missing = rows_where(
            draft, self.entity_ids, self.rows, self.where, skip_missing=self.skip_missing
        )
        absent = draft.entities.add_rows(
            ids, rows, self.components, self.fill, skip_missing=self.skip_missing
        )
        return Applied(0, len(ids) - len(absent), missing or absent)


@dataclass(frozen=True, slots=True)
class RemoveComponents(Operation):
    """Components to be taken from named entities, where a condition holds if there is one."""

    entity_ids: tuple[int, ...]
    where: SqlCondition | None
    components: tuple[str, ...]
    skip_missing: bool

    @property
    def named_ids(self) -> Collection[int]:
        """The entities to be reduced."""
        return self.entity_ids

    def apply(self, draft: TickDraft, row: CommandRow) -> Applied:
        """Move them."""
        ids, missing = ids_where(draft, self.entity_ids, self.where, skip_missing=self.skip_missing)
        absent = draft.entities.remove_components(ids, self.components, skip_missing=self.skip_missing)
        return Applied(0, len(set(ids)) - len(absent), missing or absent)


@dataclass(frozen=True, slots=True)
class RemoveWhere(Operation):
    """Components to be taken from every entity where a condition holds."""

    where: SqlCondition
    components: tuple[str, ...]

    def apply(self, draft: TickDraft, row: CommandRow) -> Applied:
        """Move them."""
        return Applied(0, draft.entities.remove_components_where(self.where, self.components))


def parse_add(payload: Mapping[str, Any], table: bytes, vocabulary: Vocabulary) -> Operation:
    """Validate: components for entity_ids or a condition, or a table with an entity_id column."""
    known = ("entity_ids", "where", "components", "table", "skip_missing")
    refuse_unknown(payload, table, type_name="add_component", known=known)
    where = where_of(payload, vocabulary, type_name="add_component")
    ids = entity_id_list(payload, type_name="add_component")
    skip_missing = bool(payload.get("skip_missing", False))
    catalog = vocabulary.components
    if table:
        if ids or "components" in payload:
            raise InvalidCommandError(
                "add_component takes a table, or entity_ids with components: not both",
                field="add_component.table",
            )
        named, rows = update_batch(table, catalog, path="add_component.table", limits=vocabulary.limits)
        components = signature(
            (field.metadata or {})[b"tickwire.component"].decode() for field in rows.schema
        )
        fill = component_defaults(components, catalog)
        return AddFromTable(named.to_numpy(), rows, where, components, fill, skip_missing)
    if not ids and where is None:
        raise InvalidCommandError(
            "add_component selects nothing: give entity_ids, where or a table", field="add_component"
        )
    path = "add_component.components"
    sent = payload.get("components")
    whole = component_values(sent, catalog, path=path, whole=True)
    given = component_values(sent, catalog, path=path, whole=False)
    if where is not None and not ids:
        return AddWhere(where, whole, given)
    return AddToIds(ids, where, whole, given, skip_missing)


def parse_remove(payload: Mapping[str, Any], table: bytes, vocabulary: Vocabulary) -> Operation:
    """Validate: entity_ids or a condition, and the names of registered components."""
    known = ("entity_ids", "where", "components", "skip_missing")
    refuse_unknown(payload, table, type_name="remove_component", known=known)
    where = where_of(payload, vocabulary, type_name="remove_component")
    ids = entity_id_list(payload, type_name="remove_component")
    if not ids and where is None:
        raise InvalidCommandError(
            "remove_component selects nothing: give entity_ids, or where", field="remove_component"
        )
    components = tuple(payload.get("components") or ())
    if not components:
        raise InvalidCommandError("remove_component names no components", field="remove_component.components")
    for index, name in enumerate(components):
        if name not in vocabulary.components:
            raise UnknownComponentError(
                f"component {name!r} is not registered",
                field=f"remove_component.components[{index}]",
                component=name,
            )
    if where is not None and not ids:
        return RemoveWhere(where, components)
    return RemoveComponents(ids, where, components, bool(payload.get("skip_missing", False)))
