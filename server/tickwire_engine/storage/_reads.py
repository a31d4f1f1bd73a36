"""Reading the journal's rows back into values; each function runs inside its caller's read transaction."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from tickwire_engine.errors import CorruptRecordError
from tickwire_engine.storage import _packing as packing
from tickwire_engine.storage.rows import (
    CommandRow,
    Frame,
    Outcome,
    StoredComponent,
    Stream,
    TickSummary,
    WorldRow,
)
from tickwire_engine.storage.tick_log import Location, RecordKind

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import apsw

    from tickwire_engine.storage import TickLog
    from tickwire_engine.storage._writes import WorldKey


_COMMAND = (
    "seq, id, tick, priority, type, actor, version, accepted_at_us, content_hash, first_entity_id, "
    "entity_count"
)
_BODY = "payload_bytes, table_bytes, checksum, body, segment, offset"
_STORED = f"{_COMMAND}, sender, {_BODY}"
SUMMARY = (
    "tick, run_id, entities, rows, spawned, despawned, commands_applied, commands_rejected, state_hash, "
    "committed_at_us, compute_us, hz"
)


class FoundCommand(NamedTuple):
    """A known command; its row has neither payload nor table."""

    content_hash: bytes
    row: CommandRow
    outcome: Outcome | None
    tick: int
    """The tick that applied or rejected it; -1 while it is pending."""
    position: int = -1
    """Its place among the commands of that tick."""
    archived: bool = False


class ArchivedSpan(NamedTuple):
    """Consecutive ticks at each of which a stream has a record in the archive."""

    first_tick: int
    last_tick: int
    occupied: bool


def worlds(connection: apsw.Connection) -> list[WorldRow]:
    """Read all worlds, destroyed ones too, in the order of their making."""
    cursor = connection.execute("SELECT * FROM worlds ORDER BY key")
    return [_world(row) for row in cursor]


def components(connection: apsw.Connection) -> list[StoredComponent]:
    """Read the components that clients registered, by name."""
    rows = connection.execute("SELECT name, schema, defaults, origin FROM components ORDER BY name")
    return [StoredComponent(*row) for row in rows]


def segments(connection: apsw.Connection) -> set[int]:
    """Read which segments of the tick log rows refer to."""
    rows = connection.execute(
        "SELECT DISTINCT segment FROM records WHERE segment IS NOT NULL "
        "UNION SELECT DISTINCT segment FROM commands WHERE segment IS NOT NULL"
    )
    return {segment for (segment,) in rows}


def waiting(connection: apsw.Connection) -> list[tuple[int, int, int, int]]:
    """Read what is not archived yet of living worlds: (world, ticks and commands, rows, bytes)."""
    cursor = connection.execute(
        "SELECT ticks.world, sum(1 + commands_applied + commands_rejected), sum(rows), sum(bytes) FROM ticks "
        "JOIN watermarks ON watermarks.world = ticks.world AND ticks.tick > watermarks.tick "
        "JOIN worlds ON worlds.key = ticks.world AND worlds.destroyed_at_us = 0 "
        "GROUP BY ticks.world"
    )
    return list(cursor)


def streams(connection: apsw.Connection, key: int) -> tuple[Stream, ...]:
    """Read a world's streams by number."""
    rows = connection.execute(
        "SELECT number, archetype, components, schema FROM streams WHERE world = ? ORDER BY number", (key,)
    )
    return tuple(Stream(n, name, tuple(json.loads(parts)), schema) for n, name, parts, schema in rows)


def stream_count(connection: apsw.Connection, key: int, tick: int) -> int:
    """Read the greatest number of the streams of which a world has a record of its own up to a tick; 0: none."""
    number: int = connection.execute(
        "SELECT coalesce(max(number), 0) FROM streams WHERE world = ?1 AND ("
        "EXISTS (SELECT 1 FROM records WHERE world = ?1 AND stream = number AND tick <= ?2) OR "
        "EXISTS (SELECT 1 FROM spans WHERE world = ?1 AND stream = number AND first_tick <= ?2))",
        (key, tick),
    ).get
    return number


