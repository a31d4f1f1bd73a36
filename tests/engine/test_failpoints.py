"""Failpoints: armed by the environment, and as many in the code as the list says."""

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import tickwire_engine
from tickwire_engine.failpoints import ENVIRONMENT, PLACES, Failpoints


def test_every_listed_place_is_in_the_code_and_every_place_of_the_code_is_listed() -> None:
    package = Path(tickwire_engine.__file__).parent
    found = [
        place
        for path in package.rglob("*.py")
        for place in re.findall(r'failpoints\.reach\("([^"]+)"\)', path.read_text())
    ]
    assert sorted(set(found)) == sorted(PLACES)


def test_an_armed_place_fails_once_at_its_time() -> None:
    points = Failpoints("segment.fsync=eio:3; archive.fsync=enospc")
    for _ in range(2):
        assert not points.reach("segment.fsync")
    with pytest.raises(OSError, match=r"failpoint segment\.fsync") as failed:
        points.reach("segment.fsync")
    assert failed.value.errno == errno.EIO
    assert not points.reach("segment.fsync")
    with pytest.raises(OSError, match=r"failpoint archive\.fsync") as full:
        points.reach("archive.fsync")
    assert full.value.errno == errno.ENOSPC
    assert not points.reach("tick_commit.after")


def test_skip_lasts_from_its_time_on() -> None:
    points = Failpoints("segment.fsync=skip:2")
    assert [points.reach("segment.fsync") for _ in range(4)] == [False, True, True, True]


@pytest.mark.parametrize("text", ["nowhere=kill", "segment.fsync=explode", "segment.fsync"])
def test_what_names_no_place_or_action_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=ENVIRONMENT):
        Failpoints(text)


def test_kill_ends_the_process_on_the_spot() -> None:
    program = "from tickwire_engine import failpoints; failpoints.reach('recovery.begin'); print('alive')"
    ended = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, ENVIRONMENT: "recovery.begin=kill", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.returncode, ended.stdout) == (-signal.SIGKILL, "")
