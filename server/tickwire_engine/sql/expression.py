"""Checked SQL: a condition or an expression that is known to fit the columns it names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from tickwire_engine.archetype import ENTITY_ID
from tickwire_engine.errors import InvalidSqlError
from tickwire_engine.expressions import EvaluationError, evaluate
from tickwire_engine.sql._parser import Parser

if TYPE_CHECKING:
    from daft.expressions import Expression

    from tickwire_engine.sql.columns import ColumnTypes


@dataclass(frozen=True, slots=True)
class SqlExpression:
    """One value for each row.

    Attributes:
        text: The SQL.
        columns: The columns that it reads.
        type: The Arrow type of its values, text and lists in Daft's large layout.
    """

    text: str
    path: str
    columns: frozenset[str]
    type: pa.DataType
    expression: Expression

    def values(self, batch: pa.RecordBatch) -> pa.Array[Any]:
        """Return its values for the rows of `batch`.

        Raises:
            InvalidSqlError: A row has a value that it cannot work with.
        """
        inputs = [name for name in batch.schema.names if name in self.columns] or [ENTITY_ID]
        try:
            return evaluate(batch.select(inputs), {"value": self.expression}).column(0)
        except EvaluationError as error:
            raise InvalidSqlError(f"{self.path}: {error}", field=self.path) from None

    def fits(self, names: list[str]) -> bool:
        """Whether a table with the columns `names` has all that it reads."""
        return self.columns.issubset(names)


@dataclass(frozen=True, slots=True)
class SqlCondition(SqlExpression):
    """A truth value for each row."""

    def mask(self, batch: pa.RecordBatch) -> np.ndarray:
        """Return where it holds, as a boolean array; NULL is false.

        Raises:
            InvalidSqlError: A row has a value that it cannot work with.
        """
        values = self.values(batch)
        if values.null_count:
            values = values.fill_null(False)
        return np.asarray(values.to_numpy(zero_copy_only=False), dtype=bool)


def parse_expression(text: str, columns: ColumnTypes, *, path: str) -> SqlExpression:
    """Return the expression that `text` is.

    Args:
        columns: What it may name.
        path: Where it stands in the command, for errors.

    Raises:
        InvalidSqlError: It is none, uses what is not allowed, or its types do not go together.
        UnknownComponentError: It names a column of a component that is not registered.
    """
    parser = Parser(text, columns, path)
    expression = parser.parse()
    fields: list[pa.Field[Any]] = [pa.field(ENTITY_ID, pa.int64())]
    fields += [pa.field(name, columns(name)) for name in sorted(parser.columns - {ENTITY_ID})]
    nothing = pa.RecordBatch.from_pylist([], schema=pa.schema(fields))
    try:
        kind = evaluate(nothing, {"value": expression}).schema.field(0).type
    except EvaluationError as error:
        raise InvalidSqlError(f"{path}: {error}", field=path) from None
    return SqlExpression(text, path, frozenset(parser.columns), kind, expression)


def parse_condition(text: str, columns: ColumnTypes, *, path: str) -> SqlCondition:
    """Return the condition that `text` is; as `parse_expression`, and its values must be true or false."""
    parsed = parse_expression(text, columns, path=path)
    if not pa.types.is_boolean(parsed.type):
        raise InvalidSqlError(
            f"{path}: a condition is true or false, and this is {parsed.type}: compare it with something",
            field=path,
        )
    return SqlCondition(text, path, parsed.columns, parsed.type, parsed.expression)
