"""The demo: real ticks over gRPC from a real server process, measured."""

import dataclasses
import json
import os
import signal
from pathlib import Path

import pytest

from examples.orrery import demo
from examples.orrery.ephemeris import NAMES
from examples.orrery.session import OtherWorldError
from tickwire_server.cli.server_process import ServerProcessError

SETTINGS = demo.DemoSettings(days=5, asteroids=50, seed=2026, picture=None, data=None)


def ignore(tick: int) -> None:
    pass


async def test_the_planets_of_five_days_keep_within_their_bounds(tmp_path: Path):
    seen: list[int] = []
    settings = dataclasses.replace(SETTINGS, picture=tmp_path / "out" / "orrery.png")
    report = await demo.run(settings, seen.append)
    assert seen == [0, 1, 2, 3, 4]
    assert report.is_within
    assert [body.name for body in report.accuracy] == list(NAMES)
    assert report.entities == len(NAMES) + 50
    assert (tmp_path / "out" / "orrery.png").read_bytes().startswith(b"\x89PNG")


async def test_a_demo_in_two_runs_ends_in_the_same_state_as_in_one(tmp_path: Path):
    whole = await demo.run(SETTINGS, ignore)
    kept = dataclasses.replace(SETTINGS, data=tmp_path / "data")
    await demo.run(dataclasses.replace(kept, days=2), ignore)
    second = await demo.run(kept, ignore)
    assert second.resumed_from == 2
    assert second.state_hash == whole.state_hash
    assert second.accuracy == whole.accuracy

    with pytest.raises(OtherWorldError, match="--asteroids 50 --seed 2026"):
        await demo.run(dataclasses.replace(kept, asteroids=51), ignore)


async def test_a_demo_whose_server_is_killed_says_so_and_goes_on_when_run_again(tmp_path: Path):
    kept = dataclasses.replace(SETTINGS, days=400, data=tmp_path / "data")

    def kill_at_ten(tick: int) -> None:
        if tick == 10:
            os.kill(json.loads((tmp_path / "data" / "LOCK").read_text())["pid"], signal.SIGKILL)

    with pytest.raises(ServerProcessError, match="ended on the way"):
        await demo.run(kept, kill_at_ten)
    report = await demo.run(kept, ignore)
    assert 10 < report.resumed_from < 400
    assert report.is_within
