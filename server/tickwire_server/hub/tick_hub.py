"""The hub of one world: the newest ticks in memory, older ones from history, a cursor for each subscriber.

A tick enters the ring once it is durable. A subscriber has no queue: it knows the next tick it wants, and asks for it
when its last write went through. What one view shows of a tick is made once, when the first of its subscribers asks, and
shared. One that falls out of the ring reads from history until it is back, without gap or repeat. Runs on the event loop;
history is read, and much data encoded, on threads.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeVar
from weakref import WeakValueDictionary

from tickwire_engine.archetype import MAX_ID
from tickwire_engine.errors import SubscriberTooSlowError
from tickwire_engine.storage.retention import not_kept
from tickwire_server.hub._catching_up import HistoryReader
from tickwire_server.hub._past import Past, PastKey, PastTick, ReaderKey
from tickwire_server.hub._past_outcomes import PastOutcomes
from tickwire_server.hub._ring import Ring, RingTick, SentKey, ShownKey
from tickwire_server.hub._selecting import Selector
from tickwire_server.hub.cursor import Cursor
from tickwire_server.hub.ticks import TickMessage, full_tick_of, summed
from tickwire_server.hub.view import LagPolicy, TickMode

if TYPE_CHECKING:
    from collections.abc import Callable

    from tickwire_engine.errors import TickwireError
    from tickwire_engine.storage.history import History
    from tickwire_engine.storage.rows import DecidedCommand, Frame, Stream, TickSummary
    from tickwire_engine.tick.pipeline import CommittedTick
    from tickwire_engine.world import AsyncWorld
    from tickwire_server.hub.ticks import FullTick, ShownTick
    from tickwire_server.hub.view import Condition, Selected, View

T = TypeVar("T")
CATCH_UP_BYTES = 2 << 20
"""How much is read from history in one go for a subscriber that is behind."""
INLINE_BYTES = 256 << 10
"""A view of so little is made at once; of more, on a thread."""
INLINE_OUTCOMES = 200
"""So few outcomes are encoded at once; more, on a thread."""
PAST_SHARE = 4
"""Of the ring's bytes, what those who are behind may share of the ticks they read: one part in so many."""


class TickEncoder(Protocol):
    """Turns ticks into wire messages; one tick's messages may be concatenated with the next one's."""

    def encode(self, message: TickMessage, *, max_bytes: int) -> list[bytes]:
        """Return a tick's messages of at most `max_bytes`, unless a frame's one message is larger."""
        ...