def last_record(connection: apsw.Connection, key: int, stream: int, tick: int) -> tuple[int, int] | None:
    """Find a stream's greatest record up to a tick, in the journal's tail: (its tick, rows)."""
    found: tuple[int, int] | None = connection.execute(
        "SELECT tick, rows FROM records WHERE world = ? AND stream = ? AND tick <= ? "
        "ORDER BY tick DESC LIMIT 1",
        (key, stream, tick),
    ).get
    return found


def last_span(connection: apsw.Connection, key: int, stream: int, tick: int) -> ArchivedSpan | None:
    """Find the span of archived records that holds a stream's greatest record up to a tick."""
    found = connection.execute(
        "SELECT first_tick, last_tick, occupied FROM spans "
        "WHERE world = ? AND stream = ? AND first_tick <= ? ORDER BY first_tick DESC LIMIT 1",
        (key, stream, tick),
    ).get
    return None if found is None else ArchivedSpan(found[0], found[1], bool(found[2]))


def spans_between(
    connection: apsw.Connection, key: int, stream: int, first: int, last: int
) -> list[ArchivedSpan]:
    """Find the spans of archived records up to `last`, from the one on that holds the greatest record up to `first`."""
    cursor = connection.execute(
        "SELECT first_tick, last_tick, occupied FROM spans WHERE world = ?1 AND stream = ?2 AND first_tick <= ?4 "
        "AND first_tick >= coalesce((SELECT max(first_tick) FROM spans WHERE world = ?1 AND stream = ?2 "
        "AND first_tick <= ?3), 0) ORDER BY first_tick",
        (key, stream, first, last),
    )
    return [ArchivedSpan(start, end, bool(occupied)) for start, end, occupied in cursor]


def records_between(
    connection: apsw.Connection, key: int, stream: int, first: int, last: int
) -> list[tuple[int, int]]:
    """Find the records of the journal's tail up to `last`, from the greatest up to `first` on: (tick, rows) each."""
    cursor = connection.execute(
        "SELECT tick, rows FROM records WHERE world = ?1 AND stream = ?2 AND tick <= ?4 "
        "AND tick >= coalesce((SELECT max(tick) FROM records WHERE world = ?1 AND stream = ?2 AND tick <= ?3), 0) "
        "ORDER BY tick",
        (key, stream, first, last),
    )
    return list(cursor)


def frame(connection: apsw.Connection, log: TickLog, world: WorldKey, stream: int, tick: int) -> Frame:
    """Read one record of the journal's tail, checked.

    Raises:
        CorruptRecordError: The bytes are not those that were committed.
    """
    found = connection.execute(
        "SELECT rows, hash, layout, checksum, body, segment, offset FROM records "
        "WHERE world = ? AND stream = ? AND tick = ?",
        (world.key, stream, tick),
    ).get
    if found is None:
        raise _corrupt(f"the record of stream {stream}", tick, world, "it is missing")
    rows, hash_, layout, checksum, body, segment, offset = found
    sizes, message_rows = packing.unpack_layout(layout)
    if body is None:
        messages = log.read(Location(segment, offset), RecordKind.FRAME, world.id, tick, sizes)
    else:
        if packing.checksum(body, world.key, stream, tick) != checksum:
            raise _corrupt(f"the record of stream {stream}", tick, world, "its checksum does not match")
        messages = _cut(body, sizes)
    return Frame(stream, rows, messages, message_rows, hash_)


def raw_ticks(connection: apsw.Connection, key: int, first: int, limit: int) -> Iterator[tuple[Any, ...]]:
    """Read committed ticks of the journal's tail in order, as values in the order of `TICKS_SCHEMA`."""
    return connection.execute(
        f"SELECT {SUMMARY}, tick_time_us, inputs, configuration, bytes, recorded, despawned_ids, outcomes, "  # noqa: S608
        "next_entity_id, next_issued_id FROM ticks WHERE world = ? AND tick >= ? ORDER BY tick LIMIT ?",
        (key, first, limit),
    )


