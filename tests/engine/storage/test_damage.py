"""Damage: whatever file a bit is flipped in, what is read is what was written, or an error that names world and tick.

What is still whole stays readable, and the doctor tells the same, offline.
"""

from __future__ import annotations

import os
import random
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.engine.storage.conftest import QUIET
from tests.engine.storage.samples import SampleWorld, new_world, run
from tests.system.torture import seeds
from tickwire_engine.errors import CorruptRecordError
from tickwire_engine.storage._upkeep import UpkeepLimits
from tickwire_engine.storage.archiver import ArchiveOptions
from tickwire_engine.storage.doctor import Leftover, examine, repair
from tickwire_engine.storage.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

OPTIONS = replace(
    QUIET,
    archive=ArchiveOptions(
        idle_s=3600.0, upkeep=UpkeepLimits(dataset_rows=120, unindexed_rows=60, idle_rows=10)
    ),
)
ARCHIVE_FILES = 30
UNTOLD = ("LOCK", "READERS", "BALLAST")
"""Files that hold nothing."""


class Sample:
    """A data directory as a killed process left it, and what was committed to it."""

    def __init__(self, path: Path, worlds: list[SampleWorld], ids: dict[int, str]) -> None:
        self.path = path
        self.worlds = worlds
        self.ids = ids

    @property
    def files(self) -> list[Path]:
        """Every file that holds something, below the directory."""
        return [
            file.relative_to(self.path)
            for file in sorted(self.path.rglob("*"))
            if file.is_file() and file.name not in UNTOLD and "-shm" not in file.name and file.stat().st_size
        ]

    def copy(self, target: Path) -> Path:
        shutil.rmtree(target, ignore_errors=True)
        return shutil.copytree(self.path, target)


