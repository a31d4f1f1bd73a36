"""A power cut at any moment, in which everything that was not synced may be lost: what was told still holds.

SIGKILL cannot show a sync that is missing, the page cache survives it. So a run is recorded, call by call, and replayed up
to many cuts onto a disk that loses what it may lose (see `powercut.trace`). What is left is opened by the engine and held
to all that the run had told the world by then. And because a checker that finds nothing proves nothing, the same is done
with syncs taken out, one kind at a time: then it must find the loss.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.system.claims import check
from tests.system.powercut.trace import Disk, Found, Record, look, read
from tests.system.torture import seeds
from tickwire_engine import failpoints
from tickwire_engine.errors import TickwireError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
SOURCE = Path(__file__).parent / "powercut" / "recorder.c"
ROUNDS = 24
RECORDED = 1
"""The seed of the run that most tests cut."""
CUTS = 30
DRAWS = 6
"""Of twice as many cuts, until a sync that is missing is found."""


@dataclass(frozen=True, slots=True)
class Recording:
    """A run's trace, and where it left its files."""

    data: Path
    records: list[Record]
    before: list[Found]

    def cuts(
        self, count: int, rng: random.Random, ignored: Callable[[str], bool] = lambda _: False
    ) -> Iterator[tuple[int, Disk]]:
        """Yield the disk at `count` points, in their order."""
        disk = Disk(ignored, before=self.before)
        at = 0
        for point in sorted(rng.sample(range(1, len(self.records) + 1), count)):
            for record in self.records[at:point]:
                disk.take(record)
            at = point
            yield point, disk


@pytest.fixture(scope="module")
def recorder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None or not sys.platform.startswith("linux"):
        pytest.skip("NO POWER CUTS WERE TESTED: that needs Linux and a C compiler (cc, gcc or clang)")
    library = tmp_path_factory.mktemp("recorder") / "recorder.so"
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(SOURCE), "-ldl", "-lpthread"],
        check=True,
    )
    return library


