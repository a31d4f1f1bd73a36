"""What a start reads back: where each world stands, and which commands wait in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tickwire_engine.storage import _packing as packing
from tickwire_engine.storage import _reads as reads
from tickwire_engine.storage.rows import CommandRow, Configuration, Outcome, RecoveredWorld, WorldRow

if TYPE_CHECKING:
    import apsw

    from tickwire_engine.storage import TickLog
    from tickwire_engine.storage._writes import WorldKey


def recover(connection: apsw.Connection, log: TickLog, world: WorldRow, key: WorldKey) -> RecoveredWorld:
    """Read what start-up must know of a world; no row of its tables is read."""
    next_tick, next_seq, entity, reserved, issued, run_id, configuration_id = connection.execute(
        "SELECT next_tick, next_seq, next_entity_id, reserved_entity_id, next_issued_id, "
        "run_id, configuration FROM heads WHERE world = ?",
        (world.key,),
    ).get
    known = reads.streams(connection, world.key)
    pending, settled = _commands(connection, log, key) if not world.destroyed_at_us else ((), ())
    body = connection.execute("SELECT body FROM configurations WHERE id = ?", (configuration_id,)).get
    snapshots = connection.execute(
        "SELECT name, body, max(tick) FROM snapshots WHERE world = ? GROUP BY name", (world.key,)
    )
    return RecoveredWorld(
        row=world,
        next_tick=next_tick,
        next_seq=next_seq,
        next_entity_id=max(entity, reserved),
        applied_entity_id=entity,
        next_issued_id=issued,
        run_id=run_id,
        streams=known,
        live_streams=tuple(s.number for s in known if _is_live(connection, world.key, s.number, next_tick)),
        configuration=None if body is None else Configuration(configuration_id, body),
        snapshots={name: body for name, body, _ in snapshots},
        pending=pending,
        settled=settled,
    )


def _is_live(connection: apsw.Connection, key: int, stream: int, next_tick: int) -> bool:
    record = reads.last_record(connection, key, stream, next_tick)
    if record is not None:
        return record[1] > 0
    span = reads.last_span(connection, key, stream, next_tick)
    return span is not None and span.occupied


def _commands(
    connection: apsw.Connection, log: TickLog, world: WorldKey
) -> tuple[tuple[CommandRow, ...], tuple[tuple[CommandRow, int, Outcome], ...]]:
    outcomes: dict[int, tuple[int, Outcome]] = {}
    cursor = connection.execute(
        "SELECT tick, outcomes FROM ticks WHERE world = ? AND outcomes <> x'' ORDER BY tick", (world.key,)
    )
    for tick, blob in cursor:
        for outcome in packing.unpack_outcomes(blob):
            outcomes[outcome.seq] = (tick, outcome)
    for seq, blob in reads.cancelled(connection, world.key):
        outcomes[seq] = (-1, packing.unpack_outcomes(blob)[0])
    pending: list[CommandRow] = []
    settled: list[tuple[CommandRow, int, Outcome]] = []
    for command in reads.commands(connection, log, world):
        known = outcomes.get(command.seq)
        if known is None:
            pending.append(command)
        else:
            settled.append((command._replace(payload=b"", table=b""), *known))
    return tuple(pending), tuple(settled)
