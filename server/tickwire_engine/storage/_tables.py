"""The journal's tables, and the version of the format."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tickwire_engine.errors import StorageError
from tickwire_engine.storage._identity import IDENTITY_TABLES
from tickwire_engine.storage._posting import OUTBOX_TABLES
from tickwire_engine.storage._retaining import RETENTION_TABLES

if TYPE_CHECKING:
    import apsw

# Composite keys cluster their rows (WITHOUT ROWID): "the greatest record <= N of a stream" is one seek.
_FIRST = """
CREATE TABLE meta(name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE starts(
    number INTEGER PRIMARY KEY, started_at_us INTEGER NOT NULL, fingerprint TEXT NOT NULL
) STRICT;
CREATE TABLE worlds(
    key INTEGER PRIMARY KEY AUTOINCREMENT, id BLOB NOT NULL UNIQUE, name TEXT NOT NULL, seed INTEGER NOT NULL,
    created_at_us INTEGER NOT NULL, template TEXT NOT NULL, labels TEXT NOT NULL, retention TEXT NOT NULL,
    max_entities INTEGER NOT NULL, request_hash BLOB NOT NULL, parent_key INTEGER NOT NULL,
    fork_tick INTEGER NOT NULL, destroyed_at_us INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX worlds_by_name ON worlds(name) WHERE destroyed_at_us = 0;
CREATE TABLE heads(
    world INTEGER PRIMARY KEY, next_tick INTEGER NOT NULL, next_seq INTEGER NOT NULL,
    next_entity_id INTEGER NOT NULL, reserved_entity_id INTEGER NOT NULL, next_issued_id INTEGER NOT NULL,
    next_outcome_seq INTEGER NOT NULL, run_id BLOB NOT NULL, configuration BLOB NOT NULL
) STRICT;
CREATE TABLE watermarks(world INTEGER PRIMARY KEY, tick INTEGER NOT NULL) STRICT;
CREATE TABLE commands(
    world INTEGER NOT NULL, seq INTEGER NOT NULL, id BLOB NOT NULL, tick INTEGER NOT NULL,
    priority INTEGER NOT NULL, type TEXT NOT NULL, actor TEXT NOT NULL, version INTEGER NOT NULL,
    accepted_at_us INTEGER NOT NULL, content_hash BLOB NOT NULL, first_entity_id INTEGER NOT NULL,
    entity_count INTEGER NOT NULL, payload_bytes INTEGER NOT NULL, table_bytes INTEGER NOT NULL,
    checksum INTEGER, body BLOB, segment INTEGER, offset INTEGER, sender TEXT NOT NULL,
    PRIMARY KEY(world, seq)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX commands_by_id ON commands(world, id);
CREATE INDEX commands_by_segment ON commands(segment) WHERE segment IS NOT NULL;
CREATE TABLE applied(
    world INTEGER NOT NULL, id BLOB NOT NULL, seq INTEGER NOT NULL, tick INTEGER NOT NULL,
    priority INTEGER NOT NULL, type TEXT NOT NULL, actor TEXT NOT NULL, version INTEGER NOT NULL,
    accepted_at_us INTEGER NOT NULL, content_hash BLOB NOT NULL, first_entity_id INTEGER NOT NULL,
    entity_count INTEGER NOT NULL, applied_tick INTEGER NOT NULL, position INTEGER NOT NULL,
    outcome BLOB NOT NULL, outcome_seq INTEGER NOT NULL, kept_ms INTEGER NOT NULL,
    PRIMARY KEY(world, id)
) STRICT, WITHOUT ROWID;
CREATE INDEX applied_by_age ON applied(world, kept_ms);
CREATE UNIQUE INDEX applied_by_seq ON applied(world, seq);
CREATE UNIQUE INDEX applied_by_outcome ON applied(world, outcome_seq);
CREATE TABLE results(
    world INTEGER NOT NULL, seq INTEGER NOT NULL, checksum INTEGER NOT NULL, body BLOB NOT NULL,
    PRIMARY KEY(world, seq)
) STRICT;
CREATE TRIGGER results_go AFTER DELETE ON applied
BEGIN
    DELETE FROM results WHERE world = OLD.world AND seq = OLD.seq;
    DELETE FROM commands WHERE world = OLD.world AND seq = OLD.seq;
END;
CREATE TABLE streams(
    world INTEGER NOT NULL, number INTEGER NOT NULL, archetype TEXT NOT NULL, components TEXT NOT NULL,
    schema BLOB NOT NULL, PRIMARY KEY(world, number)
) STRICT, WITHOUT ROWID;
CREATE TABLE configurations(id BLOB PRIMARY KEY, body BLOB NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE snapshots(
    world INTEGER NOT NULL, name TEXT NOT NULL, tick INTEGER NOT NULL, body BLOB NOT NULL,
    PRIMARY KEY(world, name, tick)
) STRICT, WITHOUT ROWID;
CREATE TABLE ticks(
    world INTEGER NOT NULL, tick INTEGER NOT NULL, run_id BLOB NOT NULL, entities INTEGER NOT NULL,
    rows INTEGER NOT NULL, spawned INTEGER NOT NULL, despawned INTEGER NOT NULL,
    commands_applied INTEGER NOT NULL, commands_rejected INTEGER NOT NULL, state_hash BLOB NOT NULL,
    committed_at_us INTEGER NOT NULL, compute_us INTEGER NOT NULL, hz REAL NOT NULL,
    tick_time_us INTEGER NOT NULL, inputs BLOB NOT NULL, configuration BLOB NOT NULL, bytes INTEGER NOT NULL,
    recorded BLOB NOT NULL, despawned_ids BLOB NOT NULL, outcomes BLOB NOT NULL,
    next_entity_id INTEGER NOT NULL, next_issued_id INTEGER NOT NULL,
    PRIMARY KEY(world, tick)
) STRICT, WITHOUT ROWID;
CREATE INDEX ticks_by_outcome ON ticks(world, substr(outcomes, 6, 8)) WHERE outcomes <> x'';
CREATE TABLE records(
    world INTEGER NOT NULL, stream INTEGER NOT NULL, tick INTEGER NOT NULL, rows INTEGER NOT NULL,
    hash BLOB NOT NULL, layout BLOB NOT NULL, checksum INTEGER, body BLOB, segment INTEGER, offset INTEGER,
    PRIMARY KEY(world, stream, tick)
) STRICT, WITHOUT ROWID;
CREATE INDEX records_by_segment ON records(segment) WHERE segment IS NOT NULL;
CREATE TABLE spans(
    world INTEGER NOT NULL, stream INTEGER NOT NULL, first_tick INTEGER NOT NULL, last_tick INTEGER NOT NULL,
    occupied INTEGER NOT NULL, PRIMARY KEY(world, stream, first_tick)
) STRICT, WITHOUT ROWID;
CREATE TABLE datasets(
    world INTEGER NOT NULL, kind TEXT NOT NULL, stream INTEGER NOT NULL, first_tick INTEGER NOT NULL,
    last_tick INTEGER NOT NULL, rows INTEGER NOT NULL, path TEXT NOT NULL UNIQUE, version INTEGER NOT NULL,
    unindexed INTEGER NOT NULL, optimised INTEGER NOT NULL, sealed INTEGER NOT NULL, bytes INTEGER NOT NULL,
    kept INTEGER NOT NULL, PRIMARY KEY(world, kind, stream, first_tick)
) STRICT, WITHOUT ROWID;
CREATE TABLE components(
    name TEXT PRIMARY KEY, schema BLOB NOT NULL, defaults BLOB NOT NULL, origin TEXT NOT NULL
) STRICT, WITHOUT ROWID;
"""


_STEPS = (_FIRST + IDENTITY_TABLES + RETENTION_TABLES + OUTBOX_TABLES,)
"""Step n brings a journal of format n - 1 to format n. A released one never changes: add another."""

FORMAT_VERSION = len(_STEPS)


def create_tables(connection: apsw.Connection) -> None:
    """Make the tables of a new journal, and those that a journal of an earlier release has not.

    Raises:
        StorageError: The journal was written by a later release.
    """
    with connection:
        known = connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'meta'").fetchall()
        version = int(connection.execute("SELECT value FROM meta WHERE name = 'format'").get) if known else 0
        if version > FORMAT_VERSION:
            raise StorageError(
                f"the journal has format {version}, this release reads format {FORMAT_VERSION}: "
                "start the release that wrote it, or a later one",
                format=version,
            )
        if version < FORMAT_VERSION:
            for step in _STEPS[version:]:
                connection.execute(step)
            connection.execute("INSERT OR REPLACE INTO meta VALUES ('format', ?)", (str(FORMAT_VERSION),))
