"""A real file system of a few megabytes, which tests fill and empty."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class SmallDisk:
    """A mounted file system.

    Attributes:
        path: Where it is mounted.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._filler = path / "filler"

    @property
    def free_bytes(self) -> int:
        """Free space."""
        facts = os.statvfs(self.path)
        return facts.f_bavail * facts.f_frsize

    def fill(self, *, leave_bytes: int = 0) -> None:
        """Take all free space but so much; more than once, against those that free some meanwhile."""
        with self._filler.open("ab", buffering=0) as file, contextlib.suppress(OSError):
            while (more := self.free_bytes - leave_bytes) > 0:
                file.write(bytes(min(more, 1 << 20)))

    def give_back(self, nbytes: int) -> None:
        """Give back some of what `fill` took."""
        os.truncate(self._filler, self._filler.stat().st_size - nbytes)

    def free(self) -> None:
        """Give back what `fill` took."""
        self._filler.unlink(missing_ok=True)


@contextlib.contextmanager
def small_disk(path: Path, megabytes: int) -> Iterator[SmallDisk]:
    """Mount a file system of so many megabytes; without the right to, the test is skipped, loudly."""
    path.mkdir(parents=True)
    if not sys.platform.startswith("linux"):
        pytest.skip("NO FULL DISK WAS TESTED: that needs Linux")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "none", str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"NO FULL DISK WAS TESTED: mounting a tmpfs needs root ({mounted.stderr.strip()})")
    try:
        yield SmallDisk(path)
    finally:
        # Lazily: what a failed test left open must not keep it.
        subprocess.run(["umount", "--lazy", str(path)], check=True)
