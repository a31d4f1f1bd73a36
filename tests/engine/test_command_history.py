"""Claims about commands that lie long behind: what is still told of them, and what is not kept any more."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from tests.engine.parts import Place, setup
from tickwire_engine import Engine, Submission, WorldConfig
from tickwire_engine.command import CommandType
from tickwire_engine.errors import TickNotKeptError
from tickwire_engine.ids import uuid7
from tickwire_engine.storage._upkeep import UpkeepLimits
from tickwire_engine.storage.archiver import ArchiveOptions
from tickwire_engine.storage.command_history import CommandFilter
from tickwire_engine.storage.retention import Horizon
from tickwire_engine.storage.store import StoreOptions

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path
    from uuid import UUID

    from tickwire_engine import AsyncWorld
    from tickwire_engine.storage.command_history import CommandHistory
    from tickwire_engine.storage.rows import DecidedCommand

MINUTE, HOUR, DAY = 60.0, 3_600.0, 86_400.0


class Subject:
    """A world whose clock a test sets; archived on demand only, and forgetful after seven days."""

    engine: Engine

    def __init__(self, path: Path) -> None:
        self.now_s = 1_800_000_000.0
        self.path = path

    async def start(self, **config: int) -> None:
        options = StoreOptions(
            archive=ArchiveOptions(idle_s=3_600.0, upkeep=UpkeepLimits(dataset_rows=10)),
            horizon=Horizon(age_s=7 * DAY),
            clock_us=lambda: int(self.now_s * 1e6),
        )
        self.engine = await Engine.open(self.path, setup(), options=options)
        if not self.engine.worlds:
            await self.engine.create_world(WorldConfig(name="w", **config))

    @property
    def world(self) -> AsyncWorld:
        return self.engine.world("w")

    @property
    def history(self) -> CommandHistory:
        return self.world.command_history

    async def submit(self, ahead_s: float = 0.0, *, tick: int | None = None) -> UUID:
        """Send a spawn, by a client whose clock is so much ahead."""
        command_id = uuid7(int((self.now_s + ahead_s) * 1000))
        payload = {"components": {"Place": {}}}
        await self.world.submit([Submission(CommandType.SPAWN, payload, id=command_id.bytes, tick=tick)])
        return command_id

    async def archive(self) -> None:
        await self.engine.store.archiver.archive_now(self.world.row.key)

    def outcomes(self, first: int) -> list[DecidedCommand]:
        """Read all outcomes from one on, in small pages."""
        found: list[DecidedCommand] = []
        while page := self.history.outcomes(self.world.row.key, first, 7):
            found += page
            first = page[-1].outcome_seq + 1
        return found


@pytest.fixture
async def subject(tmp_path: Path) -> AsyncIterator[Subject]:
    made = Subject(tmp_path / "data")
    await made.start()
    yield made
    await made.engine.close()


@pytest.mark.parametrize("seed", range(4))
async def test_outcomes_are_kept_from_one_on_without_gaps_and_none_before_it_is_told(
    subject: Subject, seed: int
) -> None:
    """Clients' clocks are up to five minutes ahead, so that commands are not forgotten in their order."""
    rng = random.Random(seed)
    waiting: list[UUID] = []
    for _ in range(50):
        subject.now_s += rng.choice([MINUTE, MINUTE, MINUTE, HOUR])
        for _ in range(rng.randrange(4)):
            far = rng.random() < 0.3
            command_id = await subject.submit(rng.choice([0.0, 290.0]), tick=10_000 if far else None)
            waiting += [command_id] if far else []
        while waiting and rng.random() < 0.5:
            await subject.world.cancel(waiting.pop(rng.randrange(len(waiting))))
        await subject.world.step()
        if rng.random() < 0.2:
            await subject.archive()
    last = subject.history.last_outcome_seq(subject.world.row.key)
    assert [each.outcome_seq for each in subject.outcomes(0)] == [*range(1, last + 1)]
    before = {each.outcome_seq: each for each in subject.outcomes(1)}
    firsts = []
    subject.now_s += 7 * DAY - 20 * HOUR
    for _ in range(40):
        subject.now_s += HOUR / 2
        await subject.archive()
        kept = subject.outcomes(0)
        first = kept[0].outcome_seq if kept else last + 1
        firsts.append(first)
        assert [each.outcome_seq for each in kept] == [*range(first, last + 1)]
        assert kept == [before[each.outcome_seq] for each in kept]
        for lost in {1, first - 1} - {0, first}:
            with pytest.raises(TickNotKeptError) as raised:
                subject.outcomes(lost)
            assert raised.value.metadata["earliest"] == str(first)
        assert subject.outcomes(last + 1) == []
    assert firsts == sorted(firsts)
    assert firsts[0] == 1
    assert firsts[20] > 1


async def test_a_command_is_told_after_its_id_was_forgotten_as_long_as_its_tick_is_kept(
    subject: Subject,
) -> None:
    command_id = await subject.submit()
    await subject.world.step()
    before = subject.history.find(subject.world.row.key, command_id.bytes)
    subject.now_s += 8 * DAY
    await subject.archive()
    assert subject.engine.store.find_commands(subject.world.row.key, [command_id.bytes]) == {}
    assert before is not None
    assert subject.history.find(subject.world.row.key, command_id.bytes) == before
    page = subject.history.page(
        subject.world.row.key, CommandFilter(), before=1 << 53, limit=10, max_bytes=1 << 20
    )
    assert page.commands == [before]
    assert subject.history.find(subject.world.row.key, uuid7(1_000_000).bytes) is None
    assert subject.history.find(subject.world.row.key, uuid7().bytes) is None


async def test_a_command_whose_tick_is_not_kept_tells_its_outcome_without_its_payload(tmp_path: Path) -> None:
    subject = Subject(tmp_path / "data")
    await subject.start(keep_ticks=5)
    try:
        command_id = await subject.submit()
        await subject.world.step()
        stored = subject.history.find(subject.world.row.key, command_id.bytes)
        assert stored is not None
        key = subject.world.row.key
        for _ in range(40):
            await subject.submit()
            await subject.world.step()
            await subject.archive()
        found = subject.history.find(key, command_id.bytes)
        assert found is not None
        assert (found.outcome, found.tick) == (stored.outcome, 0)
        assert (stored.command.payload, found.command.payload) == (b'{"components":{"Place":{}}}', b"")
    finally:
        await subject.engine.close()


async def test_the_outcomes_of_a_world_begin_with_one(subject: Subject) -> None:
    assert subject.outcomes(0) == []
    assert subject.outcomes(1) == []
    assert subject.history.last_outcome_seq(subject.world.row.key) == 0
    await subject.submit()
    await subject.world.step()
    assert [each.outcome_seq for each in subject.outcomes(0)] == [1]
    assert subject.world.read([Place]).num_rows == 1
