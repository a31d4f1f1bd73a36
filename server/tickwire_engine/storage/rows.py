"""The values that cross the storage boundary: plain, immutable, and free of SQL, files and Arrow tables.

They are what the journal's transactions are made of, and what recovery gives back. Times are microseconds
since the Unix epoch (UTC); ids are the 16 raw bytes of a UUID; a *world key* is the small integer that the
journal gives a world at birth, used inside storage in place of its 16-byte id.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class WorldRow:
    """A world as the registry keeps it."""

    key: int
    """The journal's own number of the world; 0 until it is stored."""
    id: bytes
    name: str
    seed: int
    created_at_us: int
    template: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    retention: Mapping[str, int] = field(default_factory=dict)
    max_entities: int = 0
    request_hash: bytes = b""
    """Hash of the request that made it: the same id with the same request answers the existing world."""
    parent_key: int = 0
    fork_tick: int = -1
    destroyed_at_us: int = 0


class CommandRow(NamedTuple):
    """A command as it was accepted. Made by the hundred thousand: a tuple costs a fifth of a frozen dataclass."""

    seq: int
    id: bytes
    tick: int
    """The tick it is due at: never applied before."""
    priority: int
    type: str
    """A `CommandType` value, as "spawn"."""
    actor: str
    payload: bytes
    """Canonical JSON of everything but the Arrow table."""
    table: bytes = b""
    """The Arrow IPC stream that came with it, if any, byte for byte."""
    version: int = 1
    accepted_at_us: int = 0
    content_hash: bytes = b""
    """xxh3-128 of (type, tick as asked, priority, version, payload, table): tells retries from reused ids."""
    first_entity_id: int = 0
    entity_count: int = 0
    sender: str = ""
    """JSON of the sender's `ActorCtx`, of commands whose handlers are told; "" for others."""


@dataclass(frozen=True, slots=True)
class Stream:
    """One archetype with one schema: what a record belongs to. A changed schema is a new stream."""

    number: int
    """Dense per world, from 1."""
    archetype: str
    components: tuple[str, ...]
    schema: bytes
    """The encapsulated Arrow IPC schema message (V5), as it goes on the wire."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One archetype's rows at one tick, encoded once: the bytes of the log, of the wire and of recovery."""

    stream: int
    rows: int
    messages: tuple[bytes, ...]
    """Encapsulated RecordBatch messages (V5, 8-byte padded, no EOS).

    An emptied archetype has one of zero rows.
    """
    message_rows: tuple[int, ...]
    """Rows of each message, in order."""
    hash: bytes
    """16 bytes: xxh3-128 over schema and canonical buffers (`encoding.hash_batch`)."""

    @property
    def nbytes(self) -> int:
        """Bytes of all messages."""
        return sum(map(len, self.messages))


@dataclass(frozen=True, slots=True)
class Configuration:
    """What a tick ran with: interned, because it seldom changes."""

    id: bytes
    """16 bytes: xxh3-128 of `body`."""
    body: bytes
    """Canonical JSON: processors (type, priority, params, components), resources, component schemas."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one command."""

    seq: int
    applied: bool
    """False: rejected, and `reason` and `message` say why; or cancelled."""
    reason: str = ""
    message: str = ""
    field: str = ""
    first_entity_id: int = 0
    entity_count: int = 0
    outcome_seq: int = 0
    """Its number among the world's outcomes, given by the journal: 0 until it is read back from there."""
    cancelled: bool = False
    """It was withdrawn before a tick drained it; no tick knows of it."""
    metadata: tuple[tuple[str, str], ...] = ()
    """Facts of a rejection, by name."""
    missing: tuple[int, ...] = ()
    """The first ids that were not alive."""
    world_id: str = ""
    """The world that the command made."""
    value: bytes = b""
    """Canonical JSON of what a custom command's handler returned; empty: no handler."""
    table_bytes: int = 0
    """The size of the table that the command answered; it is in `TickCommit.results`."""


