"""What processors may do inside a tick besides returning rows: send commands, draw numbers, read messages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from tests.engine.parts import Place, Speed, Tag, setup
from tickwire_engine import (
    ArrowProcessor,
    AsyncProcessor,
    Command,
    CommandBroker,
    CommandType,
    Mailbox,
    Submission,
    TickRandom,
    WorldConfig,
)
from tickwire_engine.archetype import FIRST_ISSUED_ENTITY_ID
from tickwire_engine.errors import InvalidRequestError, ProcessorFailedError

if TYPE_CHECKING:
    import daft

    from tests.engine.conftest import Opener
    from tickwire_engine import AsyncWorld


class Budding(ArrowProcessor):
    """Every entity sends for a child in even ticks, and writes a message to itself in odd ones."""

    components = (Place,)

    def process_batch(self, batch: pa.RecordBatch, **kwargs: Any) -> pa.RecordBatch:
        broker = kwargs["resources"].require(CommandBroker)
        for entity_id in batch.column("entity_id").to_pylist()[:2]:
            if kwargs["tick"] % 2 == 0:
                broker.issue(CommandType.SPAWN, {"components": {"Tag": {"text": f"child of {entity_id}"}}})
            else:
                broker.issue(CommandType.MESSAGE, {"sender_id": entity_id, "receiver_id": entity_id})
        return batch


class Wander(AsyncProcessor):
    """Moves everybody by a drawn number, and sends one command the awaiting way."""

    components = (Place,)

    async def process(self, df: daft.DataFrame, **kwargs: Any) -> daft.DataFrame:
        draw = float(kwargs["resources"].require(TickRandom).generator().normal())
        return df.with_column("place__x", df["place__x"] + draw)


class Count(ArrowProcessor):
    """Counts the messages of the tick into `count`."""

    components = (Tag,)

    def process_batch(self, batch: pa.RecordBatch, **kwargs: Any) -> pa.RecordBatch:
        letters = len(kwargs["resources"].require(Mailbox).messages())
        index = batch.schema.get_field_index("tag__count")
        column = pa.array([letters] * batch.num_rows, pa.int64())
        return batch.set_column(index, batch.schema.field(index), column)


class Failing(ArrowProcessor):
    """Sends a command and fails."""

    components = (Speed,)

    def process_batch(self, batch: pa.RecordBatch, **kwargs: Any) -> pa.RecordBatch:
        kwargs["resources"].require(CommandBroker).issue(CommandType.SPAWN, {"components": {"Tag": {}}})
        raise ValueError("on purpose")


def _setup() -> Any:
    made = setup()
    for kind in (Budding, Wander, Count, Failing):
        made.vocabulary.processors.register(kind)
    return made


async def _world(opener: Opener, name: str = "w") -> AsyncWorld:
    engine = await opener.open(_setup())
    world = await engine.create_world(WorldConfig(name=name, seed=5))
    for processor in (Budding(), Wander(), Count()):
        await world.add_processor(processor)
    await world.create_entities([[Place()], [Place(x=1.0), Speed()], [Tag(text="reader")]])
    return world


async def _hashes(world: AsyncWorld, ticks: int) -> list[bytes]:
    return [(await world.step()).summary.state_hash for _ in range(ticks)]


async def test_what_processors_send_in_tick_n_is_applied_in_n_plus_1_in_canonical_order(
    opener: Opener,
) -> None:
    world = await _world(opener)
    first = await world.step()
    assert [command.submission.actor for command in first.computed.issued] == ["processor:Budding"] * 2
    assert world.acceptance.pending == 2
    second = await world.step()
    assert [row.seq for row in second.commands] == sorted(row.seq for row in second.commands)
    children = [row for row in world.read([Tag]).to_pylist() if row["tag__text"].startswith("child")]
    # Archetypes in the order of their names, whatever order they ran in: Place (1) before Place+Speed (2).
    assert [row["tag__text"] for row in children] == ["child of 1", "child of 2"]
    assert [row["entity_id"] for row in children] == [FIRST_ISSUED_ENTITY_ID, FIRST_ISSUED_ENTITY_ID + 1]


async def test_messages_are_read_in_the_tick_that_applies_them_and_gone_after(opener: Opener) -> None:
    world = await _world(opener)
    counts = []
    for _ in range(5):
        await world.step()
        counts.append(max(row["tag__count"] for row in world.read([Tag]).to_pylist()))
    # Sent in ticks 1 and 3, delivered in 2 and 4.
    assert counts == [0, 0, 2, 0, 2]
    content = {"sender_id": 1, "receiver_id": 3, "channel": "c", "content": {"a": 1}}
    await world.submit([Submission(CommandType.MESSAGE, content)])
    await world.step()
    assert pc.max(world.read([Tag]).column("tag__count")).as_py() == 1


async def test_the_same_world_draws_and_sends_the_same_over_restarts_and_apart(
    opener: Opener, tmp_path_factory: pytest.TempPathFactory
) -> None:
    world = await _world(opener)
    whole = await _hashes(world, 8)
    other = type(opener)(tmp_path_factory.mktemp("other"))
    try:
        again = await _world(other)
        parts = await _hashes(again, 3)
        for _ in range(5):
            again = (await other.open(_setup())).world("w")
            parts += await _hashes(again, 1)
        drawn = [row["place__x"] for row in again.read([Place]).to_pylist()]
        assert drawn == [row["place__x"] for row in world.read([Place]).to_pylist()]
        assert len(set(drawn)) == len(drawn), "archetypes draw from streams of their own"
        assert parts == whole
        assert again.state.next_issued_id == world.state.next_issued_id
        assert again.read([Tag]).equals(world.read([Tag]))
    finally:
        await other.close()


async def test_an_aborted_tick_sends_nothing(opener: Opener) -> None:
    world = await _world(opener)
    await world.add_processor(Failing())
    pending = world.acceptance.pending
    with pytest.raises(ProcessorFailedError, match="on purpose"):
        await world.step()
    assert world.acceptance.pending == pending
    await world.submit([Submission(CommandType.REMOVE_PROCESSOR, {"name": "Failing"})])
    await world.step()
    await world.step()
    assert not [row for row in world.read([Tag]).to_pylist() if row["tag__text"] == ""]


async def test_outside_a_tick_the_broker_journals_and_randomness_is_refused(opener: Opener) -> None:
    world = await _world(opener)
    broker = world.resources.require(CommandBroker)
    sent = await broker.enqueue(
        world.world_id, Command(type=CommandType.SPAWN, payload={"components": {"Tag": {"text": "sent"}}})
    )
    assert sent.seq > 0
    assert broker.get_pending_count(world.world_id) == len(broker.peek(world.world_id))
    assert broker.peek(world.world_id)[-1].id == sent.id
    with pytest.raises(InvalidRequestError, match="inside a tick"):
        world.resources.require(TickRandom).generator()
    with pytest.raises(InvalidRequestError, match="enqueue"):
        broker.issue(CommandType.SPAWN, {"components": {"Tag": {}}})
    assert list(world.resources.require(Mailbox).messages()) == []


async def test_a_command_that_could_never_be_applied_fails_the_processor_that_sends_it(
    opener: Opener,
) -> None:
    class Wrong(ArrowProcessor):
        components = (Tag,)

        def process_batch(self, batch: pa.RecordBatch, **kwargs: Any) -> pa.RecordBatch:
            kwargs["resources"].require(CommandBroker).issue(
                CommandType.SPAWN, {"components": {"Nothing": {}}}
            )
            return batch

    world = await _world(opener)
    await world.add_processor(Wrong())
    with pytest.raises(ProcessorFailedError, match=r"Wrong.*Nothing"):
        await world.step()
