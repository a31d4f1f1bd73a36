"""`tickwire doctor` and `tickwire verify`: what they say of a data directory, and how they end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from tests.cli.conftest import Outcome
from tickwire import Client
from tickwire_server.cli._main import app as command_line
from tickwire_server.cli.server_process import ServerProcess

if TYPE_CHECKING:
    from pathlib import Path

CLOCK_APP = """
import time

import pyarrow as pa
from tickwire_server import App
from tickwire_engine import ArrowProcessor, Component

app = App("clock")


@app.component
class Stamp(Component):
    at: int = 0


@app.processor
class Clock(ArrowProcessor):
    components = (Stamp,)

    def process_batch(self, batch, **kwargs):
        index = batch.schema.get_field_index("stamp__at")
        now = pa.array([time.time_ns()] * batch.num_rows, pa.int64())
        return batch.set_column(index, batch.schema.field(index), now)


@app.world("stamped")
async def stamped(world):
    await world.create_entity([Stamp()])
    await world.add_processor(Clock())


@app.world("large")
async def large(world):
    table = pa.table({"stamp__at": pa.array(range(20_000), pa.int64())})
    await world.create_entities_from_arrow(table)
"""


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory that a killed server has left, and its app beside it."""
    folder = tmp_path_factory.mktemp("left")
    (folder / "clock_app.py").write_text(CLOCK_APP)
    server = ServerProcess(folder / "data", app="clock_app:app", root=folder).start()
    with Client(server.address) as client:
        client.create_world("stamped", template="stamped").step(3)
        client.create_world("large", template="large").step(2)
        beside = doctor(folder, "--json")
        assert beside.code == 0
        assert beside.document["healthy"] is True
        assert beside.document["diagnosis"]["served_by"]["listen"] == server.address
        assert doctor(folder, "--repair", "--yes").code == 1, "not beside a server"
    server.kill()
    return folder


def doctor(folder: Path, *arguments: str, typed: str = "") -> Outcome:
    """Run `tickwire doctor` on `folder`'s data directory."""
    command = ["doctor", *arguments, "--data", str(folder / "data")]
    result = CliRunner().invoke(command_line, command, input=typed)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Outcome(result.exit_code, result.stdout, result.stderr)


def verify(folder: Path, world: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `tickwire verify` in a process of its own: it needs an environment of its own."""
    command = [sys.executable, "-m", "tickwire_server.cli", "verify", world, *arguments]
    return subprocess.run(
        [*command, "--app", "clock_app:app", "--data", "data"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        check=False,
    )


def damage(found: Outcome) -> list[dict[str, Any]]:
    """What is damaged, of files and of worlds."""
    diagnosis = found.document["diagnosis"]
    return [*diagnosis["damage"], *(each for world in diagnosis["worlds"] for each in world["damage"])]


def test_a_processor_that_reads_the_clock_is_named_by_verify(left: Path):
    found = verify(left, "stamped")
    assert found.returncode == 1
    assert "tick 0 comes out differently in Stamp" in found.stderr
    assert "processor Clock gives two results for the same rows" in found.stderr
    later = verify(left, "stamped", "--from", "2", "--json")
    assert later.returncode == 1
    assert json.loads(later.stdout)["difference"]["tick"] == 2


def test_leftovers_are_listed_and_deleted_only_when_asked_and_agreed(left: Path):
    stray = left / "data" / "log" / "00000099.seg"
    stray.write_bytes(b"TICKWIRE")
    found = doctor(left)
    assert found.code == 0
    assert "its last server was killed" in found.out
    assert "left over: log/00000099.seg" in found.out
    assert "healthy" in found.out
    doctor(left, "--repair", typed="n\n")
    assert stray.exists()
    assert doctor(left, "--repair", "--json").code == 2, "it must be able to ask"
    assert doctor(left, "--repair", typed="y\n").code == 0
    assert not stray.exists()
    stray.write_bytes(b"TICKWIRE")
    assert doctor(left, "--repair", "--yes", "--json").code == 0
    assert not stray.exists()


def test_damage_is_told_by_file_world_and_tick_and_cannot_be_repaired(left: Path):
    data = left / "data"
    files = [*(data / "log").glob("*.seg"), *(data / "archive").glob("*/stream-*/data/*")]
    # In the tick log, or in the archive by now.
    segment = max(files, key=lambda file: file.stat().st_size)
    whole = segment.read_bytes()
    changed = bytearray(whole)
    # A segment of a server that was killed ends with space that it had reserved.
    changed[len(whole.rstrip(b"\0")) // 2] ^= 1
    segment.write_bytes(changed)
    try:
        found = doctor(left, "--json")
        assert found.code == 1
        told = damage(found)
        assert {each["world"].split()[0] for each in told} == {"large"}
        assert all(str(segment.relative_to(data)).startswith(each["file"]) for each in told)
        assert all(isinstance(each["tick"], int) for each in told)
        people = doctor(left, "--repair", "--yes")
        assert people.code == 1
        assert "world large (" in people.err
        assert "restore the rest from a backup" in people.out
        assert segment.read_bytes() == bytes(changed)
    finally:
        segment.write_bytes(whole)
    assert doctor(left).code == 0


def test_a_directory_without_a_journal_is_told_so(tmp_path: Path):
    found = doctor(tmp_path)
    assert found.code in (1, 2)
    (tmp_path / "data").mkdir()
    found = doctor(tmp_path)
    assert found.code == 1
    assert "is no data directory" in found.err
    assert "Traceback" not in found.err


@pytest.mark.parametrize(
    "arguments",
    [("verify", "w", "--data"), ("doctor", "--data"), ("backup",), ("restore",)],
    ids=lambda a: a[0],
)
def test_what_cannot_be_read_is_told_as_json_to_programs(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    out = [str(tmp_path / "out")] if arguments[0] in ("backup", "restore") else []
    command = [sys.executable, "-m", "tickwire_server.cli", *arguments, str(tmp_path), *out, "--json"]
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (told.returncode, told.stdout) == (1, "")
    error = json.loads(told.stderr)["error"]
    assert error["reason"] == "STORAGE_FAILED"
    assert str(tmp_path) in error["message"]
