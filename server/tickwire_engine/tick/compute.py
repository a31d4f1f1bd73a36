"""One tick, as a pure step: state and commands in, state and what to make durable out.

Nothing here writes to disk, fires hooks or changes the state it was given: whoever calls it commits the result, or
drops it and is where it was.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

from tickwire_engine.archetype import FIRST_ISSUED_ENTITY_ID, archetype_name
from tickwire_engine.commands import Applied, TickDraft
from tickwire_engine.commands.operation import HandledOperation
from tickwire_engine.configuration import WorldConfiguration
from tickwire_engine.encoding import encode, read_schema, schema_message
from tickwire_engine.errors import EntityNotFoundError, TickwireError, WorldFaultedError
from tickwire_engine.state import Table
from tickwire_engine.storage.rows import Frame, Letter, Outcome, Stream
from tickwire_engine.tick.context import CommandResult
from tickwire_engine.tick.entities import EntityDraft
from tickwire_engine.tick.processing import INLINE_ROWS, ProcessorRun, inactive_rows, run_processors

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pyarrow as pa

    from tickwire_engine.archetype import Signature
    from tickwire_engine.commands import Operation
    from tickwire_engine.component import ComponentCatalog
    from tickwire_engine.resources import Resources
    from tickwire_engine.state import WorldState
    from tickwire_engine.storage.rows import CommandRow
    from tickwire_engine.tick.context import IssuedCommand, TickContext

MAX_MISSING = 100
"""Ids of entities that were not there: an outcome tells the first of them."""


class DueCommand(NamedTuple):
    """A command of this tick: as accepted, and as parsed."""

    row: CommandRow
    operation: Operation


@dataclass(frozen=True, slots=True)
class ComputedTick:
    """What a tick made of a state.

    Attributes:
        state: The next state; its `tick` is one more.
        frames: The archetypes that changed, encoded; an emptied one has a frame of zero rows.
        issued: Commands that processors sent, in canonical order, with ids.
        spawned_ids: Entities that the tick's commands made, in command order.
        despawned: Entities that have their last row in this tick, ascending.
    """

    state: WorldState
    frames: tuple[Frame, ...]
    new_streams: tuple[Stream, ...]
    outcomes: tuple[Outcome, ...]
    issued: tuple[IssuedCommand, ...]
    spawned_ids: tuple[int, ...]
    spawned: int
    despawned: tuple[int, ...]
    rows: int
    entities: int
    state_hash: bytes
    runs: Mapping[str, ProcessorRun]
    letters: tuple[Letter, ...] = ()
    """Commands that were sent to other worlds, in canonical order."""
    results: Mapping[int, bytes] = field(default_factory=dict)
    """Tables that commands answered, by their seqs."""


async def compute_tick(
    state: WorldState,
    due: Sequence[DueCommand],
    *,
    context: TickContext,
    keywords: dict[str, Any],
    resources: Resources,
    max_message_bytes: int,
    with_spawned_ids: bool = False,
) -> ComputedTick:
    """Compute the tick `state.tick`.

    Args:
        state: The world after the tick before.
        due: The commands to apply, in the order to apply them.
        context: Where the tick is, and where its processors' commands are gathered.
        keywords: What processors are passed by keyword.
        resources: The world's; those that commands set change with the configuration.
        max_message_bytes: Upper bound of an encoded batch.
        with_spawned_ids: Whether anybody wants the ids listed.

    Raises:
        ProcessorFailedError: A processor failed; `state` is as it was.
        WorldFaultedError: A part of what the world runs with is missing.
    """
    catalog = context.vocabulary.components
    generation = catalog.generation
    draft = TickDraft(
        entities=EntityDraft(state, catalog),
        processors={entry.name: entry for entry in state.configuration.processors},
        resources={entry.name: entry for entry in state.configuration.resources},
        decisions=context.decisions,
    )
    context.next_issued_id = state.next_issued_id
    outcomes, results = await apply_commands(draft, due, context, keywords)
    configuration = _configuration(state, draft, catalog)
    configuration.require_whole()
    resources.configure(configuration.resources_by_type)
    context.messages = tuple(draft.messages)
    changes = draft.entities.finish()
    runs: dict[str, ProcessorRun] = {}
    signatures = list(changes.batches)
    batches = await _process_all(
        [changes.batches[sig] for sig in signatures],
        [_matching(configuration, sig) for sig in signatures],
        context=context,
        keywords=keywords,
        runs=runs,
    )
    streams = dict(state.streams)
    new_streams: list[Stream] = []
    tables: dict[Signature, Table] = {}
    frames: list[Frame] = []
    despawned: list[int] = []
    for sig, batch in zip(signatures, batches, strict=True):
        old = state.tables.get(sig)
        if old is not None and batch is old.batch:
            tables[sig] = old
            continue
        if old is None and not batch.num_rows:
            # Rows passed through on their way to another archetype; nobody ever saw it.
            continue
        stream = streams.get(sig)
        if stream is not None and (old is None or sig in changes.grown) and _is_other(stream, batch):
            if old is not None:
                # Its rows go on in another stream: as for an emptied archetype, one record says so.
                empty = old.batch.slice(0, 0)
                frames.append(await _encode(empty, stream.number, max_message_bytes))
                if not batch.num_rows:
                    continue
            stream = None
        if stream is None:
            number = 1 + max((known.number for known in streams.values()), default=0)
            stream = Stream(number, archetype_name(sig), sig, schema_message(batch.schema))
            streams[sig] = stream
            new_streams.append(stream)
        gone = inactive_rows(batch)
        despawned.extend(gone.tolist())
        frame = await _encode(batch, stream.number, max_message_bytes)
        if old is not None and not old.inactive and frame.hash == old.frame.hash:
            tables[sig] = old
            continue
        frames.append(frame)
        if batch.num_rows:
            tables[sig] = Table(stream, batch.schema, batch, len(gone), frame, state.tick)
    issued = tuple(context.issued(state.next_issued_id))
    next_state = replace(
        state,
        tick=state.tick + 1,
        configuration=configuration,
        snapshots=resources.snapshots(),
        tables=MappingProxyType(tables),
        streams=MappingProxyType(streams),
        next_entity_id=_next_id(state.next_entity_id, due),
        generation=generation,
        next_issued_id=state.next_issued_id + sum(c.operation.entity_count for c in issued),
    )
    spawned_ids = [int(i) for ids in changes.spawned_ids for i in ids] if with_spawned_ids else []
    return ComputedTick(
        state=next_state,
        frames=tuple(frames),
        new_streams=tuple(new_streams),
        outcomes=outcomes,
        issued=issued,
        spawned_ids=tuple(spawned_ids),
        spawned=changes.spawned,
        despawned=tuple(sorted(despawned)),
        rows=next_state.rows,
        entities=next_state.entities,
        state_hash=next_state.state_hash([command.encoded[2] for command in issued]),
        runs=runs,
        results=results,
        letters=tuple(context.letters()),
    )


async def apply_commands(
    draft: TickDraft, due: Sequence[DueCommand], context: TickContext, keywords: Mapping[str, Any]
) -> tuple[tuple[Outcome, ...], dict[int, bytes]]:
    """Apply commands in order; one that cannot be applied is rejected, alone.

    Returns:
        What became of them, in order, and the tables that they answered, by seq.
    """
    if due:
        draft.entities.prefetch({i for command in due for i in command.operation.named_ids})
    outcomes = []
    tables: dict[int, bytes] = {}
    answered: list[CommandResult] = []
    for position, command in enumerate(due):
        applied = None
        try:
            if command.operation.handled:
                applied = await _handle(draft, command, position, context, keywords)
            else:
                applied = command.operation.apply(draft, command.row)
        except WorldFaultedError:
            raise
        except TickwireError as error:
            outcomes.append(_rejected(command.row, error))
        else:
            outcomes.append(_applied(command.row, applied))
            if applied.table:
                tables[command.row.seq] = applied.table
        if command.operation.answers:
            answered.append(_answered(command.row, outcomes[-1], applied))
    context.results = tuple(answered)
    return tuple(outcomes), tables


async def _handle(
    draft: TickDraft, command: DueCommand, position: int, context: TickContext, keywords: Mapping[str, Any]
) -> Applied:
    assert isinstance(command.operation, HandledOperation)
    return await command.operation.handle(draft, command.row, position, context, keywords)


def _applied(row: CommandRow, applied: Applied) -> Outcome:
    return Outcome(
        row.seq,
        True,
        first_entity_id=applied.first_entity_id,
        entity_count=applied.entity_count,
        missing=tuple(applied.missing_entity_ids[:MAX_MISSING]),
        world_id=applied.world_id,
        value=applied.value,
        table_bytes=len(applied.table),
    )


def _rejected(row: CommandRow, error: TickwireError) -> Outcome:
    missing = error.missing_entity_ids if isinstance(error, EntityNotFoundError) else ()
    return Outcome(
        row.seq,
        False,
        reason=error.reason,
        message=error.message,
        field=error.field,
        metadata=tuple(sorted(error.metadata.items())),
        missing=tuple(missing[:MAX_MISSING]),
    )


def _answered(row: CommandRow, outcome: Outcome, applied: Applied | None) -> CommandResult:
    return CommandResult(
        command_id=UUID(bytes=row.id),
        type=row.type,
        actor_id=row.actor,
        applied=outcome.applied,
        reason=outcome.reason,
        message=outcome.message,
        world_id=outcome.world_id,
        value=json.loads(outcome.value) if outcome.value else None,
        table=applied.table if applied is not None else b"",
    )


def _configuration(state: WorldState, draft: TickDraft, catalog: ComponentCatalog) -> WorldConfiguration:
    processors = {entry.name: entry for entry in state.configuration.processors}
    resources = {entry.name: entry for entry in state.configuration.resources}
    if processors == draft.processors and resources == draft.resources:
        return state.configuration
    return WorldConfiguration.of(draft.processors.values(), draft.resources.values(), catalog)


def _matching(configuration: WorldConfiguration, sig: Signature) -> list[Any]:
    have = set(sig)
    return [entry for entry in configuration.processors if have.issuperset(entry.components)]


async def _process_all(
    batches: list[pa.RecordBatch],
    entries: list[list[Any]],
    *,
    context: TickContext,
    keywords: dict[str, Any],
    runs: dict[str, ProcessorRun],
) -> list[pa.RecordBatch]:
    async def one(batch: pa.RecordBatch, matching: list[Any]) -> pa.RecordBatch:
        if not matching:
            return batch
        return await run_processors(batch, matching, context=context, keywords=keywords, runs=runs)

    if sum(bool(matching) for matching in entries) < 2:
        return [await one(batch, matching) for batch, matching in zip(batches, entries, strict=True)]
    # All are awaited even when one fails: none may still run when the caller goes on with the old state.
    results = await asyncio.gather(*map(one, batches, entries), return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return [result for result in results if not isinstance(result, BaseException)]


def _is_other(stream: Stream, batch: pa.RecordBatch) -> bool:
    """Whether rows cannot go on in a stream: its archetype's components have other fields by now."""
    return not read_schema(stream.schema).equals(batch.schema)


async def _encode(batch: pa.RecordBatch, stream: int, max_message_bytes: int) -> Frame:
    if batch.num_rows <= INLINE_ROWS:
        return encode(batch, stream=stream, max_message_bytes=max_message_bytes)
    return await asyncio.to_thread(encode, batch, stream=stream, max_message_bytes=max_message_bytes)


def _next_id(current: int, due: Sequence[DueCommand]) -> int:
    # Rejected spawns count too: a reserved id is never given again.
    for command in due:
        row = command.row
        if row.entity_count and row.first_entity_id < FIRST_ISSUED_ENTITY_ID:
            current = max(current, row.first_entity_id + row.entity_count)
    return current
