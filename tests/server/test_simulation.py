"""Step, Run, Play and Pause: who moves a world, and when it stops."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from tests.server.answers import refused, spawn, ticks_of, until
from tickwire.v1 import simulation_service_pb2, world_pb2, world_service_pb2
from tickwire_engine import RunConfig
from tickwire_engine.errors import (
    TickMismatchError,
    WorldPlayingError,
    WorldRunningError,
)
from tickwire_server.services.simulation import Mover, RunState

if TYPE_CHECKING:
    from tests.server.conftest import Served

STATE = grpc.StatusCode.FAILED_PRECONDITION
IDLE = world_pb2.WORLD_STATE_IDLE
RUNNING = world_pb2.WORLD_STATE_RUNNING
PLAYING = world_pb2.WORLD_STATE_PLAYING
FAULTED = world_pb2.WORLD_STATE_FAULTED


async def world_of(served: Served, name: str = "w") -> world_pb2.World:
    return (await served.worlds.GetWorld(world_service_pb2.GetWorldRequest(world=name))).world


def run(served: Served, ticks: int, **given: Any) -> Any:
    return served.simulation.Run(simulation_service_pb2.RunRequest(world="w", ticks=ticks, **given))


async def test_step_tells_what_it_did(served: Served) -> None:
    await served.create()
    first = await served.step(3)
    assert (first.first_tick, first.last_tick, first.commands_applied) == (0, 2, 6)
    second = await served.step(0)
    assert (second.first_tick, second.last_tick, second.commands_applied) == (3, 3, 0)
    assert second.run_id == first.run_id
    world = await world_of(served)
    assert (world.tick, world.entities, world.state) == (4, 5, IDLE)


async def test_inputs_reach_the_journal_and_processors(served: Served) -> None:
    await served.create()
    request = simulation_service_pb2.StepRequest(world="w")
    request.inputs.update({"wind": [1, None, "x"], "deep": {"a": True}})
    await served.simulation.Step(request)
    container = served.server.container
    world = container.engine.world("w")
    (stored,) = container.engine.store.history.ticks(world.row.key, 0, 0)
    assert stored.inputs == b'{"deep":{"a":true},"wind":[1.0,null,"x"]}'


async def test_expected_tick_refuses_another_tick_everywhere(served: Served) -> None:
    await served.create()
    await served.step(2)
    for call in (
        lambda: served.step(expected_tick=1),
        lambda: run(served, 5, expected_tick=3),
        lambda: served.play(50.0, expected_tick=1),
    ):
        refusal = await refused(call())
        assert (refusal.code, refusal.reason) == (STATE, "TICK_MISMATCH")
        assert refusal.metadata["actual"] == "2"
    world = await world_of(served)
    assert (world.tick, world.state, world.hz) == (2, IDLE, 0.0)
    assert (await served.step(expected_tick=2)).last_tick == 2
    assert [r.tick async for r in run(served, 2, expected_tick=3)][-1] == 4
    await served.play(0.0, max_ticks=2, expected_tick=5)
    await served.mover()._play
    await served.pause()
    assert (await world_of(served)).tick == 7


async def test_a_run_tells_its_progress(served: Served) -> None:
    await served.create()
    last = [response async for response in run(served, 100)][-1]
    assert (last.tick, last.ticks_done, last.ticks_total) == (99, 100, 100)
    assert last.ticks_per_second > 0
    assert (await world_of(served)).state == IDLE


async def test_a_cancelled_run_stops_after_the_tick_in_hand(served: Served) -> None:
    await served.create(template="held")
    await served.step()
    gate = served.gate()
    gate.open.clear()
    gate.entered.clear()
    call = run(served, 1000)
    reading = asyncio.ensure_future(refused(call))
    await gate.entered.wait()
    assert (await world_of(served)).state == RUNNING
    call.cancel()
    with pytest.raises((asyncio.CancelledError, AssertionError, grpc.RpcError)):
        await reading
    await until(lambda: any(task.cancelling() for task in asyncio.all_tasks()))
    gate.open.set()
    await served.pause()
    world = await world_of(served)
    assert (world.tick, world.state) == (2, IDLE)
    assert (await served.step()).last_tick == 2


async def test_only_one_moves_a_world(served: Served) -> None:
    await served.create(template="held")
    gate = served.gate()
    gate.open.clear()
    step = asyncio.ensure_future(served.step())
    await gate.entered.wait()
    for call in (run(served, 1), served.play()):
        refusal = await refused(call)
        assert (refusal.code, refusal.reason) == (STATE, "WORLD_RUNNING")
    other = asyncio.ensure_future(served.step())
    gate.open.set()
    # Steps take turns.
    assert sorted([(await step).last_tick, (await other).last_tick]) == [0, 1]
    await served.play(1000.0)
    for call in (served.step(), run(served, 1)):
        refusal = await refused(call)
        assert (refusal.code, refusal.reason) == (STATE, "WORLD_PLAYING")
    await served.pause()


async def test_pause_is_idempotent_and_returns_once_the_last_tick_is_durable(served: Served) -> None:
    await served.create()
    assert (await served.pause()).tick == 0
    assert (await served.play()).state == PLAYING
    async for tick in ticks_of(served.subscribe(from_tick=0)):
        if tick.tick == 20:
            break
    paused = await served.pause()
    assert paused.state == IDLE
    assert paused.tick > 20
    assert (await served.pause()).tick == paused.tick
    assert (await world_of(served)).tick == paused.tick


async def test_pause_ends_a_run(served: Served) -> None:
    await served.create(template="held")
    gate = served.gate()
    gate.open.clear()
    call = run(served, 1000)
    await gate.entered.wait()
    pausing = asyncio.ensure_future(served.pause())
    await until(lambda: served.mover()._stop.is_set())
    gate.open.set()
    assert [(r.ticks_done, r.ticks_total) async for r in call] == [(1, 1000)]
    assert (await pausing).tick == 1


async def test_a_long_step_does_not_hold_up_a_server_that_stops(served: Served) -> None:
    await served.create(template="held")
    gate = served.gate()
    gate.open.clear()
    step = asyncio.ensure_future(served.step(10_000))
    await gate.entered.wait()
    stopping = asyncio.ensure_future(served.server.stop())
    await served.server.container.stopping.wait()
    await until(lambda: served.mover()._stop.is_set())
    gate.open.set()
    answer = await refused(step)
    assert (answer.code, answer.reason) == (grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN")
    assert answer.metadata == {"ticks_done": "1"}
    await stopping


async def test_play_ends_by_itself_after_max_ticks(served: Served) -> None:
    await served.create()
    playing = await served.play(0.0, max_ticks=10)
    assert playing.state == PLAYING
    ticks = [tick.tick async for tick in ticks_of(served.subscribe(from_tick=0, until_tick=9))]
    assert ticks == list(range(10))
    await served.mover()._play
    world = await world_of(served)
    assert (world.tick, world.state, world.hz) == (10, IDLE, 0.0)


async def test_play_on_a_playing_world_changes_its_rate_at_once(served: Served) -> None:
    await served.create()
    assert (await served.play(0.001)).hz == 0.001
    stream = ticks_of(served.subscribe(from_tick=0))
    assert (await anext(stream)).tick == 0
    assert (await served.play(500.0)).hz == 500.0
    for expected in range(1, 5):
        # At the old rate the next tick would be a quarter of an hour away.
        assert (await asyncio.wait_for(anext(stream), 20)).tick == expected
    await served.pause()


async def test_a_fault_is_told_play_stops_and_step_tries_again(served: Served) -> None:
    await served.create(template="held")
    await served.step()
    gate = served.gate()
    gate.broken = True
    stepped = await refused(served.step(5))
    assert (stepped.code, stepped.reason) == (grpc.StatusCode.ABORTED, "PROCESSOR_FAILED")
    assert stepped.metadata == {"processor": "Hold", "tick": "1", "ticks_done": "0"}
    world = await world_of(served)
    assert world.state == FAULTED
    assert "Hold" in world.fault
    assert world.fault_status.code == grpc.StatusCode.ABORTED.value[0]
    for call in (served.play(), run(served, 2)):
        refusal = await refused(call)
        assert (refusal.code, refusal.reason) == (STATE, "WORLD_FAULTED")
    assert (await served.submit(spawn())).receipts[0].seq
    gate.broken = False
    assert (await served.step()).commands_applied == 1
    world = await world_of(served)
    assert (world.state, world.fault) == (IDLE, "")
    assert not world.HasField("fault_status")


async def test_a_fault_ends_play(served: Served) -> None:
    await served.create(template="held")
    await served.step()
    gate = served.gate()
    gate.broken = True
    await served.play()
    await served.mover()._play
    assert (await world_of(served)).state == FAULTED
    assert (await served.pause()).state == FAULTED


# The mover alone, with a world that takes as long as the test says


class SlowLoop:
    """Time and a world for a mover: each tick takes what the test says, and nobody waits for it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, served: Served, durations: list[float]) -> None:
        self.now = 0.0
        self.begun: list[float] = []
        self.durations = iter(durations)
        self.world = served.server.container.engine.world("w")
        self.mover = Mover(self.world, lambda: None)
        advance = self.world.advance

        async def timed(*args: Any, **kwargs: Any) -> Any:
            self.begun.append(self.now)
            result = await advance(*args, **kwargs)
            self.now += next(self.durations, 0.0)
            return result

        async def sleep_until(when: float) -> None:
            self.now = max(self.now, when)

        monkeypatch.setattr(self.world, "advance", timed)
        monkeypatch.setattr(self.mover, "_sleep_until", sleep_until)
        monkeypatch.setattr(self.mover, "_now", lambda: self.now)


