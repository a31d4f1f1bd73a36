"""The archiver: copies committed ticks to LanceDB in large batches, off the commit path.

Its own thread looks after all worlds. A world's turn comes when much is waiting, when it has been quiet for a
while, or on demand. What a turn does is safe to break off anywhere: rows are appended, their files synced,
and only then one journal transaction moves the watermark and names the versions; after that the journal lets
go of its copies in small bites. It shares the interpreter with the tick loop, so the work per row is Arrow's
and Lance's, not Python's.
"""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog

from tickwire_engine.errors import ShuttingDownError, StorageFailedError, TickwireError, WorldDestroyedError
from tickwire_engine.storage._files import NO_ROOM
from tickwire_engine.storage._lag import ROW_BYTES
from tickwire_engine.storage._upkeep import UpkeepLimits

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tickwire_engine.storage import Journal
    from tickwire_engine.storage._copying import Copier
    from tickwire_engine.storage._forgetting import Forgetting
    from tickwire_engine.storage._lag import ArchiveLag
    from tickwire_engine.storage._leases import Leases
    from tickwire_engine.storage._purging import Purging
    from tickwire_engine.storage._retiring import Retirement
    from tickwire_engine.storage._upkeep import Upkeep
    from tickwire_engine.storage.rows import TickCommit

_log = structlog.get_logger(__name__)

_RETRY_S = 10.0
_PASSING = (None, *NO_ROOM)
"""Errors before a sync that may pass: a full disk, and what Lance tells without a number. A turn is done over then."""
_GARBAGE_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveOptions:
    """When committed ticks are copied to the archive."""

    max_bytes: int = 32 << 20
    """As soon as so many bytes of records wait, of all worlds together."""
    max_rows: int = 500_000
    """As soon as so many rows, ticks and commands wait, of all worlds together."""
    idle_s: float = 5.0
    """When a world has committed nothing for so long."""
    max_lag_bytes: int = 4 << 30
    """A world of which about so much is not archived computes no ticks until it is."""
    ended_s: float = 60.0
    """How long the files of a destroyed world stay for those who still read its last ticks."""
    upkeep: UpkeepLimits = field(default_factory=UpkeepLimits)


@dataclass(slots=True)
class Backlog:
    """What waits to be archived, of one world."""

    rows: int = 0
    nbytes: int = 0
    last_commit_s: float = 0.0
    not_before_s: float = 0.0
    """After a failure."""


