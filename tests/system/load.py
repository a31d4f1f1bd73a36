"""A load on a server that dies again and again: clients that submit, subscribers that watch, and all they were told.

Every client counts on a world's books: each message that it sends bears the next number, to an entity that folds numbers
in the order in which they are applied. So one entity's row tells whether all were applied, once, in order.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pyarrow as pa
import xxhash

from tests.system.app import folded
from tickwire import AsyncClient, EtagMismatchError, RetryPolicy, TickwireError, commands
from tickwire_engine.ids import uuid7

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from tickwire import AsyncWorld, Tick

PATIENT = RetryPolicy(retry_for_s=90.0, max_backoff_s=0.3)
CLIENTS = 3


@dataclass(slots=True)
class Books:
    """One client's messages: those that were acknowledged are all but perhaps the last one."""

    entity: int
    sent: int = 0
    fold: int = 0
    acknowledged: int = 0
    seqs: list[int] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Load:
    """All that goes on at a server, until `stop`.

    Attributes:
        frames: By world: digests of the ticks that a subscriber saw, in order from tick 0.
        made: The worlds that were made besides, and are there.
        ended: Those that were ended.
    """

    address: str
    bulk_entities: int = 6_000
    bulk_hz: float = 10.0
    books: list[Books] = field(default_factory=list)
    frames: dict[str, list[bytes]] = field(default_factory=dict)
    made: list[str] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    ledger: AsyncWorld = field(init=False)
    bulk: AsyncWorld = field(init=False)
    _client: AsyncClient | None = field(init=False, default=None)
    _tasks: list[asyncio.Task[None]] = field(init=False, default_factory=list)
    _stopping: bool = field(init=False, default=False)
    _given: dict[str, set[int]] = field(init=False, default_factory=dict)

    async def start(self) -> None:
        """Make the worlds, and begin."""
        self._client = AsyncClient(self.address, retry=PATIENT)
        self.ledger = await self._client.create_world("ledger", template="ledger", seed=1)
        self.bulk = await self._client.create_world(
            "bulk", template="bulk", seed=2, labels={"entities": str(self.bulk_entities)}
        )
        for _ in range(CLIENTS):
            self.books.append(Books((await self.ledger.spawn({"Tally": {}})).first_entity_id))
        self._begin(self._play, self.ledger, 100.0)
        self._begin(self._play, self.bulk, self.bulk_hz)
        for world in (self.ledger, self.bulk):
            self._begin(self._watch, world)
            self._begin(self._archive, world)
        for books in self.books:
            self._begin(self._send, books)
        self._begin(self._make_worlds)

    async def stop(self) -> None:
        """Let every client come to the end of what it was at, and the watchers see the last tick."""
        self._stopping = True
        await asyncio.gather(*self._tasks)
        self._tasks.clear()

    async def abandon(self) -> None:
        """End everything on the spot."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._client is not None:
            await self._client.aclose()

    def failures(self) -> None:
        """Raise what a client or a watcher has met that it must not meet."""
        for task in self._tasks:
            if task.done():
                task.result()

    @property
    def progress(self) -> tuple[int, int]:
        """Messages acknowledged, and ticks seen: both grow while the server serves."""
        return sum(b.acknowledged for b in self.books), sum(map(len, self.frames.values()))

    async def check(self) -> None:
        """Hold the server, which serves again, to all it told.

        Raises:
            AssertionError: Something is not as it was told.
        """
        for world in (self.ledger, self.bulk):
            with contextlib.suppress(TickwireError):
                await world.pause()
            await world.step(1)
        rows = (await self.ledger.query(components=["Tally"])).to_pylist()
        tallies = {row["entity_id"]: (row["tally__count"], row["tally__fold"]) for row in rows}
        for books in self.books:
            assert tallies[books.entity] == (books.sent, books.fold), "none lost, none twice, all in order"
            assert books.seqs == sorted(set(books.seqs)), "seqs grow"
        seqs = [seq for books in self.books for seq in books.seqs]
        assert len(seqs) == len(set(seqs)), "no seq was given twice"
        entities = (await self.bulk.query(components=["Energy"]))["entity_id"].to_pylist()
        assert sorted(entities) == list(range(1, self.bulk_entities + 1))
        for world, given in ((self.ledger, tallies), (self.bulk, entities)):
            # Due too late to be applied here: only the id that it is given matters.
            spawned = await world.spawn({"Energy": {}}, tick=1 << 50)
            self._given.setdefault(world.name, set()).update(given)
            assert spawned.first_entity_id not in self._given[world.name], "an entity id was given again"
            self._given[world.name].add(spawned.first_entity_id)
            await self._check_frames(world)
        assert self._client is not None
        there = {info.id async for info in self._client.worlds()}
        assert set(self.made) <= there, "a world that was made is gone"
        assert not set(self.ended) & there, "a world that was ended is there"

    async def _check_frames(self, world: AsyncWorld) -> None:
        seen = self.frames[world.name]
        last = len(seen) - 1
        again: list[Tick] = []
        history: list[bytes] = []
        sampled = set(range(0, last + 1, max(1, last // 5)))
        async with world.ticks(from_tick=0, until_tick=last) as stream:
            async for tick in stream:
                history.append(digest(tick))
                if tick.tick in sampled:
                    again.append(tick)
        assert history == seen, "every frame that was seen is history"
        for tick in again:
            queried = await world.query(at_tick=tick.tick)
            streamed = tick.table()
            assert queried["entity_id"].to_pylist() == sorted(streamed["entity_id"].to_pylist())
            for name in streamed.column_names:
                assert queried[name].to_pylist() == streamed.sort_by("entity_id")[name].to_pylist(), (
                    f"tick {tick.tick} by Query"
                )

    def _begin(self, what: Callable[..., Coroutine[None, None, None]], *arguments: object) -> None:
        self._tasks.append(asyncio.create_task(what(*arguments)))

    async def _play(self, world: AsyncWorld, hz: float) -> None:
        while not self._stopping:
            with contextlib.suppress(TickwireError):
                await world.play(hz=hz)
            await asyncio.sleep(0.1)

    async def _send(self, books: Books) -> None:
        while not self._stopping:
            number = books.sent + 1
            message = commands.message({"number": number}, channel="count", receiver_id=books.entity)
            (receipt,) = await self.ledger.submit([message])
            books.sent, books.fold = number, folded(books.fold, number)
            books.acknowledged += 1
            books.seqs.append(receipt.seq)
            books.ids.append(receipt.command_id)

    async def _archive(self, world: AsyncWorld) -> None:
        while not self._stopping:
            with contextlib.suppress(TickwireError):
                await world.submit([commands.message({})], wait="archived", max_wait_s=2.0)
            await asyncio.sleep(0.05)

    async def _make_worlds(self) -> None:
        assert self._client is not None
        for number in itertools.count():
            if self._stopping:
                return
            # By turns by call and by command: the latter is one transaction with a tick of the ledger.
            if number % 2:
                world = await self._client.create_world(
                    f"extra-{number}", template="ledger", world_id=str(uuid7())
                )
            else:
                world_id = await self._settled(commands.create_world(f"extra-{number}", template="ledger"))
                world = await self._client.world(world_id)
            info = await world.info()
            # What a retry finds when the first try came through, and its answer was lost.
            with contextlib.suppress(EtagMismatchError):
                await world.change(labels={"number": str(number)}, etag=info.etag)
            assert (await world.info()).labels == {"number": str(number)}
            if number % 4 == 2:
                await self._settled(commands.destroy_world(world.id))
                self.ended.append(world.id)
            elif number % 4 == 3:
                await world.destroy()
                self.ended.append(world.id)
            else:
                self.made.append(world.id)
            await asyncio.sleep(0.1)

    async def _settled(self, command: commands.Command) -> str:
        """Submit a command until its outcome is known; return the id of the world that it made, or ""."""
        while True:
            outcome = None
            with contextlib.suppress(TickwireError):
                (receipt,) = await self.ledger.submit([command], wait="applied", max_wait_s=10.0)
                outcome = receipt.outcome
            if outcome is not None:
                assert outcome.error is None, outcome.error
                return outcome.world_id

    async def _watch(self, world: AsyncWorld) -> None:
        seen = self.frames.setdefault(world.name, [])
        async with world.ticks(from_tick=0) as stream:
            async for tick in stream:
                assert tick.tick == len(seen), "every tick comes, once, in order"
                seen.append(digest(tick))
                if self._stopping:
                    return


def digest(tick: Tick) -> bytes:
    """Hash all that a subscriber sees of a tick."""
    made = xxhash.xxh3_128(tick.summary.state_hash)
    for name in sorted(tick.tables):
        made.update(name.encode())
        sink = pa.BufferOutputStream()
        table = tick.tables[name].combine_chunks()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        made.update(sink.getvalue().to_pybytes())
    return made.digest()