async def test_play_keeps_its_beat_and_skips_what_it_missed(
    monkeypatch: pytest.MonkeyPatch, served: Served
) -> None:
    await served.create()
    slow = SlowLoop(monkeypatch, served, [0.25, 1.5, 3.5, 0.25, 0.25])
    await slow.mover.play(1.0, 6, {}, expected_tick=None)
    assert slow.mover._play is not None
    await slow.mover._play
    assert slow.begun == [0.0, 1.0, 3.0, 7.0, 8.0, 9.0]
    assert slow.mover.skipped_beats == 1 + 3
    assert slow.mover.state is RunState.IDLE


async def test_worlds_that_play_at_once_take_turns(served: Served) -> None:
    names = ["one", "two", "three"]
    order: list[str] = []
    for name in names:
        await served.create(name)
        world = served.server.container.engine.world(name)
        world.on_committed(lambda _, name=name: order.append(name))
    for name in names:
        await served.play(0.0, world=name, max_ticks=150)
    for name in names:
        await served.mover(name)._play
        await served.pause(name)
    assert sorted(order) == sorted(names * 150)
    # By the time the quickest is done, no other has been left far behind.
    first_done = max(order.index(name) for name in names)
    assert first_done < 150
    done = next(i for i in range(len(order)) if max(order[: i + 1].count(name) for name in names) == 150)
    assert min(order[:done].count(name) for name in names) > 30