def snapshots_at(connection: apsw.Connection, key: int, tick: int) -> dict[str, bytes]:
    """Read the resource snapshots that a tick wrote."""
    cursor = connection.execute("SELECT name, body FROM snapshots WHERE world = ? AND tick = ?", (key, tick))
    return dict(cursor)


def last_snapshots(connection: apsw.Connection, key: int, tick: int) -> dict[str, bytes]:
    """Read the last snapshot of each resource up to a tick, among those that the journal has."""
    cursor = connection.execute(
        "SELECT name, body, max(tick) FROM snapshots WHERE world = ? AND tick <= ? GROUP BY name", (key, tick)
    )
    return {name: body for name, body, _ in cursor}


def has_snapshots(connection: apsw.Connection, key: int) -> bool:
    """Tell whether a world ever had the snapshot of a resource."""
    row = connection.execute("SELECT 1 FROM snapshots WHERE world = ? LIMIT 1", (key,)).get
    return row is not None


def summaries(connection: apsw.Connection, key: int, first: int, last: int, limit: int) -> list[TickSummary]:
    """Read summaries of the journal's tail in order."""
    cursor = connection.execute(
        f"SELECT {SUMMARY} FROM ticks WHERE world = ? AND tick BETWEEN ? AND ? ORDER BY tick LIMIT ?",  # noqa: S608
        (key, first, last, limit),
    )
    return [TickSummary(*row) for row in cursor]


def next_tick(connection: apsw.Connection, key: int) -> int:
    """Read the next tick to commit."""
    tick: int = connection.execute("SELECT next_tick FROM heads WHERE world = ?", (key,)).get
    return tick


def next_seq(connection: apsw.Connection, key: int) -> int:
    """Read the seq that the next command gets."""
    seq: int = connection.execute("SELECT next_seq FROM heads WHERE world = ?", (key,)).get
    return seq


def command(connection: apsw.Connection, log: TickLog, world: WorldKey, seq: int) -> CommandRow:
    """Read a command of the journal's tail with its payload and table, checked."""
    row = connection.execute(
        f"SELECT {_STORED} FROM commands WHERE world = ? AND seq = ?",  # noqa: S608
        (world.key, seq),
    ).get
    if row is None:
        raise _corrupt(f"the command of seq {seq}", seq, world, "it is missing")
    return _command(row[:11], *_body(log, world, seq, row[12:]), sender=row[11])


def commands(connection: apsw.Connection, log: TickLog, world: WorldKey) -> Iterator[CommandRow]:
    """Read all commands of the journal's tail by seq, with payloads and tables, checked."""
    cursor = connection.execute(
        f"SELECT {_STORED} FROM commands WHERE world = ? ORDER BY seq",  # noqa: S608
        (world.key,),
    )
    for row in cursor:
        yield _command(row[:11], *_body(log, world, row[0], row[12:]), sender=row[11])


def result(connection: apsw.Connection, world: WorldKey, seq: int) -> bytes | None:
    """Read the table that a command answered, checked; None where there is none.

    Raises:
        CorruptRecordError: The bytes are not those that were committed.
    """
    found = connection.execute(
        "SELECT checksum, body FROM results WHERE world = ? AND seq = ?", (world.key, seq)
    ).get
    if found is None:
        return None
    checksum, body = found
    if packing.checksum(body, world.key, seq) != checksum:
        raise _corrupt(f"the result of the command of seq {seq}", seq, world, "its checksum does not match")
    return bytes(body)


def cancelled(connection: apsw.Connection, key: int) -> Iterator[tuple[int, bytes]]:
    """Read the cancelled commands of a world: (seq, packed outcome) each."""
    yield from connection.execute(
        "SELECT applied.seq, outcome FROM applied JOIN commands "
        "ON commands.world = applied.world AND commands.seq = applied.seq WHERE applied.world = ?",
        (key,),
    )


