"""SimulationService: who moves a world on, and how fast. One mover at a time.

A world is stepped, run or played. Playing keeps a steady schedule: each beat has its time, an overrun skips the beats
it missed, and never makes up for them in a burst.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, Any

import structlog

from tickwire_engine import RunConfig
from tickwire_engine.errors import (
    InvalidRequestError,
    ShuttingDownError,
    StorageError,
    StorageFullError,
    TickwireError,
    WorldFaultedError,
    WorldPlayingError,
    WorldRunningError,
)
from tickwire_server.services.schedule import next_beat

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from uuid import UUID

    from tickwire_engine import AsyncWorld, BaseProcessor, CommittedTick
    from tickwire_engine.configuration import ProcessorEntry
    from tickwire_engine.storage.rows import TickSummary
    from tickwire_server.storages import Storages

_log = structlog.get_logger(__name__)
PROGRESS_INTERVAL_S = 0.25
_ROOM_POLL_S = 0.1
"""How often a world that waits for room on the disk looks for it."""


class RunState(Enum):
    """What a world is doing."""

    IDLE = "idle"
    RUNNING = "running"
    PLAYING = "playing"
    FAULTED = "faulted"
    DESTROYED = "destroyed"


@dataclass(frozen=True, slots=True)
class StepResult:
    """Ticks that were made durable."""

    first_tick: int
    last_tick: int
    run_id: UUID
    commands_applied: int
    commands_rejected: int


@dataclass(frozen=True, slots=True)
class RunProgress:
    """How far a run is."""

    tick: int
    ticks_done: int
    ticks_total: int
    ticks_per_second: float


class Mover:
    """What moves one world; used on the event loop."""

    def __init__(self, world: AsyncWorld, on_change: Callable[[], None]) -> None:
        self.world = world
        self.hz = 0.0
        self.skipped_beats = 0
        """Beats of Play that were due while a tick was still computing, since the world was opened."""
        self.waiting: StorageFullError | None = None
        """Why the next tick waits: the disk has no room for it. It goes on by itself."""
        self._on_change = on_change
        self._stop = asyncio.Event()
        self._pauses = 0
        """How often it was told to stop: whoever waits for room is told by a change."""
        self._wake = asyncio.Event()
        """Set to end the pause between two beats: to stop, or because the rate changed."""
        self._play: asyncio.Task[None] | None = None
        self._playing = _Playing(0, {})
        self._steps = asyncio.Lock()
        self._running = False
        self._closing = False
        self._free = asyncio.Event()
        self._free.set()

    @property
    def state(self) -> RunState:
        """What the world is doing now."""
        if self.world.destroyed:
            return RunState.DESTROYED
        if self._play is not None and not self._play.done():
            return RunState.PLAYING
        if not self._free.is_set():
            return RunState.RUNNING
        return RunState.IDLE if self.world.fault is None else RunState.FAULTED

    @property
    def fault(self) -> TickwireError | None:
        """Why no tick comes: the last one failed, or the next waits for room on the disk; None: nothing is wrong."""
        return self.world.fault or self.waiting

    async def step(
        self,
        ticks: int,
        inputs: dict[str, Any],
        *,
        expected_tick: int | None = None,
        max_wait_s: float | None = None,
        config: RunConfig | None = None,
    ) -> StepResult:
        """Compute `ticks` ticks and wait until they are durable; concurrent steps take turns.

        Begins no further tick once `max_wait_s` is over; at least one is computed, unless the disk has no room for it
        until then.

        Raises:
            WorldPlayingError: Pause it first.
            WorldRunningError: A Run is under way.
            ProcessorFailedError: A tick was aborted; metadata ``ticks_done`` says how many were not.
            ShuttingDownError: The server stops; ``ticks_done`` as above.
            StorageFullError: There was no room on the disk until `max_wait_s` was over, or Pause was called.
        """
        self._require_no_other_mover()
        async with self._steps:
            self._require_no_other_mover()
            with self._moving():
                try:
                    return await self._step(
                        ticks, inputs, expected_tick, max_wait_s, config or self._config()
                    )
                except TickwireError:
                    # What was done before is told as ticks_done: whoever looks for it finds it.
                    await self.world.settled()
                    raise

    async def run(
        self, ticks: int, inputs: dict[str, Any], *, expected_tick: int | None
    ) -> AsyncIterator[RunProgress]:
        """Compute `ticks` ticks, pipelined, and yield progress; closing the iterator stops after the tick in hand."""
        self._require_free()
        self._require_no_fault()
        self._stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        config = self._config()
        started = last_told = loop.time()
        done = 0
        latest: asyncio.Future[CommittedTick] | None = None
        self._running = True
        try:
            with self._moving():
                while done < ticks and not self._stop.is_set():
                    try:
                        latest = await self._advance(
                            config, inputs, expected_tick if done == 0 else None, ticks_done=done
                        )
                    except StorageFullError:
                        break  # told to stop while it waited for room
                    done += 1
                    now = loop.time()
                    if now - last_told >= PROGRESS_INTERVAL_S and done < ticks:
                        last_told = now
                        yield self._progress(done, ticks, now - started)
                    await asyncio.sleep(0)
                if latest is not None:
                    await asyncio.shield(latest)
        except TickwireError:
            await self.world.settled()
            raise
        finally:
            self._running = False
        yield self._progress(done, ticks, loop.time() - started)

    async def play(
        self, hz: float, max_ticks: int, inputs: dict[str, Any], *, expected_tick: int | None
    ) -> None:
        """Begin to play, or change rate, ticks to go and inputs of a world that plays.

        Raises:
            WorldRunningError: A Step or Run is under way.
            WorldFaultedError: The last tick failed: Step tries it again.
        """
        if not 0.0 <= hz <= 100_000.0:
            raise InvalidRequestError("hz must lie in [0, 100000]; 0 is as fast as possible", field="hz")
        if self.state is RunState.PLAYING:
            self.hz = hz
            self._playing = _Playing(max_ticks, inputs)
            self._wake.set()
            return
        self._require_free()
        self._require_no_fault()
        self._stop = asyncio.Event()
        playing = _Playing(max_ticks, inputs)
        if expected_tick is not None:
            # The first tick is computed here, so that a world at another tick is answered, not played.
            with self._moving():
                await self._advance(self._config(), inputs, expected_tick, ticks_done=0, hz=hz)
            playing.done = 1
        self.hz = hz
        self._playing = playing
        self._play = asyncio.create_task(self._keep_playing(), name=f"play {self.world.name}")
        self._play.add_done_callback(lambda _: self._on_change())
        self._on_change()

    async def pause(self) -> None:
        """Stop playing or running after the tick in hand; returns once it is durable."""
        self._stop.set()
        self._pauses += 1
        self._wake.set()
        if self._play is not None:
            await asyncio.wait([self._play])
        await self._free.wait()
        await self.world.settled()

    async def close(self) -> None:
        """Pause for good: what steps ends after the tick in hand too."""
        self._closing = True
        await self.pause()

    async def _step(
        self,
        ticks: int,
        inputs: dict[str, Any],
        expected_tick: int | None,
        max_wait_s: float | None,
        config: RunConfig,
    ) -> StepResult:
        loop = asyncio.get_running_loop()
        deadline = None if max_wait_s is None else loop.time() + max_wait_s
        # A committed tick holds its whole state: only those in flight are kept.
        in_flight: deque[asyncio.Future[CommittedTick]] = deque()
        summaries: list[TickSummary] = []
        for done in range(ticks):
            if done and deadline is not None and loop.time() >= deadline:
                break
            if self._closing:
                raise ShuttingDownError("the server is stopping: step what is left later", ticks_done=done)
            expected = expected_tick if done == 0 else None
            in_flight.append(
                await self._advance(config, inputs, expected, ticks_done=done, deadline=deadline)
            )
            while in_flight and in_flight[0].done():
                summaries.append(in_flight.popleft().result().summary)
        while in_flight:
            await self._durable(in_flight[0], deadline, ticks_done=len(summaries))
            summaries.append(in_flight.popleft().result().summary)
        return StepResult(
            first_tick=summaries[0].tick,
            last_tick=summaries[-1].tick,
            run_id=config.run_id,
            commands_applied=sum(summary.commands_applied for summary in summaries),
            commands_rejected=sum(summary.commands_rejected for summary in summaries),
        )

    async def _durable(
        self, tick: asyncio.Future[CommittedTick], deadline: float | None, *, ticks_done: int
    ) -> None:
        """Wait for a tick in flight, past `deadline` only while nothing but the journal's pace keeps it."""
        while not tick.done():
            await asyncio.wait([tick], timeout=None if deadline is None else _ROOM_POLL_S)
            if deadline is not None and self.world.lacks_room and self._now() >= deadline and not tick.done():
                raise StorageFullError(
                    "the tick waits for room on the disk and becomes durable once there is some: ask for it later",
                    ticks_done=ticks_done,
                )

    async def _keep_playing(self) -> None:
        config = self._config()
        beat = self._now()
        try:
            while not self._stop.is_set() and not self._playing.is_over:
                playing = self._playing
                await self._advance(config, playing.inputs, None, ticks_done=playing.done, hz=self.hz)
                playing.done += 1
                beat = await self._next_beat(beat)
        except StorageFullError:
            pass  # told to stop while it waited for room
        except TickwireError as error:
            _log.error("play stopped", world=self.world.name, reason=error.reason, error=error.message)
        except Exception:
            _log.exception("play stopped", world=self.world.name)
        finally:
            self.hz = 0.0

    async def _next_beat(self, last: float) -> float:
        """Wait for the beat after `last`, skipping those that are over, and return its time."""
        while not self._stop.is_set() and not self._playing.is_over:
            self._wake.clear()
            if self.hz <= 0.0:
                await asyncio.sleep(0)
                return self._now()
            beat = next_beat(last, 1.0 / self.hz, self._now())
            await self._sleep_until(beat.time)
            if not self._wake.is_set():
                self.skipped_beats += beat.missed
                return beat.time
        return self._now()

    async def _sleep_until(self, when: float) -> None:
        """Sleep until `when`, or until woken."""
        delay = when - self._now()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._wake.wait(), max(delay, 0.0))

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    async def _advance(
        self,
        config: RunConfig,
        inputs: dict[str, Any],
        expected_tick: int | None,
        *,
        ticks_done: int,
        hz: float = 0.0,
        deadline: float | None = None,
    ) -> asyncio.Future[CommittedTick]:
        """Compute a tick, once the disk has room for it; `deadline` (of the loop's clock) ends that wait, as Pause does."""
        pauses = self._pauses
        while True:
            if self.world.archive_is_behind:
                behind = StorageFullError(
                    "the archive is too far behind: the tick waits until it has caught up",
                    ticks_done=ticks_done,
                )
                if not await self._room_comes(behind, pauses, deadline):
                    raise behind
            tick = asyncio.ensure_future(
                self.world.advance(config, expected_tick=expected_tick, hz=hz, **inputs)
            )
            try:
                return await asyncio.shield(tick)
            except StorageFullError as error:
                if not await self._room_comes(error, pauses, deadline):
                    error.metadata["ticks_done"] = str(ticks_done)
                    raise
            except TickwireError as error:
                error.metadata["ticks_done"] = str(ticks_done)
                raise
            except asyncio.CancelledError:
                # The caller is gone; the tick in hand is finished all the same.
                await asyncio.wait([tick])
                raise

    async def _room_comes(self, lacking: StorageFullError, pauses: int, deadline: float | None) -> bool:
        self.waiting = lacking
        self._on_change()
        try:
            while self.world.lacks_room or self.world.archive_is_behind:
                if self._pauses != pauses or (deadline is not None and self._now() >= deadline):
                    return False
                await asyncio.sleep(_ROOM_POLL_S)
        finally:
            self.waiting = None
            self._on_change()
        return True

    @contextlib.contextmanager
    def _moving(self) -> Iterator[None]:
        self._free.clear()
        self._on_change()
        try:
            yield
        finally:
            self._free.set()
            self._on_change()

    def _require_free(self) -> None:
        self._require_no_other_mover()
        if self.state is RunState.RUNNING:
            raise self._is_running()

    def _require_no_other_mover(self) -> None:
        """Refuse what cannot take turns; a step can, with other steps."""
        if self._closing:
            raise ShuttingDownError("the server is stopping: no tick begins any more")
        if self.state is RunState.PLAYING:
            raise WorldPlayingError(
                f"world {self.world.name} is playing: pause it first",
                world=self.world.world_id,
                hz=f"{self.hz:g}",
            )
        if self._running:
            raise self._is_running()

    def _is_running(self) -> WorldRunningError:
        return WorldRunningError(
            f"a Step or Run is under way in world {self.world.name}: wait for it, or pause it",
            world=self.world.world_id,
        )

    def _require_no_fault(self) -> None:
        fault = self.world.fault
        if fault is None or isinstance(fault, StorageError):
            # Storage that failed says so itself when the next tick begins.
            return
        error = WorldFaultedError(f"world {self.world.name} is faulted: {fault.message}")
        error.metadata = {"world": str(self.world.world_id)} | fault.metadata
        raise error

    def _config(self) -> RunConfig:
        return RunConfig(run_id=self.world.run_id)

    def _progress(self, done: int, total: int, seconds: float) -> RunProgress:
        return RunProgress(self.world.tick - 1, done, total, done / seconds if seconds > 0 else 0.0)