async def test_two_plays_at_once_make_one(served: Served) -> None:
    await served.create(template="held")
    await served.step()
    gate = served.gate()
    gate.open.clear()
    gate.entered.clear()
    mover = served.mover()
    first = asyncio.ensure_future(mover.play(0.0, 3, {}, expected_tick=1))
    await gate.entered.wait()
    assert mover.state is not RunState.IDLE
    with pytest.raises((WorldRunningError, WorldPlayingError)):
        await anext(mover.run(1, {}, expected_tick=None))
    with pytest.raises(WorldRunningError):
        await mover.play(0.0, 3, {}, expected_tick=None)
    gate.open.set()
    await first
    await mover._play
    await mover.pause()
    assert (await world_of(served)).tick == 4
    with pytest.raises(TickMismatchError):
        await mover.play(7.0, 0, {}, expected_tick=1)
    assert (mover.hz, mover.state) == (0.0, RunState.IDLE)


async def test_a_long_step_keeps_no_old_states(served: Served) -> None:
    import gc
    import weakref

    await served.create()
    world = served.server.container.engine.world("w")
    seen: list[weakref.ref[Any]] = []
    alive: list[int] = []

    def note(committed: Any) -> None:
        seen.append(weakref.ref(committed.state.tables[("Spot",)].batch))
        if committed.summary.tick == 299:
            gc.collect()
            alive.append(sum(ref() is not None for ref in seen))

    world.on_committed(note)
    await served.step(300)
    assert alive[0] < 100


async def test_max_wait_begins_no_further_tick(served: Served) -> None:
    await served.create()
    result = await served.mover().step(50, {}, expected_tick=None, max_wait_s=0.0)
    assert (result.first_tick, result.last_tick) == (0, 0)
    assert (await served.server.container.engine.world("w").run(RunConfig())) is not None
