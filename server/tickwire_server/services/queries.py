"""QueryService: rows of a world at a tick or over a range of ticks, and SQL over worlds; durable ticks only."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import pyarrow as pa

from tickwire_engine.encoding import read_schema
from tickwire_engine.errors import (
    EntityNotFoundError,
    InvalidRequestError,
    TickInTheFutureError,
    TickNotKeptError,
)
from tickwire_engine.querying import RowQuery, live_rows, past_rows
from tickwire_engine.reading import active_rows, entity_values, only_entities
from tickwire_engine.storage.retention import not_kept
from tickwire_server.auth import caller
from tickwire_server.services.reading import ReadThreads
from tickwire_server.services.world_tables import WorldTables

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator, Sequence

    from tickwire_engine import AsyncWorld
    from tickwire_engine.sql import SqlRows, SqlSandbox
    from tickwire_engine.storage.history import History
    from tickwire_server.storages import Storages

T = TypeVar("T")
_THREADS = 4
_WAITING = 4
"""SQL queries that wait for a process, each on a thread; more wait for a thread."""


class Answer(Protocol):
    """Rows, as they are found; begun, read and ended on threads, for everything but `cancel` blocks."""

    @property
    def tick(self) -> int:
        """The last committed tick when the query began; -1 if it is about several worlds, or none."""

    def begin(self) -> pa.Schema:
        """Begin, and return the columns."""

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield the rows."""

    def cancel(self) -> None:
        """Let it end soon: nobody waits for it any more."""


@dataclass(frozen=True, slots=True)
class RowAnswer:
    """The answer of a `RowQuery`."""

    tick: int
    schema: pa.Schema
    rows: Iterator[pa.RecordBatch]

    def begin(self) -> pa.Schema:
        """Return the columns."""
        return self.schema

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield the rows."""
        return self.rows

    def cancel(self) -> None:
        """Do nothing: a page takes no time."""


@dataclass(frozen=True, slots=True)
class SqlAnswer:
    """The answer of a SQL query."""

    rows: SqlRows
    tables: WorldTables

    @property
    def tick(self) -> int:
        """The last committed tick of the one world that it reads; -1 for several, or none."""
        return self.tables.tick

    def begin(self) -> pa.Schema:
        """Send the query to its process; raises what `SqlSandbox.select` says."""
        self.rows.begin()
        return self.rows.schema

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield the rows."""
        return iter(self.rows)

    def cancel(self) -> None:
        """Interrupt it."""
        self.rows.cancel()


