"""Processors over one archetype: each gets the rows that the one before it left, and is checked.

Only active rows are shown; rows despawned by this tick's commands, or by a processor before, are put back afterwards,
as they were.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from tickwire_engine.archetype import ARCHETYPE_KEY, ENTITY_ID
from tickwire_engine.errors import ProcessorFailedError, TickwireError
from tickwire_engine.expressions import EvaluationError, is_panic, single_batch
from tickwire_engine.layout import same_values
from tickwire_engine.processor import ArrowProcessor, AsyncProcessor
from tickwire_engine.recorded import RecordedDataFrame
from tickwire_engine.tick import columns as col
from tickwire_engine.tick.context import CallPlace, ProcessorCall, TickContext, current_call
from tickwire_engine.tick.watching import check_result, explain_result

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tickwire_engine.configuration import ProcessorEntry

INLINE_ROWS = 8_192
"""Up to here the work takes less time than handing it to a thread does."""
INLINE_RECORDED_ROWS = 32_768
"""The same for recorded expressions, which take a few nanoseconds a row."""

_NOBODY = np.empty(0, dtype=np.int64)


@dataclass(slots=True)
class ProcessorRun:
    """How a processor ran last: for ListProcessors and metrics."""

    path: str
    """FAST (recorded expressions), DAFT (a real plan), ARROW or SQL."""
    seconds: float


class ResultError(Exception):
    """A processor returned something that is not its archetype's rows; the text says what."""


async def run_processors(
    batch: pa.RecordBatch,
    entries: Sequence[ProcessorEntry],
    *,
    context: TickContext,
    keywords: dict[str, Any],
    runs: dict[str, ProcessorRun],
) -> pa.RecordBatch:
    """Return an archetype's rows after its processors.

    Args:
        batch: All rows after the mutations, in ascending entity_id.
        entries: The processors that the archetype satisfies, in order.
        context: The tick that they run in.
        keywords: What processors are passed by keyword.
        runs: Filled with how each one ran.

    Raises:
        ProcessorFailedError: One raised, or returned what it must not.
    """
    schema = batch.schema
    loop = asyncio.get_running_loop()
    departed: list[pa.RecordBatch] = []
    batch = _without_departed(batch, departed)
    for entry in entries:
        if not batch.num_rows:
            break
        started = loop.time()
        try:
            token = current_call.set(ProcessorCall(context, _place(entry, schema)))
            try:
                batch, path = await _call(entry, batch, schema, keywords)
            finally:
                current_call.reset(token)
            if context.watch is not None and context.watch.validates:
                check_result(batch, context.vocabulary.components)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # Nobody cancels this tick: the processor awaited something that somebody cancelled.
            raise _failed(entry, context.tick, schema, error) from error
        except BaseException as error:
            if not isinstance(error, Exception) and not is_panic(error):
                raise
            raise _failed(entry, context.tick, schema, error) from error
        _note(runs, entry.name, path, loop.time() - started)
        batch = _without_departed(batch, departed)
    return col.concat([batch, *departed]) if departed else batch


def _note(runs: dict[str, ProcessorRun], name: str, path: str, seconds: float) -> None:
    """Add a call to what is told of a processor: all archetypes together, and the plan if one of them took it."""
    earlier = runs.get(name)
    if earlier is not None:
        seconds += earlier.seconds
        path = "DAFT" if "DAFT" in (path, earlier.path) else path
    runs[name] = ProcessorRun(path, seconds)


def _without_departed(batch: pa.RecordBatch, departed: list[pa.RecordBatch]) -> pa.RecordBatch:
    if col.all_active(batch):
        return batch
    mask = col.active_mask(batch)
    departed.append(batch.filter(pa.array(~mask)))
    return batch.filter(pa.array(mask))


async def _call(
    entry: ProcessorEntry, batch: pa.RecordBatch, schema: pa.Schema, keywords: dict[str, Any]
) -> tuple[pa.RecordBatch, str]:
    """Return (the rows that a processor made, checked; the path it took)."""
    processor = entry.instance
    if isinstance(processor, ArrowProcessor):
        if batch.num_rows <= INLINE_ROWS:
            result = processor.process_batch(batch, **keywords)
        else:
            result = await asyncio.to_thread(processor.process_batch, batch, **keywords)
        explain_result(result, processor)
        return conform(result, batch, schema), processor.path
    assert isinstance(processor, AsyncProcessor)
    frame = await processor.process(RecordedDataFrame.over(batch), **keywords)
    explain_result(frame)
    if isinstance(frame, RecordedDataFrame) and frame.recorded:
        try:
            if batch.num_rows <= INLINE_RECORDED_ROWS:
                return evaluated(frame, batch, schema), "FAST"
            return await asyncio.to_thread(evaluated, frame, batch, schema), "FAST"
        except EvaluationError:
            # The planner simplifies before it evaluates, and so gets some through: it has the last word.
            pass
    if not hasattr(frame, "to_arrow"):
        raise ResultError(f"it returned {type(frame).__name__}, not a DataFrame")
    planned = single_batch(await asyncio.to_thread(frame.to_arrow))
    return conform(planned, batch, schema), "DAFT"


