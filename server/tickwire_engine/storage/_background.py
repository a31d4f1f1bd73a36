"""LanceDB's threads give way to the ticks.

They are as many as there are cores, and busy for long when they compact: a tick, whose thread wakes up several times, would
wait for a core each time. As batch threads of low priority they use what the ticks leave; they are not starved, for reads
of history run on them too. Python's own threads keep their priority: one of them may hold the interpreter's lock.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

_TASKS = Path("/proc/self/task")
_PREFIX = "lance"
"""Of the names of all of LanceDB's threads."""
_NICE = 10


class Background:
    """Moves LanceDB's threads into the background as they appear; does nothing where the system is not Linux."""

    def __init__(self) -> None:
        """Begin without knowing any."""
        self._known: set[str] = set()

    def move(self) -> None:
        """Look for new threads, and move those that are LanceDB's; the threads that these start inherit it."""
        if not _TASKS.is_dir():
            return
        present = {path.name for path in _TASKS.iterdir()}
        for task in present - self._known:
            # A thread may be gone by now, and the system may not allow it.
            with contextlib.suppress(OSError):
                if (_TASKS / task / "comm").read_text().startswith(_PREFIX):
                    os.sched_setscheduler(int(task), os.SCHED_BATCH, os.sched_param(0))
                    os.setpriority(os.PRIO_PROCESS, int(task), _NICE)
        self._known = present
