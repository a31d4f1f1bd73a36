"""Worlds as the tables of a SQL query: which there are, and how their rows are read. On the threads of queries."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tickwire_engine.errors import TickInTheFutureError, TickNotKeptError
from tickwire_engine.reading import TICK
from tickwire_engine.sql.worlds import (
    ENTITIES,
    FEW_ENTITIES,
    component_schema,
    entities_schema,
    table_rows,
)
from tickwire_engine.storage.retention import not_kept

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pyarrow as pa

    from tickwire_engine import AsyncWorld, ComponentType
    from tickwire_engine.sql import Bounds, SqlTable
    from tickwire_engine.sql._pushdown import Interval


class WorldTables:
    """The tables of some worlds, as of the moment when this is made: later ticks are not in them.

    Attributes:
        tick: The last committed tick of the one world that was named; -1 if several were, or none.
    """

    def __init__(
        self, worlds: Sequence[AsyncWorld], kinds: Sequence[ComponentType], *, at_tick: int | None
    ) -> None:
        """Takes the worlds that may be named. On the event loop.

        Args:
            worlds: The worlds.
            kinds: All components that there are.
            at_tick: The one tick that the tables have; None: all kept ones.
        """
        self.tick = -1
        self._last = {world.name: world.state.tick - 1 for world in worlds}
        self._worlds = {world.name: world for world in worlds} | {str(w.world_id): w for w in worlds}
        self._kinds = {kind.name.lower(): kind for kind in kinds}
        self._at_tick = at_tick
        self._named: set[str] = set()

    def table(self, schema: str, name: str) -> SqlTable | None:
        """Return a table by the world's name or id, and the component's name."""
        world = self._worlds.get(schema.lower())
        kind = self._kinds.get(name.lower())
        if world is None or (kind is None and name.lower() != ENTITIES):
            return None
        last = self._last[world.name]
        self._named.add(world.name)
        self.tick = last if len(self._named) == 1 else -1
        if self._at_tick is not None and self._at_tick > last:
            raise TickInTheFutureError(
                f"tick {self._at_tick} of {world.name} is not committed yet: the last one is {last}",
                field="at_tick",
                tick=self._at_tick,
                committed_tick=last,
            )
        shown = entities_schema(self._kinds.values()) if kind is None else component_schema(kind)
        ticks = (0, last) if self._at_tick is None else (self._at_tick, self._at_tick)
        return _HistoryTable(world, "" if kind is None else kind.name, shown, ticks)

    def names(self) -> Sequence[str]:
        """Return the names that there are."""
        tables = [ENTITIES, *sorted(self._kinds)]
        return [f"{_quoted(world)}.{table}" for world in sorted(self._last) for table in tables]


class _HistoryTable:
    """The rows of one component of a world, or of all its entities, at all kept ticks of a range."""

    def __init__(self, world: AsyncWorld, component: str, schema: pa.Schema, ticks: Interval) -> None:
        self._world = world
        self._component = component
        self._ticks = ticks
        self.schema = schema

    def scan(self, columns: Sequence[str], bounds: Bounds) -> Iterator[pa.RecordBatch]:
        """Yield the rows, page by page, in the order of ticks."""
        history, key = self._world.history, self._world.row.key
        first, last = self._ticks
        if first == last and not history.kept_ticks(key, first, last):
            raise not_kept(first, history.earliest_tick(key), field="at_tick")
        ticks = [
            tick
            for start, end in bounds.ticks
            if start <= last and end >= first
            for tick in history.kept_ticks(key, max(start, first), min(end, last))
        ]
        if not ticks:
            return
        streams = [
            stream
            for stream in history.streams_at(key, ticks[-1])
            if not self._component or self._component in stream.components
        ]
        ids = bounds.few_entities(FEW_ENTITIES)
        wanted = {name for name in columns if name != TICK}
        try:
            for page in history.scan(key, ticks, streams=streams, entity_ids=ids, columns=wanted):
                for entry in page:
                    yield from table_rows(entry.rows, entry.stream.components, columns, self.schema)
        except TickNotKeptError as error:
            error.field = "sql"
            raise


def _quoted(world: str) -> str:
    return f'"{world}"' if "-" in world else world
