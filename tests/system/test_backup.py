"""Backups of a server under load: whole, as of one moment, and worth a restore."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.system.load import Load
from tickwire import AsyncClient
from tickwire_engine.storage._outside import OutsideReaders
from tickwire_server.cli.server_process import ServerProcess

if TYPE_CHECKING:
    from tests.system.conftest import StartServer

pytestmark = pytest.mark.system

ROOT = Path(__file__).parents[2]
APP = "tests.system.app:app"


async def tickwire(*arguments: str | Path) -> str:
    """Run the command line; return what it printed."""

    def run() -> str:
        done = subprocess.run(
            [sys.executable, "-m", "tickwire_server.cli", *map(str, arguments)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return await asyncio.to_thread(run)


async def test_a_backup_under_load_verifies_and_restores(start_server: StartServer, tmp_path: Path) -> None:
    server = await asyncio.to_thread(start_server, app=APP, root=ROOT)
    load = Load(server.address)
    await load.start()
    try:
        while load.progress[0] < 30 or load.progress[1] < 30:
            load.failures()
            await asyncio.sleep(0.02)
        acknowledged = [(books.entity, books.acknowledged) for books in load.books]
        seen = {name: list(frames) for name, frames in load.frames.items()}
        await tickwire("backup", server.data, tmp_path / "copy")
        load.failures()
        await load.stop()
        # Backed up again, now from the archive's later versions.
        await tickwire("backup", server.data, tmp_path / "later")
    finally:
        await load.abandon()
    for world in ("ledger", "bulk"):
        for copy in ("copy", "later"):
            await tickwire("verify", world, "--data", tmp_path / copy, "--app", APP)
    await tickwire("restore", tmp_path / "copy", tmp_path / "restored")
    restored = await asyncio.to_thread(start_server, tmp_path / "restored", app=APP, root=ROOT)
    async with AsyncClient(restored.address) as client:
        ledger = await client.world("ledger")
        await ledger.step(1)
        rows = {row["entity_id"]: row for row in (await ledger.query(components=["Tally"])).to_pylist()}
        for entity, count in acknowledged:
            assert rows[entity]["tally__count"] >= count, "what was acknowledged before the backup is in it"
        for name, frames in seen.items():
            world = await client.world(name)
            assert (await world.info()).tick >= len(frames)


async def test_a_backup_goes_nowhere_where_something_is(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path / "data")
    await asyncio.to_thread(server.start)
    await asyncio.to_thread(server.terminate)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "file").write_text("mine")
    with pytest.raises(AssertionError, match="not empty"):
        await tickwire("backup", tmp_path / "data", tmp_path / "out")
    with pytest.raises(AssertionError, match="no data directory"):
        await tickwire("backup", tmp_path / "out", tmp_path / "new")
    assert (tmp_path / "out" / "file").read_text() == "mine"


def test_while_somebody_reads_nothing_is_deleted(tmp_path: Path) -> None:
    readers = OutsideReaders(tmp_path / "READERS")
    with readers.deleting() as allowed:
        assert allowed
    with readers.reading():
        with readers.reading(), readers.deleting() as allowed:
            assert not allowed
        with readers.deleting() as allowed:
            assert not allowed
    with readers.deleting() as allowed:
        assert allowed
