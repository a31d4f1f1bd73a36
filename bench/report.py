"""What a benchmark gives, and how it is printed."""

from __future__ import annotations

import json
import statistics
import sys
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured number.

    Attributes:
        value: The median of `runs`, in `unit`.
    """

    case: str
    what: str
    value: float
    unit: str
    low: float
    high: float
    runs: int
    note: str = ""


def figure(case: str, what: str, samples: Sequence[float], unit: str, note: str = "") -> Figure:
    """Sum samples up as their median, minimum and maximum."""
    return Figure(
        case, what, statistics.median(samples), unit, min(samples), max(samples), len(samples), note
    )


def quantile(samples: Sequence[float], share: float) -> float:
    """Return the value that a `share` of the samples does not exceed."""
    return sorted(samples)[min(int(len(samples) * share), len(samples) - 1)]


class Stopwatch:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._started = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Elapsed time."""
        return time.perf_counter() - self._started


def show(figures: Sequence[Figure], *, as_json: bool) -> None:
    """Print figures as a table for people, or as JSON."""
    if as_json:
        json.dump([asdict(entry) for entry in figures], sys.stdout, indent=2)
        print()
        return
    table = Table(title="Tickwire, everything durable")
    for name, justify in (
        ("case", "left"),
        ("what", "left"),
        ("median", "right"),
        ("min - max", "right"),
        ("note", "left"),
    ):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    for entry in figures:
        table.add_row(
            entry.case,
            entry.what,
            f"{entry.value:,.2f} {entry.unit}",
            f"{entry.low:,.2f} - {entry.high:,.2f}",
            entry.note,
        )
    Console().print(table)
