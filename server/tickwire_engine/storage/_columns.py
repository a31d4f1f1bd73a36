"""Columns of the archive's datasets: how rows of the journal become Arrow tables, and come back."""

from __future__ import annotations

import struct
import uuid
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import xxhash

from tickwire_engine.errors import CorruptRecordError
from tickwire_engine.storage import _packing as packing
from tickwire_engine.storage._storable import convert, storable_schema
from tickwire_engine.storage.rows import CommandRow, Outcome, TickSummary

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_INTEGER = struct.Struct("<q")
_FLOAT = struct.Struct("<d")

TICK = "tick"
"""First column of every stream's dataset."""

_TICK_COLUMNS: list[tuple[str, pa.DataType]] = [
    (TICK, pa.int64()),
    ("run_id", pa.binary()),
    ("entities", pa.int64()),
    ("rows", pa.int64()),
    ("spawned", pa.int64()),
    ("despawned", pa.int64()),
    ("commands_applied", pa.int64()),
    ("commands_rejected", pa.int64()),
    ("state_hash", pa.binary()),
    ("committed_at_us", pa.int64()),
    ("compute_us", pa.int64()),
    ("hz", pa.float64()),
    ("tick_time_us", pa.int64()),
    ("inputs", pa.binary()),
    ("configuration_id", pa.binary()),
    ("bytes", pa.int64()),
    ("recorded", pa.binary()),
    ("despawned_ids", pa.binary()),
    ("outcomes", pa.binary()),
    ("next_entity_id", pa.int64()),
    ("next_issued_id", pa.int64()),
    ("snapshots", pa.binary()),
    ("summary_checksum", pa.int64()),
    ("checksum", pa.int64()),
]
_TICK_FIELDS: list[pa.Field[Any]] = [pa.field(name, kind, nullable=False) for name, kind in _TICK_COLUMNS]
TICKS_SCHEMA = pa.schema(_TICK_FIELDS)
_SUMMARY = 12
SUMMARY_COLUMNS = TICKS_SCHEMA.names[:_SUMMARY]

# The columns of `Command.arrow_schema()` come first, as they are there.
_COMMAND_COLUMNS: list[tuple[str, pa.DataType]] = [
    ("id", pa.binary(16)),
    ("tick", pa.int64()),
    ("actor_id", pa.binary(16)),
    ("type", pa.string()),
    ("payload", pa.string()),
    ("priority", pa.int16()),
    ("version", pa.int8()),
    ("seq", pa.int64()),
    ("applied_tick", pa.int64()),
    ("position", pa.int64()),
    ("state", pa.string()),
    ("reason", pa.string()),
    ("message", pa.string()),
    ("field", pa.string()),
    ("table", pa.binary()),
    ("first_entity_id", pa.int64()),
    ("entity_count", pa.int64()),
    # What the command reserved; the two before are what its outcome tells.
    ("reserved_entity_id", pa.int64()),
    ("reserved_count", pa.int64()),
    ("accepted_at_us", pa.int64()),
    ("actor", pa.string()),
    ("content_hash", pa.binary()),
    ("sender", pa.string()),
    ("outcome_seq", pa.int64()),
    # JSON of what else the outcome tells; "" mostly.
    ("details", pa.string()),
    # Of payload and table: a reader knows before it reads them.
    ("body_bytes", pa.int64()),
    ("checksum", pa.int64()),
]
COMMANDS_SCHEMA = pa.schema(_COMMAND_COLUMNS)
# They are kept as nullable and never null.
COMMAND_VALUES = pa.schema([field.with_nullable(False) for field in COMMANDS_SCHEMA])


class TickRow(NamedTuple):
    """A committed tick without the bytes of its frames."""

    summary: TickSummary
    tick_time_us: int
    inputs: bytes
    configuration_id: bytes
    nbytes: int
    recorded: list[packing.Recorded]
    despawned: tuple[int, ...]
    outcomes: bytes
    next_entity_id: int
    next_issued_id: int
    snapshots: bytes = b""
    """Packed; only of an archived tick, the journal keeps them elsewhere."""


class ArchivedCommand(NamedTuple):
    """A command as the archive keeps it, and where it was applied."""

    command: CommandRow
    tick: int
    position: int
    outcome: Outcome


