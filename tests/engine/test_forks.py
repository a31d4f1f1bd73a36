"""Forks: worlds whose history begins with another's, without a row being copied."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pyarrow as pa
import pytest

from tests.engine.parts import Drift, Place, Scale, Speed, Tag, setup
from tickwire_engine import (
    ArrowProcessor,
    AsyncWorld,
    Engine,
    EngineSetup,
    ForkConfig,
    RunConfig,
    WorldConfig,
)
from tickwire_engine.encoding import read_schema
from tickwire_engine.errors import (
    InvalidRequestError,
    TickInTheFutureError,
    TickNotKeptError,
    WorldDestroyedError,
    WorldExistsError,
    WorldNotFoundError,
)
from tickwire_engine.ids import uuid7
from tickwire_engine.reading import rows_having
from tickwire_engine.replay import replay
from tickwire_engine.rollouts import parse_rollout
from tickwire_engine.storage._purging import leftovers
from tickwire_engine.storage._upkeep import UpkeepLimits
from tickwire_engine.storage.archiver import ArchiveOptions
from tickwire_engine.storage.doctor import examine
from tickwire_engine.storage.reader import StoreReader
from tickwire_engine.storage.retention import Retention
from tickwire_engine.storage.store import StoreOptions

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tests.engine.conftest import Opener
    from tickwire_engine.storage.doctor import WorldHealth


AT_ONCE = StoreOptions(
    archive=ArchiveOptions(idle_s=3_600.0, ended_s=0.0, upkeep=UpkeepLimits(dataset_ticks=2))
)
"""What is not kept goes as soon as it can."""


async def moving(engine: Engine, name: str = "parent", *, ticks: int = 10) -> AsyncWorld:
    """Make a world of three things, two of which move, and let time pass."""
    world = await engine.create_world(WorldConfig(name=name, seed=7))
    await world.add_processor(Drift())
    await world.create_entities(
        [[Place(x=0.0), Speed(vx=1.0)], [Place(x=100.0), Speed(vx=2.0)], [Tag(text="t")]]
    )
    await world.run(RunConfig(num_steps=ticks))
    return world


async def xs(world: AsyncWorld, at_tick: int | None = None) -> list[float]:
    batch = await places(world, at_tick)
    return batch.column("place__x").to_pylist()


async def places(world: AsyncWorld, at_tick: int | None = None) -> pa.RecordBatch:
    catalog = world._vocabulary.components
    return rows_having(await world.tables_at(at_tick), [catalog.require("Place")])


def hashes(world: AsyncWorld, first: int, last: int) -> dict[int, bytes]:
    return {s.tick: s.state_hash for s in world.history.summaries(world.row.key, first, last)}


async def archived(engine: Engine, world: AsyncWorld) -> None:
    await engine.store.archiver.archive_now(world.row.key)


async def test_a_fork_at_a_past_tick_goes_its_own_way(engine: Engine) -> None:
    parent = await moving(engine)
    fork = await engine.fork_world("parent", ForkConfig(name="fork", at_tick=4))
    assert (fork.tick, fork.parent_id, fork.row.fork_tick) == (5, parent.world_id, 4)
    assert await xs(fork) == await xs(parent, 4)
    await fork.update_entity(1, [Speed(vx=10.0)])
    await fork.run(RunConfig(num_steps=2))
    assert await xs(fork) == [25.0, 114.0]
    assert await xs(parent) == [10.0, 120.0]
    assert parent.tick == 10


async def test_a_fork_with_its_parents_seed_repeats_its_parent_bit_for_bit(engine: Engine) -> None:
    parent = await moving(engine)
    fork = await engine.fork_world("parent", ForkConfig(at_tick=3, seed=parent.row.seed))
    await fork.run(RunConfig(num_steps=6))
    assert hashes(fork, 0, 9) == hashes(parent, 0, 9)
    assert fork.row.seed == parent.row.seed


async def test_a_fork_has_a_seed_of_its_own_unless_it_is_given_one(engine: Engine) -> None:
    parent = await moving(engine, ticks=1)
    seeds = [(await engine.fork_world("parent")).row.seed for _ in range(3)]
    assert len({parent.row.seed, *seeds}) == 4
    given = await engine.fork_world("parent", ForkConfig(seed=99))
    assert given.row.seed == 99


async def test_history_before_the_fork_reads_through_to_the_parent(engine: Engine) -> None:
    parent = await moving(engine)
    fork = await engine.fork_world("parent", ForkConfig(at_tick=5))
    await parent.run(RunConfig(num_steps=5))
    await fork.run(RunConfig(num_steps=3))
    history, key = fork.history, fork.row.key
    assert history.earliest_tick(key) == 0
    assert [t.summary.tick for t in history.ticks(key, 0, 99)] == [*range(9)]
    assert [s.tick for s in history.summaries(key, 2, 99)] == [*range(2, 9)]
    for tick in range(6):
        assert await xs(fork, tick) == await xs(parent, tick)
    rows = (await fork.query_archetype([Place, Speed], entity_ids=[1])).to_pydict()
    assert rows["tick"] == [*range(9)]
    assert rows["place__x"] == [float(t + 1) for t in range(9)]


async def test_what_a_fork_reads_says_that_it_is_the_forks(engine: Engine) -> None:
    parent = await moving(engine)
    fork = await engine.fork_world("parent", ForkConfig(at_tick=5))
    assert {s.number for s in fork.history.streams(fork.row.key)} == {1, 2}
    for stream in fork.history.streams(fork.row.key):
        metadata = read_schema(stream.schema).metadata
        assert metadata[b"tickwire.world_id"] == str(fork.world_id).encode()
    batches = (await fork.tables_at(2)).values()
    assert {b.schema.metadata[b"tickwire.world_id"] for b in batches} == {str(fork.world_id).encode()}
    frames = fork.history.frames_at(fork.row.key, 5)
    assert frames == parent.history.frames_at(parent.row.key, 5)


async def test_an_archetype_that_the_parent_made_later_is_not_the_forks(engine: Engine) -> None:
    parent = await moving(engine, ticks=3)
    await parent.create_entity([Place(), Tag()])
    await parent.step()
    fork = await engine.fork_world("parent", ForkConfig(at_tick=2))
    await fork.create_entity([Speed()])
    await fork.step()
    assert [s.archetype for s in fork.history.streams(fork.row.key)] == ["Place+Speed", "Tag", "Speed"]
    assert [s.archetype for s in parent.history.streams(parent.row.key)] == [
        "Place+Speed",
        "Tag",
        "Place+Tag",
    ]


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_fork_survives_archiving_and_the_parents_end(opener: Opener, when: str) -> None:
    engine = await opener.open()
    parent = await moving(engine)
    expected = {tick: await xs(parent, tick) for tick in range(10)}
    if when == "before":
        await archived(engine, parent)
    fork = await engine.fork_world("parent", ForkConfig(name="fork", at_tick=6))
    if when == "after":
        await archived(engine, parent)
    await engine.destroy_world("parent")
    for _ in range(2):
        for tick in range(7):
            assert await xs(fork, tick) == expected[tick]
        engine = await opener.open()
        fork = engine.world("fork")
    await fork.run(RunConfig(num_steps=3))
    assert await xs(fork) == expected[9]
    await archived(engine, fork)
    assert fork.history.archived_tick(fork.row.key) == 9
    assert await xs(fork, 8) == expected[8]


async def test_forks_of_forks_read_each_tick_where_it_was_made(engine: Engine) -> None:
    parent = await moving(engine)
    middle = await engine.fork_world("parent", ForkConfig(name="middle", at_tick=4))
    await middle.update_entity(1, [Speed(vx=-1.0)])
    await middle.run(RunConfig(num_steps=5))
    late = await engine.fork_world("middle", ForkConfig(at_tick=7))
    early = await engine.fork_world("middle", ForkConfig(at_tick=2))
    await engine.destroy_world("parent")
    await engine.destroy_world("middle")
    assert early.parent_id == late.parent_id == middle.world_id
    assert [(await xs(late, t))[0] for t in range(8)] == [1.0, 2.0, 3.0, 4.0, 5.0, 4.0, 3.0, 2.0]
    assert [(await xs(early, t))[0] for t in range(3)] == [1.0, 2.0, 3.0]
    await early.step()
    assert (await xs(early))[0] == 4.0
    assert parent.row.key != middle.row.key


async def test_a_fork_counts_its_entities_before_it_reads_a_row(engine: Engine) -> None:
    parent = await moving(engine)
    await parent.remove_entity(1)
    await parent.run(RunConfig(num_steps=2))
    counts = {("Place", "Speed"): 1, ("Tag",): 1}
    at_the_end = await engine.fork_world("parent", ForkConfig(at_tick=10))
    assert dict(at_the_end.state.entity_counts) == counts
    fork = await engine.fork_world("parent", ForkConfig(at_tick=11))
    assert dict(fork.state.entity_counts) == counts
    await archived(engine, parent)
    fork = await engine.fork_world("parent", ForkConfig(at_tick=11))
    assert dict(fork.state.entity_counts) == counts
    assert not fork.state.tables.loaded  # type: ignore[attr-defined]
    await fork.load()
    assert dict(fork.state.entity_counts) == counts
    assert fork.state.entities == 2


async def test_entity_ids_of_a_fork_go_on_after_those_it_shares(engine: Engine) -> None:
    parent = await moving(engine, ticks=1)
    await parent.create_entities([[Tag()]] * 5)
    await parent.step()
    early = await engine.fork_world("parent", ForkConfig(at_tick=0))
    late = await engine.fork_world("parent")
    assert await early.create_entity([Tag()]) == 4
    assert await late.create_entity([Tag()]) == 9


async def test_pending_commands_come_along_only_if_asked(opener: Opener) -> None:
    engine = await opener.open()
    parent = await moving(engine, ticks=2)
    (first,) = await parent.create_entities([[Place(x=5.0)]])
    without = await engine.fork_world("parent", ForkConfig(name="without"))
    asked = await engine.fork_world("parent", ForkConfig(name="asked", with_pending=True))
    assert (without.acceptance.pending, asked.acceptance.pending) == (0, 1)
    await without.step()
    assert len(await xs(without)) == 2
    assert await asked.create_entity([Place(x=6.0)]) == first + 1
    engine = await opener.open()
    asked = engine.world("asked")
    assert asked.acceptance.pending == 2
    await asked.step()
    assert sorted(await xs(asked)) == [3.0, 5.0, 6.0, 106.0]
    assert engine.world("parent").acceptance.pending == 1


async def test_the_same_request_finds_the_same_fork(opener: Opener) -> None:
    engine = await opener.open()
    parent = await moving(engine)
    config = ForkConfig(world_id=uuid7(), name="fork", at_tick=3)
    fork = await engine.fork_world("parent", config)
    assert await engine.fork_world("parent", config) is fork
    with pytest.raises(WorldExistsError):
        await engine.fork_world("parent", config.model_copy(update={"at_tick": 4}))
    with pytest.raises(WorldExistsError):
        await engine.fork_world("parent", ForkConfig(name="fork"))
    await engine.destroy_world("parent")
    engine = await opener.open()
    again = await engine.fork_world(parent.world_id, config)
    assert again is engine.world("fork")
    await engine.destroy_world("fork")
    await moving(engine)
    with pytest.raises((WorldDestroyedError, WorldNotFoundError)):
        await engine.fork_world(parent.world_id, config)


async def test_a_tick_that_is_not_there_cannot_be_forked(engine: Engine) -> None:
    await moving(engine)
    with pytest.raises(TickInTheFutureError):
        await engine.fork_world("parent", ForkConfig(at_tick=10))
    with pytest.raises(InvalidRequestError):
        await engine.fork_world("parent", ForkConfig(at_tick=-1))
    with pytest.raises(WorldNotFoundError):
        await engine.fork_world("nobody")


async def test_a_world_without_ticks_can_be_forked(opener: Opener) -> None:
    engine = await opener.open()
    parent = await engine.create_world(WorldConfig(name="parent"))
    await parent.create_entity([Place(x=1.0)])
    await engine.fork_world("parent", ForkConfig(name="bare"))
    await engine.fork_world("parent", ForkConfig(name="asked", with_pending=True))
    engine = await opener.open()
    for name, entities in (("bare", 0), ("asked", 1)):
        fork = engine.world(name)
        assert (fork.tick, fork.parent_id) == (0, parent.world_id)
        await fork.step()
        assert fork.state.entities == entities


async def test_a_fork_runs_what_its_parent_ran_at_that_tick(opener: Opener) -> None:
    engine = await opener.open()
    parent = await moving(engine, ticks=3)
    await parent.add_processor(Scale(factor=0.0))
    await parent.step()
    await engine.fork_world("parent", ForkConfig(name="before", at_tick=2))
    await engine.fork_world("parent", ForkConfig(name="after", at_tick=3))
    for _ in range(2):
        assert [e.name for e in engine.world("before").processors] == ["Drift"]
        assert [e.name for e in engine.world("after").processors] == ["Drift", "Scale"]
        engine = await opener.open()


async def test_a_fork_replays_from_its_first_own_tick(opener: Opener) -> None:
    engine = await opener.open()
    await moving(engine)
    fork = await engine.fork_world("parent", ForkConfig(name="fork", at_tick=4))
    await fork.update_entity(2, [Speed(vx=3.0)])
    await fork.run(RunConfig(num_steps=5))
    found = await replay(engine, fork.row)
    assert (found.first_tick, found.last_tick, found.difference) == (5, 9, None)
    with pytest.raises(InvalidRequestError, match=str(fork.parent_id)):
        await replay(engine, fork.row, from_tick=3)
    reader = StoreReader(opener.path)
    try:
        assert UUID(bytes=reader.history.world_id(fork.row.parent_key)) == fork.parent_id
        assert [s.tick for s in reader.history.summaries(fork.row.key, 0, 99)] == [*range(10)]
    finally:
        reader.close()


async def trimmed(engine: Engine, world: AsyncWorld, keep_ticks: int) -> None:
    """Let a world forget all but its newest ticks."""
    await engine.update_world(world, retention=Retention(keep_ticks=keep_ticks))
    await world.step()
    await archived(engine, world)


async def test_what_a_fork_shares_stays_when_its_parent_forgets_it(opener: Opener) -> None:
    engine = await opener.open()
    parent = await moving(engine, ticks=8)
    expected = {tick: await xs(parent, tick) for tick in range(8)}
    fork = await engine.fork_world("parent", ForkConfig(name="fork", at_tick=5))
    await parent.run(RunConfig(num_steps=5))
    await trimmed(engine, parent, 3)
    assert parent.history.earliest_tick(parent.row.key) > 8
    for _ in range(2):
        assert fork.history.earliest_tick(fork.row.key) == 0
        assert {tick: await xs(fork, tick) for tick in range(6)} == {t: expected[t] for t in range(6)}
        assert [t.summary.tick for t in fork.history.ticks(fork.row.key, 0, 99)] == [*range(6)]
        engine = await opener.open()
        fork, parent = engine.world("fork"), engine.world("parent")
    with pytest.raises(TickNotKeptError):
        await parent.tables_at(6)
    # A fork of the fork needs nothing that the parent has forgotten; one of the parent would.
    again = await engine.fork_world("fork", ForkConfig(at_tick=2))
    assert await xs(again, 1) == expected[1]
    with pytest.raises(TickNotKeptError):
        await engine.fork_world("parent", ForkConfig(at_tick=7))


async def test_a_fork_forgets_what_it_shares_by_its_own_rules_but_for_the_tick_it_goes_on_from(
    engine: Engine,
) -> None:
    parent = await moving(engine, ticks=8)
    fork = await engine.fork_world("parent", ForkConfig(at_tick=5))
    await trimmed(engine, parent, 1)
    await fork.run(RunConfig(num_steps=2))
    await trimmed(engine, fork, 4)
    first = fork.history.earliest_tick(fork.row.key)
    assert first == 5
    with pytest.raises(TickNotKeptError):
        await fork.tables_at(4)
    await fork.run(RunConfig(num_steps=8))
    await trimmed(engine, fork, 4)
    assert fork.history.earliest_tick(fork.row.key) > 8
    # The static archetype has its last record in the parent's ticks.
    tags = (await fork.get_components([Tag])).to_pydict()
    assert tags["tag__text"] == ["t"]


async def test_a_fork_that_is_destroyed_holds_nothing_any_more(engine: Engine) -> None:
    parent = await moving(engine, ticks=8)
    await engine.fork_world("parent", ForkConfig(name="fork", at_tick=5))
    await engine.destroy_world("fork")
    await trimmed(engine, parent, 2)
    with pytest.raises(TickNotKeptError):
        await parent.tables_at(5)


async def test_what_never_changed_is_kept_of_a_grandparent_that_shares_no_tick_any_more(
    opener: Opener,
) -> None:
    """The thing that does not move was written once, by the oldest world, long before what the youngest can read."""
    engine = await opener.open(options=AT_ONCE)
    oldest = await moving(engine, "oldest", ticks=5)
    middle = await engine.fork_world("oldest", ForkConfig(name="middle"))
    for world in (oldest, middle):
        await engine.update_world(world, retention=Retention(keep_ticks=3))
    await middle.run(RunConfig(num_steps=10))
    await archived(engine, middle)
    youngest = await engine.fork_world("middle", ForkConfig(name="youngest"))
    assert youngest.history.earliest_tick(youngest.row.key) > middle.row.fork_tick
    await engine.destroy_world("middle")
    for _ in range(2):
        for number in range(2):
            await oldest.run(RunConfig(num_steps=5))
            await archived(engine, oldest)
            # A record that takes the place of the one that the youngest needs.
            await oldest.update_entity(3, [Tag(text=f"t{number}")])
        engine = await opener.open(options=AT_ONCE)
        oldest, youngest = engine.world("oldest"), engine.world("youngest")
        assert youngest.entity(3) == {"Tag": {"text": "t", "count": 0, "note": None}}
        youngest_tick = youngest.row.fork_tick
        tables = await youngest.tables_at(youngest_tick)
        assert sum(batch.num_rows for batch in tables.values()) == 3


async def left_of(engine: Engine, world: AsyncWorld, ticks: list[int]) -> None:
    """Wait until of a destroyed world only these ticks are left; none: nothing at all."""
    async with asyncio.timeout(30):
        while True:
            with engine.store._journal.read() as connection:
                gone = world.row.key not in leftovers(connection)
            if gone or (ticks and world.history.kept_ticks(world.row.key, 0, 99) == ticks):
                return
            await asyncio.sleep(0.02)


async def test_a_fork_reads_on_when_its_parent_is_purged_and_all_goes_with_the_last_fork(
    tmp_path: Path,
) -> None:
    at_once = StoreOptions(archive=ArchiveOptions(ended_s=0.0))
    async with await Engine.open(tmp_path / "data", setup(), options=at_once) as engine:
        parent = await moving(engine)
        expected = {tick: await xs(parent, tick) for tick in range(10)}
        fork = await engine.fork_world("parent", ForkConfig(name="fork", at_tick=6))
        inner = await engine.fork_world("fork", ForkConfig(name="inner", at_tick=4))
        await engine.destroy_world("parent")
        await left_of(engine, parent, [*range(7)])
        for world, last in ((fork, 6), (inner, 4)):
            assert {t: await xs(world, t) for t in range(last + 1)} == {
                t: expected[t] for t in range(last + 1)
            }
            assert [t.summary.tick for t in world.history.ticks(world.row.key, 0, 99)] == [*range(last + 1)]
            await world.step()
            assert await xs(world) == expected[last + 1]
            assert (await world.get_components([Tag])).to_pydict()["tag__text"] == ["t"]
        await engine.destroy_world("fork")
        await left_of(engine, fork, [])
        await left_of(engine, parent, [*range(5)])
        assert await xs(inner, 2) == expected[2]
        await engine.destroy_world("inner")
        await left_of(engine, inner, [])
        await left_of(engine, parent, [])
        with engine.store._journal.read() as connection:
            assert connection.execute("SELECT count(*) FROM ticks").get == 0
            assert connection.execute("SELECT count(*) FROM pins").get == 0


class Dice:
    """A resource whose state is part of the world."""

    def __init__(self) -> None:
        self.rolls = 0

    def snapshot(self) -> bytes:
        return str(self.rolls).encode()

    def restore(self, snapshot: bytes) -> None:
        self.rolls = int(snapshot)


class Roll(ArrowProcessor):
    """Counts ticks in a resource, and shows the count."""

    components = (Tag,)

    def process_batch(self, batch: pa.RecordBatch, **kwargs: Any) -> pa.RecordBatch:
        dice = kwargs["resources"].require(Dice)
        dice.rolls += 1
        index = batch.schema.get_field_index("tag__count")
        return batch.set_column(index, batch.schema.field(index), pa.array([dice.rolls] * batch.num_rows))


@pytest.mark.parametrize("in_archive", [False, True], ids=["in the journal", "in the archive"])
async def test_a_fork_goes_on_from_the_resources_of_its_tick(opener: Opener, in_archive: bool) -> None:
    application = setup()
    application.vocabulary.processors.register(Roll)
    application = EngineSetup(application.vocabulary, bootstrap=lambda world: world.resources.insert(Dice()))
    engine = await opener.open(application)
    parent = await engine.create_world(WorldConfig(name="parent"))
    await parent.add_processor(Roll())
    await parent.create_entity([Tag()])
    await parent.run(RunConfig(num_steps=8))
    if in_archive:
        await archived(engine, parent)
    fork = await engine.fork_world("parent", ForkConfig(name="fork", at_tick=3))

    async def count(world: AsyncWorld) -> int:
        return int((await world.get_components([Tag])).to_pydict()["tag__count"][0])

    assert await count(fork) == 4
    await fork.step()
    assert (await count(fork), await count(parent)) == (5, 8)
    engine = await opener.open(application)
    fork, parent = engine.world("fork"), engine.world("parent")
    assert fork.resources.require(Dice).rolls == 5
    plan = parse_rollout({"ticks": 3, "copies": 3, "components": ["Tag"]}, application.vocabulary)
    results = [result async for result in engine.rollouts.run(fork, plan)]
    assert {pa.ipc.open_stream(r.table).read_all()["tag__count"][0].as_py() for r in results} == {8}
    await fork.step()
    assert (await count(fork), fork.resources.require(Dice).rolls) == (6, 6)
    assert parent.resources.require(Dice).rolls == 8


async def test_what_a_fork_shares_of_a_destroyed_world_is_examined_with_the_fork(opener: Opener) -> None:
    engine = await opener.open()
    parent = await moving(engine)
    await archived(engine, parent)
    fork = await engine.fork_world("parent", ForkConfig(name="fork", at_tick=6))
    await fork.run(RunConfig(num_steps=3))
    alive = {world.name: world for world in await examined(opener)}
    assert (alive["parent"].whole_ticks, alive["fork"].first_tick, alive["fork"].whole_ticks) == (10, 7, 3)
    engine = await opener.open()
    await engine.destroy_world("parent")
    ended = {world.name: world for world in await examined(opener)}
    assert (ended["fork"].first_tick, ended["fork"].whole_ticks, ended["fork"].damage) == (0, 10, ())
    rows = max(opener.path.glob("archive/*/stream-*/data/*.lance"), key=lambda path: path.stat().st_size)
    rows.write_bytes(bytes(byte ^ 0xFF for byte in rows.read_bytes()))
    damaged = {world.name: world for world in await examined(opener)}
    assert damaged["fork"].whole_ticks == 3
    assert {damage.tick for damage in damaged["fork"].damage} == set(range(7))


async def examined(opener: Opener) -> Sequence[WorldHealth]:
    await opener.close()
    return (await asyncio.to_thread(examine, opener.path)).worlds
