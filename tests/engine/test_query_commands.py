"""QUERY_WORLD: a read among the writes of its tick, before the processors."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest

from tests.engine.parts import Drift, Place, Speed, Tag, setup
from tickwire_engine import (
    ArrowProcessor,
    CommandBroker,
    CommandResults,
    CommandType,
    Engine,
    EngineSetup,
    Submission,
    WorldConfig,
)
from tickwire_engine.errors import InvalidCommandError, TickwireError
from tickwire_engine.limits import Limits
from tickwire_engine.replay import Replayed, replay
from tickwire_engine.storage.reader import StoreReader

if TYPE_CHECKING:
    from pathlib import Path

    from tests.engine.conftest import Opener
    from tickwire_engine import AsyncWorld
    from tickwire_engine.storage.rows import Outcome
    from tickwire_engine.submission import Accepted


class Asking(ArrowProcessor):
    """Asks how many places there are, by SQL, and writes the answer down when it comes."""

    components = (Tag,)

    def process_batch(self, batch: pa.RecordBatch, **kwargs: Any) -> pa.RecordBatch:
        resources = kwargs["resources"]
        broker = resources.require(CommandBroker)
        broker.issue(CommandType.QUERY_WORLD, {"sql": "SELECT count(*) AS places FROM place"})
        results = resources.require(CommandResults)
        for result in results.results(type=CommandType.QUERY_WORLD, actor_id="processor:Asking"):
            (row,) = results.table(result).to_pylist()
            index = batch.schema.get_field_index("tag__count")
            column = pa.array([row["places"]] * batch.num_rows, pa.int64())
            batch = batch.set_column(index, batch.schema.field(index), column)
        return batch


def _setup(result_bytes: int = 64 << 20) -> EngineSetup:
    made = setup()
    made.vocabulary.processors.register(Asking)
    return replace(made, vocabulary=replace(made.vocabulary, limits=Limits(result_bytes=result_bytes)))


@pytest.fixture
async def world(opener: Opener) -> AsyncWorld:
    engine = await opener.open(_setup())
    made = await engine.create_world(WorldConfig(name="w"))
    await made.add_processor(Drift())
    await made.create_entities([[Place(x=1.0), Speed()], [Place(x=2.0)], [Tag(text="c")]])
    await made.step()
    return made


async def _send(
    world: AsyncWorld, kind: CommandType = CommandType.QUERY_WORLD, /, **payload: Any
) -> Accepted:
    (receipt,) = await world.submit([Submission(kind, payload)])
    assert receipt.command is not None
    return receipt.command


def _outcome(command: Accepted) -> Outcome:
    assert command.settled is not None
    return command.settled.outcome


def _rows(world: AsyncWorld, command: Accepted) -> list[dict[str, Any]]:
    table = world.history.result(world.row.key, command.seq)
    assert table is not None
    assert len(table) == _outcome(command).table_bytes
    return pa.ipc.open_stream(table).read_all().to_pylist()


async def test_a_query_sees_the_commands_before_it_and_no_processor_of_its_tick(world: AsyncWorld) -> None:
    before = await _send(world, components=["Place"])
    await _send(world, CommandType.UPDATE, entity_ids=[1], components={"Place": {"x": 10.0}})
    await _send(world, CommandType.DESPAWN, entity_ids=[2])
    after = await _send(world, components=["Place"])
    await world.step()
    assert _rows(world, before) == [
        {"tick": 1, "entity_id": 1, "is_active": True, "place__x": 2.0, "place__y": 0.0},
        {"tick": 1, "entity_id": 2, "is_active": True, "place__x": 2.0, "place__y": 0.0},
    ]
    assert [(row["entity_id"], row["place__x"]) for row in _rows(world, after)] == [(1, 10.0)]
    assert world.entity(1)["Place"]["x"] == 11.0


async def test_a_query_chooses_by_condition_ids_and_limit(world: AsyncWorld) -> None:
    everything = await _send(world)
    chosen = await _send(world, where="place__x > 1.5", limit=1)
    ids = await _send(world, entity_ids=[3, 99])
    nothing = await _send(world, components=["Speed", "Tag"])
    await world.step()
    rows = _rows(world, everything)
    assert [row["entity_id"] for row in rows] == [1, 2, 3]
    assert rows[2]["place__x"] is None
    assert [row["entity_id"] for row in _rows(world, chosen)] == [1]
    assert [row["tag__text"] for row in _rows(world, ids)] == ["c"]
    assert _rows(world, nothing) == []


async def test_sql_reads_the_same_state(world: AsyncWorld) -> None:
    await _send(world, CommandType.UPDATE, entity_ids=[1], components={"Place": {"x": 10.0}})
    sent = await _send(world, sql="SELECT sum(place__x) AS x, max(tick) AS tick FROM place")
    named = await _send(world, sql="SELECT archetype FROM w.entities ORDER BY entity_id")
    wrong = await _send(world, sql="SELECT nothing FROM place")
    other = await _send(world, sql="SELECT 1 FROM other.place")
    await world.step()
    assert _rows(world, sent) == [{"x": 12.0, "tick": 1}]
    assert [row["archetype"] for row in _rows(world, named)] == ["Place+Speed", "Place", "Tag"]
    assert [_outcome(c).reason for c in (wrong, other)] == ["INVALID_SQL", "INVALID_SQL"]
    assert _outcome(wrong).field == "query_world.sql"


async def test_an_answer_is_no_larger_than_its_limit_and_refuses_its_command_alone(opener: Opener) -> None:
    engine = await opener.open(_setup(result_bytes=2048))
    world = await engine.create_world(WorldConfig(name="w"))
    await world.create_entities([[Tag(text="x" * 100)] for _ in range(20)])
    sent = [
        await _send(world),
        await _send(world, sql="SELECT * FROM tag"),
        await _send(world, components=["Tag"], limit=1),
    ]
    await world.step()
    assert [_outcome(c).reason for c in sent] == ["RESULT_TOO_LARGE", "RESULT_TOO_LARGE", ""]
    assert dict(_outcome(sent[0]).metadata) == {"limit": "2048"}


@pytest.mark.parametrize(
    ("payload", "field"),
    [
        ({"components": ["Nothing"]}, "query_world.components[0]"),
        ({"components": "Place"}, "query_world.components"),
        ({"where": "place__x >"}, "query_world.where"),
        ({"entity_ids": [0]}, "query_world.entity_ids[0]"),
        ({"limit": -1}, "query_world.limit"),
        ({"limit": 1.5}, "query_world.limit"),
        ({"sql": "SELECT 1", "limit": 3}, "query_world.sql"),
        ({"sql": "SELECT 1" + " " * 9000}, "query_world.sql"),
        ({"what": 1}, "query_world.what"),
    ],
)
async def test_what_asks_nothing_that_can_be_answered_is_refused_at_the_door(
    world: AsyncWorld, payload: dict[str, Any], field: str
) -> None:
    with pytest.raises(TickwireError) as refused:
        await _send(world, **payload)
    assert refused.value.field == f"commands[0].{field}"


async def test_a_table_with_a_query_is_refused(world: AsyncWorld) -> None:
    with pytest.raises(InvalidCommandError):
        await _send(world, table=b"x")


async def test_a_processor_reads_the_answer_in_the_next_tick_and_replay_comes_to_the_same(
    opener: Opener,
) -> None:
    engine = await opener.open(_setup())
    world = await engine.create_world(WorldConfig(name="w"))
    await world.add_processor(Asking())
    await world.create_entities([[Place()], [Tag()]])
    await world.step()
    await world.create_entity([Place()])
    await world.step()
    # What the processor sent in tick 0 came before the spawn.
    assert world.entity(2)["Tag"]["count"] == 1
    await world.remove_entity(1)
    counts = []
    for _ in range(2):
        await world.step()
        counts.append(world.entity(2)["Tag"]["count"])
    assert counts == [2, 1]
    await opener.close()
    store = StoreReader(opener.path)
    try:
        (row,) = store.worlds()
        # Smaller than any answer: nothing is asked again.
        again = Engine.over(store, _setup(result_bytes=1))  # type: ignore[arg-type]
        assert await replay(again, row) == Replayed(0, 3)
    finally:
        store.close()


async def test_answers_are_there_after_a_restart_and_once_archived(opener: Opener, world: AsyncWorld) -> None:
    sent = await _send(world, components=["Tag"])
    await world.step()
    before = _rows(world, sent)
    await opener.open(_setup())
    again = opener.world("w")
    assert again.history.result(again.row.key, sent.seq) is not None
    assert opener.engine is not None
    await _archived(opener.path, again)
    table = again.history.result(again.row.key, sent.seq)
    assert table is not None
    assert pa.ipc.open_stream(table).read_all().to_pylist() == before


async def _archived(path: Path, world: AsyncWorld) -> None:
    """Wait until the last tick is in the archive."""
    await world.archived(world.tick - 1)
