"""The entities of a tick while its commands are applied: many small edits, few big copies.

Commands on named entities collect in an overlay, last writer wins per entity and column, and are written into the
Arrow tables at once. A command that brings a table of its own flushes the overlay first and is applied as a whole,
vectorised. The old tables stay as they are: whoever gives up half-way has lost nothing.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from tickwire_engine.archetype import IS_ACTIVE, signature
from tickwire_engine.errors import (
    SchemaMismatchError,
)
from tickwire_engine.tick.refusals import no_such_component, no_such_entity, nothing_left
from tickwire_engine.tick.selection import count, extend, reduce, select, write
from tickwire_engine.tick.tables import TableDraft

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from tickwire_engine.archetype import Signature
    from tickwire_engine.component import ComponentCatalog
    from tickwire_engine.sql import SqlCondition
    from tickwire_engine.state import WorldState


@dataclass(slots=True)
class _Edit:
    """What the overlay holds for one entity."""

    origin: Signature | None
    """Where its row is in the tables; None: spawned in this tick, and `values` is the whole row."""
    signature: Signature
    """The components that it has now."""
    values: dict[str, Any]
    alive: bool = True


@dataclass(slots=True)
class EntityChanges:
    """What `EntityDraft.finish` gives: tables by signature, and what happened to whom."""

    batches: dict[Signature, pa.RecordBatch]
    spawned: int
    grown: set[Signature]
    """Archetypes whose components have other fields by now than their streams have."""
    spawned_ids: list[np.ndarray] = field(default_factory=list)


class EntityDraft:
    """The entities of one tick in the making; used by one thread."""

    def __init__(self, state: WorldState, catalog: ComponentCatalog) -> None:
        self._catalog = catalog
        self._tables = TableDraft(state, catalog)
        self._overlay: dict[int, _Edit] = {}
        self._located: dict[int, Signature | None] = {}
        self._spawned_ids: list[np.ndarray] = []

    def prefetch(self, ids: Iterable[int]) -> None:
        """Look up at once where the entities stand that the tick's commands name one by one."""
        wanted = np.fromiter(ids, dtype=np.int64)
        self._located.update(dict.fromkeys(wanted.tolist()))
        for sig, _, positions in self._tables.find(wanted):
            self._located.update(dict.fromkeys(wanted[positions].tolist(), sig))

    # Named entities

    def spawn(self, entity_id: int, components: Mapping[str, Mapping[str, Any]]) -> None:
        """Add one entity; `components` holds every field of each, in column values."""
        self._overlay[entity_id] = _Edit(None, signature(components), self._columns(components))
        self._spawned_ids.append(np.array([entity_id], dtype=np.int64))

    def update(
        self, ids: Iterable[int], values: Mapping[str, Mapping[str, Any]], *, skip_missing: bool
    ) -> list[int]:
        """Write component fields of named entities.

        Returns:
            The ids that do not exist, which only `skip_missing` allows.

        Raises:
            EntityNotFoundError: One does not exist.
            ComponentNotFoundError: One does not have a component that is to be written.
        """
        present, missing = self._present(ids, skip_missing=skip_missing)
        for entity_id, sig in present:
            for name in values:
                if name not in sig:
                    raise no_such_component(entity_id, name, sig)
        columns = self._columns(values)
        for entity_id, sig in present:
            self._edit(entity_id, sig).values.update(columns)
        return missing

    def add_components(
        self,
        ids: Iterable[int],
        whole: Mapping[str, Mapping[str, Any]],
        named: Mapping[str, Mapping[str, Any]],
        *,
        skip_missing: bool,
    ) -> list[int]:
        """Give named entities components; of those that one has already, write the fields that were named.

        Args:
            whole: Every field of each component, defaults filled in.
            named: The fields that the sender named.

        Returns:
            The ids that do not exist, which only `skip_missing` allows.
        """
        present, missing = self._present(ids, skip_missing=skip_missing)
        for entity_id, sig in present:
            edit = self._edit(entity_id, sig)
            for name in whole:
                values = named if name in edit.signature else whole
                edit.values.update(self._columns({name: values[name]}))
            edit.signature = signature((*edit.signature, *whole))
        return missing

    def remove_components(
        self, ids: Iterable[int], components: Sequence[str], *, skip_missing: bool
    ) -> list[int]:
        """Take components from named entities; those that one does not have are passed over.

        Returns:
            The ids that do not exist, which only `skip_missing` allows.

        Raises:
            InvalidCommandError: One would have no component left.
        """
        present, missing = self._present(ids, skip_missing=skip_missing)
        for entity_id, sig in present:
            if set(sig) <= set(components):
                raise nothing_left(entity_id)
        prefixes = tuple(self._catalog.require(name).prefix for name in components)
        for entity_id, sig in present:
            edit = self._edit(entity_id, sig)
            edit.signature = signature(set(edit.signature) - set(components))
            edit.values = {n: value for n, value in edit.values.items() if not n.startswith(prefixes)}
        return missing

    def despawn(self, ids: Iterable[int], *, skip_missing: bool) -> tuple[int, list[int]]:
        """Let entities have their last row.

        Returns:
            (how many, the ids that do not exist).

        Raises:
            EntityNotFoundError: One does not exist, and `skip_missing` does not allow it.
        """
        present, missing = self._present(ids, skip_missing=skip_missing)
        for entity_id, sig in present:
            self._edit(entity_id, sig).alive = False
        return len(present), missing

    # Conditions

    def matching(
        self, ids: Sequence[int] | np.ndarray, condition: SqlCondition, *, skip_missing: bool
    ) -> tuple[np.ndarray, list[int]]:
        """Find out which of named entities meet a condition, after all commands so far.

        Returns:
            (positions in `ids`, the ids that do not exist, which only `skip_missing` allows).

        Raises:
            EntityNotFoundError: One does not exist.
            InvalidSqlError: A row has a value that the condition cannot work with.
        """
        self.flush()
        wanted = np.asarray(ids, dtype=np.int64)
        missing = _missing(wanted, list(self._tables.find(wanted)), skip_missing=skip_missing)
        met = [place.ids for place in select(self._tables, condition)]
        found = np.isin(wanted, np.concatenate(met)) if met else np.zeros(len(wanted), dtype=bool)
        return np.flatnonzero(found), missing

    def update_where(self, condition: SqlCondition, values: Mapping[str, Mapping[str, Any]]) -> int:
        """Write component fields of the entities that meet a condition; return how many.

        Raises:
            ComponentNotFoundError: One does not have a component that is to be written.
            InvalidSqlError: A row has a value that the condition cannot work with.
        """
        self.flush()
        places = select(self._tables, condition)
        for place in places:
            for name in values:
                if name not in place.signature:
                    raise no_such_component(int(place.ids[0]), name, place.signature)
        columns = self._columns(values)
        for place in places:
            write(self._tables, place, columns)
        return count(places)

    def despawn_where(self, condition: SqlCondition) -> int:
        """Let the entities that meet a condition have their last row; return how many."""
        self.flush()
        places = select(self._tables, condition)
        for place in places:
            self._tables.deactivate(place.signature, place.rows)
        self._locate_again()
        return count(places)

    def add_components_where(
        self,
        condition: SqlCondition,
        whole: Mapping[str, Mapping[str, Any]],
        named: Mapping[str, Mapping[str, Any]],
    ) -> int:
        """Give the entities that meet a condition components, as `add_components` does; return how many."""
        self.flush()
        places = select(self._tables, condition)
        changes = [
            self._columns({name: named[name] if name in place.signature else whole[name] for name in whole})
            for place in places
        ]
        extend(self._tables, places, changes, signature(whole))
        self._locate_again()
        return count(places)

    def remove_components_where(self, condition: SqlCondition, components: Sequence[str]) -> int:
        """Take components from the entities that meet a condition, as `remove_components` does; return how many."""
        self.flush()
        places = select(self._tables, condition)
        for place in places:
            if set(place.signature) <= set(components):
                raise nothing_left(int(place.ids[0]))
        reduce(self._tables, places, components)
        self._locate_again()
        return count(places)

    # Tables

    def spawn_rows(self, first_id: int, sig: Signature, rows: pa.RecordBatch) -> None:
        """Add as many entities as `rows` has; its columns are the archetype's without entity_id and is_active."""
        self.flush()
        schema = self._tables.schema(sig)
        ids = np.arange(first_id, first_id + rows.num_rows, dtype=np.int64)
        arrays: list[pa.Array[Any]] = [pa.array(ids), pa.array(np.ones(len(ids), dtype=bool))]
        arrays += [rows.column(name) for name in schema.names[2:]]
        self._tables.append(sig, pa.RecordBatch.from_arrays(arrays, schema=schema))
        self._spawned_ids.append(ids)

    def update_rows(self, ids: np.ndarray, rows: pa.RecordBatch, *, skip_missing: bool) -> list[int]:
        """Write `rows` (prefixed columns) into the entities `ids`, row by row; like `update` otherwise."""
        self.flush()
        places = list(self._tables.find(ids))
        for sig, _, positions in places:
            absent = [name for name in rows.schema.names if name not in self._tables.schema(sig).names]
            if absent:
                raise no_such_component(int(ids[positions[0]]), absent[0], sig)
        missing = _missing(ids, places, skip_missing=skip_missing)
        for sig, targets, positions in places:
            picked = rows.take(positions)
            self._tables.write(sig, targets, dict(zip(rows.schema.names, picked.columns, strict=True)))
        return missing

    def add_rows(
        self,
        ids: np.ndarray,
        rows: pa.RecordBatch,
        components: Signature,
        fill: Mapping[str, Any],
        *,
        skip_missing: bool,
    ) -> list[int]:
        """Give the entities `ids` the components of `rows`, row by row; like `add_components` otherwise.

        Args:
            fill: The value of each column of `components` that `rows` does not have; a column in neither is required.
        """
        self.flush()
        places = list(self._tables.find(ids))
        missing = _missing(ids, places, skip_missing=skip_missing)
        moves = []
        for sig, targets, positions in places:
            picked = rows.take(positions)
            columns: dict[str, pa.Array[Any]] = dict(zip(rows.schema.names, picked.columns, strict=True))
            for name in components:
                if name not in sig:
                    columns.update(self._filled(name, columns, fill, len(targets)))
            moves.append((sig, signature((*sig, *components)), targets, columns))
        # Writes in place first: rows that move in shift the others. No archetype is both left and entered here.
        for sig, target, targets, columns in sorted(moves, key=lambda move: move[0] != move[1]):
            if target == sig:
                self._tables.write(sig, targets, columns)
            else:
                self._tables.move(sig, target, targets, columns)
        self._locate_again()
        return missing

    def flush(self) -> None:
        """Write the overlay into the tables."""
        groups: dict[tuple[Signature | None, Signature], list[tuple[int, _Edit]]] = defaultdict(list)
        for entity_id, edit in self._overlay.items():
            groups[edit.origin, edit.signature].append((entity_id, edit))
            self._located[entity_id] = edit.signature if edit.alive else None
        self._overlay = {}
        for (origin, target), edits in groups.items():
            if origin is None:
                self._append_fresh(target, sorted(edits, key=lambda pair: pair[0]))
            elif origin == target:
                self._write(target, edits)
            else:
                self._move(origin, target, edits)

    def tables(self) -> Mapping[Signature, pa.RecordBatch]:
        """Return the tables as the commands so far have left them; batches are never changed in place."""
        self.flush()
        return dict(self._tables.batches)

    def finish(self) -> EntityChanges:
        """Write what is left and return the tables."""
        self.flush()
        return EntityChanges(
            batches=self._tables.batches,
            spawned=sum(len(ids) for ids in self._spawned_ids),
            grown=self._tables.grown,
            spawned_ids=self._spawned_ids,
        )

    def _present(
        self, ids: Iterable[int], *, skip_missing: bool
    ) -> tuple[list[tuple[int, Signature]], list[int]]:
        present: list[tuple[int, Signature]] = []
        missing: list[int] = []
        for entity_id in dict.fromkeys(ids):
            edit = self._overlay.get(entity_id)
            sig = (edit.signature if edit.alive else None) if edit else self._find(entity_id)
            if sig is None:
                missing.append(entity_id)
            else:
                present.append((entity_id, sig))
        if missing and not skip_missing:
            raise no_such_entity(missing)
        return present, missing

    def _locate_again(self) -> None:
        # Whole tables changed hands: where the entities stood that commands name is not where they stand.
        if self._located:
            self.prefetch(list(self._located))

    def _find(self, entity_id: int) -> Signature | None:
        if self._located.get(entity_id) is None:
            # Not looked up yet, or come with a table since; ids are few here.
            self.prefetch([entity_id])
        return self._located[entity_id]

    def _edit(self, entity_id: int, sig: Signature) -> _Edit:
        return self._overlay.setdefault(entity_id, _Edit(sig, sig, {}))

    def _columns(self, values: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        return {
            self._catalog.require(name).prefix + field_name: value
            for name, fields in values.items()
            for field_name, value in fields.items()
        }

    def _filled(
        self, component: str, given: Mapping[str, Any], fill: Mapping[str, Any], rows: int
    ) -> dict[str, pa.Array[Any]]:
        filled = {}
        for column in self._catalog.require(component).prefixed_schema:
            if column.name in given:
                continue
            if column.name not in fill:
                raise SchemaMismatchError(
                    f"add_component.table: {column.name} has no default, so it must be given",
                    field=f"add_component.table.{column.name}",
                )
            filled[column.name] = pa.array([fill[column.name]] * rows, type=column.type)
        return filled

    def _append_fresh(self, sig: Signature, edits: list[tuple[int, _Edit]]) -> None:
        schema = self._tables.schema(sig)
        arrays: list[pa.Array[Any]] = [
            pa.array([entity_id for entity_id, _ in edits], type=pa.int64()),
            pa.array([edit.alive for _, edit in edits], type=pa.bool_()),
        ]
        arrays.extend(
            pa.array([edit.values[column.name] for _, edit in edits], type=column.type)
            for column in list(schema)[2:]
        )
        self._tables.append(sig, pa.RecordBatch.from_arrays(arrays, schema=schema))

    def _write(self, sig: Signature, edits: list[tuple[int, _Edit]]) -> None:
        schema = self._tables.schema(sig)
        for name, (ids, values) in _by_column(edits).items():
            rows = self._tables.rows_of(sig, ids)
            self._tables.write(sig, rows, {name: pa.array(values, type=schema.field(name).type)})
        gone = [entity_id for entity_id, edit in edits if not edit.alive]
        if gone:
            self._tables.deactivate(sig, self._tables.rows_of(sig, gone))

    def _move(self, origin: Signature, target: Signature, edits: list[tuple[int, _Edit]]) -> None:
        # What can be written where the rows are is written there; the rest comes with the move.
        schema = self._tables.schema(target)
        here = set(self._tables.schema(origin).names)
        ids = [entity_id for entity_id, _ in edits]
        columns: dict[str, pa.Array[Any]] = {}
        for name, (named, values) in _by_column(edits).items():
            array = pa.array(values, type=schema.field(name).type)
            if name in here:
                self._tables.write(origin, self._tables.rows_of(origin, named), {name: array})
            else:
                columns[name] = array
        columns[IS_ACTIVE] = pa.array([edit.alive for _, edit in edits], type=pa.bool_())
        self._tables.move(origin, target, self._tables.rows_of(origin, ids), columns)


def _by_column(edits: list[tuple[int, _Edit]]) -> dict[str, tuple[list[int], list[Any]]]:
    by_column: dict[str, tuple[list[int], list[Any]]] = defaultdict(lambda: ([], []))
    for entity_id, edit in edits:
        for name, value in edit.values.items():
            ids, values = by_column[name]
            ids.append(entity_id)
            values.append(value)
    return by_column


def _missing(
    ids: np.ndarray, places: Iterable[tuple[Signature, np.ndarray, np.ndarray]], *, skip_missing: bool
) -> list[int]:
    anywhere = np.zeros(len(ids), dtype=bool)
    for _, _, positions in places:
        anywhere[positions] = True
    missing = [int(i) for i in ids[~anywhere]]
    if missing and not skip_missing:
        raise no_such_entity(missing)
    return missing