def ticks_table(rows: Sequence[tuple[Any, ...]]) -> pa.Table:
    """Make a table of values in the order of `TICKS_SCHEMA`, whose checksums it adds.

    Lance notices a damaged page only where it cannot decode it; rows of streams have the hashes of their ticks.
    """
    checked = [(*row, row_checksum(row[:_SUMMARY]), row_checksum(row[_SUMMARY:])) for row in rows]
    columns = zip(*checked, strict=True)
    arrays = [pa.array(c, field.type) for c, field in zip(columns, TICKS_SCHEMA, strict=True)]
    return pa.Table.from_arrays(arrays, schema=TICKS_SCHEMA)


def tick_values(table: pa.Table) -> list[list[Any]]:
    """Undo `ticks_table`: values in the order of `TICKS_SCHEMA`, without the checksums that proved them.

    Raises:
        CorruptRecordError: A row is not the one that was written.
    """
    columns = [column.to_pylist() for column in table.select(TICKS_SCHEMA.names).columns]
    rows = []
    for *values, summary_checksum, checksum in zip(*columns, strict=True):
        _require_same(values[:_SUMMARY], summary_checksum, tick=values[0])
        _require_same(values[_SUMMARY:], checksum, tick=values[0])
        rows.append(values)
    return rows


def tick_rows(table: pa.Table) -> list[TickRow]:
    """Undo `ticks_table`, as rows.

    Raises:
        CorruptRecordError: A row is not the one that was written.
    """
    return [tick_row(values) for values in tick_values(table)]


def summary_rows(table: pa.Table) -> list[TickSummary]:
    """Read the summaries of ticks, checked; the table needs no more than their columns and checksum.

    Raises:
        CorruptRecordError: A row is not the one that was written.
    """
    columns = [table[name].to_pylist() for name in (*SUMMARY_COLUMNS, "summary_checksum")]
    rows = []
    for *values, checksum in zip(*columns, strict=True):
        _require_same(values, checksum, tick=values[0])
        rows.append(TickSummary(*values))
    return rows


def tick_row(values: Sequence[Any]) -> TickRow:
    """Make a row of values in the order of `TICKS_SCHEMA`."""
    time, inputs, configuration, nbytes, recorded, despawned, outcomes, entity, issued = values[12:21]
    return TickRow(
        TickSummary(*values[:12]),
        time,
        inputs,
        configuration,
        nbytes,
        packing.unpack_recorded(recorded),
        packing.unpack_ids(despawned),
        outcomes,
        entity,
        issued,
        *values[21:22],
    )


def commands_table(rows: Sequence[tuple[CommandRow, int, int, Outcome]]) -> pa.Table:
    """Make a table of applied commands: (command, tick that applied it, position there, outcome)."""
    values = [
        (
            row.id,
            row.tick,
            actor_id(row.actor),
            row.type,
            row.payload.decode(),
            row.priority,
            row.version,
            row.seq,
            tick,
            position,
            "APPLIED" if outcome.applied else "REJECTED",
            outcome.reason,
            outcome.message,
            outcome.field,
            row.table,
            outcome.first_entity_id,
            outcome.entity_count,
            row.first_entity_id,
            row.entity_count,
            row.accepted_at_us,
            row.actor,
            row.content_hash,
            row.sender,
            outcome.outcome_seq,
            packing.details_json(outcome),
            len(row.payload) + len(row.table),
        )
        for row, tick, position, outcome in rows
    ]
    columns = zip(*[(*row, row_checksum(row)) for row in values], strict=True)
    arrays = [pa.array(c, field.type) for c, field in zip(columns, COMMANDS_SCHEMA, strict=True)]
    return pa.Table.from_arrays(arrays, schema=COMMANDS_SCHEMA)


def command_rows(table: pa.Table) -> list[ArchivedCommand]:
    """Undo `commands_table`, in the order of (tick, position).

    Raises:
        CorruptRecordError: A row is not the one that was written.
    """
    found = []
    for row in table.select(COMMANDS_SCHEMA.names).to_pylist():
        checksum = row.pop("checksum")
        _require_same(list(row.values()), checksum, tick=row["applied_tick"])
        command = CommandRow(
            seq=row["seq"],
            id=row["id"],
            tick=row["tick"],
            priority=row["priority"],
            type=row["type"],
            actor=row["actor"],
            payload=row["payload"].encode(),
            table=row["table"],
            version=row["version"],
            accepted_at_us=row["accepted_at_us"],
            content_hash=row["content_hash"],
            first_entity_id=row["reserved_entity_id"],
            entity_count=row["reserved_count"],
            sender=row["sender"],
        )
        outcome = Outcome(
            seq=row["seq"],
            applied=row["state"] == "APPLIED",
            reason=row["reason"],
            message=row["message"],
            field=row["field"],
            first_entity_id=row["first_entity_id"],
            entity_count=row["entity_count"],
            outcome_seq=row["outcome_seq"],
        )
        outcome = packing.with_details(outcome, row["details"])
        found.append(ArchivedCommand(command, row["applied_tick"], row["position"], outcome))
    return sorted(found, key=lambda entry: entry[1:3])


