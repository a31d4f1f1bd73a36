"""What a server process needs to be before it imports anything heavy.

Numpy's and Arrow's thread pools, Python's hash seed and Daft's analytics are decided by environment variables that
are read once, at import or even before: a process that lacks one starts itself again with all of them.
"""

from __future__ import annotations

import os
import sys

FIXED = {
    # A set's order must not differ from start to start, and a BLAS sum not from machine to machine.
    "PYTHONHASHSEED": "0",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "NUMEXPR_NUM_THREADS": "1",
    # Each thread that allocates would keep an arena of its own: a fifth of the memory of a world of a million entities.
    "MALLOC_ARENA_MAX": "2",
    # What is larger is given back to the system at once, as the archiver's buffers of a large world are: by itself the
    # allocator would learn from the first of them to keep blocks of up to 32 MiB. Messages of ticks stay below.
    "MALLOC_MMAP_THRESHOLD_": "4194304",
    "MALLOC_TRIM_THRESHOLD_": "33554432",
    # Nothing is told to anybody.
    "DAFT_ANALYTICS_ENABLED": "0",
    "DO_NOT_TRACK": "1",
    "DAFT_PROGRESS_BAR": "0",
    # The C core's own lines say less than the errors that it raises.
    "GRPC_VERBOSITY": "NONE",
}
"""Variables and the values a server has them at, unless the user gave others."""


def environment(given: dict[str, str]) -> dict[str, str]:
    """Return `given` with what it lacks of `FIXED`; a random hash seed counts as lacking."""
    kept = {name: value for name, value in given.items() if (name, value) != ("PYTHONHASHSEED", "random")}
    return FIXED | kept


def ensure_environment() -> None:
    """Start this very process again, with the same arguments and pid, unless its environment is right."""
    given = dict(os.environ)
    wanted = environment(given)
    if wanted == given:
        return
    sys.stdout.flush()
    sys.stderr.flush()
    arguments = [sys.executable, *sys.orig_argv[1:]]
    os.execve(sys.executable, arguments, wanted)  # noqa: S606 - no shell is wanted
