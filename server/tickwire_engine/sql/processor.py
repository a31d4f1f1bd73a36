"""A processor of SQL: columns set to expressions over the row as it was, where a condition holds.

It comes with a command, so nobody's code is deployed for it. Texts are checked against the components when the command
is submitted, and again when a restart builds the processor from the journal.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pyarrow as pa

from tickwire_engine.archetype import ENTITY_ID, IS_ACTIVE, signature
from tickwire_engine.errors import (
    InvalidCommandError,
    InvalidSqlError,
    SchemaMismatchError,
    TickwireError,
    UnknownComponentError,
)
from tickwire_engine.expressions import EvaluationError, evaluate
from tickwire_engine.layout import same_values
from tickwire_engine.processor import ArrowProcessor
from tickwire_engine.sql.columns import catalog_columns
from tickwire_engine.sql.expression import parse_condition, parse_expression
from tickwire_engine.tick import columns as col

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from tickwire_engine.component import Component, ComponentCatalog
    from tickwire_engine.sql.expression import SqlCondition, SqlExpression


@dataclass(frozen=True, slots=True)
class _Compiled:
    """The texts, checked."""

    assignments: Mapping[str, SqlExpression]
    where: SqlCondition | None
    reads: frozenset[str]
    """The columns that the assignments read."""


class SqlProcessor(ArrowProcessor):
    """Sets columns to SQL expressions: ``SqlProcessor([Place, Speed], {"place__x": "place__x + speed__vx"})``.

    All right sides read the row as it was; a row where `where` is false or NULL stays as it is. It runs on every archetype
    that has all its components. Setting ``is_active`` to false despawns.

    Args:
        components: Classes or names; none: those whose columns the texts name.
        assignments: SQL expression by column. An integer goes into any number column that holds it, and every number into
            a float column; anything else must be of the column's type.
        where: SQL condition; empty: every row.
    """

    path: ClassVar[str] = "SQL"

    def __init__(
        self,
        components: Sequence[str | type[Component]],
        assignments: Mapping[str, str],
        where: str = "",
        priority: int = 10,
    ) -> None:
        self._models = tuple(kind for kind in components if not isinstance(kind, str))
        self.assignments = dict(assignments)
        self.where = where
        self.priority = priority
        self._names = tuple(kind if isinstance(kind, str) else kind.__name__ for kind in components)
        self._compiled: _Compiled | None = None

    @property
    def component_names(self) -> tuple[str, ...]:
        """The components whose archetypes it runs on."""
        return self._names

    @property
    def plain_params(self) -> dict[str, Any]:
        """What it is built from again."""
        return {"components": list(self._names), "assignments": self.assignments, "where": self.where}

    def texts(self) -> list[str]:
        """Return what it does, a line for each assignment, for people."""
        lines = [f"{column} = {text}" for column, text in sorted(self.assignments.items())]
        return [*lines, f"where {self.where}"] if self.where else lines

    def bind(self, catalog: ComponentCatalog) -> None:
        """Check the texts against the components.

        Raises:
            TickwireError: They do not fit; `field` says which, as ``assignments.place__x``.
        """
        for model in self._models:
            catalog.register(model)
        columns = catalog_columns(catalog)
        for index, name in enumerate(self._names):
            if name not in catalog:
                raise UnknownComponentError(
                    f"component {name!r} is not registered", field=f"components[{index}]", component=name
                )
        if not self.assignments:
            raise InvalidCommandError("an SQL processor needs an assignment", field="assignments")
        where = parse_condition(self.where, columns, path="where") if self.where else None
        compiled = {}
        for target, text in self.assignments.items():
            path = f"assignments.{target}"
            kind = _target(target, columns, path)
            compiled[target] = parse_expression(text, columns, path=path)
            _require_fit(compiled[target].type, kind, target, path)
        reads = frozenset[str]().union(*(expression.columns for expression in compiled.values()))
        named = {*reads, *compiled, *(where.columns if where is not None else ())}
        self._names = _components_of(named, self._names, catalog)
        self._compiled = _Compiled(compiled, where, reads)

    def process_batch(self, batch: pa.RecordBatch, **input_kwargs: Any) -> pa.RecordBatch:
        """Return the rows after the assignments.

        Raises:
            InvalidSqlError: A row has a value that cannot be computed with, or computes to one that does not fit.
        """
        compiled = self._compiled
        assert compiled is not None, "bind comes first"
        rows: np.ndarray | None = None
        shown = batch
        if compiled.where is not None:
            mask = compiled.where.mask(batch)
            if not mask.any():
                return batch
            if not mask.all():
                rows = np.flatnonzero(mask)
                needed = [name for name in batch.schema.names if name in compiled.reads] or [ENTITY_ID]
                shown = batch.select(needed).filter(pa.array(mask))
        results = _evaluated(compiled, shown)
        replaced = {}
        for name in compiled.assignments:
            values = _fitted(results.column(name), batch.schema.field(name))
            replaced[name] = values if rows is None else col.scatter(batch.column(name), rows, values)
        return col.replace_columns(batch, replaced)


def _evaluated(compiled: _Compiled, batch: pa.RecordBatch) -> pa.RecordBatch:
    inputs = [name for name in batch.schema.names if name in compiled.reads] or [ENTITY_ID]
    expressions = {name: assigned.expression for name, assigned in compiled.assignments.items()}
    try:
        return evaluate(batch.select(inputs), expressions)
    except EvaluationError:
        for assigned in compiled.assignments.values():
            assigned.values(batch)  # the one to blame says so
        raise


def sql_processor(params: Mapping[str, Any]) -> SqlProcessor:
    """Build one from the fields of the contract's message.

    Raises:
        InvalidCommandError: A field is of the wrong shape; `field` says which.
    """
    for name in params:
        if name not in ("components", "assignments", "where"):
            raise InvalidCommandError(f"an SQL processor has no field {name!r}", field=name)
    components = params.get("components") or ()
    assignments = params.get("assignments") or {}
    where = params.get("where") or ""
    if not isinstance(components, list | tuple) or not all(isinstance(name, str) for name in components):
        raise InvalidCommandError("components: expected names", field="components")
    if not isinstance(assignments, dict) or not all(isinstance(text, str) for text in assignments.values()):
        raise InvalidCommandError("assignments: expected SQL text by column", field="assignments")
    if not isinstance(where, str):
        raise InvalidCommandError("where: expected SQL text", field="where")
    return SqlProcessor(components, assignments, where)


def _target(name: str, columns: Any, path: str) -> pa.DataType:
    if name == ENTITY_ID:
        raise InvalidSqlError(f"{path}: an entity keeps its id", field=path)
    try:
        kind: pa.DataType = columns(name)
    except TickwireError as error:
        error.field = path
        raise
    return kind


def _require_fit(given: pa.DataType, wanted: pa.DataType, name: str, path: str) -> None:
    number = pa.types.is_integer(given) or pa.types.is_floating(given)
    if number and pa.types.is_floating(wanted):
        return
    if pa.types.is_integer(given) and pa.types.is_integer(wanted):
        return
    if same_values(given, wanted):
        return
    raise SchemaMismatchError(
        f"{path}: {given} does not go into {name}, which is {wanted}: write CAST(... AS {wanted})", field=path
    )


def _components_of(
    named: Iterable[str], given: tuple[str, ...], catalog: ComponentCatalog
) -> tuple[str, ...]:
    owners = {column: kind.name for kind in catalog for column in kind.prefixed_schema.names}
    used = {owners[column]: column for column in named if column not in (ENTITY_ID, IS_ACTIVE)}
    if not given:
        return signature(used)
    for name, column in sorted(used.items()):
        if name not in given:
            raise InvalidSqlError(
                f"{column} is named, so {name} must be among the components", field="components"
            )
    return signature(given)


def _fitted(values: pa.Array[Any], field: pa.Field[Any]) -> pa.Array[Any]:
    if values.type == field.type:
        return values
    try:
        # A number is rounded to a float column's precision; an integer that does not fit is an error.
        return values.cast(field.type, safe=not pa.types.is_floating(field.type))
    except pa.ArrowInvalid as error:
        text = str(error).splitlines()[0]
        raise InvalidSqlError(f"a value for {field.name} does not fit {field.type}: {text}") from None
