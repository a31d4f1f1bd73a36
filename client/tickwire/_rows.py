"""The rows of an answer: a pyarrow table, with ways to whatever library is preferred."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pyarrow as pa


class Rows:
    """A `pyarrow.Table` in all but name: everything that a table has, it has, and more ways out.

    `pyarrow.table(rows)`, `polars.DataFrame(rows)` and whatever else takes Arrow streams take it too.

    Attributes:
        table: the table itself.
    """

    __slots__ = ("table",)

    table: pa.Table

    def __init__(self, table: pa.Table) -> None:
        self.table = table

    @property
    def num_rows(self) -> int:
        """How many rows there are."""
        return self.table.num_rows

    @property
    def schema(self) -> pa.Schema:
        """Their columns."""
        return self.table.schema

    @property
    def column_names(self) -> list[str]:
        """The names of their columns."""
        return self.table.column_names

    def to_pylist(self) -> list[dict[str, Any]]:
        """Answers a dict for each row."""
        return self.table.to_pylist()

    def to_pandas(self) -> Any:
        """Answers a pandas DataFrame.

        Raises:
            ImportError: pandas is not installed.
        """
        _require("pandas")
        return self.table.to_pandas()

    def to_polars(self) -> Any:
        """Answers a polars DataFrame.

        Raises:
            ImportError: polars is not installed.
        """
        return _require("polars").from_arrow(self.table)

    def to_daft(self) -> Any:
        """Answers a Daft DataFrame.

        Raises:
            ImportError: daft is not installed.
        """
        return _require("daft").from_arrow(self.table)

    def equals(self, other: Rows | pa.Table) -> bool:
        """Whether other rows have the same columns and values, in the same order."""
        same: bool = self.table.equals(other.table if isinstance(other, Rows) else other)  # type: ignore[assignment]
        return same

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        stream: object = self.table.__arrow_c_stream__(requested_schema)  # type: ignore[no-untyped-call]
        return stream

    def __len__(self) -> int:
        return self.table.num_rows

    def __getitem__(self, column: str | int) -> pa.ChunkedArray[Any]:
        return self.table.column(column)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yields a dict for each row, some of them at a time."""
        for batch in self.table.to_batches(max_chunksize=1024):
            yield from batch.to_pylist()

    def __eq__(self, other: object) -> bool:
        return self.equals(other) if isinstance(other, Rows) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return repr(self.table)

    def __getattr__(self, name: str) -> Any:
        # Only what is not here comes here.
        return getattr(self.table, name)


def _require(package: str) -> Any:
    try:
        return importlib.import_module(package)
    except ImportError:
        raise ImportError(f"this needs {package}: pip install {package}") from None