def evaluated(frame: RecordedDataFrame, batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """Return what a recorded frame makes of `batch`, checked as `conform` does."""
    changes = frame.changes() if frame.source is batch else None
    if changes is None or ENTITY_ID in changes:
        return conform(frame.evaluate(), batch, schema)
    return fit_changes(changes, batch, schema)


def fit_changes(
    changes: Mapping[str, pa.Array[Any]], batch: pa.RecordBatch, schema: pa.Schema
) -> pa.RecordBatch:
    """Return `batch` with computed columns in place of its own, checked as `conform` does.

    They are row-wise, and nobody's id was touched: only what was computed has to be looked at.
    """
    if not changes:
        return batch
    arrays = batch.columns
    for position, name in enumerate(schema.names):
        if name in changes:
            arrays[position] = _conform_column(changes[name], schema.field(position))
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def conform(result: pa.RecordBatch, before: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """Return `result` in the archetype's columns, types and entity order.

    Raises:
        ResultError: Other entities, other columns, another type, or nulls where there may be none.
    """
    if isinstance(result, pa.Table):
        result = single_batch(result)
    if not isinstance(result, pa.RecordBatch):
        raise ResultError(f"it returned {type(result).__name__}, not a RecordBatch")
    names = result.schema.names
    if names != schema.names:
        missing = [name for name in schema.names if name not in names]
        extra = [name for name in names if name not in schema.names]
        twice = sorted({name for name in names if names.count(name) > 1})
        if missing:
            raise ResultError(f"its result lacks {', '.join(missing)}")
        if extra or twice:
            what = "columns of its own" if extra else "columns twice"
            raise ResultError(f"its result has {what}: {', '.join(extra or twice)}")
    arrays = [_conform_column(result.column(field.name), field) for field in schema]
    fitted = pa.RecordBatch.from_arrays(arrays, schema=schema)
    if fitted.num_rows != before.num_rows:
        raise ResultError(
            f"it returned {fitted.num_rows} rows for {before.num_rows} entities: "
            "set is_active to despawn, send a command to spawn"
        )
    if fitted.column(ENTITY_ID).equals(before.column(ENTITY_ID)):
        return fitted
    ordered = col.in_entity_order(fitted)
    if not ordered.column(ENTITY_ID).equals(before.column(ENTITY_ID)):
        raise ResultError("it returned other entities than it was given")
    return ordered


def _conform_column(array: pa.Array[Any], field: pa.Field[Any]) -> pa.Array[Any]:
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
    if array.type != field.type:
        if not same_values(array.type, field.type):
            raise ResultError(f"its column {field.name} is {array.type}, not {field.type}: cast it")
        array = array.cast(field.type)
    if array.null_count and not field.nullable:
        raise ResultError(f"its column {field.name} has {array.null_count} nulls, and none are allowed")
    return array


def inactive_rows(batch: pa.RecordBatch) -> np.ndarray:
    """Return the entity ids of rows with ``is_active=false``."""
    if col.all_active(batch):
        return _NOBODY
    ids: np.ndarray = batch.column(ENTITY_ID).to_numpy()
    gone: np.ndarray = ids[~col.active_mask(batch)]
    return gone


def _archetype(schema: pa.Schema) -> str:
    return (schema.metadata or {}).get(ARCHETYPE_KEY, b"").decode()


def _place(entry: ProcessorEntry, schema: pa.Schema) -> CallPlace:
    return CallPlace(entry.priority, entry.name, _archetype(schema))


def _failed(
    entry: ProcessorEntry, tick: int, schema: pa.Schema, error: BaseException
) -> ProcessorFailedError:
    archetype = _archetype(schema)
    detail = (
        str(error) if isinstance(error, ResultError | TickwireError) else f"{type(error).__name__}: {error}"
    )
    return ProcessorFailedError(
        f"processor {entry.name} failed in tick {tick} on {archetype}: {detail[:500]}; "
        "the tick was aborted whole and its commands are still pending: mend or replace the processor, then step",
        processor=entry.name,
        tick=tick,
    )