@dataclass(slots=True)
class _Playing:
    """What Play was asked for last, and how much of it is done."""

    max_ticks: int
    """0: no end."""
    inputs: dict[str, Any]
    done: int = 0

    @property
    def is_over(self) -> bool:
        return bool(self.max_ticks) and self.done >= self.max_ticks


class SimulationService:
    """Moves worlds, by their ids; and the movers of all worlds."""

    def __init__(self, storages: Storages, on_change: Callable[[AsyncWorld], None] = lambda _: None) -> None:
        """Makes the service.

        Args:
            storages: Where the worlds are.
            on_change: Called with a world whose run state may have changed.
        """
        self._storages = storages
        self._on_change = on_change
        self._movers: dict[UUID, Mover] = {}

    async def step(
        self, world_id: UUID | str, run_config: RunConfig | None = None, **input_kwargs: Any
    ) -> StepResult:
        """Compute one tick and wait until it is durable; see `Mover.step`."""
        world = self._storages.world(world_id)
        return await self.mover(world).step(1, input_kwargs, config=run_config)

    async def run(self, world_id: UUID | str, run_config: RunConfig, **input_kwargs: Any) -> StepResult:
        """Compute `run_config.num_steps` ticks, pipelined, and wait until they are durable."""
        world = self._storages.world(world_id)
        if run_config.num_steps == 0:
            return StepResult(world.tick, world.tick - 1, run_config.run_id, 0, 0)
        return await self.mover(world).step(run_config.num_steps, input_kwargs, config=run_config)

    async def run_all(self, run_config: RunConfig, **input_kwargs: Any) -> list[StepResult]:
        """Run every world, side by side; results in the order of `WorldService.list_worlds`.

        Raises:
            TickwireError: One failed, once all have ended.
        """
        runs = [self.run(world.world_id, run_config, **input_kwargs) for world in self._storages.worlds]
        results = await asyncio.gather(*runs, return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return [result for result in results if not isinstance(result, BaseException)]

    async def add_processor(
        self, world_id: UUID | str, processor: BaseProcessor, *, name: str | None = None
    ) -> None:
        """Run `processor` from the world's next tick on; durable once this returns."""
        await self._storages.world(world_id).add_processor(processor, name=name)

    async def remove_processor(self, world_id: UUID | str, kind: type[BaseProcessor]) -> None:
        """Run no processor of the class `kind` from the world's next tick on.

        Raises:
            ProcessorNotFoundError: None runs.
        """
        await self._storages.world(world_id).remove_processor(kind)

    def list_processors(self, world_id: UUID | str) -> tuple[ProcessorEntry, ...]:
        """Return a world's processors in the order they run."""
        return self._storages.world(world_id).processors

    def mover(self, world: AsyncWorld) -> Mover:
        """Return what moves `world`, made at first use."""
        found = self._movers.get(world.world_id)
        if found is None:
            found = Mover(world, partial(self._on_change, world))
            if not world.destroyed:
                self._movers[world.world_id] = found
                world.on_ended(lambda _: self._let_go(world))
        return found

    def _let_go(self, world: AsyncWorld) -> None:
        self._movers.pop(world.world_id, None)

    async def forget(self, world: AsyncWorld) -> None:
        """Stop a world after the tick in hand, for good."""
        await self.mover(world).close()
        self._movers.pop(world.world_id, None)

    async def close(self) -> None:
        """Stop every world after the tick in hand, for good."""
        await asyncio.gather(*(mover.close() for mover in self._movers.values()))
