"""Which entities a command means: ids, an SQL condition, or both, and then those of the ids where it holds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa

from tickwire_engine.errors import InvalidCommandError
from tickwire_engine.sql import catalog_columns, parse_condition

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np

    from tickwire_engine.commands.operation import TickDraft, Vocabulary
    from tickwire_engine.sql import SqlCondition


def where_of(payload: Mapping[str, Any], vocabulary: Vocabulary, *, type_name: str) -> SqlCondition | None:
    """Return the payload's condition, or None where it has none.

    Raises:
        InvalidSqlError: It is no condition over columns that the engine knows.
        UnknownComponentError: It names a column of a component that is not registered.
    """
    path = f"{type_name}.where"
    text = payload.get("where") or ""
    if not isinstance(text, str):
        raise InvalidCommandError(f"{path}: expected SQL text", field=path)
    if not text:
        return None
    vocabulary.limits.require_sql(text, path=path)
    return parse_condition(text, catalog_columns(vocabulary.components), path=path)


def ids_where(
    draft: TickDraft, ids: tuple[int, ...], where: SqlCondition | None, *, skip_missing: bool
) -> tuple[tuple[int, ...], list[int]]:
    """Return (those of `ids` where the condition holds, those that do not exist)."""
    if where is None:
        return ids, []
    met, missing = draft.entities.matching(ids, where, skip_missing=skip_missing)
    return tuple(ids[i] for i in met), missing


def rows_where(
    draft: TickDraft,
    ids: np.ndarray,
    rows: pa.RecordBatch,
    where: SqlCondition | None,
    *,
    skip_missing: bool,
) -> tuple[np.ndarray, pa.RecordBatch, list[int]]:
    """Return (ids and rows of a table where the condition holds, the ids that do not exist)."""
    if where is None:
        return ids, rows, []
    met, missing = draft.entities.matching(ids, where, skip_missing=skip_missing)
    return ids[met], rows.take(pa.array(met)), missing