class QueryService:
    """Reads durable ticks only. Its coroutines run on the event loop, what blocks on threads of its own."""

    def __init__(self, storages: Storages) -> None:
        self._storages = storages
        self._threads = ReadThreads(_THREADS, "tickwire-query")
        self._sql_threads = ReadThreads(storages.setup.sql_limits.processes + _WAITING, "tickwire-sql")
        self._sandbox: SqlSandbox | None = None

    async def query(
        self,
        world: AsyncWorld,
        *,
        at_tick: int | None = None,
        ticks: tuple[int, int] | None = None,
        components: Sequence[str] = (),
        where: str = "",
        entity_ids: Sequence[int] = (),
        limit: int = 0,
    ) -> pa.Table:
        """Return the active rows of the entities that have all `components`, whole; see `rows` and `RowQuery.parse`."""
        query = RowQuery.parse(
            self._storages.setup.vocabulary.components,
            components=components,
            where=where,
            entity_ids=entity_ids,
            limit=limit,
        )
        return await self._whole(await self.rows(world, query, at_tick=at_tick, ticks=ticks))

    async def sql(self, text: str, *, at_tick: int | None = None) -> pa.Table:
        """Return the rows of a SQL query, whole; see `sql_rows`."""
        return await self._whole(self.sql_rows(text, at_tick=at_tick))

    async def rows(
        self,
        world: AsyncWorld,
        query: RowQuery,
        *,
        at_tick: int | None = None,
        ticks: tuple[int, int] | None = None,
    ) -> RowAnswer:
        """Return the active rows that a query finds, at one tick or over a range, whatever the world does meanwhile.

        Args:
            world: The world.
            query: Which rows.
            at_tick: One tick; None, and no range: the last committed one.
            ticks: (first, last), both included; those that retention thinned out are left out.

        Raises:
            InvalidRequestError: The range is none.
            TickInTheFutureError: A tick is not committed yet.
            TickNotKeptError: A tick is no longer kept.
        """
        state = world.state
        last = state.tick - 1
        if ticks is None and at_tick in (None, last):
            # Immutable: the world may go on meanwhile.
            tables = {sig: table.batch for sig, table in state.tables.items()}
            schema = query.schema((sig, read_schema(stream.schema)) for sig, stream in state.streams.items())

            def live() -> Iterator[pa.RecordBatch]:
                yield live_rows(query, tables, last, schema)

            return RowAnswer(last, schema, live())
        if ticks is None:
            assert at_tick is not None
            _require_committed(at_tick, last, "at_tick")
            first, end, field = at_tick, at_tick, "at_tick"
        else:
            first, end = ticks
            _require_committed(first, last, "ticks.from_tick")
            _require_committed(end, last, "ticks.to_tick")
            if end < first:
                raise InvalidRequestError(
                    f"ticks.to_tick {end} is before ticks.from_tick {first}", field="ticks.to_tick"
                )
            field = "ticks.from_tick"
        history, key = world.history, world.row.key
        kept = await self._threads.call(_kept, history, key, first, end, field)
        streams = await self._threads.call(history.streams_at, key, end)
        schema = query.schema((stream.components, read_schema(stream.schema)) for stream in streams)
        return RowAnswer(last, schema, past_rows(query, history, key, kept, streams, schema))

    def sql_rows(self, text: str, *, at_tick: int | None = None) -> SqlAnswer:
        """Return a SQL query over the worlds that the caller may see, to be begun by reading it.

        Args:
            text: One SELECT statement.
            at_tick: The tables' tick; None: they have all kept ticks.
        """
        if at_tick is not None and at_tick < 0:
            raise InvalidRequestError("at_tick must not be negative", field="at_tick")
        actor = caller()
        worlds = [world for world in self._storages.worlds if actor.may_enter(world.name)]
        tables = WorldTables(worlds, [*self._storages.setup.vocabulary.components], at_tick=at_tick)
        self._sandbox = self._storages.home.sandbox
        return SqlAnswer(self._sandbox.query(text, tables), tables)

    async def entity(
        self, world: AsyncWorld, entity_id: int, *, at_tick: int | None = None
    ) -> tuple[int, dict[str, dict[str, Any]]]:
        """Return (the tick read, an active entity's values by component and field).

        Raises:
            EntityNotFoundError: There is none of that id at that tick.
            TickInTheFutureError: The tick is not committed yet.
            TickNotKeptError: It is no longer kept.
        """
        state = world.state
        tick = state.tick - 1 if at_tick is None else at_tick
        if tick == state.tick - 1:
            batches = [
                only_entities(active_rows(table.batch), [entity_id]) for table in state.tables.values()
            ]
        else:
            _require_committed(tick, state.tick - 1, "at_tick")
            batches = await self._threads.call(_entity_rows, world, entity_id, tick)
        for batch in batches:
            if batch.num_rows:
                return tick, entity_values([batch], entity_id)
        raise EntityNotFoundError(
            f"no entity {entity_id} in world {world.name} at tick {tick}",
            field="entity_id",
            entity_id=entity_id,
            tick=tick,
        )

    def read(self, answer: Answer, pieces: Iterator[T]) -> AsyncGenerator[T, None]:
        """Yield what `pieces` makes of an answer, on threads; it is cancelled when nobody reads on."""
        threads = self._sql_threads if isinstance(answer, SqlAnswer) else self._threads
        return threads.each(pieces, cancel=answer.cancel)

    async def _whole(self, answer: Answer) -> pa.Table:
        def pieces() -> Iterator[pa.Table]:
            schema = answer.begin()
            yield pa.Table.from_batches(list(answer.batches()), schema=schema)

        async with aclosing(self.read(answer, pieces())) as tables:
            return await anext(tables)

    def close(self) -> None:
        """End SQL queries, wait for the pages that are being read, and read nothing more."""
        if self._sandbox is not None:
            self._sandbox.close()
        self._threads.close()
        self._sql_threads.close()


def _require_committed(tick: int, last: int, field: str) -> None:
    if tick < 0:
        raise InvalidRequestError(f"{field} must not be negative", field=field)
    if tick > last:
        raise TickInTheFutureError(
            f"tick {tick} is not committed yet: the last one is {last}",
            field=field,
            tick=tick,
            committed_tick=last,
        )


def _kept(history: History, world: int, first: int, last: int, field: str) -> Sequence[int]:
    """Return the kept ticks of a range; a range that begins before all that is kept is refused."""
    kept = history.kept_ticks(world, first, last)
    if (first == last and not kept) or (
        first < history.earliest_tick(world) and not history.kept_ticks(world, 0, first)
    ):
        raise not_kept(first, history.earliest_tick(world), field=field)
    return kept


def _entity_rows(world: AsyncWorld, entity_id: int, tick: int) -> list[pa.RecordBatch]:
    history, key = world.history, world.row.key
    try:
        pages = history.scan(key, [tick], streams=history.streams_at(key, tick), entity_ids=[entity_id])
        found = [entry.rows for page in pages for entry in page]
    except TickNotKeptError as error:
        error.field = "at_tick"
        raise
    return [rows.select(rows.schema.names[1:]) for rows in found]
