"""Commands that a tick sends to another world: journaled with the tick, accepted there once, never sent again by replay."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest

from tests.engine.parts import Place, Tag, setup
from tickwire_engine import (
    AsyncProcessor,
    Command,
    CommandBroker,
    CommandType,
    Engine,
    EngineSetup,
    WorldConfig,
)
from tickwire_engine.errors import ProcessorFailedError
from tickwire_engine.ids import uuid7
from tickwire_engine.replay import Replayed, replay
from tickwire_engine.storage.reader import StoreReader
from tickwire_engine.storage.rows import Letter

if TYPE_CHECKING:
    from tests.engine.conftest import Opener
    from tickwire_engine import AsyncWorld

OTHER = UUID("01900000-0000-7000-8000-0000000000b0")


class Telling(AsyncProcessor):
    """Tells another world of every tick; fails when it is told to, after it has sent."""

    components = (Place,)
    broken = False

    def __init__(self, target: str = str(OTHER)) -> None:
        self.target = target

    async def process(self, df: Any, **kwargs: Any) -> Any:
        broker = kwargs["resources"].require(CommandBroker)
        text = f"tick {kwargs['tick']}"
        command = Command(type=CommandType.SPAWN, payload={"components": {"Tag": {"text": text}}})
        await broker.enqueue(UUID(self.target), command)
        if Telling.broken:
            raise ValueError("on purpose")
        return df


def _setup() -> EngineSetup:
    made = setup()
    made.vocabulary.processors.register(Telling)
    return made


async def _begun(opener: Opener, **given: Any) -> tuple[AsyncWorld, AsyncWorld]:
    engine = await opener.open(_setup())
    world = await engine.create_world(WorldConfig(name="w"))
    other = await engine.create_world(WorldConfig(name="other", world_id=OTHER))
    await world.add_processor(Telling(**given))
    await world.create_entity([Place()])
    return world, other


def _texts(world: AsyncWorld) -> list[str]:
    return [row["tag__text"] for row in world.read([Tag]).to_pylist()]


async def _delivered(engine: Engine | None) -> None:
    assert engine is not None
    await engine.delivered()


async def test_what_a_tick_sends_to_another_world_is_accepted_there_once_it_is_durable(
    opener: Opener,
) -> None:
    world, other = await _begun(opener)
    for _ in range(3):
        await world.step()
    await _delivered(opener.engine)
    committed = await other.step()
    assert [row.actor for row in committed.commands] == ["processor:Telling"] * 3
    assert _texts(other) == ["tick 0", "tick 1", "tick 2"]
    assert world.acceptance.pending == 0
    assert opener.engine is not None
    assert opener.engine.store.outbox() == []


async def test_an_aborted_tick_sends_nothing_to_anybody(opener: Opener) -> None:
    world, other = await _begun(opener)
    Telling.broken = True
    try:
        with pytest.raises(ProcessorFailedError):
            await world.step()
    finally:
        Telling.broken = False
    await _delivered(opener.engine)
    assert other.acceptance.pending == 0
    await world.step()
    await _delivered(opener.engine)
    assert other.acceptance.pending == 1


async def test_replay_sends_nothing_and_comes_to_the_same(opener: Opener) -> None:
    world, other = await _begun(opener)
    for _ in range(3):
        await world.step()
    await _delivered(opener.engine)
    await other.step()
    await opener.close()
    store = StoreReader(opener.path)
    try:
        engine = Engine.over(store, _setup())  # type: ignore[arg-type]
        last = {"w": 2, "other": 0}
        for row in store.worlds():
            assert await replay(engine, row) == Replayed(0, last[row.name])
    finally:
        store.close()
    await opener.open(_setup())
    assert opener.world("other").acceptance.pending == 0


async def test_a_start_delivers_what_a_crash_left_and_nothing_twice(opener: Opener) -> None:
    _, other = await _begun(opener)
    assert opener.engine is not None
    store = opener.engine.store
    payload = b'{"components":{"Tag":{"text":"left"}}}'
    left = Letter(OTHER.bytes, uuid7().bytes, "spawn", None, 0, 1, "processor:Telling", payload, b"")
    lost = left._replace(target=uuid7().bytes, id=uuid7().bytes)
    await store.write(store.posting([left, lost]))
    await opener.open(_setup())
    await _delivered(opener.engine)
    assert opener.engine.store.outbox() == [], "also what no world is there for"
    # As if the crash had come after the delivery, and before its end was noted.
    await opener.engine.store.write(opener.engine.store.posting([left]))
    await opener.open(_setup())
    await _delivered(opener.engine)
    other = opener.world("other")
    await other.step()
    assert _texts(other) == ["left"]


async def test_a_world_that_is_not_there_stops_no_tick(opener: Opener) -> None:
    world, other = await _begun(opener, target=str(uuid7()))
    assert (await world.step()).summary.tick == 0
    await _delivered(opener.engine)
    assert other.acceptance.pending == 0
    assert opener.engine is not None
    assert opener.engine.store.outbox() == []
