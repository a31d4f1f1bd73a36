"""Requests that come together go to the disk as one write, and are answered each by itself."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.engine.storage.samples import SampleWorld, world_row
from tickwire_engine.command_journal import CommandJournal
from tickwire_engine.errors import DuplicateCommandError, StorageError
from tickwire_engine.storage.store import Store

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = Store.open(tmp_path / "data")
    yield opened
    await asyncio.to_thread(opened.close)


async def test_requests_that_come_together_are_one_write_answered_in_their_order(store: Store) -> None:
    row = await store.create_world(world_row("alpha"))
    journal, made = CommandJournal(store, row.key), SampleWorld(row.key)
    answers: asyncio.Queue[tuple[int, BaseException | None]] = asyncio.Queue()
    for number in range(5):
        journal.accept(made.commands(2), lambda error, number=number: answers.put_nowait((number, error)))  # type: ignore[misc]
    assert [await answers.get() for _ in range(5)] == [(number, None) for number in range(5)]
    assert set(store.find_commands(row.key, [r.id for r in made.pending])) == {r.id for r in made.pending}


async def test_one_that_cannot_be_written_takes_nobody_along(store: Store) -> None:
    row = await store.create_world(world_row("alpha"))
    journal, made = CommandJournal(store, row.key), SampleWorld(row.key)
    first, again, *others = made.commands(5)
    await store.accept(row.key, [first])
    answers: list[type[BaseException] | None] = []
    done = asyncio.Event()

    def decided(error: BaseException | None) -> None:
        answers.append(None if error is None else type(error))
        if len(answers) == 5:
            done.set()

    journal.accept([others[0]], decided)
    journal.accept([first._replace(seq=again.seq)], decided)
    journal.accept([others[1]], decided)
    await asyncio.sleep(0)
    # While those are being written, more come, and are written after them.
    journal.accept([others[2]], decided)
    journal.accept([], decided)
    await asyncio.wait_for(done.wait(), 30)
    assert answers == [None, DuplicateCommandError, None, None, None]
    assert len(store.find_commands(row.key, [r.id for r in others])) == 3


async def test_whoever_waits_when_the_store_closes_is_told(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "data")
    row = await store.create_world(world_row("alpha"))
    journal, made = CommandJournal(store, row.key), SampleWorld(row.key)
    store.close()
    answer: asyncio.Future[BaseException | None] = asyncio.get_running_loop().create_future()
    journal.accept(made.commands(1), answer.set_result)
    assert isinstance(await asyncio.wait_for(answer, 30), StorageError)
