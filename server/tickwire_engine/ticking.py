"""Running the ticks of a world: what its processors are given, its hooks, and what a failed tick leaves.

Which ticks are in flight is the pipeline's; when the next one comes is for whoever drives the world. Lives as long as its
world, on its event loop.
"""

from __future__ import annotations

import asyncio
import json
from contextvars import ContextVar
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from tickwire_engine.config import RunConfig
from tickwire_engine.errors import StorageFullError, TickwireError
from tickwire_engine.reading import entity_values
from tickwire_engine.tick.compute import compute_tick
from tickwire_engine.tick.context import TickContext
from tickwire_engine.tick.pipeline import TickInput
from tickwire_engine.tick.watching import TickWatch, log_abort, log_tick, print_rows
from tickwire_engine.values import to_json

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tickwire_engine.commands import Decision, Vocabulary
    from tickwire_engine.state import WorldState
    from tickwire_engine.storage.store import Store
    from tickwire_engine.tick.compute import ComputedTick, DueCommand
    from tickwire_engine.tick.pipeline import CommittedTick, TickPipeline
    from tickwire_engine.world import AsyncWorld

inside: ContextVar[WorldState | None] = ContextVar("tickwire_inside_tick", default=None)
"""The state that the tick in hand started from, for what runs inside it."""


class Ticking:
    """Runs the ticks of one world."""

    def __init__(
        self, world: AsyncWorld, *, store: Store, vocabulary: Vocabulary, pipeline: TickPipeline
    ) -> None:
        self._world = world
        self._store = store
        self._vocabulary = vocabulary
        self._pipeline = pipeline
        self._hooked: asyncio.Future[CommittedTick] | None = None

    async def advance(
        self, run_config: RunConfig | None, inputs: dict[str, Any], *, hz: float = 0.0
    ) -> asyncio.Future[CommittedTick]:
        """Compute the next tick; the future is done once it is durable, and its hooks have run.

        Whoever calls it has the world's turn.
        """
        self._store.require_room()
        world = self._world
        config = run_config or RunConfig(run_id=world.run_id)
        world.run_id = config.run_id
        await world.load()
        if not config.prefer_live_reads:
            await self._pipeline.reread()
        head = self._pipeline.head
        if world.hooks.has("pre_tick"):
            await world.hooks.fire("pre_tick", world=world, tick=head.tick)
        keywords = self._keywords(head, config, inputs)
        watch = TickWatch.of(config)
        given = TickInput(config.run_id.bytes, _inputs_json(inputs), keywords, hz, watch)
        token = inside.set(head)
        try:
            published = await self._pipeline.advance(given, with_spawned_ids=world.hooks.has("on_spawn"))
        except StorageFullError:
            # Nothing is wrong with the world: it waits.
            raise
        except TickwireError as error:
            world.fault = error
            if config.debug:
                log_abort(head.tick, config, error)
            raise
        finally:
            inside.reset(token)
        world.fault = None
        if config.debug or config.show_rows:
            published.add_done_callback(lambda done: _report(done, config))
        if any(world.hooks.has(event) for event in ("post_tick", "on_spawn", "on_despawn")):
            self._hooked = asyncio.ensure_future(self._after(published, self._hooked))
            # Nobody need wait for it: that storage failed is told by the next tick.
            self._hooked.add_done_callback(lambda task: task.cancelled() or task.exception())
            return self._hooked
        return published

    async def recompute(
        self,
        state: WorldState,
        due: Sequence[DueCommand],
        *,
        time_us: int,
        run_config: RunConfig,
        inputs: dict[str, Any],
        decisions: Mapping[int, Decision | TickwireError] = MappingProxyType({}),
    ) -> ComputedTick:
        """Compute the tick after `state` as it was computed once; nothing is committed, no hook is called.

        Args:
            state: Any state of this world; its snapshots become those of the resources.
            due: The commands that the tick applied, in their order.
            time_us: The tick's journaled time.
            run_config: The run it belonged to.
            inputs: What its processors were given.
            decisions: What was decided for commands that reach beyond the world, by seq.
        """
        self._world.resources.configure(state.configuration.resources_by_type)
        self._world.resources.restore(state.snapshots)
        context = TickContext(state.world_id, self._world.row.seed, state.tick, time_us, self._vocabulary)
        context.decisions = decisions
        token = inside.set(state)
        try:
            return await compute_tick(
                state,
                due,
                context=context,
                keywords=self._keywords(state, run_config, inputs),
                resources=self._world.resources,
                max_message_bytes=self._pipeline.max_message_bytes,
            )
        finally:
            inside.reset(token)

    async def hooks_done(self) -> None:
        """Wait until the hooks of every durable tick have run."""
        while self._hooked is not None and not self._hooked.done():
            await asyncio.wait([self._hooked])

    def _keywords(self, head: WorldState, config: RunConfig, inputs: dict[str, Any]) -> dict[str, Any]:
        return {
            **inputs,
            "tick": head.tick,
            "world": self._world,
            "resources": self._world.resources,
            "run_config": config,
            "inputs": inputs,
        }

    async def _after(
        self, published: asyncio.Future[CommittedTick], earlier: asyncio.Future[CommittedTick] | None
    ) -> CommittedTick:
        if earlier is not None and not earlier.done():
            await asyncio.wait([earlier])
        world, committed = self._world, await published
        for entity_id in committed.computed.spawned_ids:
            await world.hooks.fire(
                "on_spawn",
                world=world,
                entity_id=entity_id,
                components=_components_of(committed, entity_id),
            )
        for entity_id in committed.computed.despawned:
            await world.hooks.fire("on_despawn", world=world, entity_id=entity_id)
        results = {"+".join(sig): table.batch for sig, table in committed.state.tables.items()}
        await world.hooks.fire("post_tick", world=world, tick=committed.summary.tick, results=results)
        return committed


def _components_of(committed: CommittedTick, entity_id: int) -> dict[str, dict[str, Any]]:
    batches = [table.batch for table in committed.state.tables.values()]
    return entity_values(batches, entity_id)


def _report(published: asyncio.Future[CommittedTick], config: RunConfig) -> None:
    if published.cancelled() or published.exception() is not None:
        return
    if config.debug:
        log_tick(published.result(), config)
    if config.show_rows:
        print_rows(published.result(), config.show_rows)


def _inputs_json(inputs: dict[str, Any]) -> bytes:
    if not inputs:
        return b"{}"
    return json.dumps(to_json(inputs), sort_keys=True, separators=(",", ":")).encode()