def row_checksum(values: Iterable[bytes | str | float]) -> int:
    """Hash a row's values with their lengths, as a signed 64-bit integer."""
    digest = xxhash.xxh3_64()
    for value in values:
        if isinstance(value, str):
            value = value.encode()
        if isinstance(value, bytes):
            digest.update(_INTEGER.pack(len(value)))
            digest.update(value)
        else:
            digest.update(_INTEGER.pack(value) if isinstance(value, int) else _FLOAT.pack(value))
    return digest.intdigest() - (1 << 63)


def _require_same(values: Iterable[bytes | str | float], checksum: int, *, tick: int) -> None:
    if row_checksum(values) != checksum:
        raise CorruptRecordError(
            f"the archive's row of tick {tick} is not the one that was written; restore the data directory "
            "from a backup",
            tick=tick,
        )


def actor_id(actor: str) -> bytes:
    """Return an actor's 16 bytes: those of its UUID, or for another name those of its hash."""
    try:
        return uuid.UUID(actor).bytes
    except ValueError:
        return xxhash.xxh3_128_digest(actor.encode())


def with_ticks(batches: Sequence[tuple[int, pa.RecordBatch]]) -> pa.Table:
    """Join one stream's batches, in freshly allocated arrays, behind a column of their ticks."""
    ticks = np.repeat([tick for tick, _ in batches], [batch.num_rows for _, batch in batches])
    parts = [batch for _, batch in batches]
    joined = parts[0].take(np.arange(parts[0].num_rows)) if len(parts) == 1 else _concatenated(parts)
    storable = stored_schema(joined.schema)
    columns = [
        convert(column, field.type) for column, field in zip(joined.columns, list(storable)[1:], strict=True)
    ]
    return pa.Table.from_arrays([pa.array(ticks.astype(np.int64)), *columns], schema=storable)


def subschema(schema: pa.Schema, *names: str) -> pa.Schema:
    """Return the schema of some columns."""
    return pa.schema([schema.field(name) for name in names])


def stored_schema(schema: pa.Schema) -> pa.Schema:
    """Return the schema of a stream's dataset: ticks first, all in types that Lance keeps."""
    return storable_schema(schema.insert(0, pa.field(TICK, pa.int64(), nullable=False)))


def by_tick(rows: pa.Table, schema: pa.Schema) -> dict[int, pa.RecordBatch]:
    """Undo `with_ticks`: each tick's rows in entity order, in the stream's own schema."""
    rows = rows.sort_by([(TICK, "ascending")]) if not _is_sorted(rows[TICK].to_numpy()) else rows
    found = _one_batch(rows.select(schema.names))
    columns = [convert(column, field.type) for column, field in zip(found.columns, schema, strict=True)]
    batch = pa.RecordBatch.from_arrays(columns, schema=schema)
    ticks = rows[TICK].to_numpy()
    numbers, starts, counts = np.unique(ticks, return_index=True, return_counts=True)
    return {
        int(tick): _in_entity_order(batch.slice(int(start), int(count)))
        for tick, start, count in zip(numbers, starts, counts, strict=True)
    }


def _in_entity_order(batch: pa.RecordBatch) -> pa.RecordBatch:
    if "entity_id" not in batch.schema.names:
        return batch
    entities = batch.column("entity_id").to_numpy()
    if _is_sorted(entities):
        return batch
    return batch.take(np.argsort(entities, kind="stable"))


def _is_sorted(values: np.ndarray[Any, Any]) -> bool:
    return bool((values[:-1] <= values[1:]).all())


def _one_batch(table: pa.Table) -> pa.RecordBatch:
    batches = table.combine_chunks().to_batches()
    return batches[0] if batches else pa.RecordBatch.from_pylist([], schema=table.schema)


def _concatenated(batches: Sequence[pa.RecordBatch]) -> pa.RecordBatch:
    joined: pa.RecordBatch = pa.concat_batches(batches)  # type: ignore[attr-defined]
    return joined
