"""A disk that fails: after the first failed sync nothing is acknowledged, the server ends and says why, a start recovers."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

import pytest

from tests.system.test_crash_matrix import PATIENCE_S, Subject
from tests.system.torture import seeds
from tickwire import AsyncClient, RetryPolicy, UnavailableError, commands

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

PLACES = {
    "journal.commit.before": 60,
    "segment.fsync": 6,
    "segment.folder_fsync": 1,
    "archive.fsync": 6,
}
"""How often they may be reached before the disk fails there."""


@pytest.fixture
async def subject(tmp_path: Path) -> AsyncIterator[Subject]:
    made = Subject(tmp_path / "data")
    yield made
    await made.load.abandon()
    if made.server.is_running:
        made.server.kill()


async def test_a_server_whose_disk_fails_ends_and_the_next_start_has_what_was_acknowledged(
    subject: Subject,
) -> None:
    await subject.begin(bulk_entities=20_000)
    for seed in seeds(1, share=0.1):
        rng = random.Random(seed)
        places = list(PLACES)
        rng.shuffle(places)
        for place in places:
            await asyncio.to_thread(subject.server.kill)
            # It may fail before it serves.
            await subject.start(f"{place}=eio:{rng.randint(1, PLACES[place])}")
            code = await asyncio.to_thread(subject.server.wait, PATIENCE_S)
            assert code == 1, f"{place}: exit code {code}"
            subject.load.failures()
            said = subject.server.log.read_text().splitlines()
            assert "failed" in said[-1] or "Input/output error" in said[-1], said[-1]
            subject.server.kill()
            assert await subject.start()
            await subject.progress()
    await subject.finish()


async def test_nothing_is_acknowledged_once_a_sync_has_failed(subject: Subject) -> None:
    assert await subject.start("journal.commit.before=eio:25")
    acknowledged: list[int] = []
    refused: list[UnavailableError] = []
    async with AsyncClient(subject.server.address, retry=RetryPolicy(retry_for_s=0.0)) as client:
        world = await client.create_world("w", template="crowd")

        async def send() -> None:
            while not refused:
                try:
                    (receipt,) = await world.submit([commands.spawn({"Agent": {"name": "sent"}})])
                    acknowledged.append(receipt.first_entity_id)
                    assert not refused, "acknowledged after another was refused"
                except UnavailableError as error:
                    refused.append(error)

        await asyncio.gather(*(send() for _ in range(3)))
        assert "STORAGE_FAILED" in {error.reason for error in refused}
    assert await asyncio.to_thread(subject.server.wait, PATIENCE_S) == 1
    subject.server.kill()
    assert await subject.start()
    async with AsyncClient(subject.server.address) as client:
        world = await client.world("w")
        await world.step(1)
        rows = await world.query(components=["Agent"], where="agent__name = 'sent'")
        assert set(acknowledged) <= set(rows["entity_id"].to_pylist())