class HubThreads:
    """The threads of all hubs: their own, so that many readers of history never keep a tick waiting for a thread."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(4, thread_name_prefix="tickwire-hub")
        self._reading = asyncio.Semaphore(2)

    def show(self, call: Callable[[], ShownTick]) -> asyncio.Future[ShownTick]:
        """Encode something on a thread."""
        return asyncio.get_running_loop().run_in_executor(self._pool, call)

    def encode(self, call: Callable[[], list[bytes]]) -> asyncio.Future[list[bytes]]:
        """Encode messages on a thread."""
        return asyncio.get_running_loop().run_in_executor(self._pool, call)

    async def read(self, call: Callable[[], T]) -> T:
        """Read history on a thread; a few at a time, so that those who are at the newest tick get theirs."""
        async with self._reading:
            return await asyncio.get_running_loop().run_in_executor(self._pool, call)

    def close(self) -> None:
        """Let the threads end; what they do now is finished."""
        self._pool.shutdown()


class TickHub:
    """Committed ticks of one world, and those who follow them."""

    def __init__(
        self,
        world: AsyncWorld,
        history: History,
        encoder: TickEncoder,
        *,
        ring_bytes: int,
        threads: HubThreads,
    ) -> None:
        self.ring = Ring(ring_bytes)
        self._threads = threads
        self.ended: TickwireError | None = None
        """Why there will be no more ticks."""
        self._world = world
        self._history = history
        self._encoder = encoder
        self._streams: dict[int, Stream] = {}
        self._has_all_streams = False
        self._selectors: WeakValueDictionary[Selected, Selector] = WeakValueDictionary()
        self._cursors: set[Cursor] = set()
        self._with_outcomes = 0
        """How many of them are told outcomes."""
        self._past = Past(ring_bytes // PAST_SHARE)
        self._waiting: dict[asyncio.Future[None], int] = {}
        world.on_committed(self._publish)
        world.on_ended(self._end)

    @property
    def committed_tick(self) -> int:
        """The last durable tick; -1 at birth."""
        return self._world.state.tick - 1

    @property
    def subscribers(self) -> int:
        """How many follow."""
        return len(self._cursors)

    def notify(self) -> None:
        """Wake all who wait: the world's state changed, or the server stops."""
        for waiting in self._waiting:
            _wake(waiting)

    async def wait(self, tick: int, timeout_s: float) -> None:
        """Wait until `tick` is committed, `notify` is called or the time is over."""
        loop = asyncio.get_running_loop()
        woken: asyncio.Future[None] = loop.create_future()
        timer = loop.call_later(timeout_s, _wake, woken)
        self._waiting[woken] = tick
        try:
            await woken
        finally:
            timer.cancel()
            del self._waiting[woken]

    async def wait_for_news(self, timeout_s: float) -> None:
        """Wait until `notify` is called or the time is over, whatever ticks come."""
        await self.wait(MAX_ID, timeout_s)

    def open(
        self,
        view: View,
        next_tick: int,
        last_tick: int,
        *,
        condition: Condition | None = None,
        every: int = 1,
        lag: LagPolicy = LagPolicy.CATCH_UP,
        outcomes_of: str | None = None,
    ) -> Cursor:
        """Begin to follow; `close` ends it."""
        selector = self._selectors.get(view.selected)
        if selector is None:
            selector = self._selectors[view.selected] = Selector(view.selected, condition)
        cursor = Cursor(view, selector, next_tick, last_tick, every=every, lag=lag, outcomes_of=outcomes_of)
        self._cursors.add(cursor)
        self._with_outcomes += outcomes_of is not None
        return cursor

    def close(self, cursor: Cursor) -> None:
        """Forget a subscriber."""
        self._cursors.discard(cursor)
        self._with_outcomes -= cursor.outcomes_of is not None

    def is_near(self, cursor: Cursor) -> bool:
        """Whether what the cursor wants next needs no reading."""
        if cursor.lag is LagPolicy.SKIP_TO_LATEST or cursor.wanted > self.committed_tick:
            return True
        return self._ready(cursor, cursor.wanted, 0) is not None

    async def pull(self, cursor: Cursor) -> list[Outgoing]:
        """Return messages of the ticks that the cursor wants next, and move it past them; none: there are none yet.

        Several small ticks share a message when the cursor is behind.

        Raises:
            TickNotKeptError: Retention has overtaken the cursor.
            SubscriberTooSlowError: It fell behind, and asked to be told so.
        """
        wanted, newest = cursor.wanted, cursor.newest(self.committed_tick)
        if wanted > newest:
            return []
        skipped = 0
        if cursor.lag is LagPolicy.SKIP_TO_LATEST and wanted < newest:
            skipped = (newest - wanted) // cursor.every
            wanted = newest
        entry = self._ready(cursor, wanted, skipped)
        if entry is None:
            return await self._from_history(cursor, wanted, newest, skipped)
        cursor.has_caught_up = True
        return await self._from_ring(cursor, entry, skipped)

    def _end(self, error: TickwireError) -> None:
        self.ended = error
        self.notify()

    # From memory

    def _publish(self, committed: CommittedTick) -> None:
        for stream in committed.computed.new_streams:
            self._streams[stream.number] = stream
        full = full_tick_of(committed, with_outcomes=self._with_outcomes > 0)
        self.ring.append(full)
        for waiting, tick in self._waiting.items():
            if tick <= full.tick:
                _wake(waiting)

    def _ready(self, cursor: Cursor, wanted: int, skipped: int) -> RingTick | None:
        """Return a tick from the ring, if the one that it builds on is there too."""
        entry = self.ring.at(wanted)
        if entry is None or skipped or cursor.base_tick is None or self.ring.at(cursor.base_tick) is not None:
            return entry
        return None

    async def _from_ring(self, cursor: Cursor, first: RingTick, skipped: int) -> list[Outgoing]:
        packed = _Packed(cursor)
        entry: RingTick | None = first
        while entry is not None and not packed.is_full:
            messages = await self._messages(cursor, entry, skipped)
            packed.add(messages, cursor.next_tick)
            skipped = 0
            following = cursor.wanted
            if following > cursor.newest(self.committed_tick) or cursor.lag is LagPolicy.SKIP_TO_LATEST:
                break
            entry = self._ready(cursor, following, 0)
        return packed.finish()

    async def _messages(self, cursor: Cursor, entry: RingTick, skipped: int) -> list[bytes]:
        base = None if skipped else cursor.base_tick
        key = ShownKey(cursor.view, base)
        shown = entry.shown.get(key)
        if shown is None:
            shown = self._show(cursor, entry, key)
        if isinstance(shown, asyncio.Future):
            # Others wait for it too: it must outlive the one who asked first.
            shown = await asyncio.shield(shown)
        emptied = cursor.emptied(shown)
        first_tick = min(cursor.next_tick, entry.full.tick)
        unknown = shown.streams - cursor.known_streams
        sent = SentKey(
            key, first_tick, unknown, tuple(stream.number for stream in emptied), cursor.outcomes_of
        )
        messages = entry.messages.get(sent)
        if messages is None or skipped:
            summary = await self._summary(first_tick, entry.full.summary)
            outcomes = await self._outcomes(cursor, entry.full.tick if skipped else first_tick, entry.full)
            if len(outcomes) > INLINE_OUTCOMES:
                encode = partial(self._encode, cursor, shown, summary, emptied, skipped, outcomes)
                messages = await self._threads.encode(encode)
            else:
                messages = self._encode(cursor, shown, summary, emptied, skipped, outcomes)
            if not skipped:
                entry.messages[sent] = messages
                self.ring.add(entry, sent, sum(map(len, messages)))
        cursor.sent(entry.full.tick, shown)
        return messages

    def _show(self, cursor: Cursor, entry: RingTick, key: ShownKey) -> ShownTick | asyncio.Future[ShownTick]:
        view, full, selector = cursor.view, entry.full, cursor.selector
        base = None if key.base_tick is None else self.ring.at(key.base_tick)
        frames = None if base is None else base.full.frames
        if key.base_tick is not None:
            between = [self.ring.at(tick) for tick in range(key.base_tick + 1, full.tick)]
            full = full.after([entry.full for entry in between if entry is not None])
        size = sum(frame.nbytes for _, frame in full.frames.values())
        if size <= INLINE_BYTES or (frames is None and selector.is_free(view, full)):
            shown = entry.shown[key] = selector.show(view, full, frames)
            self.ring.add(entry, key, shown.nbytes)
            return shown
        task = entry.shown[key] = self._threads.show(partial(selector.show, view, full, frames))

        def made(task: asyncio.Future[ShownTick]) -> None:
            if task.cancelled() or task.exception() is not None:
                entry.shown.pop(key, None)
            else:
                entry.shown[key] = task.result()
                self.ring.add(entry, key, task.result().nbytes)

        task.add_done_callback(made)
        return task

    async def _summary(self, first_tick: int, last: TickSummary) -> TickSummary:
        """Return a summary with the counts of the ticks from `first_tick` on."""
        if first_tick >= last.tick:
            return last
        entries = [
            self.ring.at(tick) for tick in range(max(first_tick, self.ring.first_tick or 0), last.tick)
        ]
        summaries = [entry.full.summary for entry in entries if entry is not None]
        missing = last.tick - first_tick - len(summaries)
        if missing:
            summaries += await self._threads.read(
                partial(self._summaries, first_tick, first_tick + missing - 1)
            )
        return summed(summaries, last)

    def _summaries(self, first: int, last: int) -> list[TickSummary]:
        kept = self._history.earliest_tick(self._world.row.key)
        return [*self._history.summaries(self._world.row.key, max(first, kept), last)]

    async def _outcomes(self, cursor: Cursor, first_tick: int, last: FullTick) -> tuple[DecidedCommand, ...]:
        """Return the outcomes of ticks that the cursor is told, up to and with those of `last`."""
        if cursor.outcomes_of is None:
            return ()
        entries = [self.ring.at(tick) for tick in range(first_tick, last.tick)]
        ticks = [*(None if entry is None else entry.full for entry in entries), last]
        if any(tick is None or tick.decided is None for tick in ticks):
            # They came before anybody wanted to know.
            return await self._threads.read(
                partial(PastOutcomes(self._world, cursor).of, first_tick, last.tick)
            )
        decided = (each for tick in ticks if tick is not None for each in tick.decided or ())
        return tuple(each for each in decided if cursor.outcomes_of in ("", each.actor))

    def _encode(
        self,
        cursor: Cursor,
        shown: ShownTick,
        summary: TickSummary,
        emptied: tuple[Stream, ...],
        skipped: int,
        outcomes: tuple[DecidedCommand, ...],
    ) -> list[bytes]:
        frames: list[tuple[Stream, Frame]] = [*shown.frames]
        frames += [(stream, cursor.selector.empty(stream)) for stream in emptied]
        if emptied:
            frames.sort(key=lambda pair: pair[0].number)
        message = TickMessage(
            summary,
            frames,
            unknown=shown.streams - cursor.known_streams,
            despawned=shown.despawned,
            snapshot=shown.snapshot,
            skipped=skipped,
            outcomes=outcomes,
        )
        return self._encoder.encode(message, max_bytes=cursor.view.max_bytes)

    # From history

    async def _from_history(self, cursor: Cursor, wanted: int, newest: int, skipped: int) -> list[Outgoing]:
        if cursor.lag is LagPolicy.DISCONNECT and cursor.has_caught_up and self.ring.at(wanted) is None:
            raise too_slow(cursor.next_tick)
        first = self.ring.first_tick
        last = newest if first is None else min(newest, max(first, wanted))
        return await self._threads.read(partial(self._read, cursor, wanted, last, skipped))

    def _read(self, cursor: Cursor, wanted: int, last: int, skipped: int) -> list[Outgoing]:
        """Read on for a cursor, which is this thread's while it reads."""
        packed = _Packed(cursor)
        reader: HistoryReader | None = None
        outcomes = PastOutcomes(self._world, cursor)
        read_bytes = 0
        while wanted <= last and read_bytes < CATCH_UP_BYTES:
            base_tick = None if skipped else cursor.base_tick
            key = PastKey(ShownKey(cursor.view, base_tick), cursor.next_tick, wanted)
            past = self._past.tick(key)
            if past is None:
                if (
                    reader is None
                    or reader.next_tick > wanted
                    or (reader.base_tick, skipped) != (base_tick, 0)
                ):
                    reader = self._reader(cursor, wanted, last, skipped)
                past = self._read_tick(reader, cursor, wanted, last, skipped)
                self._past.remember(key, past)
            decided = outcomes.of(wanted if skipped else cursor.next_tick, wanted)
            messages = self._encode(
                cursor, past.shown, past.summary, cursor.emptied(past.shown), skipped, decided
            )
            cursor.sent(wanted, past.shown)
            packed.add(messages, cursor.next_tick)
            read_bytes += sum(map(len, messages))
            wanted, skipped = cursor.wanted, 0
        if reader is not None:
            selected = cursor.view.selected
            self._past.put(ReaderKey(selected, reader.next_tick, reader.base_tick), reader)
        return packed.finish()

    def _read_tick(
        self, reader: HistoryReader, cursor: Cursor, wanted: int, newest: int, skipped: int
    ) -> PastTick:
        left_out: list[FullTick] = []
        while (full := reader.read(wanted, newest)) is not None:
            if full.tick < wanted:
                # What others had read for the cursor is not left out.
                if full.tick >= cursor.next_tick:
                    left_out.append(full)
                continue
            base = None if skipped else reader.base
            full = full.after(left_out)
            shown = reader.selector.show(cursor.view, full, base)
            if cursor.view.mode is TickMode.CHANGES:
                reader.base, reader.base_tick = full.frames, full.tick
            summary = full.summary
            if skipped:
                summary = summed(self._summaries(cursor.next_tick, wanted - 1), summary)
            return PastTick(shown, summary)
        raise not_kept(wanted, self._history.earliest_tick(self._world.row.key))

    def _reader(self, cursor: Cursor, wanted: int, newest: int, skipped: int) -> HistoryReader:
        key = self._world.row.key
        if not self._has_all_streams:
            self._streams.update((stream.number, stream) for stream in self._history.streams(key))
            self._has_all_streams = True
        first = wanted if skipped else cursor.next_tick
        base_tick = None if skipped else cursor.base_tick
        found = self._past.take(ReaderKey(cursor.view.selected, first, base_tick))
        if found is not None:
            return found
        earliest = self._history.earliest_tick(key)
        if first < earliest:
            raise not_kept(first, earliest)
        if base_tick is None or base_tick < earliest:
            # Nothing to build on: the next tick is sent whole.
            return HistoryReader(self._history, key, self._streams, first, cursor.selector.fresh())
        reader = HistoryReader(self._history, key, self._streams, base_tick, cursor.selector.fresh())
        held = reader.read(base_tick, newest)
        if held is not None:
            reader.base, reader.base_tick = held.frames, held.tick
        return reader