@pytest.fixture(scope="module")
async def sample(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    folder = tmp_path_factory.mktemp("damage")
    store = Store.open(folder / "data", options=OPTIONS)
    small = await new_world(store, "small")
    for _ in range(2):
        await run(store, small, 4, commands=2)
        await store.archiver.archive_now(small.key)
    await run(store, small, 3, commands=2)
    large = await new_world(store, "large", rows=5_000)
    await store.accept(large.key, large.commands(1, table_bytes=1 << 17))
    await run(store, large, 2)
    await store.accept(large.key, large.commands(1, table_bytes=1 << 17))
    shutil.copytree(folder / "data", folder / "killed")
    ids = {row.row.key: row.row.id.hex() for row in store.recover()}
    store.close()
    return Sample(folder / "killed", [small, large], ids)


def read_all(store: Store, sample: Sample) -> list[CorruptRecordError]:
    """Read everything in every way; what comes must be what was committed.

    Returns:
        What was refused; each names its world, and a tick.
    """
    history = store.history
    refused: list[CorruptRecordError] = []
    for world in sample.worlds:

        def ticks(world: SampleWorld = world) -> None:
            found = list(history.ticks(world.key, 0, world.tick))
            assert [tick.summary for tick in found] == [commit.summary for commit in world.commits]

        def summaries(world: SampleWorld = world) -> None:
            found = list(history.summaries(world.key, 0, world.tick))
            assert found == [commit.summary for commit in world.commits]

        def applied(world: SampleWorld = world) -> None:
            found = history.applied(world.key, 0, world.tick - 1)
            rows = [(row.id, row.payload, row.table) for tick in sorted(found) for row in found[tick]]
            assert rows == [(row.id, row.payload, row.table) for row, _, _ in world.applied.values()]

        def at(tick: int, world: SampleWorld = world) -> None:
            for stored in history.ticks(world.key, tick, tick):
                commit = world.commits[tick]
                assert (stored.summary, stored.changed) == (commit.summary, commit.frames)
                assert stored.outcomes == commit.outcomes
            expected = {stream: frame for stream, (_, frame) in world.state_at(tick).items()}
            assert history.frames_at(world.key, tick) == expected

        for tick in range(world.tick):
            _collect(refused, lambda tick=tick, at=at: at(tick))  # type: ignore[misc]
        for reading in (ticks, summaries, applied):
            _collect(refused, reading)
    for error in refused:
        assert error.metadata["world"] in sample.ids.values()
        assert error.metadata["tick"].isdigit()
    return refused


def _collect(refused: list[CorruptRecordError], read: object) -> None:
    assert callable(read)
    try:
        read()
    except CorruptRecordError as error:
        refused.append(error)


def _flips(sample: Sample, rng: random.Random) -> Iterator[tuple[Path, int, int]]:
    """Yield a byte of every file, and a bit; of the archive's many files some are drawn."""
    archive = [file for file in sample.files if file.parts[0] == "archive"]
    others = [file for file in sample.files if file.parts[0] != "archive"]
    for file in [*others * 3, *rng.sample(archive, min(ARCHIVE_FILES, len(archive)))]:
        # Behind what was written to logs there is space that they have reserved.
        used = len((sample.path / file).read_bytes().rstrip(b"\0"))
        yield file, rng.randrange(used), 1 << rng.randrange(8)


@pytest.mark.timeout(600)
async def test_a_flipped_bit_in_every_file_in_turn_is_refused_or_changes_nothing(
    sample: Sample, tmp_path: Path
) -> None:
    refusals = 0
    for seed in seeds(1, share=0.1):
        for file, position, bit in _flips(sample, random.Random(seed)):
            data = sample.copy(tmp_path / "data")
            content = bytearray((data / file).read_bytes())
            content[position] ^= bit
            (data / file).write_bytes(content)
            told = examine(data).healthy
            try:
                store = Store.open(data, options=OPTIONS)
            except CorruptRecordError:
                assert str(file).startswith("journal.db"), f"{file} kept it from starting"
                assert not told, f"the doctor did not find byte {position} of {file}"
                refusals += 1
                continue
            try:
                refused = read_all(store, sample)
            except Exception as error:
                raise AssertionError(f"bit {bit} of byte {position} of {file}") from error
            finally:
                store.close()
            refusals += bool(refused)
            assert not (refused and told), f"the doctor did not find byte {position} of {file}"
    assert refusals > 3


async def test_a_file_that_is_missing_is_named_and_the_others_stay_readable(
    sample: Sample, tmp_path: Path
) -> None:
    missed = 0
    for file in sample.files:
        if file.suffix not in (".seg", ".lance") or "_indices" in file.parts:
            continue
        data = sample.copy(tmp_path / "data")
        (data / file).unlink()
        found = examine(data)
        store = Store.open(data, options=OPTIONS)
        try:
            refused = read_all(store, sample)
        finally:
            store.close()
        damage = [*found.damage, *(damage for world in found.worlds for damage in world.damage)]
        assert bool(damage) == bool(refused), f"what the doctor says of {file}"
        if not damage:
            # What compaction has left behind, nobody needs.
            continue
        missed += 1
        assert any(str(file).startswith(each.file) for each in damage if each.file)
        assert all(each.tick is not None for each in damage if each.world)
        assert any(world.whole_ticks for world in found.worlds)
    assert missed > 4


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
async def test_a_truncated_journal_is_refused(sample: Sample, tmp_path: Path, share: float) -> None:
    data = sample.copy(tmp_path / "data")
    # Folded in first, or the write-ahead log would bring the pages back.
    Store.open(data, options=OPTIONS).close()
    journal = data / "journal.db"
    os.truncate(journal, 4096 + int((journal.stat().st_size - 4096) * share) // 4096 * 4096)
    found = examine(data)
    assert not found.healthy
    assert found.damage[0].file == "journal.db"
    with pytest.raises(CorruptRecordError):
        Store.open(data, options=OPTIONS).recover()


async def test_what_a_killed_turn_left_is_left_over_and_no_damage(sample: Sample, tmp_path: Path) -> None:
    data = sample.copy(tmp_path / "data")
    versions = next((data / "archive").glob("*/*.lance/_versions"))
    newest = min(versions.glob("*.manifest"))
    (versions / f"{int(newest.stem) - 1}.manifest").write_bytes(b"")
    (data / "log" / "00000099.seg").write_bytes(b"TICKWIRE")
    (data / "log" / "00000098.spare").write_bytes(b"TICKWIRE")
    (data / "journal.db-wal.copy").write_bytes(b"half")
    stray = versions.parent.with_name("stream-1-77.lance")
    (stray / "data").mkdir(parents=True)
    found = examine(data)
    assert found.unclean
    damage = [damage for world in found.worlds for damage in world.damage]
    assert not found.damage
    assert all("newer than the journal's" in each.problem for each in damage)
    names = {str(data / leftover.path) for leftover in found.leftovers}
    expected = {
        data / "log" / "00000099.seg",
        data / "log" / "00000098.spare",
        data / "journal.db-wal.copy",
        stray,
        versions / f"{int(newest.stem) - 1}.manifest",
    }
    assert {str(path) for path in expected} <= names
    repair(data, found.leftovers)
    assert not any(path.exists() for path in expected)
    again = examine(data)
    assert (again.healthy, again.leftovers) == (True, ())
    store = Store.open(data, options=OPTIONS)
    try:
        assert read_all(store, sample) == []
    finally:
        store.close()


async def test_beside_a_server_the_doctor_reads_and_lets_leftovers_be(sample: Sample, tmp_path: Path) -> None:
    data = sample.copy(tmp_path / "data")
    store = Store.open(data, options=OPTIONS)
    try:
        (data / "log" / "00000099.seg").write_bytes(b"TICKWIRE")
        found = examine(data)
        assert found.healthy
        assert found.served_by is not None
        assert found.served_by["pid"] == str(os.getpid())
        assert found.leftovers == ()
        leftover = Leftover("log/00000099.seg", 8, "")
        with pytest.raises(Exception, match="is served by process"):
            repair(data, (leftover,))
    finally:
        store.close()
