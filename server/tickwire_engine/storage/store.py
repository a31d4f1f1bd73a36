"""The door to storage: `Store`, one data directory, opened by one process.

    <data>/LOCK          who serves the directory
    <data>/BALLAST       space to give up when the disk is full (_room.py)
    <data>/READERS       other processes that read it (_outside.py)
    <data>/journal.db    worlds, commands, tick commits (journal.py)
    <data>/log/          what is too large for the journal's rows (tick_log.py)
    <data>/archive/      history in LanceDB (archive.py)

Writes are handed in on an event-loop thread and return futures, which resolve once the write is durable; they
never block. Reads block for microseconds (`find_commands`) or milliseconds (`history`), and are called from
any thread.
"""

from __future__ import annotations

import importlib.metadata
import json
import platform
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

import apsw
import pyarrow as pa

from tickwire_engine import failpoints
from tickwire_engine.errors import WorldNotFoundError
from tickwire_engine.storage import _reads as reads
from tickwire_engine.storage import _writes as writes
from tickwire_engine.storage._accepting import Accept
from tickwire_engine.storage._archiving import datasets
from tickwire_engine.storage._cancelling import Cancel
from tickwire_engine.storage._committing import CommitTick
from tickwire_engine.storage._connections import telling_damage
from tickwire_engine.storage._copying import Copier
from tickwire_engine.storage._creating import CreateWorld
from tickwire_engine.storage._files import rewrite, sync_directory
from tickwire_engine.storage._forgetting import Forgetting, id_floors
from tickwire_engine.storage._forking import ForkWorld, Hold
from tickwire_engine.storage._identity import IdentityStore
from tickwire_engine.storage._lag import ArchiveLag
from tickwire_engine.storage._leases import Leases
from tickwire_engine.storage._lineage import Lineages
from tickwire_engine.storage._lock import DirectoryLock
from tickwire_engine.storage._outside import OutsideReaders
from tickwire_engine.storage._posting import Post, Posted, outbox
from tickwire_engine.storage._purging import Purging, leftovers
from tickwire_engine.storage._recovery import recover
from tickwire_engine.storage._retaining import Pin, Unpin
from tickwire_engine.storage._retiring import Retirement
from tickwire_engine.storage._room import Room, no_room, was_full
from tickwire_engine.storage._upkeep import Upkeep
from tickwire_engine.storage._wal import check_wal
from tickwire_engine.storage._writes import WorldKey
from tickwire_engine.storage.archive import LanceArchive
from tickwire_engine.storage.archiver import ArchiveOptions, Archiver
from tickwire_engine.storage.command_history import CommandHistory
from tickwire_engine.storage.history import History
from tickwire_engine.storage.journal import SqliteJournal
from tickwire_engine.storage.retention import Horizon
from tickwire_engine.storage.tick_log import SEGMENT_BYTES, SegmentedTickLog

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from tickwire_engine.errors import StorageFailedError
    from tickwire_engine.storage import TickLog
    from tickwire_engine.storage._forking import ForkPoint
    from tickwire_engine.storage._reads import FoundCommand
    from tickwire_engine.storage.journal import Write
    from tickwire_engine.storage.rows import (
        CommandRow,
        Letter,
        Outcome,
        RecoveredWorld,
        StoredComponent,
        TickCommit,
        WorldRow,
    )

JOURNAL = "journal.db"
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreOptions:
    """How a store behaves; the defaults are meant to be kept."""

    segment_bytes: int = SEGMENT_BYTES
    """A segment of the tick log gets no more records past this."""
    min_free_bytes: int = 256 << 20
    """With less free space than this no tick begins and no command is accepted; see `_room`."""
    ballast_bytes: int = 16 << 20
    """Kept free by a file, for what must go on when the disk is full all the same."""
    archive: ArchiveOptions = field(default_factory=ArchiveOptions)
    """When committed ticks are copied to the archive."""
    horizon: Horizon = field(default_factory=Horizon)
    """How long settled commands are remembered."""
    clock_us: Callable[[], int] = lambda: time.time_ns() // 1000
    """The time that commands and ticks are dated by, in microseconds since the Unix epoch."""
    on_failure: Callable[[StorageFailedError], None] | None = None
    """Called once, on a thread of the store, when storage failed for good."""


