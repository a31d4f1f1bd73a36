"""How much rollouts may take."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from tickwire_engine.errors import ResultTooLargeError
from tickwire_engine.limits import DEFAULTS

if TYPE_CHECKING:
    from tickwire_engine.limits import Limits


LEAST_ROWS = 1_000
"""A tick counts as so many entities at least: below, its own cost is what it takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutLimits:
    """What one rollout may take, those that its branches begin included."""

    branches: int = DEFAULTS.rollout_branches
    """Branches, copies counted."""
    entity_ticks: int = DEFAULTS.rollout_entity_ticks
    """Branches by ticks by entities."""
    depth: int = DEFAULTS.rollout_depth
    """How deep rollouts go: 1, and the processors of branches begin none."""
    table_bytes: int = (4 << 20) - (256 << 10)
    """The rows of one branch: they go in one message."""
    cores: int = field(default_factory=lambda: os.cpu_count() or 1)
    """Branches that run at a time."""

    @classmethod
    def of(cls, limits: Limits) -> Self:
        """Return what a server's limits say."""
        return cls(
            branches=limits.rollout_branches,
            entity_ticks=limits.rollout_entity_ticks,
            depth=limits.rollout_depth,
        )


class Budget:
    """What is left of a rollout's entity ticks; any thread."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._left = limit
        self._lock = threading.Lock()

    def spend(self, rows: int, *, ticks: int = 1) -> None:
        """Take the rows of one tick off, or of several.

        Raises:
            ResultTooLargeError: Nothing is left.
        """
        with self._lock:
            self._left -= max(rows, LEAST_ROWS * ticks)
            if self._left < 0:
                raise too_large(self._limit)


def too_large(limit: int) -> ResultTooLargeError:
    """Return the error of a rollout that takes too much."""
    return ResultTooLargeError(
        f"branches by ticks by entities come to more than {limit} (a tick counts as {LEAST_ROWS} entities at least): "
        "run fewer branches, or fewer ticks",
        limit_entity_ticks=limit,
    )
