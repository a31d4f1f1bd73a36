"""The tables that a SQL query may name: where their rows come from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from tickwire_engine.sql._pushdown import Bounds


class SqlTable(Protocol):
    """Rows that a query may read; called on the thread that reads the query's own rows."""

    @property
    def schema(self) -> pa.Schema:
        """The columns."""

    def scan(self, columns: Sequence[str], bounds: Bounds) -> Iterator[pa.RecordBatch]:
        """Yield the rows, in pages, with these columns in this order.

        Args:
            columns: Some of the schema's.
            bounds: Rows outside of these may be left out; all others must be there.
        """


class SqlCatalog(Protocol):
    """The tables that a query may name."""

    def table(self, schema: str, name: str) -> SqlTable | None:
        """Return a table by its name, in any case; `schema` is what stands before the dot, or "". None: no such table."""

    def names(self) -> Sequence[str]:
        """Return the names that there are, for whoever named another."""


class MemoryTable:
    """Rows that are in memory."""

    def __init__(self, rows: pa.RecordBatch | pa.Table) -> None:
        self._rows = pa.Table.from_batches([rows]) if isinstance(rows, pa.RecordBatch) else rows

    @property
    def schema(self) -> pa.Schema:
        """The columns."""
        return self._rows.schema

    def scan(self, columns: Sequence[str], bounds: Bounds) -> Iterator[pa.RecordBatch]:
        """Yield the rows."""
        yield from self._rows.select(list(columns)).to_batches(max_chunksize=65_536)


class MemoryCatalog:
    """Tables in memory, by name: "position", or "orbit.position"."""

    def __init__(self, tables: Mapping[str, pa.RecordBatch | pa.Table]) -> None:
        self._tables = {name.lower(): MemoryTable(rows) for name, rows in tables.items()}

    def table(self, schema: str, name: str) -> SqlTable | None:
        """Return a table by its name."""
        return self._tables.get(f"{schema}.{name}".lower() if schema else name.lower())

    def names(self) -> Sequence[str]:
        """Return the names that there are."""
        return sorted(self._tables)
