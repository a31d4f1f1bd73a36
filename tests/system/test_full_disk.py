"""A disk that fills up under a load: ticks wait, nothing is lost or rejected, and room lets everything go on by itself."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.system.load import Load
from tests.system.small_disk import SmallDisk, small_disk
from tickwire import AsyncClient, RetryPolicy, UnavailableError, commands

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.system.conftest import StartServer
    from tickwire import AsyncWorld
    from tickwire_server.cli.server_process import ServerProcess

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]

ROOT = Path(__file__).parents[2]
APP = "tests.system.app:app"
ONCE = RetryPolicy(retry_for_s=0.0)
MB = 1 << 20


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk(tmp_path / "disk", 256) as made:
        yield made


async def _start(start_server: StartServer, disk: SmallDisk, *, floor: int, ballast: int) -> ServerProcess:
    variables = {"TICKWIRE_MIN_FREE_BYTES": str(floor), "TICKWIRE_BALLAST_BYTES": str(ballast)}
    return await asyncio.to_thread(start_server, disk.path / "data", app=APP, root=ROOT, variables=variables)


async def _until(holds: Callable[[], Any], patience_s: float = 60.0) -> None:
    async with asyncio.timeout(patience_s):
        while True:
            found = holds()
            if await found if asyncio.iscoroutine(found) else found:
                return
            await asyncio.sleep(0.05)


async def _moves(load: Load) -> None:
    """Wait until commands are acknowledged and both worlds tick anew."""

    def counts() -> list[int]:
        frames = (len(load.frames.get(name, ())) for name in ("ledger", "bulk"))
        return [load.progress[0], *frames]

    before = counts()
    await _until(lambda: all(now > then + 5 for now, then in zip(counts(), before, strict=True)))
    load.failures()


async def _waits(world: AsyncWorld) -> bool:
    return "no room on the disk" in str((await world.info()).fault)


async def _fill_until_wait(disk: SmallDisk, *worlds: AsyncWorld) -> None:
    """Leave no room until all of them wait, whatever the server frees meanwhile."""

    async def all_wait() -> bool:
        disk.fill()
        return all([await _waits(world) for world in worlds])

    await _until(all_wait)
    disk.fill()


async def _ends_in_order(server: ServerProcess) -> None:
    code = await asyncio.to_thread(server.terminate)
    assert code == 0, server.log.read_text()[-5000:]


async def test_below_the_floor_ticks_wait_and_go_on_by_themselves(
    start_server: StartServer, disk: SmallDisk
) -> None:
    server = await _start(start_server, disk, floor=32 * MB, ballast=4 * MB)
    async with AsyncClient(server.address, retry=ONCE) as client, AsyncClient(server.address) as patient:
        played = await client.create_world("played", template="crowd")
        ran = await client.create_world("ran", template="crowd")
        await played.play(hz=100)
        seen: list[int] = []

        async def watch() -> None:
            async with played.ticks(from_tick=0) as stream:
                async for tick in stream:
                    seen.append(tick.tick)  # noqa: PERF401  (each is looked at as it comes)

        async def run() -> None:
            async for _ in ran.run(2_000):
                pass

        watching, running = asyncio.create_task(watch()), asyncio.create_task(run())
        try:
            await _until(lambda: len(seen) > 20)
            disk.fill(leave_bytes=16 * MB)
            await _until(lambda: _waits(played))
            await _until(lambda: _waits(ran))

            info = await played.info()
            assert info.state.name == "PLAYING"
            with pytest.raises(UnavailableError) as refused:
                await played.submit([commands.spawn({"Agent": {"name": "refused"}})])
            assert refused.value.reason == "STORAGE_FAILED"
            assert refused.value.retry_delay_s is not None
            with pytest.raises(UnavailableError):
                await client.create_world("refused", template="crowd")
            rows = await played.query(components=["Agent"], at_tick=info.tick - 1)
            assert rows.num_rows == 100
            assert (await played.info()).tick == info.tick
            retried = asyncio.create_task(
                (await patient.world("played")).submit(
                    [commands.spawn({"Agent": {"name": "patient"}})], wait="applied"
                )
            )
            await played.pause()
            assert (await played.info()).state.name == "IDLE"
            await played.play(hz=100)
            await _until(lambda: _waits(played))
            assert not running.done()

            disk.free()
            (receipt,) = await retried
            assert receipt.outcome is not None
            assert receipt.outcome.state.name == "APPLIED"
            await _until(lambda: len(seen) > info.tick + 20)
            await running
        finally:
            for task in (watching, running):
                task.cancel()
            await asyncio.gather(watching, running, return_exceptions=True)
        assert seen == list(range(len(seen)))
        rows = await played.query(components=["Agent"])
        names = [name for name in rows["agent__name"].to_pylist() if not name.startswith("a")]
        assert names == ["patient"]
    await _ends_in_order(server)


async def test_a_disk_that_is_full_to_the_last_byte_loses_nothing(
    start_server: StartServer, disk: SmallDisk
) -> None:
    # Without a floor: ticks in flight find no room either.
    server = await _start(start_server, disk, floor=0, ballast=MB)
    load = Load(server.address, bulk_entities=8_000, bulk_hz=10.0)
    await load.start()
    try:
        for _ in range(2):
            await _moves(load)
            await _fill_until_wait(disk, load.bulk, load.ledger)
            load.failures()
            disk.free()
        await _moves(load)
        # Full once more, and told to stop: it ends in order all the same, and starts again on the full disk or not
        # at all, but never without what it acknowledged.
        await _fill_until_wait(disk, load.bulk)
        await _ends_in_order(server)
        disk.free()
        await asyncio.to_thread(server.start)
        await _moves(load)
        await load.stop()
        await load.check()
    finally:
        await load.abandon()
    await _ends_in_order(server)
    for world in ("ledger", "bulk"):
        await asyncio.to_thread(_verify, disk.path / "data", world)


def _verify(data: Path, world: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tickwire_server.cli", "verify", world, "--data", str(data), "--app", APP],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
