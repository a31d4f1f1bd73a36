"""The journal: one SQLite file, one writer thread, group commit.

Whatever waits when the writer comes around is committed as one transaction with one sync; every request has
its own savepoint, so that one that fails takes nobody along. A future resolves only once its transaction is
durable, and the futures of a group cost one wake-up of their event loop. Writes are handed in on an
event-loop thread (`submit`) or from any other thread that can wait (`call`). Reads go through read-only
connections, one per thread, each inside one transaction: a consistent view, which never blocks the writer.

An I/O error on commit, sync or checkpoint means that what was written may be gone although the file looks
fine, so nothing is retried: the journal fails for good, every waiting and later request with it, and only a
new start, which reads the disk anew, goes on. A disk without room is no such error as long as no sync failed: the
transaction is rolled back, and done again once there is room (see `_room`, `WhenFull`). The journal lives as long as
its `Store`.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
import weakref
from concurrent.futures import Future as ThreadFuture
from typing import TYPE_CHECKING, Protocol, TypeVar

import apsw

from tickwire_engine import failpoints
from tickwire_engine.errors import ShuttingDownError, StorageError, StorageFailedError
from tickwire_engine.storage._connections import PAGE_BYTES, open_reader, open_writer, read_transaction
from tickwire_engine.storage._files import NO_ROOM
from tickwire_engine.storage._headroom import Headroom
from tickwire_engine.storage._requests import Request, Write, deliver, refuse
from tickwire_engine.storage._room import no_room, was_full
from tickwire_engine.storage._tables import create_tables
from tickwire_engine.storage._writes import WhenFull

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tickwire_engine.storage._room import Room

__all__ = ["Log", "SqliteJournal", "Write"]

_T = TypeVar("_T")

_GROUP = 1024
_CHECKPOINT_PAGES = 2048
_TRUNCATE_PAGES = (64 << 20) // PAGE_BYTES
_FULL = (apsw.FullError, apsw.IOError)
_FATAL = (apsw.IOError, apsw.CorruptError, apsw.NotADBError, apsw.CantOpenError, apsw.NoMemError)
_ROOM_POLL_S = 0.1
"""How often it is looked for room while there is none."""


class Log(Protocol):
    """What the journal needs of the tick log: one sync for a whole group."""

    def sync(self) -> None:
        """Make everything appended so far durable."""
        ...


class SqliteJournal:
    """The one writer of the journal file, and its readers.

    Attributes:
        failed: Why the journal takes no more writes, or None.
    """

    def __init__(
        self,
        path: Path,
        log: Log,
        room: Room,
        on_failure: Callable[[StorageFailedError], None] | None = None,
    ) -> None:
        """Open the journal and start its writer thread.

        Args:
            path: The SQLite file; it is made if it is not there.
            log: Synced once for each group that wrote to it, before the group's transaction begins.
            room: Looked at before each group.
            on_failure: Called once, on the writer thread, when the journal fails for good.
        """
        self.failed: StorageFailedError | None = None
        self._path = path
        self._log = log
        self._room = room
        self._on_failure = on_failure
        self._connection = open_writer(path)
        self._wal_pages = 0
        self._next_checkpoint = _CHECKPOINT_PAGES
        self._connection.set_wal_hook(self._note_wal)
        try:
            create_tables(self._connection)
            # What a killed process had committed may be in the page cache only: sync it before serving it.
            self._checkpoint(apsw.SQLITE_CHECKPOINT_TRUNCATE)
            self._headroom = Headroom(path.with_name(path.name + "-wal"))
            self._headroom.keep(0)
        except BaseException:
            self._connection.close()
            raise
        self._held: list[Request[object]] = []
        self._patient = True
        self._queue: queue.SimpleQueue[Request[object] | None] = queue.SimpleQueue()
        self._closing = threading.Lock()
        self._closed = False
        self._local = threading.local()
        self._readers: weakref.WeakSet[apsw.Connection] = weakref.WeakSet()
        self._thread = threading.Thread(target=self._run, name="tickwire-journal", daemon=True)
        self._thread.start()

    def submit(self, write: Write[_T]) -> asyncio.Future[_T]:
        """Hand in a write on an event-loop thread; the future resolves there once the write is durable."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[_T] = loop.create_future()
        self._put(Request(write, future, loop))
        return future

    def call(self, write: Write[_T]) -> _T:
        """Hand in a write and wait until it is durable. Not on an event-loop thread: it blocks."""
        future: ThreadFuture[_T] = ThreadFuture()
        self._put(Request(write, future, None))
        return future.result()

    @contextlib.contextmanager
    def read(self) -> Iterator[apsw.Connection]:
        """Read inside one transaction on this thread's own read-only connection; calls may be nested."""
        connection: apsw.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = open_reader(self._path)
            self._local.connection = connection
            self._readers.add(connection)
        with read_transaction(connection, self._path):
            yield connection

    def fail(self, error: BaseException) -> StorageFailedError:
        """Stop taking writes for good, because a sync failed; from any thread."""
        if self.failed is None:
            self.failed = StorageFailedError(
                f"storage failed and takes no more writes ({error}); check the disk, then restart the server"
            )
            self.failed.__cause__ = error
            if self._on_failure is not None:
                self._on_failure(self.failed)
        return self.failed

    def stop_waiting(self) -> None:
        """Keep nothing back any more for want of room: who waits for it is told that the store closes; from any thread."""
        self._patient = False

    def close(self) -> None:
        """Commit what was handed in, fold the write-ahead log into the file, and stop."""
        self.stop_waiting()
        with self._closing:
            if self._closed:
                return
            self._closed = True
            self._queue.put(None)
        self._thread.join()
        for reader in list(self._readers):
            # A thread may be reading still; its connection goes with it.
            with contextlib.suppress(apsw.Error):
                reader.close()
        if self.failed is None:
            # Without room for it the log stays, and the next start reads it.
            with contextlib.suppress(apsw.FullError):
                self._checkpoint(apsw.SQLITE_CHECKPOINT_TRUNCATE)
        self._headroom.close()
        self._connection.close()

    def _put(self, request: Request[_T]) -> None:
        with self._closing:
            if self._closed:
                raise StorageError("the store is closed")
            self._queue.put(request)  # type: ignore[arg-type]

    def _run(self) -> None:
        last = False
        while not last:
            group = self._next_group()
            last = group[-1:] == [None]
            requests = [request for request in group if request is not None]
            enough = self._room.look(waiting=bool(self._held))
            if self._held and (enough or last or not self._patient):
                requests = [*self._take_held(), *requests]
            if requests:
                self._commit(requests)
                if enough and self._room.low:
                    # What waited got through, before it is told so.
                    self._room.look(waiting=bool(self._held))
                deliver(requests)
                self._checkpoint_if_due()
                self._keep_headroom()

    def _next_group(self) -> list[Request[object] | None]:
        """Wait for requests and take all there are; none: it is time to look for room."""
        group: list[Request[object] | None] = []
        looks_for_room = self._room.low or self._held
        with contextlib.suppress(queue.Empty):
            group.append(self._queue.get(timeout=_ROOM_POLL_S if looks_for_room else None))
            while len(group) < _GROUP:
                group.append(self._queue.get_nowait())
        return group

    def _take_held(self) -> list[Request[object]]:
        held, self._held = self._held, []
        for request in held:
            request.held = False
        return held

    def _commit(self, group: list[Request[object]]) -> None:
        try:
            self._keep_out(group)
            self._prepare(group)
            if self.failed is None:
                self._transact_with_room(group)
        except (*_FATAL, OSError) as error:
            self.fail(error)
        except BaseException as error:
            self._roll_back()
            refuse(group, error)
            if not isinstance(error, Exception):
                raise
        if self.failed is not None:
            held = self._take_held()
            group += [request for request in held if request not in group]
            refuse(group, self.failed)
            return
        for request in group:
            if request.is_live:
                request.write.committed()

    def _keep_out(self, group: list[Request[object]]) -> None:
        if self._room.low:
            for request in group:
                if request.write.when_full is WhenFull.REFUSED:
                    request.error = no_room("free space is below the floor")

    def _prepare(self, group: list[Request[object]]) -> None:
        written = False
        for request in group:
            if self.failed is not None:
                return
            if request.error is not None:
                continue
            if self._held and request.write.when_full is WhenFull.HELD:
                # Behind those that wait already: a world's ticks keep their order.
                self._set_aside(request, "others wait for it")
                continue
            try:
                written |= self._prepare_with_room(request, alone=len(group) == 1)
            except OSError as error:
                if error.errno not in NO_ROOM:
                    raise
                self._set_aside(request, error.strerror or "the disk is full")
            except Exception as error:
                request.error = error
        if written:
            self._log.sync()

    def _prepare_with_room(self, request: Request[object], *, alone: bool) -> bool:
        while True:
            try:
                return request.write.prepare(alone=alone)
            except OSError as error:
                if error.errno not in NO_ROOM or not self._room.release():
                    raise

    def _transact_with_room(self, group: list[Request[object]]) -> None:
        """Commit; on a full disk without the ballast, and then without those that are not to be tried to the last."""
        for kept in (tuple(WhenFull), (WhenFull.TRIED,)):
            for request in group:
                if request.is_live and request.write.when_full not in kept:
                    self._set_aside(request, "the disk is full")
            done = self._transact(group)
            while not done and self._room.release():
                done = self._transact(group)
            if done:
                return
        refuse([request for request in group if request.is_live], no_room("the disk is full"))

    def _set_aside(self, request: Request[object], why: str) -> None:
        self._room.low = True
        if request.write.when_full is not WhenFull.HELD:
            request.error = no_room(why)
        elif self._patient:
            request.held = True
            self._held.append(request)
        else:
            request.error = ShuttingDownError(
                f"the store closes, and the disk has no room for this tick ({why})"
            )

    def _transact(self, group: list[Request[object]]) -> bool:
        """Apply a group in one transaction and commit it; False: there was no room, and nothing happened."""
        tried = [request for request in group if request.is_live]
        if not tried:
            return True
        try:
            if not self._apply(tried):
                return True
            failpoints.reach("journal.commit.before")
            self._connection.execute("COMMIT")
        except (*_FULL, OSError) as error:
            if not was_full(error, self._connection.system_errno):
                raise
            self._roll_back()
            for request in tried:
                request.error = None
            return False
        failpoints.reach("journal.commit.after")
        return True

    def _apply(self, requests: list[Request[object]]) -> bool:
        """Begin a transaction and apply requests; returns whether there is anything to commit."""
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            for request in requests:
                request.result = request.write.apply(connection)
        except (apsw.FullError, OSError, *_FATAL):
            raise
        except Exception as error:
            connection.execute("ROLLBACK")
            if len(requests) == 1:
                requests[0].error = error
                return False
            # One of them is refused, alone: once more from the beginning, each with a savepoint.
            connection.execute("BEGIN IMMEDIATE")
            self._apply_apart(requests)
        return True

    def _apply_apart(self, requests: list[Request[object]]) -> None:
        connection = self._connection
        for request in requests:
            connection.execute("SAVEPOINT request")
            try:
                request.result = request.write.apply(connection)
            except (apsw.FullError, OSError, *_FATAL):
                raise
            except Exception as error:
                connection.execute("ROLLBACK TO request")
                request.error = error
            connection.execute("RELEASE request")

    def _roll_back(self) -> None:
        try:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        except apsw.Error as error:
            self.fail(error)

    def _note_wal(self, _connection: apsw.Connection, _name: str, pages: int) -> int:
        self._wal_pages = pages
        return apsw.SQLITE_OK

    def _checkpoint_if_due(self) -> None:
        if self.failed is not None or self._wal_pages < self._next_checkpoint:
            if self._wal_pages < _CHECKPOINT_PAGES:
                self._next_checkpoint = _CHECKPOINT_PAGES
            return
        truncate = self._wal_pages >= _TRUNCATE_PAGES
        mode = apsw.SQLITE_CHECKPOINT_TRUNCATE if truncate else apsw.SQLITE_CHECKPOINT_PASSIVE
        # Readers may hold parts of it back: try again when it has grown some more.
        self._next_checkpoint = self._wal_pages + _CHECKPOINT_PAGES
        try:
            self._checkpoint(mode)
        except (*_FATAL, apsw.FullError, OSError) as error:
            # Where there was no room, nothing was synced and the log is whole: it is tried again later.
            if not was_full(error, self._connection.system_errno):
                self.fail(error)

    def _keep_headroom(self) -> None:
        if self.failed is None and not self._room.low:
            try:
                self._headroom.keep(self._wal_pages)
            except OSError as error:
                self.fail(error)

    def _checkpoint(self, mode: int) -> None:
        with contextlib.suppress(apsw.BusyError, apsw.LockedError):
            if failpoints.reach("journal.checkpoint.before"):
                return
            self._connection.wal_checkpoint(mode=mode)
            failpoints.reach("journal.checkpoint.after")