class DecidedCommand(NamedTuple):
    """What became of a command, with what its readers ask for: whose it was, and where it stands among all outcomes."""

    command_id: bytes
    actor: str
    outcome_seq: int
    """Dense in a world, from 1, in the order in which outcomes became durable."""
    tick: int
    """The tick that applied or rejected it; -1: it was cancelled."""
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class TickSummary:
    """The small facts of a tick: what ListTicks and the last chunk of a tick say."""

    tick: int
    run_id: bytes
    entities: int
    rows: int
    spawned: int
    despawned: int
    commands_applied: int
    commands_rejected: int
    state_hash: bytes
    committed_at_us: int
    compute_us: int
    hz: float = 0.0


@dataclass(frozen=True, slots=True)
class TickCommit:
    """Everything that one tick makes durable, in one transaction."""

    world: int
    summary: TickSummary
    tick_time_us: int
    inputs: bytes
    """Canonical JSON of the inputs that the tick's processors were given."""
    frames: tuple[Frame, ...]
    """Changed archetypes only: what did not change is not written again."""
    despawned: tuple[int, ...]
    outcomes: tuple[Outcome, ...]
    """In the order applied: (position = index)."""
    next_entity_id: int
    next_issued_id: int
    configuration_id: bytes
    new_streams: tuple[Stream, ...] = ()
    new_configuration: Configuration | None = None
    snapshots: Mapping[str, bytes] = field(default_factory=dict)
    """Changed resource snapshots, by resource name."""
    issued: tuple[CommandRow, ...] = ()
    """Commands that processors issued in this tick: accepted with it, atomically."""
    results: Mapping[int, bytes] = field(default_factory=dict)
    """Tables that commands of this tick answered, as Arrow IPC streams, by the commands' seqs."""


@dataclass(frozen=True, slots=True)
class RecoveredWorld:
    """What start-up knows of a world before any row of its tables is read."""

    row: WorldRow
    next_tick: int
    next_seq: int
    next_entity_id: int
    """One past the greatest entity id that an accepted command reserved."""
    applied_entity_id: int
    """The same for the commands of committed ticks: what the last one's state hash covers."""
    next_issued_id: int
    run_id: bytes
    streams: tuple[Stream, ...]
    live_streams: tuple[int, ...]
    """Streams whose last record has rows."""
    configuration: Configuration | None
    snapshots: Mapping[str, bytes]
    pending: tuple[CommandRow, ...]
    """Accepted and in no tick commit, in seq order."""
    settled: tuple[tuple[CommandRow, int, Outcome], ...]
    """Applied or rejected, still in the journal: (command without payload and table, tick, outcome)."""


Json = dict[str, Any]


class Letter(NamedTuple):
    """A command on its way from a tick of one world to another world."""

    target: bytes
    id: bytes
    type: str
    tick: int | None
    priority: int
    version: int
    actor: str
    payload: bytes
    """Canonical JSON of everything but the Arrow table."""
    table: bytes


class StoredComponent(NamedTuple):
    """A registered component."""

    name: str
    schema: bytes
    defaults: bytes
    origin: str


@dataclass(frozen=True, slots=True)
class TokenRow:
    """An API token as it is stored: its secret's hash, never the secret."""

    id: bytes
    name: str
    hash: bytes
    roles: tuple[str, ...]
    worlds: tuple[str, ...]
    allowed_commands: tuple[str, ...]
    created_at_us: int
    expires_at_us: int
    """0: it does not end by itself."""
    revoked_at_us: int
    """0: it is good."""
    created_by: str


@dataclass(frozen=True, slots=True)
class AuditRow:
    """One call that changed something, or was refused."""

    at_us: int
    actor: str
    subject: str
    method: str
    world: str
    world_name: str
    resource: str
    code: int
    reason: str
    peer: str
    number: int = 0
    """Its place in the list, given when it is stored."""
