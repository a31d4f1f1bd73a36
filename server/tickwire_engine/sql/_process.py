"""A process of the sandbox, and the pipes to it; see `_worker` for its inside."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import BinaryIO, cast

from tickwire_engine.sql import _worker as wire

_ENVIRONMENT = (
    "PATH",
    "LD_LIBRARY_PATH",
    "DYLD_LIBRARY_PATH",
    "PYTHONPATH",
    "PYTHONHOME",
    "SYSTEMROOT",
    "LANG",
)
"""What a process needs to find Python and its libraries; the rest of the environment is not its business."""

_START_S = 60.0
"""A process that is not ready by then never will be."""


class Process:
    """A worker, and the pipes to it."""

    def __init__(self, memory_bytes: int) -> None:
        environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
        # Safe path: the modules beside the script are not meant to be found by their bare names.
        self._process = subprocess.Popen(  # noqa: S603  (of this very package)
            [sys.executable, "-P", "-u", str(Path(wire.__file__)), str(memory_bytes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment | {"TZ": "UTC", "MALLOC_ARENA_MAX": "2"},
        )
        self._input = cast(BinaryIO, self._process.stdin)
        self._output = cast(BinaryIO, self._process.stdout)
        self._writing = threading.Lock()
        self._ready = False

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._process.poll() is None

    def wait_until_ready(self) -> None:
        """Wait until it has loaded what it needs; that takes half a second, and is nobody's query's time."""
        if not self._ready:
            timer = threading.Timer(_START_S, self.end)
            timer.daemon = True
            timer.start()
            self.receive()
            timer.cancel()
            self._ready = True

    def send(self, kind: bytes, body: bytes = b"") -> None:
        """Write a frame; to a process that ended nothing is written."""
        with self._writing, contextlib.suppress(OSError, ValueError):
            wire.send(self._input, kind, body)

    def receive(self) -> tuple[bytes, bytes]:
        """Wait for a frame; two times nothing once the process has ended."""
        try:
            return wire.receive(self._output)
        except (EOFError, OSError, ValueError):
            return b"", b""

    def end(self) -> None:
        """Kill it, and wait for its end; whoever waits for a frame is told."""
        self._process.kill()
        self._process.wait()
