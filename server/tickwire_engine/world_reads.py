"""A world's rows as its callers may see them: as they are, and at any kept tick, in the shape that components have now.

The functions under it are in `reading`. Lives as long as its world, on its event loop.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from uuid import UUID

import daft
import pyarrow as pa

from tickwire_engine.archetype import archetype_schema as current_schema
from tickwire_engine.archetype import signature
from tickwire_engine.errors import InvalidRequestError, TickInTheFutureError, TickNotKeptError
from tickwire_engine.evolution import fitted
from tickwire_engine.reading import archetype_history, archetype_schema
from tickwire_engine.storage.retention import not_kept
from tickwire_engine.ticking import inside

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tickwire_engine.archetype import Signature
    from tickwire_engine.commands import Vocabulary
    from tickwire_engine.component import Component
    from tickwire_engine.storage.rows import Stream
    from tickwire_engine.world import AsyncWorld


class WorldReads:
    """Reads one world."""

    def __init__(self, world: AsyncWorld, vocabulary: Vocabulary) -> None:
        self._world = world
        self._vocabulary = vocabulary

    def live_tables(self) -> dict[Signature, pa.RecordBatch]:
        """Return the rows of every archetype at the tick that the caller may see, in the shape of now."""
        state = self._world.state
        if state.generation == self._vocabulary.components.generation:
            return {sig: table.batch for sig, table in state.tables.items()}
        return {sig: self._grown(sig, table.batch) for sig, table in state.tables.items()}

    async def tables_at(self, at_tick: int | None) -> dict[Signature, pa.RecordBatch]:
        """Return the rows of every archetype: see `AsyncWorld.tables_at`."""
        state = self._world.state
        if at_tick is None or at_tick == state.tick - 1:
            await self._world.load()
            return self.live_tables()
        self._require_past(at_tick, "at_tick")
        await self._settled_before_reading()
        try:
            stored = await asyncio.to_thread(self._world.history.state_at, self._world.row.key, at_tick)
        except TickNotKeptError as error:
            error.field = "at_tick"
            raise
        streams = await asyncio.to_thread(self._world.history.streams, self._world.row.key)
        by_number = {stream.number: stream.components for stream in streams}
        return {
            by_number[number]: self._grown(by_number[number], batch) for number, (_, batch) in stored.items()
        }

    async def query_archetype(
        self,
        sig: Iterable[type[Component] | str],
        ticks: Iterable[int] | int | None,
        entity_ids: Sequence[int] | None,
        components: Iterable[type[Component] | str] | None,
        run_id: UUID | str | None,
    ) -> daft.DataFrame:
        """Return the history of one archetype: see `AsyncWorld.query_archetype`."""
        named = signature(map(self._component_name, sig))
        chosen = None if components is None else [*map(self._component_name, components)]
        schema = archetype_schema(named, chosen, self._vocabulary.components)
        asked = {ticks} if isinstance(ticks, int) else None if ticks is None else set(ticks)
        for tick in asked or ():
            self._require_past(tick, "ticks")
        last = self._world.state.tick - 1
        await self._settled_before_reading()
        streams = await asyncio.to_thread(self._world.history.streams, self._world.row.key)
        rows = await asyncio.to_thread(
            self._archetype_history,
            [stream for stream in streams if stream.components == named],
            asked,
            last,
            schema,
            entity_ids,
            None if run_id is None else UUID(str(run_id)),
        )
        return daft.from_arrow(rows)

    def _grown(self, sig: Signature, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Return an archetype's rows in the shape that its components have now."""
        catalog = self._vocabulary.components
        if not all(name in catalog for name in sig):
            return batch
        schema = current_schema([catalog.require(name) for name in sig], world_id=self._world.world_id)
        return batch if schema.equals(batch.schema) else fitted(batch, schema, catalog)

    def _component_name(self, component: type[Component] | str) -> str:
        if isinstance(component, str):
            return self._vocabulary.components.require(component).name
        return self._vocabulary.components.register(component).name

    def _require_past(self, tick: int, field: str) -> None:
        last = self._world.state.tick - 1
        if tick < 0:
            raise InvalidRequestError(f"{field} must not be negative", field=field)
        if tick > last:
            raise TickInTheFutureError(
                f"tick {tick} is not committed yet: the last one is {last}",
                field=field,
                tick=tick,
                committed_tick=last,
            )

    async def _settled_before_reading(self) -> None:
        # Inside a tick, those before it may still be on their way to the disk.
        if inside.get() is not None:
            await self._world.settled()

    def _archetype_history(
        self,
        streams: Sequence[Stream],
        asked: set[int] | None,
        last: int,
        schema: pa.Schema,
        entity_ids: Sequence[int] | None,
        run_id: UUID | None,
    ) -> pa.Table:
        history, key = self._world.history, self._world.row.key
        kept = history.kept_ticks(key, 0, last)
        if asked is not None and not asked <= set(kept):
            raise not_kept(min(asked.difference(kept)), history.earliest_tick(key), field="ticks")
        wanted = set(kept) if asked is None else asked
        if run_id is not None and wanted:
            summaries = history.summaries(key, min(wanted), max(wanted))
            wanted &= {summary.tick for summary in summaries if summary.run_id == run_id.bytes}
        catalog = self._vocabulary.components
        # One after another: where its components have grown, an archetype went on in another stream.
        pieces = [
            archetype_history(
                history, key, stream, wanted, schema=schema, entity_ids=entity_ids, catalog=catalog
            )
            for stream in streams
        ]
        return pa.concat_tables([schema.empty_table(), *pieces])
