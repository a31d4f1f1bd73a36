"""An engine killed at every place where it retires, forgets and purges: what it keeps is whole, and nothing comes back.

The run is that of the power cuts, without the recorder: it tells what it told by its standard output.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.system.claims import check
from tests.system.torture import seeds
from tickwire_engine.failpoints import ENVIRONMENT, PLACES

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
PREFIXES = ("floor", "retire", "dataset", "id_floor", "forget", "purge")
ROUNDS = 24


def run(data: Path, seed: int, armed: str = "") -> tuple[int, list[dict[str, object]]]:
    """Let the engine work until it is done or dies; return its exit code and what it told."""
    command = [sys.executable, "-m", "tests.system.powercut.workload", str(data), str(seed), str(ROUNDS)]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        ENVIRONMENT: armed,
    }
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    notes = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode, notes


async def test_an_engine_that_dies_while_it_deletes_keeps_what_it_keeps(tmp_path: Path) -> None:
    for seed in seeds(1):
        rng = random.Random(seed)
        data = tmp_path / str(seed)
        places = [place for place in PLACES if place.startswith(PREFIXES)]
        rng.shuffle(places)
        notes: list[dict[str, object]] = []
        for number, place in enumerate(places):
            code, told = run(data, number, f"{place}=kill:{rng.randint(1, 2)}")
            notes += told
            assert code == -signal.SIGKILL, f"{place} was not reached"
            if number % 6 == 5:
                await check(data, notes)
        code, told = run(data, len(places))
        assert code == 0
        await check(data, notes + told)
