"""The recorded fast path: a Daft data frame that writes its column expressions down instead of planning them.

Daft's planner costs milliseconds a query, whatever the rows; evaluating expressions on a `MicroPartition` costs
microseconds. `RecordedDataFrame` is a `daft.DataFrame` in every respect: with_column(s), select, exclude and
with_column(s)_renamed of row-wise expressions stay a list of projections; the first method that cannot be recorded
makes the real plan of them and goes on with that, unasked.

Only functions known to be row-wise and free of side effects are recorded; an aggregate, a window, a UDF or a function
that this list does not know takes the plan.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import daft
import pyarrow as pa
from daft.dataframe.preview import Preview
from daft.expressions import Expression, col

from tickwire_engine.expressions import columns_of, computed, partition

if TYPE_CHECKING:
    from daft.logical.builder import LogicalPlanBuilder
    from daft.logical.schema import Schema


class _Output(NamedTuple):
    """One column of a recorded projection.

    Attributes:
        expression: None where the column is passed through as it is.
        reads: The columns of the input that it needs; the one passed through, if there is no expression.
    """

    name: str
    reads: frozenset[str]
    expression: Expression | None = None

    @property
    def projection(self) -> Expression:
        if self.expression is not None:
            return self.expression.alias(self.name)
        (source,) = self.reads
        return col(source) if source == self.name else col(source).alias(self.name)


@lru_cache(maxsize=4096)
def _keep(name: str, source: str | None = None) -> _Output:
    return _Output(name, frozenset((source or name,)))


class RecordedDataFrame(daft.DataFrame):
    """A data frame over one in-memory batch, recording projections until something asks for a plan."""

    def __init__(self, source: pa.RecordBatch, stages: tuple[tuple[_Output, ...], ...] = ()) -> None:
        # Not super().__init__: that wants a plan, which is what this class avoids. The attributes are its own.
        self._source = source
        self._stages = stages
        self._names: tuple[str, ...] = (
            tuple(output.name for output in stages[-1]) if stages else tuple(source.schema.names)
        )
        self._plan: LogicalPlanBuilder | None = None
        self._result_cache = None
        self._preview = Preview(partition=None, total_rows=None)
        self._metadata = None
        self._num_preview_rows = 8
        self._source_builder = None

    @classmethod
    def over(cls, batch: pa.RecordBatch) -> RecordedDataFrame:
        """Return a frame over `batch`, nothing recorded yet."""
        return cls(batch)

    @property
    def _DataFrame__builder(self) -> LogicalPlanBuilder:  # noqa: N802  (the name that the base class mangles to)
        if self._plan is None:
            frame = daft.DataFrame._from_micropartitions(partition(self._source))
            for stage in self._stages:
                frame = frame.select(*(output.projection for output in stage))
            self._plan = frame._get_current_builder()
        return self._plan

    @property
    def source(self) -> pa.RecordBatch:
        """The batch that everything was recorded over."""
        return self._source

    @property
    def recorded(self) -> bool:
        """Whether this frame can be evaluated without a plan: nothing has collected it."""
        return self._result_cache is None

    def evaluate(self) -> pa.RecordBatch:
        """Evaluate what was recorded, without the planner, and return one batch."""
        origins = self._origins()
        results = self._compute([name for name, origin in origins.items() if origin is None])
        arrays = [
            results[name] if origin is None else self._source.column(origin)
            for name, origin in origins.items()
        ]
        return pa.RecordBatch.from_arrays(arrays, names=list(origins))

    def changes(self) -> dict[str, pa.Array[Any]] | None:
        """Evaluate the columns that were computed, if all others are the source's own.

        Returns:
            The new columns by name, none where nothing was computed; None where a column is another's, is missing or is
            more than the source has, and `evaluate` must make the whole.
        """
        origins = self._origins()
        if len(origins) != self._source.num_columns:
            return None
        computed = []
        for name in self._source.schema.names:
            if name not in origins:
                return None
            origin = origins[name]
            if origin is None:
                computed.append(name)
            elif origin != name:
                return None
        return self._compute(computed)

    def _origins(self) -> dict[str, str | None]:
        """Return, for each column, the source's column that it is, or None where it is computed."""
        origins: dict[str, str | None] = {name: name for name in self._source.schema.names}
        for stage in self._stages:
            origins = {
                output.name: origins[next(iter(output.reads))] if output.expression is None else None
                for output in stage
            }
        return origins

    def _compute(self, wanted: list[str]) -> dict[str, pa.Array[Any]]:
        """Evaluate columns; only what they need crosses over to Daft."""
        if not wanted:
            return {}
        needed = [frozenset(wanted)]
        for stage in reversed(self._stages):
            reads = (output.reads for output in stage if output.name in needed[-1])
            needed.append(frozenset[str]().union(*reads))
        needed.reverse()
        names = self._source.schema.names
        # An expression without columns still has as many rows as the source.
        inputs = [index for index, name in enumerate(names) if name in needed[0]] or [0]
        stages = [
            [output.projection for output in stage if output.name in outputs] or [col(names[inputs[0]])]
            for stage, outputs in zip(self._stages, needed[1:], strict=True)
        ]
        return computed(self._source.select(inputs), stages)

    def recorded_steps(self) -> list[str]:
        """Return the recorded projections as text, for people."""
        return [", ".join(str(output.projection) for output in stage) for stage in self._stages]

    @property
    def column_names(self) -> list[str]:
        """Column names, in order."""
        return list(self._names)

    @property
    def columns(self) -> list[Expression]:
        """Columns as expressions, in order."""
        return [col(name) for name in self._names]

    def schema(self) -> Schema:
        """Return the frame's schema (this makes the plan: Daft resolves the types)."""
        return self._DataFrame__builder.schema()

    def __getitem__(self, item: Any) -> Any:
        """Return a column as an expression, or a frame of several columns."""
        if isinstance(item, str) and item != "*":
            if item not in self._names:
                raise ValueError(f"{item} does not exist in schema with columns {', '.join(self._names)}")
            return col(item)
        return super().__getitem__(item)

    def with_columns(self, columns: dict[str, Expression]) -> daft.DataFrame:
        """Add or replace columns; recorded when every expression is row-wise."""
        computed = {name: self._output(name, expression) for name, expression in columns.items()}
        if not columns or None in computed.values():
            return super().with_columns(columns)
        stage = [computed.get(name) or _keep(name) for name in self._names]
        stage += [output for name, output in computed.items() if output and name not in self._names]
        return self._record(stage)

    def with_column(self, column_name: str, expr: Expression) -> daft.DataFrame:
        """Add or replace one column."""
        return self.with_columns({column_name: expr})

    def select(self, *columns: Any, **projections: Expression) -> daft.DataFrame:
        """Keep or compute columns; recorded when every expression is row-wise."""
        stage: list[_Output | None] = [
            _keep(entry) if isinstance(entry, str) and entry in self._names else self._output(None, entry)
            for entry in _flat(columns)
        ]
        stage += [self._output(alias, expression) for alias, expression in projections.items()]
        outputs = [output for output in stage if output is not None]
        if not stage or len({output.name for output in outputs}) != len(stage):
            return super().select(*columns, **projections)
        return self._record(outputs)

    def exclude(self, *names: str) -> daft.DataFrame:
        """Drop columns by name."""
        kept = [_keep(name) for name in self._names if name not in names]
        return self._record(kept) if kept else super().exclude(*names)

    def with_column_renamed(self, existing: str, new: str) -> daft.DataFrame:
        """Rename one column."""
        return self.with_columns_renamed({existing: new})

    def with_columns_renamed(self, cols_map: dict[str, str]) -> daft.DataFrame:
        """Rename columns."""
        stage = [_keep(cols_map.get(name, name), name) for name in self._names]
        if len({output.name for output in stage}) != len(stage) or not set(cols_map) <= set(self._names):
            return super().with_columns_renamed(cols_map)
        return self._record(stage)

    def _output(self, name: str | None, expression: Any) -> _Output | None:
        reads = columns_of(expression, is_exact=self._is_exact)
        if reads is None or not reads.issubset(self._names):
            # A column that is not there is Daft's to complain about.
            return None
        return _Output(name or expression.name(), reads, expression)

    def _is_exact(self, name: str) -> bool:
        origin = self._origins().get(name)
        return origin is not None and not pa.types.is_floating(self._source.schema.field(origin).type)

    def _record(self, stage: list[_Output]) -> daft.DataFrame:
        if self._result_cache is not None:
            # Somebody collected this frame: what follows starts from what is there.
            return daft.DataFrame(self._builder).select(*(output.projection for output in stage))
        return RecordedDataFrame(self._source, (*self._stages, tuple(stage)))


def _flat(columns: tuple[Any, ...]) -> list[Any]:
    if len(columns) == 1 and isinstance(columns[0], list | tuple):
        return list(columns[0])
    return list(columns)
