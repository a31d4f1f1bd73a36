"""Claims about the horizon: forgotten ids are refused, and none is ever applied twice, whatever the clocks say."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING
from uuid import UUID

import pytest

from tests.engine.parts import Place, setup
from tickwire_engine import Engine, WorldConfig, known_commands
from tickwire_engine.command import CommandType
from tickwire_engine.errors import CommandIdTooOldError, InvalidCommandError, TickInThePastError
from tickwire_engine.ids import uuid7
from tickwire_engine.storage.archiver import ArchiveOptions
from tickwire_engine.storage.retention import Horizon
from tickwire_engine.storage.store import StoreOptions
from tickwire_engine.submission import Receipt, Submission

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tickwire_engine import AsyncWorld

MINUTE, HOUR, DAY = 60.0, 3_600.0, 86_400.0


class Subject:
    """A world whose clock a test sets; each command spawns one entity, so that a second application shows."""

    def __init__(self, path: Path, horizon: Horizon) -> None:
        self.now_s = 1_800_000_000.0
        self._path = path
        self._options = StoreOptions(
            archive=ArchiveOptions(idle_s=3_600.0), horizon=horizon, clock_us=lambda: int(self.now_s * 1e6)
        )
        self.engine: Engine | None = None

    async def start(self) -> None:
        """Start anew: what was in memory is gone."""
        if self.engine is not None:
            await self.engine.close()
        self.engine = await Engine.open(self._path, setup(), options=self._options)
        if not self.engine.worlds:
            await self.engine.create_world(WorldConfig(name="w"))

    @property
    def world(self) -> AsyncWorld:
        assert self.engine is not None
        return self.engine.world("w")

    def id(self, ahead_s: float = 0.0) -> UUID:
        """A new id, by a client whose clock is so much ahead."""
        return uuid7(int((self.now_s + ahead_s) * 1000))

    async def submit(self, command_id: UUID, *, tick: int | None = None) -> Receipt:
        payload = {"components": {"Place": {}}}
        (receipt,) = await self.world.submit(
            [Submission(CommandType.SPAWN, payload, id=command_id.bytes, tick=tick)]
        )
        return receipt

    async def settle(self) -> None:
        """Apply what is due, and let the journal forget what it may."""
        assert self.engine is not None
        await self.world.step()
        await self.engine.store.archiver.archive_now(self.world.row.key)

    @property
    def remembered(self) -> int:
        """How many settled commands the journal holds."""
        assert self.engine is not None
        with self.engine.store._journal.read() as connection:
            return int(connection.execute("SELECT count(*) FROM applied").get)

    @property
    def entities(self) -> int:
        return self.world.read([Place]).num_rows


@pytest.fixture
async def subject(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Subject]:
    # So that retries are looked up in the journal.
    monkeypatch.setattr(known_commands, "KEPT_SETTLED", 2)
    made = Subject(tmp_path / "data", Horizon(age_s=7 * DAY, rows=30, least_s=10 * MINUTE))
    await made.start()
    yield made
    assert made.engine is not None
    await made.engine.close()


async def test_a_command_is_remembered_up_to_the_horizon_and_refused_after_it(subject: Subject) -> None:
    first = subject.id()
    await subject.submit(first)
    await subject.settle()
    subject.now_s += 7 * DAY - HOUR
    await subject.settle()
    await subject.start()
    again = await subject.submit(first)
    assert again.duplicate
    assert again.command is not None
    assert again.command.settled is not None
    subject.now_s += 2 * HOUR
    await subject.settle()
    assert subject.remembered == 0
    for _ in range(2):
        with pytest.raises(CommandIdTooOldError) as refused:
            await subject.submit(first)
        assert refused.value.field == "commands[0].id"
        assert refused.value.metadata["command_id"] == str(first)
        await subject.start()
    assert subject.entities == 1
    assert not (await subject.submit(subject.id())).duplicate


async def test_a_command_that_waited_longer_than_the_horizon_is_remembered_from_when_it_was_applied(
    subject: Subject,
) -> None:
    waits, other = subject.id(), subject.id()
    due = subject.world.tick + 3
    await subject.submit(waits, tick=due)
    await subject.submit(other)
    await subject.settle()
    subject.now_s += 20 * DAY
    await subject.settle()
    await subject.start()
    with pytest.raises(CommandIdTooOldError):
        await subject.submit(other)
    assert (await subject.submit(waits, tick=due)).duplicate
    while subject.world.tick <= due:
        await subject.settle()
    await subject.start()
    subject.now_s += 6 * DAY
    await subject.settle()
    assert (await subject.submit(waits, tick=due)).duplicate
    subject.now_s += 2 * DAY
    await subject.settle()
    await subject.start()
    with pytest.raises(CommandIdTooOldError):
        await subject.submit(waits, tick=due)
    assert subject.entities == 2


async def test_a_command_dated_ahead_is_remembered_until_its_own_time_is_past(subject: Subject) -> None:
    ahead = subject.id(ahead_s=4 * MINUTE)
    with pytest.raises(InvalidCommandError):
        await subject.submit(subject.id(ahead_s=6 * MINUTE))
    await subject.submit(ahead)
    await subject.submit(subject.id())
    await subject.settle()
    subject.now_s += 7 * DAY + MINUTE
    await subject.settle()
    assert subject.remembered == 1
    await subject.start()
    assert (await subject.submit(ahead)).duplicate
    subject.now_s += 5 * MINUTE
    await subject.settle()
    assert subject.remembered == 0
    with pytest.raises(CommandIdTooOldError):
        await subject.submit(ahead)


async def test_settled_commands_are_bounded_in_rows_but_young_ones_stay(subject: Subject) -> None:
    early = subject.id()
    await subject.submit(early)
    for _ in range(40):
        await subject.submit(subject.id())
    await subject.settle()
    assert subject.remembered == 41
    assert (await subject.submit(early)).duplicate
    for _ in range(20):
        subject.now_s += HOUR
        for _ in range(5):
            await subject.submit(subject.id())
        await subject.settle()
        assert subject.remembered <= 41
    assert 25 <= subject.remembered <= 35
    with pytest.raises(CommandIdTooOldError):
        await subject.submit(early)


async def test_cancelled_commands_are_forgotten_too_and_stay_cancelled(subject: Subject) -> None:
    command = await subject.submit(subject.id(), tick=1_000)
    assert subject.engine is not None
    assert command.command is not None
    cancelled = UUID(bytes=command.command.id)
    await subject.engine.store.cancel(subject.world.row.key, command.command.seq)
    await subject.start()
    subject.now_s += 8 * DAY
    await subject.settle()
    assert subject.remembered == 0
    await subject.start()
    with pytest.raises(CommandIdTooOldError):
        await subject.submit(cancelled, tick=1_000)
    with subject.engine.store._journal.read() as connection:
        assert connection.execute("SELECT count(*) FROM commands").get == 0


@pytest.mark.parametrize("seed", range(3))
async def test_no_command_is_ever_applied_twice_whatever_the_clocks_say(subject: Subject, seed: int) -> None:
    """Clients are up to ten days behind or five minutes ahead; the server's clock jumps, back too; starts in between."""
    rng = random.Random(seed)
    sent: list[tuple[UUID, int | None]] = []
    accepted: set[UUID] = set()
    answers = {"new": 0, "duplicate": 0, "too old": 0}
    for _ in range(160):
        subject.now_s += rng.choice([0.0, MINUTE, HOUR, DAY, 3 * DAY, -2 * HOUR])
        if sent and rng.random() < 0.6:
            command_id, tick = rng.choice(sent)
        else:
            skew = rng.choice([0.0, 5 * MINUTE, -MINUTE, -DAY, -10 * DAY])
            command_id, tick = subject.id(skew), rng.choice([None, None, subject.world.tick + 5])
            sent.append((command_id, tick))
        try:
            receipt = await subject.submit(command_id, tick=tick)
        except CommandIdTooOldError:
            answers["too old"] += 1
        except (InvalidCommandError, TickInThePastError):
            # The server's clock went back meanwhile, or the tick that was asked for is past.
            assert command_id not in accepted
        else:
            assert receipt.duplicate == (command_id in accepted)
            answers["duplicate" if receipt.duplicate else "new"] += 1
            accepted.add(command_id)
        match rng.randrange(12):
            case 0:
                await subject.start()
            case 1 | 2 | 3:
                await subject.settle()
    while subject.world.acceptance.pending:
        await subject.settle()
    assert subject.entities == len(accepted)
    assert all(answers.values()), answers
