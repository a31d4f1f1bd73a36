"""QUERY_WORLD: a read that is ordered among the writes of its tick, before the processors; its rows go to the outcome.

The rows are kept with the tick. Replay reads them back rather than asks again: what a query may take is a matter of the
server's settings, and SQL's of the time it took.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from tickwire_engine.commands.operation import (
    Applied,
    HandledOperation,
    Operation,
    TickDraft,
    Vocabulary,
    entity_id_list,
    refuse_unknown,
)
from tickwire_engine.errors import InvalidCommandError, ResultTooLargeError, TickwireError
from tickwire_engine.querying import RowQuery, live_rows
from tickwire_engine.sql.worlds import StateCatalog

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tickwire_engine.archetype import Signature
    from tickwire_engine.sql import SqlSandbox
    from tickwire_engine.storage.rows import CommandRow
    from tickwire_engine.tick.context import TickContext

_INLINE_ROWS = 8_192
"""Up to here the work takes less time than handing it to a thread does."""


@dataclass(frozen=True, slots=True)
class QueryWorld(HandledOperation):
    """Rows to be read, by components or by SQL."""

    query: RowQuery
    sql: str
    answers = True
    recorded = True

    async def handle(
        self,
        draft: TickDraft,
        row: CommandRow,
        position: int,
        context: TickContext,
        keywords: Mapping[str, Any],
    ) -> Applied:
        """Read what the commands before it have left."""
        known = context.decisions.get(row.seq)
        if isinstance(known, TickwireError):
            raise known
        if known is not None:
            return known.applied
        tables = draft.entities.tables()
        limit = context.vocabulary.limits.result_bytes
        if self.sql:
            world = keywords["world"]
            kinds = list(context.vocabulary.components)
            catalog = StateCatalog(world.name, context.tick, tables, kinds)
            return await asyncio.to_thread(_by_sql, world.sandbox, self.sql, catalog, limit)
        if sum(batch.num_rows for batch in tables.values()) <= _INLINE_ROWS:
            return _by_components(self.query, tables, context.tick, limit)
        return await asyncio.to_thread(_by_components, self.query, tables, context.tick, limit)


def parse(payload: Mapping[str, Any], table: bytes, vocabulary: Vocabulary) -> Operation:
    """Validate: SQL, or components, a condition, ids and a limit; nothing at all means every entity."""
    known = ("sql", "components", "where", "entity_ids", "limit")
    refuse_unknown(payload, table, type_name="query_world", known=known)
    sql = payload.get("sql") or ""
    if sql:
        if not isinstance(sql, str) or any(payload.get(name) for name in known[1:]):
            raise InvalidCommandError(
                "query_world takes sql, or components, where, entity_ids and limit: not both",
                field="query_world.sql",
            )
        vocabulary.limits.require_sql(sql, path="query_world.sql")
        return QueryWorld(RowQuery(), sql)
    where = payload.get("where") or ""
    if not isinstance(where, str):
        raise InvalidCommandError("query_world.where: expected SQL text", field="query_world.where")
    vocabulary.limits.require_sql(where, path="query_world.where")
    query = RowQuery.parse(
        vocabulary.components,
        components=_names(payload.get("components")),
        where=where,
        entity_ids=entity_id_list(payload, type_name="query_world"),
        limit=_limit(payload.get("limit")),
        path="query_world.",
    )
    return QueryWorld(query, "")


def _by_components(
    query: RowQuery, tables: Mapping[Signature, pa.RecordBatch], tick: int, limit: int
) -> Applied:
    schema = query.schema((sig, batch.schema) for sig, batch in tables.items())
    try:
        rows = live_rows(query, tables, tick, schema)
    except TickwireError as error:
        raise error.at("query_world") from None
    return _applied(schema, [rows], limit)


def _by_sql(sandbox: SqlSandbox, text: str, catalog: StateCatalog, limit: int) -> Applied:
    rows = sandbox.select(text, catalog, path="query_world.sql")
    try:
        batches: list[pa.RecordBatch] = []
        size = 0
        for batch in rows:
            batches.append(batch)
            size += batch.nbytes
            if size > limit:
                raise _too_large(limit)
        return _applied(rows.schema, batches, limit)
    finally:
        rows.close()


def _applied(schema: pa.Schema, batches: list[pa.RecordBatch], limit: int) -> Applied:
    if sum(batch.nbytes for batch in batches) > limit:
        raise _too_large(limit)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema.remove_metadata()) as writer:
        for batch in batches:
            writer.write_batch(batch.replace_schema_metadata(None))
    table = sink.getvalue()
    if table.size > limit:
        raise _too_large(limit)
    return Applied(table=table.to_pybytes())


def _too_large(limit: int) -> ResultTooLargeError:
    return ResultTooLargeError(
        f"the rows take more than {limit} bytes, the server's limit (result_bytes): ask for fewer components or "
        "entities, or set a limit",
        field="query_world",
        limit=limit,
    )


def _names(value: Any) -> list[str]:
    names = list(value or ()) if isinstance(value, list | tuple) or not value else None
    if names is None or not all(isinstance(name, str) for name in names):
        raise InvalidCommandError(
            "query_world.components: expected a list of names", field="query_world.components"
        )
    return names


def _limit(value: Any) -> int:
    if value is None:
        return 0
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidCommandError("query_world.limit: expected an integer", field="query_world.limit")
    return value
