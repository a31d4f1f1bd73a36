"""Watching a run: what `RunConfig` asks to see of its ticks, and to have checked. Costs nothing where nothing is asked."""

from __future__ import annotations

import io
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import structlog
from pydantic import ValidationError

from tickwire_engine.archetype import ENTITY_ID
from tickwire_engine.errors import SchemaMismatchError
from tickwire_engine.params import first_problem
from tickwire_engine.recorded import RecordedDataFrame
from tickwire_engine.sql import SqlProcessor
from tickwire_engine.tick.context import current_call

if TYPE_CHECKING:
    from tickwire_engine.component import Component, ComponentCatalog
    from tickwire_engine.config import RunConfig
    from tickwire_engine.errors import TickwireError
    from tickwire_engine.processor import BaseProcessor
    from tickwire_engine.tick.context import CallPlace
    from tickwire_engine.tick.pipeline import CommittedTick

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class TickWatch:
    """What is looked at while processors run; see `explain_result` and `check_result`."""

    explains: bool
    validates: bool

    @classmethod
    def of(cls, config: RunConfig) -> TickWatch | None:
        """Return what `config` asks for, or None."""
        if not config.explain and not config.enable_validation:
            return None
        return cls(explains=config.explain, validates=config.enable_validation)


def explain_result(result: object, processor: BaseProcessor | None = None) -> None:
    """Print how a processor's result will be made, if the run asks for it; called where the processor was called.

    Args:
        result: The frame that the processor returned, not evaluated yet; a batch that is there already.
        processor: Who made the batch.
    """
    call = current_call.get()
    if call is None or call.context.watch is None or not call.context.watch.explains:
        return
    path, lines = ("SQL", processor.texts()) if isinstance(processor, SqlProcessor) else _how(result)
    _print(_explanation(call.context.tick, call.place, path, lines))


def check_result(batch: pa.RecordBatch, catalog: ComponentCatalog) -> None:
    """Check rows of the right schema against Arrow's own rules and the component classes.

    Raises:
        SchemaMismatchError: A value breaks a rule; the message names the entity and the field.
    """
    try:
        batch.validate(full=True)
    except pa.ArrowInvalid as error:
        raise SchemaMismatchError(f"its columns are broken: {error}") from None
    columns: dict[str, list[tuple[str, str]]] = {}
    for field in batch.schema:
        metadata = field.metadata or {}
        component = metadata.get(b"tickwire.component", b"").decode()
        if component:
            name = metadata.get(b"tickwire.field", b"").decode()
            columns.setdefault(component, []).append((field.name, name))
    ids: list[Any] = batch.column(ENTITY_ID).to_pylist()
    for component, fields in columns.items():
        model = catalog.model(component)
        if model is not None:
            _check_component(model, fields, batch, ids)


def log_tick(committed: CommittedTick, config: RunConfig) -> None:
    """Log a durable tick as structured events: one for each processor, one for the tick."""
    summary = committed.summary
    about: dict[str, Any] = {"tick": summary.tick, "run_id": str(config.run_id)}
    labels = {"suite": config.suite, "trial": config.trial, "metadata": config.metadata}
    about |= {name: value for name, value in labels.items() if value is not None}
    for name, run in sorted(committed.computed.runs.items()):
        _log.info("processor ran", **about, processor=name, path=run.path, seconds=round(run.seconds, 6))
    _log.info(
        "tick committed",
        **about,
        entities=summary.entities,
        rows=summary.rows,
        spawned=summary.spawned,
        despawned=summary.despawned,
        commands_applied=summary.commands_applied,
        commands_rejected=summary.commands_rejected,
        changed=[frame.stream for frame in committed.computed.frames],
        compute_us=summary.compute_us,
        state_hash=summary.state_hash.hex(),
    )


def log_abort(tick: int, config: RunConfig, error: TickwireError) -> None:
    """Log that a tick was aborted."""
    _log.info("tick aborted", tick=tick, run_id=str(config.run_id), reason=error.reason, error=error.message)


def print_rows(committed: CommittedTick, limit: int) -> None:
    """Print the first rows of every archetype after a tick."""
    for sig, table in sorted(committed.state.tables.items()):
        batch = table.batch
        shown = batch.slice(0, limit)
        head = f"tick {committed.summary.tick}  {'+'.join(sig)}  {shown.num_rows} of {batch.num_rows} rows"
        names = batch.schema.names
        rows = [[_cell(value) for value in row.values()] for row in shown.to_pylist()]
        widths = [max(map(len, column)) for column in zip(names, *rows, strict=True)]
        lines = [
            "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
            for row in [names, *rows]
        ]
        _print("\n".join([head, *lines]))


def _check_component(
    model: type[Component], fields: list[tuple[str, str]], batch: pa.RecordBatch, ids: list[Any]
) -> None:
    values = [batch.column(column).to_pylist() for column, _ in fields]
    names = [name for _, name in fields]
    for row, entity_id in enumerate(ids):
        try:
            model.model_validate({name: column[row] for name, column in zip(names, values, strict=True)})
        except ValidationError as error:
            where, why = first_problem(error)
            path = ".".join(filter(None, (model.__name__, where)))
            raise SchemaMismatchError(
                f"entity {entity_id} breaks a rule of {path}: {why}", field=path, entity_id=entity_id
            ) from None


def _how(result: object) -> tuple[str, list[str]]:
    if isinstance(result, RecordedDataFrame) and result.recorded:
        return "FAST", result.recorded_steps() or ["rows as they are"]
    if isinstance(result, pa.RecordBatch | pa.Table):
        return "ARROW", [f"process_batch returned {result.num_rows} rows"]
    explain = getattr(result, "explain", None)
    if explain is None:
        return "?", [f"returned {type(result).__name__}"]
    text = io.StringIO()
    explain(show_all=True, file=text)
    return "DAFT", text.getvalue().splitlines()


def _explanation(tick: int, place: CallPlace, path: str, lines: list[str]) -> str:
    head = f"tick {tick}  processor {place.processor} on {place.archetype}: {path}"
    return "\n".join([head, *(f"    {line}" for line in lines)])


def _cell(value: object) -> str:
    text = str(value)
    return text if len(text) <= 40 else text[:37] + "..."


def _print(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