class Archiver:
    """The thread that archives.

    Attributes:
        error: Why the last turn failed, or None.
        lag: How far the archive is behind; ticks wait for it.
    """

    def __init__(
        self,
        journal: Journal,
        copier: Copier,
        upkeep: Upkeep,
        retirement: Retirement,
        purging: Purging,
        forgetting: Forgetting,
        leases: Leases,
        lag: ArchiveLag,
        options: ArchiveOptions,
    ) -> None:
        self.lag = lag
        self._journal = journal
        self._copier = copier
        self._upkeep = upkeep
        self._retirement = retirement
        self._purging = purging
        self._forgetting = forgetting
        self._leases = leases
        self._options = options
        self._changed = threading.Condition()
        self._backlog: dict[int, Backlog] = {}
        self._rows = 0
        self._bytes = 0
        self._demands: list[tuple[int, Future[None]]] = []
        self._waiters: dict[int, list[tuple[int, Future[None]]]] = {}
        self._asked: set[int] = set()
        """Worlds with a tick that somebody waits for, and that is committed by now."""
        self._untidy: set[int] = set()
        self._overdue: set[int] = set()
        """Worlds that may have something to delete although they commit nothing."""
        self._ended: dict[int, float] = {}
        """Destroyed worlds, and when to purge them."""
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="tickwire-archiver", daemon=True)

    def start(self, waiting: Iterable[tuple[int, int, int, int]]) -> None:
        """Start the thread.

        Args:
            waiting: What an earlier process left to do: (world, ticks and commands, rows, bytes).
        """
        now = time.monotonic()
        for world, entries, rows, nbytes in waiting:
            self._add(world, entries + rows, nbytes, now)
            self.lag.add(world, entries * ROW_BYTES + nbytes)
        self._thread.start()

    @property
    def backlog(self) -> tuple[int, int]:
        """What waits to be archived, of all worlds: (rows, bytes)."""
        with self._changed:
            return self._rows, self._bytes

    def note(self, commit: TickCommit) -> None:
        """Take note of a durable tick; on the journal's thread, so it is short."""
        entries = 1 + len(commit.outcomes)
        rows = entries + sum(frame.rows for frame in commit.frames)
        nbytes = sum(frame.nbytes for frame in commit.frames)
        self.lag.add(commit.world, entries * ROW_BYTES + nbytes)
        with self._changed:
            first = not self._rows
            full = self._is_full()
            self._add(commit.world, rows, nbytes, time.monotonic())
            awaited = commit.world in self._waiters
            if awaited:
                self._asked.add(commit.world)
            if first or awaited or (self._is_full() and not full) or self.lag.is_over(commit.world):
                self._changed.notify()

    def archive_now(self, world: int) -> asyncio.Future[None]:
        """Archive all that a world has committed by now; the future resolves on the calling event loop."""
        done: Future[None] = Future()
        with self._changed:
            if self._stopping:
                raise ShuttingDownError("the store is closing")
            self._demands.append((world, done))
            self._changed.notify()
        return asyncio.wrap_future(done)

    def wait_archived(self, world: int, tick: int) -> asyncio.Future[None]:
        """Wait until LanceDB keeps a tick durably, and archive it soon: this is what ``WaitLevel.ARCHIVED`` waits for.

        Call it on an event-loop thread, for a tick that is committed or will be; those who wait together are served
        by one turn. A turn that fails is tried again and fails nobody. Give up by cancelling the future.

        Args:
            world: The world's key.
            tick: The tick that applied the command.

        Returns:
            A future of the calling event loop. It fails with ShuttingDownError when the store closes before, with
            StorageFailedError when storage failed for good, and with WorldDestroyedError when the world's files go.
        """
        done: Future[None] = Future()
        with self._changed:
            if self._stopping:
                raise ShuttingDownError("the store is closing")
            self._waiters.setdefault(world, []).append((tick, done))
            self._asked.add(world)
            self._changed.notify()
        return asyncio.wrap_future(done)

    def look_after(self, worlds: Iterable[int]) -> None:
        """Delete what worlds do not keep any more, without waiting for their next turns; any thread."""
        with self._changed:
            self._overdue.update(worlds)
            self._changed.notify()

    def end(self, world: int, released: Iterable[int]) -> None:
        """Delete what a destroyed world leaves, after a while; any thread.

        Args:
            world: The world's key.
            released: Worlds of which it shares nothing any more.
        """
        self.lag.forget(world)
        with self._changed:
            taken = self._backlog.pop(world, Backlog())
            self._rows -= taken.rows
            self._bytes -= taken.nbytes
            self._ended[world] = time.monotonic() + self._options.ended_s
            self._overdue.update(released)
            self._changed.notify()

    def close(self) -> None:
        """Finish the turn in hand, and stop."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if self._thread.ident is not None:
            self._thread.join()
        waiting = [done for waiters in self._waiters.values() for _, done in waiters]
        self.lag.close()
        for done in [*(done for _, done in self._demands), *waiting]:
            if done.set_running_or_notify_cancel():
                done.set_exception(ShuttingDownError("the store is closing"))

    def _run(self) -> None:
        while True:
            demands = self._wait()
            if self._stopping:
                with self._changed:
                    self._demands = demands + self._demands
                return
            asked = {world for world, _ in demands}
            errors = {world: self._turn(world) for world in [*asked, *(self._due() - asked)]}
            for world, done in demands:
                error = errors[world]
                if not done.set_running_or_notify_cancel():
                    continue
                if error is None:
                    done.set_result(None)
                else:
                    done.set_exception(error)
            for world in errors:
                self._tell_waiters(world)
            for world in self._take_overdue():
                if not self._stopping and self._journal.failed is None:
                    self._retire(world)
            self._tidy()

    def _wait(self) -> list[tuple[int, Future[None]]]:
        with self._changed:
            while not (self._stopping or self._demands or self._overdue or self._due()):
                self._changed.wait(self._patience())
                if self._leases.waiting or any(due <= time.monotonic() for due in self._ended.values()):
                    break
            demands, self._demands = self._demands, []
            return demands

    def _take_overdue(self) -> list[int]:
        now = time.monotonic()
        with self._changed:
            ended = {world for world, due in self._ended.items() if due <= now}
            for world in ended:
                del self._ended[world]
            overdue, self._overdue = (self._overdue | ended) - self._ended.keys(), set()
        return sorted(overdue)

    def _patience(self) -> float | None:
        now = time.monotonic()
        waits = [_GARBAGE_S] if self._leases.waiting else []
        waits += [0.0] if self._asked - self._backlog.keys() else []
        waits += [
            max(
                0.0 if self._is_wanted(world) else backlog.last_commit_s + self._options.idle_s,
                backlog.not_before_s,
            )
            - now
            for world, backlog in self._backlog.items()
        ]
        waits += [due - now for due in self._ended.values()]
        return max(min(waits), 0.001) if waits else None

    def _due(self) -> set[int]:
        now = time.monotonic()
        full = self._is_full()
        if self._journal.failed is not None:
            return set()
        with self._changed:
            return {
                world
                for world, backlog in self._backlog.items()
                if backlog.not_before_s <= now
                and (full or self._is_wanted(world) or backlog.last_commit_s + self._options.idle_s <= now)
            } | (self._asked - self._backlog.keys())

    def _is_wanted(self, world: int) -> bool:
        """Whether somebody waits for a world's next turn: for a tick in the archive, or to compute one."""
        return world in self._asked or self.lag.is_over(world)

    def _is_full(self) -> bool:
        return self._rows >= self._options.max_rows or self._bytes >= self._options.max_bytes

    def _add(self, world: int, rows: int, nbytes: int, now: float) -> None:
        backlog = self._backlog.setdefault(world, Backlog())
        backlog.rows += rows
        backlog.nbytes += nbytes
        backlog.last_commit_s = now
        self._rows += rows
        self._bytes += nbytes

    def _turn(self, world: int) -> BaseException | None:
        with self._changed:
            taken = self._backlog.pop(world, Backlog())
            self._rows -= taken.rows
            self._bytes -= taken.nbytes
        try:
            # Up to where the world is now: it may be committing faster than this copies.
            last = self._copier.last_tick(world)
            while not self._stopping and self._copy(world) < last:
                pass
            self._upkeep.after_copy(world)
        except BaseException as error:
            # A panic in Lance is no Exception. It must not end this thread.
            told = self._note_failure("archiving failed", error, world=world)
            if told is error:
                # It may pass. Of a full disk, too, and then more than ever.
                self._retire(world)
            self._put_off(world, taken)
            return told
        self._untidy.add(world)
        self._retire(world)
        return None

    def _retire(self, world: int) -> None:
        """Delete what is not kept; where that fails, it is tried again later."""
        destroyed = False
        with self._changed:
            if world in self._ended:
                return
        try:
            destroyed = self._purging.is_destroyed(world)
            if not destroyed:
                self._retirement.retire(world)
                self._forgetting.forget(world)
            elif self._purging.purge(world):
                destroyed = False
                self._tell_ended(world)
            self._leases.collect()
        except BaseException as error:
            self._note_failure("retiring history failed", error, world=world)
        if destroyed:
            with self._changed:
                self._ended[world] = time.monotonic() + _RETRY_S

    def _tell_ended(self, world: int) -> None:
        with self._changed:
            waiters = self._waiters.pop(world, [])
            self._asked.discard(world)
        for _, done in waiters:
            if done.set_running_or_notify_cancel():
                done.set_exception(WorldDestroyedError("the world was destroyed; its history goes"))

    def _tell_waiters(self, world: int) -> None:
        """Tell those who wait for ticks that are archived now; the others wait for their commit, or another turn."""
        if world not in self._waiters:
            return
        last = self._copier.archived_tick(world)
        failed = self._journal.failed
        with self._changed:
            waiters = [waiter for waiter in self._waiters[world] if not waiter[1].cancelled()]
            told = [(tick, done) for tick, done in waiters if tick <= last or failed]
            kept = [(tick, done) for tick, done in waiters if not (tick <= last or failed)]
            if kept:
                self._waiters[world] = kept
            else:
                del self._waiters[world]
            if not kept or world not in self._backlog:
                self._asked.discard(world)
        for tick, done in told:
            if not done.set_running_or_notify_cancel():
                continue
            if tick <= last:
                done.set_result(None)
            elif failed is not None:
                done.set_exception(failed)

    def _copy(self, world: int) -> int:
        options = self._options
        tick = self._copier.copy(world, max_bytes=2 * options.max_bytes, max_rows=2 * options.max_rows)
        self._copier.trim(world)
        self._leases.collect()
        return tick

    def _put_off(self, world: int, taken: Backlog) -> None:
        with self._changed:
            now = time.monotonic()
            self._add(world, taken.rows, taken.nbytes, now)
            self._backlog[world].not_before_s = now + _RETRY_S

    def _tidy(self) -> None:
        try:
            self._leases.collect()
            for world in sorted(self._untidy):
                if self._is_busy():
                    break
                if world not in self._backlog:
                    self._upkeep.when_idle(world, busy=self._is_busy)
                    self._untidy.discard(world)
            self._leases.collect()
        except BaseException as error:
            self._note_failure("upkeep of the archive failed", error)

    def _is_busy(self) -> bool:
        with self._changed:
            return self._stopping or self._is_full() or bool(self._demands)

    def _note_failure(self, what: str, error: BaseException, **where: int) -> BaseException:
        """Log what will be tried again; that storage failed for good is told by whom it stops.

        Returns:
            The error, or what it means: that storage failed for good.
        """
        if isinstance(error, OSError) and error.errno not in _PASSING:
            error = self._journal.fail(error)
        if not isinstance(error, TickwireError):
            _log.exception(what, **where)
        elif not isinstance(error, StorageFailedError):
            _log.error(what, reason=error.reason, error=error.message, **where)
        return error