def find_commands(connection: apsw.Connection, key: int, ids: Sequence[bytes]) -> dict[bytes, FoundCommand]:
    """Find commands by id, among those of the journal's tail and those that were archived."""
    found: dict[bytes, FoundCommand] = {}
    for id_ in ids:
        row = connection.execute(
            f"SELECT {_COMMAND} FROM commands WHERE world = ? AND id = ?",  # noqa: S608
            (key, id_),
        ).get
        if row is not None:
            command = _command(row)
            outcome, tick, position = settled(connection, key, command)
            found[id_] = FoundCommand(command.content_hash, command, outcome, tick, position)
            continue
        row = connection.execute(
            f"SELECT {_COMMAND}, applied_tick, position, outcome FROM applied WHERE world = ? AND id = ?",  # noqa: S608
            (key, id_),
        ).get
        if row is not None:
            command = _command(row[:11])
            (outcome,) = packing.unpack_outcomes(row[13])
            found[id_] = FoundCommand(command.content_hash, command, outcome, row[11], row[12], True)
    return found


def greatest_archived_id(connection: apsw.Connection, key: int) -> bytes:
    """Return the greatest id among the commands that were archived; empty if there are none."""
    greatest: bytes | None = connection.execute("SELECT max(id) FROM applied WHERE world = ?", (key,)).get
    return greatest or b""


def settled(connection: apsw.Connection, key: int, command: CommandRow) -> tuple[Outcome | None, int, int]:
    """Find what became of a command of the journal's tail: (outcome, tick, position); (None, -1, -1) while pending."""
    blob = connection.execute(
        "SELECT outcome FROM applied WHERE world = ? AND seq = ?", (key, command.seq)
    ).get
    if blob is not None:
        return packing.unpack_outcomes(blob)[0], -1, -1
    # A command is nearly always settled by the first tick that it is due at, so this reads one row or two. It can be
    # the tick before: one that was aborted after the command was accepted for the next.
    cursor = connection.execute(
        "SELECT tick, outcomes FROM ticks WHERE world = ? AND tick >= ? AND outcomes <> x'' ORDER BY tick",
        (key, command.tick - 1),
    )
    for tick, blob in cursor:
        seqs = packing.outcome_seqs(blob)
        if command.seq in seqs:
            position = seqs.index(command.seq)
            return packing.outcomes_at(blob, (position,))[0], tick, position
    return None, -1, -1


def _world(row: Sequence[Any]) -> WorldRow:
    *head, labels, retention, entities, request_hash, parent, fork_tick, destroyed_at = row
    key, id_, name, seed, created_at, template = head
    return WorldRow(
        key,
        id_,
        name,
        seed,
        created_at,
        template,
        json.loads(labels),
        json.loads(retention),
        entities,
        request_hash,
        parent,
        fork_tick,
        destroyed_at,
    )


def _command(row: Sequence[Any], payload: bytes = b"", table: bytes = b"", *, sender: str = "") -> CommandRow:
    seq, id_, tick, priority, type_, actor, version, accepted, content_hash, first, count = row
    head = (seq, id_, tick, priority, type_, actor, payload, table)
    return CommandRow(*head, version, accepted, content_hash, first, count, sender)


def _body(log: TickLog, world: WorldKey, seq: int, values: Sequence[Any]) -> tuple[bytes, bytes]:
    payload_bytes, table_bytes, checksum, body, segment, offset = values
    if body is None:
        sizes = (payload_bytes, table_bytes)
        payload, table = log.read(Location(segment, offset), RecordKind.COMMAND, world.id, seq, sizes)
        return payload, table
    if packing.checksum(body, world.key, seq) != checksum:
        raise _corrupt(f"the command of seq {seq}", seq, world, "its checksum does not match")
    return body[:payload_bytes], body[payload_bytes:]


def _cut(body: bytes, sizes: Sequence[int]) -> tuple[bytes, ...]:
    if len(sizes) == 1:
        return (body,)
    parts = []
    start = 0
    for size in sizes:
        parts.append(body[start : start + size])
        start += size
    return tuple(parts)


def _corrupt(what: str, tick: int, world: WorldKey, why: str) -> CorruptRecordError:
    return CorruptRecordError(
        f"{what} at {tick} cannot be read: {why}; restore the data directory from a backup",
        world=world.id.hex(),
        tick=tick,
    )
