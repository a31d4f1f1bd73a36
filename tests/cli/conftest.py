"""A real server process with a small app, and the command line run against it."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tickwire import new_id
from tickwire_server.cli._main import app as command_line
from tickwire_server.cli.server_process import ServerProcess

LINE_APP = '''
"""Points that move along a line."""

import daft

from tickwire_engine import AsyncProcessor, Component
from tickwire_server import App

app = App("line")
not_an_app = 7


@app.component
class Position(Component):
    x: float = 0.0
    label: str = ""


@app.component
class Velocity(Component):
    x: float


@app.processor
class Move(AsyncProcessor):
    components = (Position, Velocity)

    async def process(self, df: daft.DataFrame, **kwargs: object) -> daft.DataFrame:
        return df.with_column("position__x", df["position__x"] + df["velocity__x"])


@app.world("three")
async def three(world):
    await world.add_processor(Move())
    await world.create_entities([[Position(x=float(i)), Velocity(x=1.0)] for i in range(3)])
'''


@dataclass(frozen=True)
class Outcome:
    """What a command line left: its exit code and what it printed."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """The one JSON document on standard output."""
        return json.loads(self.out)

    @property
    def documents(self) -> list[Any]:
        """The JSON documents on standard output, one a line."""
        return [json.loads(line) for line in self.out.splitlines()]


Run = Callable[..., Outcome]


@pytest.fixture(scope="session")
def line_app(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the app `line_app:app`."""
    folder = tmp_path_factory.mktemp("app")
    (folder / "line_app.py").write_text(LINE_APP)
    return folder


@pytest.fixture(scope="session")
def server(line_app: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server that all tests share; each makes worlds of its own."""
    data = tmp_path_factory.mktemp("server") / "data"
    with ServerProcess(data, app="line_app:app", root=line_app) as process:
        yield process


@pytest.fixture
def cli(server: ServerProcess) -> Run:
    """`tickwire ARGUMENTS` against the server."""

    def run(*arguments: object, address: str = server.address) -> Outcome:
        result = CliRunner().invoke(command_line, list(map(str, arguments)), env={"TICKWIRE_SERVER": address})
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Outcome(result.exit_code, result.stdout, result.stderr)

    return run


@pytest.fixture
def world(cli: Run) -> str:
    """The name of a new world of three moving points, ids 1 to 3."""
    name = f"w-{new_id()}"
    assert cli("worlds", "create", name, "--template", "three").code == 0
    return name