def record(
    recorder: Path,
    data: Path,
    *,
    seed: int,
    rounds: int = ROUNDS,
    variables: dict[str, str] | None = None,
    fails: bool = False,
) -> Recording:
    """Run the workload on `data`, which may hold an earlier run's, and record it; it must fail if it `fails`."""
    data.mkdir(parents=True, exist_ok=True)
    before = look(data)
    trace = data.with_suffix(".trace")
    trace.unlink(missing_ok=True)
    environment = {
        **os.environ,
        "LD_PRELOAD": str(recorder),
        "TICKWIRE_TRACE": str(trace),
        "TICKWIRE_TRACE_ROOT": str(data),
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        **(variables or {}),
    }
    command = [sys.executable, "-m", "tests.system.powercut.workload", str(data), str(seed), str(rounds)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert bool(done.returncode) == fails, done.stderr
    return Recording(data, list(read(trace)), before)


@pytest.fixture(scope="module")
def recorded(recorder: Path, tmp_path_factory: pytest.TempPathFactory) -> Recording:
    return record(recorder, tmp_path_factory.mktemp("recorded") / "data", seed=RECORDED)


def test_nothing_that_the_run_wrote_passed_by_the_recorder(recorded: Recording, tmp_path: Path) -> None:
    disk = Disk()
    for entry in recorded.records:
        disk.take(entry)
    disk.save_all(tmp_path / "replayed")
    replayed = {found.name: found.content for found in look(tmp_path / "replayed")}
    left = {found.name: found.content for found in look(recorded.data) if found.name != "/LOCK"}
    assert replayed == left
    created = [entry.paths[0] for entry in recorded.records if entry.kind == "c"]
    assert sum(name.endswith(".seg") for name in created) > 3, (
        "the tick log was written to, and cut into segments"
    )
    renamed = [entry.paths for entry in recorded.records if entry.kind == "r"]
    written_over = [new for old, new in renamed if old.endswith(".spare") and new.endswith(".seg")]
    assert written_over, "segments were written over deleted ones' blocks"
    removed = [entry.paths[0] for entry in recorded.records if entry.kind == "u"]
    assert any(name.endswith(".seg") for name in removed), "segments were deleted"
    assert any(name.endswith(".lance") for name in removed), "datasets were compacted and cleaned up"


async def test_whatever_a_power_cut_takes_what_was_told_still_holds(
    recorder: Path, recorded: Recording, tmp_path: Path
) -> None:
    for turn, seed in enumerate(seeds(1)):
        recording = recorded if not turn else record(recorder, tmp_path / f"run-{seed}" / "data", seed=seed)
        rng = random.Random(seed)
        for point, disk in recording.cuts(CUTS, rng):
            await _survives(disk, tmp_path, rng, f"seed {seed}, cut at {point}")


async def test_a_power_cut_after_the_recovery_from_a_power_cut_takes_no_more(
    recorder: Path, recorded: Recording, tmp_path: Path
) -> None:
    for seed in seeds(1):
        rng = random.Random(seed)
        for number, (point, disk) in enumerate(recorded.cuts(3, rng)):
            data = tmp_path / f"{seed}-{number}" / "data"
            disk.cut(data, rng)
            told = list(disk.notes)
            # Not the seed of the run before: the worlds that it destroyed would be made anew, by their names.
            again = record(recorder, data, seed=RECORDED + 1 + seed + number, rounds=4)
            # Half of the cuts fall into the recovery itself.
            told_at = next(i for i, entry in enumerate(again.records) if entry.kind == "n")
            points = [rng.randrange(1, told_at) for _ in range(3)] + [
                rng.randrange(told_at, len(again.records)) for _ in range(3)
            ]
            second = Disk(before=again.before)
            at = 0
            for cut in sorted(points):
                for entry in again.records[at:cut]:
                    second.take(entry)
                at = cut
                await _survives(second, tmp_path, rng, f"seed {seed}, cuts at {point} and {cut}", told)


@pytest.mark.parametrize("renewed", [True, False], ids=["renewed", "not renewed"])
async def test_what_a_start_after_a_failed_sync_serves_survives_a_power_cut(
    recorder: Path, tmp_path: Path, renewed: bool
) -> None:
    for seed in seeds(1):
        rng = random.Random(seed)
        folder = tmp_path / str(seed)
        variables = {"TICKWIRE_FAIL_SYNC": f"/journal.db-wal:{rng.randint(30, 90)}"}
        failed = record(recorder, folder / "data", seed=seed, variables=variables, fails=True)
        assert any(entry.kind == "f" for entry in failed.records)
        disk = Disk()
        for entry in failed.records:
            disk.take(entry)
        disk.reboot()
        # Folding the log into the journal writes its pages anew, too.
        left_out = "recovery.renew=skip;journal.checkpoint.before=skip"
        armed = {} if renewed else {failpoints.ENVIRONMENT: left_out}
        # Another seed: the names of what it makes must not be those of worlds that the run before made, and it destroys.
        again = record(recorder, folder / "data", seed=seed + 1, rounds=3, variables=armed)
        told_at = next(i for i, entry in enumerate(again.records) if entry.kind == "n")
        points = {rng.randrange(1, told_at) for _ in range(8)} if renewed else set()
        points |= {rng.randrange(told_at, len(again.records)) for _ in range(4)}
        lost = at = 0
        for point in sorted(points):
            for entry in again.records[at:point]:
                disk.take(entry)
            at = point
            try:
                await _survives(disk, folder, rng, f"seed {seed}, cut at {point} of the next start")
            except AssertionError:
                if renewed:
                    raise
                lost += 1
                break
        assert renewed or lost, "the tail was not written anew, and nothing was lost by that"


@pytest.mark.parametrize(
    "forgotten",
    [
        "/journal.db-wal",
        "/journal.db",
        "the journal's name",
        ".seg",
        "the log's names",
        ".manifest",
        "rows of datasets",
        "names in datasets",
        "names of datasets",
    ],
)
async def test_a_sync_that_was_forgotten_is_found(
    recorded: Recording, tmp_path: Path, forgotten: str
) -> None:
    kinds: dict[str, Callable[[str], bool]] = {
        "the journal's name": lambda path: path == "",
        "the log's names": lambda path: path == "/log",
        "rows of datasets": lambda path: "/data/" in path,
        "names in datasets": lambda path: path.endswith("/_versions"),
        "names of datasets": lambda path: path.startswith("/archive/") and path.count("/") == 2,
    }
    ignored = kinds.get(forgotten, lambda path: path.endswith(forgotten))
    assert await _is_found(recorded, tmp_path, ignored)


@pytest.mark.parametrize(
    "place", ["segment.fsync", "segment.folder_fsync", "archive.fsync", "archive.folder_fsync"]
)
async def test_a_sync_that_the_code_leaves_out_is_found(recorder: Path, tmp_path: Path, place: str) -> None:
    armed = {failpoints.ENVIRONMENT: f"{place}=skip"}
    assert await _is_found(record(recorder, tmp_path / "data", seed=2, variables=armed), tmp_path)


async def _is_found(
    recording: Recording, folder: Path, ignored: Callable[[str], bool] = lambda _: False
) -> bool:
    """Whether a cut shows what is missing; where its window is narrow, that takes more cuts."""
    rng = random.Random(11)
    for _ in range(DRAWS):
        for _, disk in recording.cuts(2 * CUTS, rng, ignored):
            data = folder / "cut"
            disk.cut(data, rng)
            try:
                await check(data, disk.notes)
            except (TickwireError, AssertionError, OSError):
                return True
            finally:
                shutil.rmtree(data, ignore_errors=True)
    return False


async def _survives(
    disk: Disk, folder: Path, rng: random.Random, name: str, told: list[dict[str, Any]] | None = None
) -> None:
    data = folder / "cut"
    disk.cut(data, rng)
    shutil.copytree(data, folder / "as-cut")
    try:
        await check(data, [*(told or ()), *disk.notes])
    except Exception as error:
        raise AssertionError(f"{name}: {error} (the folder as it was cut: {folder / 'as-cut'})") from error
    shutil.rmtree(data)
    shutil.rmtree(folder / "as-cut")
