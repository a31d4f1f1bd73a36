"""A `tickwire serve` in a process of its own, for programs that bring their server along, and for tests.

The server stops when its parent ends, however that ends: it holds the other end of a pipe. Blocking; any thread.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from tickwire_server.cli._process import environment

_LAST_LINES = 5


class ServerProcessError(Exception):
    """The server did not come up, or is gone; the message has its last words."""


class ServerProcess:
    """One server; started by `start`, ended by `terminate` (in order) or `kill` (at once).

    Attributes:
        address: host:port that it serves.
        log: The file that its standard error is appended to.
    """

    def __init__(
        self,
        data: Path,
        *,
        app: str = "",
        listen: str = "127.0.0.1:0",
        root: Path | None = None,
        arguments: tuple[str, ...] = (),
        variables: dict[str, str] | None = None,
    ) -> None:
        """Describes the server.

        Args:
            data: Its data directory.
            app: module:attribute.
            listen: host:port; port 0 takes a free one, which later starts keep.
            root: Where its app's module is found; default: the working directory.
            arguments: More of `tickwire serve`'s.
            variables: Environment variables besides this process's.
        """
        self.data = data
        self.address = listen
        self.log = data.parent / f"{data.name}.log"
        self._app = app
        self._root = root
        self._arguments = arguments
        self._variables = variables or {}
        self._process: subprocess.Popen[str] | None = None
        self._draining: threading.Thread | None = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.terminate()

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._running().pid

    @property
    def is_running(self) -> bool:
        """Whether it has been started and has not ended."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> Self:
        """Start it, and return once it serves.

        Raises:
            ServerProcessError: It ended instead.
        """
        self.data.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "tickwire_server.cli", "serve", "--json", "--until-stdin-closes"]
        command += ["--listen", self.address, "--data", str(self.data.resolve()), *self._arguments]
        if self._app:
            command += ["--app", self._app]
        with self.log.open("ab") as log:
            log_start = log.tell()
            # A session of its own: Ctrl-C is the parent's, who then ends the server in order.
            self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                cwd=self._root,
                env=environment({**os.environ, **self._variables}),
                start_new_session=True,
            )
        line = _pipe(self._process.stdout).readline()
        if not line:
            self._process.wait()
            raise ServerProcessError(f"the server did not start: {self._last_words(log_start)}")
        self.address = json.loads(line)["serving"]
        # What an app prints must find room in the pipe for ever.
        self._draining = threading.Thread(
            target=_drain, args=(_pipe(self._process.stdout), self.log), name="server output", daemon=True
        )
        self._draining.start()
        return self

    def terminate(self, grace_s: float = 20.0) -> int:
        """End it in order, every acknowledged command and tick kept, and return its exit code."""
        return self._end(signal.SIGTERM, grace_s)

    def kill(self) -> int:
        """End it on the spot, as a power cut would, and return its exit code."""
        return self._end(signal.SIGKILL, None)

    def restart(self) -> Self:
        """Kill it, and start it on the same address and data."""
        self.kill()
        return self.start()

    def wait(self, timeout_s: float | None = None) -> int | None:
        """Wait until it has ended by itself, and return its exit code; None: it has not."""
        try:
            return self._running().wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None

    def _end(self, number: signal.Signals, grace_s: float | None) -> int:
        process = self._process
        if process is None:
            return 0
        process.send_signal(number)
        try:
            code = process.wait(grace_s)
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
        if self._draining is not None:
            self._draining.join()
        _pipe(process.stdin).close()
        _pipe(process.stdout).close()
        self._process = self._draining = None
        return code

    def _running(self) -> subprocess.Popen[str]:
        if self._process is None:
            raise ServerProcessError("the server was not started")
        return self._process

    def _last_words(self, start: int) -> str:
        lines = self.log.read_bytes()[start:].decode(errors="replace").strip().splitlines()
        return "\n".join(lines[-_LAST_LINES:]).removeprefix("error: ") or f"see {self.log}"


def _drain(pipe: IO[str], log: Path) -> None:
    """Append what the server prints to its log, until it ends."""
    for line in pipe:
        with log.open("a") as file:
            file.write(line)


def _pipe(pipe: IO[str] | None) -> IO[str]:
    assert pipe is not None
    return pipe