class Store:
    """One open data directory.

    Attributes:
        path: The data directory.
        history: Reads of past ticks.
        command_history: Reads of commands and of what became of them.
        archiver: What copies history to LanceDB.
        identity: Tokens, quotas and the audit trail.
    """

    def __init__(self, path: Path, options: StoreOptions) -> None:
        """Open the directory; use `Store.open`."""
        path.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._lock = DirectoryLock(path / "LOCK")
        self._room = Room(path, floor_bytes=options.min_free_bytes, ballast_bytes=options.ballast_bytes)
        try:
            self._open(path, options)
        except BaseException:
            self._lock.release()
            raise

    @classmethod
    def open(cls, path: Path, *, options: StoreOptions | None = None) -> Store:
        """Open a data directory, make it if it is not there, and bring it to its last durable state.

        Raises:
            DataDirectoryLockedError: Another process serves it.
            StorageError: Its format is not this release's.
        """
        return cls(path, options or StoreOptions())

    @property
    def failed(self) -> StorageFailedError | None:
        """Why no more writes are taken, or None."""
        return self._journal.failed

    def now_us(self) -> int:
        """Return the time, in microseconds since the Unix epoch."""
        return self._clock_us()

    def id_floor_ms(self, world: int) -> int:
        """Return the time below which unknown ids are refused, in milliseconds since the Unix epoch; 0: none are."""
        return self._id_floors_ms.get(world, 0)

    @property
    def lacks_room(self) -> bool:
        """Whether there is too little free space on the disk for another tick; looked at again and again until there is."""
        return self._room.low

    def require_room(self) -> None:
        """Refuse a tick that the disk has no room for.

        Raises:
            StorageFullError: It has none.
        """
        self._room.require()

    def stop_waiting(self) -> None:
        """Let ticks that wait for room fail with ShuttingDownError, and later ones too; before `close`, on any thread."""
        self._journal.stop_waiting()

    def announce(self, listen: str) -> None:
        """Tell whoever wants to open this directory too on which address it is served."""
        self._lock.announce(listen)

    def recover(self) -> list[RecoveredWorld]:
        """Read all worlds, destroyed ones too, with their pending commands. Blocks; meant for start-up."""
        with self._journal.read() as connection:
            return [
                recover(connection, self._log, row, WorldKey(row.key, row.id))
                for row in reads.worlds(connection)
            ]

    def create_world(self, row: WorldRow, commands: Sequence[CommandRow] = ()) -> asyncio.Future[WorldRow]:
        """Make a world durable with its first commands, in one transaction; the row comes back with its key.

        The future fails with WorldExistsError, unless the same request (id and hash) made the world before.
        """
        return self._journal.submit(self.creation(row, commands))

    def creation(self, row: WorldRow, commands: Sequence[CommandRow] = ()) -> CreateWorld:
        """Return what `create_world` writes, to be written along with a tick."""
        return CreateWorld(row, commands, self._ids, self._log)

    def has_world(self, world_id: bytes) -> bool:
        """Tell whether there is, or was, a world of that id."""
        return world_id in list(self._ids.values())

    def write(self, write: Write[_T]) -> asyncio.Future[_T]:
        """Write what `creation`, `forking` or `destruction` returned, by itself."""
        return self._journal.submit(write)

    def forking(self, row: WorldRow, point: ForkPoint, commands: Sequence[CommandRow] = ()) -> ForkWorld:
        """Return what makes a fork durable, with the pins of what it shares; otherwise as `creation`.

        Args:
            row: Names the parent and the last tick to share.
            point: See `History.fork_point`.
            commands: Those that wait in it from the start.
        """
        return ForkWorld(row, commands, self._ids, self._log, point=point, lineages=self.history.lineages)

    def hold(self, forking: ForkWorld) -> asyncio.Future[None]:
        """Pin what a fork will share before it is written."""
        return self._journal.submit(Hold(forking))

    def let_go(self, forking: ForkWorld) -> None:
        """Undo `hold`: the fork is not made."""
        self._journal.submit(Unpin(forking.row.id, self.archiver.look_after))

    def destroy_world(self, world: int, at_us: int) -> asyncio.Future[None]:
        """Mark a world destroyed; its pending commands are void and its name is free again."""
        return self._journal.submit(self.destruction(world, at_us))

    def destruction(self, world: int, at_us: int) -> writes.DestroyWorld:
        """Return what `destroy_world` writes, to be written along with a tick."""
        return writes.DestroyWorld(world, at_us, self.archiver.end)

    def update_world(self, row: WorldRow) -> asyncio.Future[WorldRow]:
        """Change a world's name, labels and retention to those of `row`.

        The future fails with WorldExistsError where another living world has the name.
        """
        return self._journal.submit(writes.UpdateWorld(row, self.archiver.look_after))

    def pin(self, world: int, tick: int, holder: bytes) -> asyncio.Future[None]:
        """Keep a tick, whatever retention says, until `holder` lets go; the same pin again changes nothing.

        Args:
            world: The world's key.
            tick: A kept tick.
            holder: 16 bytes that name who needs it, as the id of a world that begins there.

        The future fails with TickNotKeptError or TickInTheFutureError where there is nothing to keep.
        """
        return self._journal.submit(Pin(world, tick, holder))

    def unpin(self, holder: bytes) -> asyncio.Future[None]:
        """Let go of all that a holder has pinned, in any world."""
        return self._journal.submit(Unpin(holder, self.archiver.look_after))

    def accept(self, world: int, commands: Sequence[CommandRow]) -> asyncio.Future[None]:
        """Make commands durable, all of them or none.

        The future fails with DuplicateCommandError if the journal holds one of the ids: look them up first.
        """
        return self._journal.submit(
            Accept(self._key(world), commands, self._log, id_floors_ms=self._id_floors_ms)
        )

    def cancel(self, world: int, seq: int) -> asyncio.Future[Outcome]:
        """Withdraw a pending command for good; the future resolves with its outcome, numbered.

        No tick that is handed in may have drained it.
        """
        return self._journal.submit(Cancel(world, seq, self.now_us()))

    def find_commands(self, world: int, ids: Sequence[bytes]) -> dict[bytes, FoundCommand]:
        """Look commands up by id; unknown ids are left out. Blocks for microseconds."""
        with self._journal.read() as connection:
            return reads.find_commands(connection, world, ids)

    def greatest_archived_id(self, world: int) -> bytes:
        """Return the greatest id among a world's commands that left the journal's tail; empty if there are none."""
        with self._journal.read() as connection:
            return reads.greatest_archived_id(connection, world)

    def commit_tick(self, commit: TickCommit, *, along: Sequence[Write[object]] = ()) -> asyncio.Future[int]:
        """Make a tick durable, with all that came of it and what is written `along`, in one transaction.

        The future resolves with the outcome seq of the first command's outcome. Commits of a world are handed in
        tick by tick, each without waiting for the one before; if one fails, those after it fail too.
        """
        return self._journal.submit(
            CommitTick(self._key(commit.world), commit, self._log, self.archiver.note, along)
        )

    def register_component(
        self, name: str, schema: bytes, defaults: bytes, origin: str
    ) -> asyncio.Future[None]:
        """Keep a component: its schema message, its defaults as JSON, and its origin ("APP", "RPC")."""
        return self._journal.submit(writes.RegisterComponent(name, schema, defaults, origin))

    def posting(self, letters: Sequence[Letter]) -> Post:
        """Return what puts letters into the outbox, to be written along with the tick that sends them."""
        return Post(letters)

    def posted(self, ids: Sequence[bytes]) -> asyncio.Future[None]:
        """Take letters out of the outbox."""
        return self._journal.submit(Posted(ids))

    def outbox(self) -> list[Letter]:
        """Read the letters that are on their way, oldest first."""
        with self._journal.read() as connection:
            return outbox(connection)

    def components(self) -> list[StoredComponent]:
        """Read all registered components by name."""
        with self._journal.read() as connection:
            return reads.components(connection)

    def close(self) -> None:
        """Finish what was handed in and let the directory go. Blocks."""
        self.archiver.close()
        self._journal.close()
        self._log.close()
        self._room.close()
        self._lock.release()

    def _open(self, path: Path, options: StoreOptions) -> None:
        failpoints.reach("recovery.begin")
        self._clock_us = options.clock_us
        self._on_failure = options.on_failure
        self._lag = ArchiveLag(options.archive.max_lag_bytes)
        self._log = SegmentedTickLog(path / "log", segment_bytes=options.segment_bytes)
        self._room.give_up = self._log.release
        self._with_room(lambda: _renew(path, self._log))
        failpoints.reach("recovery.renewed")
        self._journal = self._with_room(
            lambda: SqliteJournal(path / JOURNAL, self._log, self._room, self._note_failure)
        )
        self.identity = IdentityStore(self._journal)
        sync_directory(path)
        failpoints.reach("recovery.journal")
        try:
            archive = LanceArchive(path / "archive")
            outside = OutsideReaders(path / "READERS")
            self._ids: dict[int, bytes] = {}
            with self._journal.read() as connection:
                worlds = reads.worlds(connection)
                self._ids.update((row.key, row.id) for row in worlds)
                with outside.deleting() as allowed:
                    if allowed:
                        self._log.delete_except(reads.segments(connection))
                failpoints.reach("recovery.segments")
                archive.bring_back(datasets(connection))
                failpoints.reach("recovery.archive")
                waiting = reads.waiting(connection)
                self._id_floors_ms = id_floors(connection)
                overdue = {dataset.world for dataset in datasets(connection)} | {*leftovers(connection)}
            self._leases = Leases(outside)
            self.history = History(
                self._journal, self._log, archive, self._leases, self._ids, Lineages(worlds)
            )
            self.command_history = CommandHistory(self._journal, self._log, archive, self._leases, self._ids)
            copier = Copier(self._journal, self._log, archive, self._leases, self._ids, self._lag)
            retirement = Retirement(self._journal, archive, self._leases)
            self.archiver = Archiver(
                self._journal,
                copier,
                Upkeep(self._journal, archive, self._leases, options.archive.upkeep),
                retirement,
                Purging(self._journal, archive, self._leases, copier, retirement),
                Forgetting(self._journal, options.horizon, options.clock_us, self._id_floors_ms),
                self._leases,
                self._lag,
                options.archive,
            )
            self._journal.call(writes.RecordStart(self.now_us(), json.dumps(_fingerprint())))
            failpoints.reach("recovery.started")
            self.archiver.start(waiting)
            self.archiver.look_after(overdue)
        except BaseException:
            self._journal.close()
            raise

    def _note_failure(self, error: StorageFailedError) -> None:
        # Who waits for the archive is not to wait for ever.
        self._lag.close()
        if self._on_failure is not None:
            self._on_failure(error)

    def _with_room(self, begin: Callable[[], _T]) -> _T:
        """Do what a start must do, without the ballast where the disk is full."""
        try:
            with telling_damage(self.path / JOURNAL):
                return begin()
        except (OSError, apsw.Error) as error:
            if not was_full(error):
                raise
            if not self._room.release():
                raise no_room("a start needs some") from error
        return self._with_room(begin)

    def _key(self, world: int) -> WorldKey:
        id_ = self._ids.get(world)
        if id_ is None:
            raise WorldNotFoundError(f"the store has no world of key {world}")
        return WorldKey(world, id_)


def _renew(path: Path, log: TickLog) -> None:
    """After an unclean end, write the journal's tail and the log's last segment anew.

    If a sync failed before, the system may believe pages clean that never reached the disk.
    """
    if failpoints.reach("recovery.renew"):
        return
    wal = path / f"{JOURNAL}-wal"
    if wal.exists() and wal.stat().st_size:
        check_wal(wal)
        rewrite(wal)
        (path / f"{JOURNAL}-shm").unlink(missing_ok=True)
        log.renew()


def _fingerprint() -> dict[str, str]:
    versions = {"python": platform.python_version(), "machine": platform.machine()}
    for package in ("tickwire", "daft", "pyarrow", "numpy"):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "source"
    simd = pa.runtime_info()
    return {**versions, "simd": simd.simd_level, "simd_detected": simd.detected_simd_level}
