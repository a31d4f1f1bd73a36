"""Real server processes: started on free ports with data of their own, killed and restarted by the tests."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tickwire_server.cli.server_process import ServerProcess

StartServer = Callable[..., ServerProcess]


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[StartServer]:
    """Starts servers, on `tmp_path / "data"` unless told otherwise; see `ServerProcess` for its arguments.

    They listen on free ports, which they keep over `restart`; what is left of them at the end is killed.
    """
    started: list[ServerProcess] = []

    def start(data: Path | None = None, **options: Any) -> ServerProcess:
        server = ServerProcess(data or tmp_path / "data", **options)
        started.append(server)
        return server.start()

    yield start
    for server in started:
        if server.is_running:
            server.kill()


@pytest.fixture
def server(start_server: StartServer) -> ServerProcess:
    """A running server without an app."""
    return start_server()