class Outgoing(NamedTuple):
    """A message to be written.

    Attributes:
        next_tick: Where the stream goes on after it: the first tick that it does not complete.
    """

    data: bytes
    next_tick: int


class _Packed:
    """Messages of whole and partial ticks, joined up to a size: protobuf messages concatenate."""

    def __init__(self, cursor: Cursor) -> None:
        self._max_bytes = cursor.view.max_bytes
        self._next_tick = cursor.next_tick
        self._whole: list[Outgoing] = []
        self._waiting: list[bytes] = []
        self._size = 0

    @property
    def is_full(self) -> bool:
        """Whether there is at least a message's worth."""
        return bool(self._whole)

    def add(self, messages: list[bytes], next_tick: int) -> None:
        """Add the messages of a tick, after which the stream goes on at `next_tick`."""
        for message in messages:
            if self._waiting and self._size + len(message) > self._max_bytes:
                self._flush()
            self._waiting.append(message)
            self._size += len(message)
        self._next_tick = next_tick

    def finish(self) -> list[Outgoing]:
        """Return the joined messages."""
        if self._waiting:
            self._flush()
        return self._whole

    def _flush(self) -> None:
        data = self._waiting[0] if len(self._waiting) == 1 else b"".join(self._waiting)
        self._whole.append(Outgoing(data, self._next_tick))
        self._waiting, self._size = [], 0


def too_slow(next_tick: int) -> SubscriberTooSlowError:
    """Return the error of a subscriber that asked not to be kept when it is too slow."""
    return SubscriberTooSlowError(
        f"ticks come faster than they are read: resume at tick {next_tick}, or choose another lag policy",
        next_tick=next_tick,
    )


def _wake(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_result(None)
