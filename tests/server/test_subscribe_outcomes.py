"""Outcomes that come with the ticks that decided them: whose, in which order, wherever the ticks lie."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc

from tests.server.answers import despawn, refused, spawn, until
from tests.server.secured import secured
from tickwire.v1 import command_pb2, command_service_pb2, simulation_service_pb2, tick_service_pb2

if TYPE_CHECKING:
    from pathlib import Path

    from tests.server.conftest import Served

pb = tick_service_pb2
Outcomes = dict[int, list[command_pb2.CommandOutcome]]


async def outcomes_of(call: Any) -> Outcomes:
    """Read a stream to its end; answers outcomes by the tick they came with."""
    found: Outcomes = {}
    async for message in call:
        for chunk in message.chunks:
            found.setdefault(chunk.tick, []).extend(chunk.outcomes)
    return found


async def archive(served: Served) -> None:
    engine = served.server.container.engine
    await engine.store.archiver.archive_now(engine.world("w").row.key)


async def watched(served: Served, count: int) -> list[command_pb2.CommandOutcome]:
    """Read outcomes as WatchOutcomes has them."""
    call = served.commands.WatchOutcomes(
        command_service_pb2.WatchOutcomesRequest(world="w", after_outcome_seq=0)
    )
    found = [(await call.read()).outcome for _ in range(count)]
    call.cancel()
    return found


async def test_outcomes_come_with_their_ticks_live_from_the_ring_and_from_history(served: Served) -> None:
    await served.create(template="")
    live = asyncio.ensure_future(outcomes_of(served.subscribe(from_tick=0, until_tick=5, with_outcomes=True)))
    hub = served.server.container.hub(served.server.container.engine.world("w"))
    await until(lambda: hub.subscribers)
    for tick in range(6):
        await served.submit(*([spawn(float(tick)), despawn(99)] if tick % 2 else []))
        await served.step()
        if tick == 2:
            await archive(served)
    told = await live
    assert {tick: len(outcomes) for tick, outcomes in told.items()} == {0: 0, 1: 2, 2: 0, 3: 2, 4: 0, 5: 2}
    flat = [outcome for outcomes in told.values() for outcome in outcomes]
    assert flat == await watched(served, 6)
    assert all(outcome.tick == tick for tick, outcomes in told.items() for outcome in outcomes)
    assert await outcomes_of(served.subscribe(from_tick=0, until_tick=5, with_outcomes=True)) == told
    await archive(served)
    await served.stop()
    await served.start()
    assert await outcomes_of(served.subscribe(from_tick=0, until_tick=5, with_outcomes=True)) == told
    await served.submit(spawn())
    await served.step()
    (last,) = (await outcomes_of(served.subscribe(from_tick=6, until_tick=6, with_outcomes=True)))[6]
    assert last.outcome_seq == 7
    none = await outcomes_of(served.subscribe(from_tick=0, until_tick=6))
    assert not any(none.values())


async def test_every_other_tick_brings_the_outcomes_of_those_left_out(served: Served) -> None:
    await served.create(template="")
    for _ in range(7):
        await served.submit(spawn())
        await served.step()
    for mode in (pb.TICK_MODE_FULL, pb.TICK_MODE_CHANGES):
        asked = {"from_tick": 0, "until_tick": 6, "every": 3, "with_outcomes": True, "mode": mode}
        told = await outcomes_of(served.subscribe(**asked))
        assert {tick: [o.tick for o in outcomes] for tick, outcomes in told.items()} == {
            0: [0],
            3: [1, 2, 3],
            6: [4, 5, 6],
        }


async def test_many_outcomes_are_spread_over_messages(served: Served) -> None:
    await served.create(template="")
    for _ in range(3):
        await served.submit(*(spawn() for _ in range(2_000)))
    await served.step()
    call = served.subscribe(
        at=pb.START_AT_SNAPSHOT, until_tick=0, with_outcomes=True, max_message_bytes=64 << 10
    )
    seqs = []
    async for message in call:
        assert message.ByteSize() <= 64 << 10
        seqs += [outcome.outcome_seq for chunk in message.chunks for outcome in chunk.outcomes]
    assert seqs == [*range(1, 6_001)]


async def test_outcomes_are_ones_own_unless_an_operator_asks_for_all(tmp_path: Path) -> None:
    async with secured(tmp_path / "data") as server:
        await server.create("w", template="")
        mine, other = [
            (await server.token("player", name=name, worlds=["*"])).secret for name in ("mine", "other")
        ]
        operator = (await server.token("operator", name="op", worlds=["*"])).secret
        for secret in (mine, other, mine):
            request = command_service_pb2.SubmitRequest(world="w", commands=[spawn()])
            await server.call("CommandService.Submit", request, token=secret)
        await server.call("SimulationService.Step", simulation_service_pb2.StepRequest(world="w", ticks=1))

        def told(token: str, scope: int) -> Any:
            request = pb.SubscribeRequest(
                world="w", from_tick=0, until_tick=0, with_outcomes=True, outcome_scope=scope
            )
            return server.call("TickService.Subscribe", request, token=token)

        for scope in (pb.OUTCOME_SCOPE_UNSPECIFIED, pb.OUTCOME_SCOPE_MINE):
            seen = {
                token: [o.outcome_seq for o in (await outcomes_of(told(token, scope)))[0]]
                for token in (mine, other, operator)
            }
            assert list(seen.values()) == [[1, 3], [2], []]
        everything = (await outcomes_of(told(operator, pb.OUTCOME_SCOPE_ALL)))[0]
        assert [o.outcome_seq for o in everything] == [1, 2, 3]
        refusal = await refused(told(mine, pb.OUTCOME_SCOPE_ALL))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.PERMISSION_DENIED, "ROLE_FORBIDS")
