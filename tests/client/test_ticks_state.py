"""A live replica against a real server: it holds what the world holds, over restarts too."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.client.peer import TickWriter, positions
from tests.server.conftest import Served
from tests.server.test_subscribe_changes import lively
from tickwire import AsyncClient, Client, RetryPolicy
from tickwire._assembler import TickAssembler
from tickwire._replica import Replica
from tickwire.v1 import tick_service_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    made = Served(tmp_path / "data")
    await made.start()
    yield made
    await made.stop()


def address(served: Served) -> str:
    return f"127.0.0.1:{served.server.port}"


def rows(tables: Any) -> dict[str, list[dict[str, Any]]]:
    """Return active rows by archetype."""
    found = {name: [row for row in table.to_pylist() if row["is_active"]] for name, table in tables.items()}
    return {name: active for name, active in found.items() if active}


@pytest.mark.parametrize(
    "view", [{}, {"components": ["Mark"]}, {"where": "spot__x > 8"}, {"every": 3}], ids=str
)
async def test_a_state_is_the_worlds_at_each_tick(served: Served, view: Any) -> None:
    await lively(served)
    async with AsyncClient(address(served)) as client:
        world = await client.world("w")
        full = {tick.tick: tick async for tick in world.ticks(from_tick=0, until_tick=15, **view)}
        state = world.state(from_tick=0, until_tick=15, **view)
        seen = []
        async for tick in state:
            assert rows(state.tables) == rows(full[tick.tick].tables), tick.tick
            for table in state.tables.values():
                assert table["entity_id"].to_pylist() == sorted(table["entity_id"].to_pylist())
            assert len(state) == sum(table.num_rows for table in state.tables.values())
            seen.append(tick.tick)
            assert state.tick == tick.tick
        assert seen == sorted(full)


async def test_the_blocking_state_is_the_same(served: Served) -> None:
    await lively(served)

    def follow() -> tuple[list[int], dict[str, Any], Any, Any]:
        with Client(address(served)) as client, client.world("w").state(from_tick=2, until_tick=14) as state:
            ticks = [tick.tick for tick in state]
            return ticks, rows(state.tables), state.entity(8), state.entity(1)

    ticks, held, eight, gone = await asyncio.to_thread(follow)
    assert ticks == list(range(2, 15))
    async with AsyncClient(address(served)) as client:
        world = await client.world("w")
        (last,) = [tick async for tick in world.ticks(from_tick=14, until_tick=14)]
    assert held == rows(last.tables)
    assert (eight["mark__name"], gone) == ("c", None)


async def test_a_state_begins_with_the_last_committed_tick(served: Served) -> None:
    await served.create()
    await served.step(3)
    async with AsyncClient(address(served)) as client, (await client.world("w")).state() as state:
        assert (await anext(state)).tick == 2
        assert state.table("Spot")["spot__x"].to_pylist() == [3.0, 4.0, 5.0, 6.0, 7.0]


async def test_a_state_goes_on_at_the_exact_next_tick_after_a_restart(served: Served) -> None:
    await served.create()
    await served.step(5)
    port = served.server.port
    policy = RetryPolicy(retry_for_s=30, initial_backoff_s=0.05, max_backoff_s=0.2)
    async with AsyncClient(address(served), retry=policy) as client:
        state = (await client.world("w")).state(from_tick=0, until_tick=9)
        seen = [(await anext(state)) for _ in range(5)]
        await served.stop()
        await served.start(listen=f"127.0.0.1:{port}")
        await served.step(5)
        seen += [tick async for tick in state]
    assert [tick.tick for tick in seen] == list(range(10))
    assert [tick.tick for tick in seen if tick.snapshot] == [0, 5]
    assert state.table("Spot")["spot__x"].to_pylist() == [10.0, 11.0, 12.0, 13.0, 14.0]


@given(
    st.lists(
        st.dictionaries(st.integers(1, 8), st.tuples(st.sampled_from(["A", "B"]), st.integers(0, 3))),
        min_size=1,
        max_size=6,
    )
)
@settings(max_examples=50, deadline=None)
def test_a_replica_holds_what_the_changes_describe(states: list[dict[int, tuple[str, int]]]) -> None:
    writer, assembler, replica = TickWriter(), TickAssembler(pb.TICK_MODE_CHANGES), Replica()
    before: dict[int, tuple[str, int]] = {}
    for number, state in enumerate(states):
        pieces = []
        for active in (False, True):
            for archetype in ("A", "B"):
                if active:
                    chosen = {
                        i: x for i, (a, x) in state.items() if a == archetype and before.get(i) != (a, x)
                    }
                else:
                    chosen = {
                        i: x
                        for i, (a, x) in before.items()
                        if a == archetype and state.get(i, ("", 0))[0] != a
                    }
                if chosen:
                    ids = sorted(chosen)
                    batch = positions(*(float(chosen[i]) for i in ids), active=active)
                    pieces.append((archetype, batch.set_column(0, "entity_id", pa.array(ids, pa.int64()))))
        (tick,) = assembler.feed(writer.chunks(number, *pieces))
        replica.apply(tick)
        held = {
            row["entity_id"]: (name, int(row["position__x"]))
            for name, found in rows(replica.tables).items()
            for row in found
        }
        assert held == state
        before = state
