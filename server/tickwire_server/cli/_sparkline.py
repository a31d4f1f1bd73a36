"""Sparklines: a series of numbers as one line of characters."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_BARS = "▁▂▃▄▅▆▇█"
GAP = " "
"""Where there is no number."""


def sparkline(values: Sequence[float | None], width: int) -> str:
    """Draw a series in at most so many characters: where there are more values, each stands for the mean of several.

    The lowest bar is the least value drawn, the highest the greatest; what does not change is a line of middle ones.
    """
    if not values or width <= 0:
        return ""
    means = [_mean(values[start:end]) for start, end in _cuts(len(values), min(width, len(values)))]
    there = [mean for mean in means if mean is not None]
    if not there:
        return GAP * len(means)
    low, high = min(there), max(there)
    return "".join(GAP if mean is None else _bar(mean, low, high) for mean in means)


def _cuts(count: int, pieces: int) -> list[tuple[int, int]]:
    return [(piece * count // pieces, (piece + 1) * count // pieces) for piece in range(pieces)]


def _mean(values: Sequence[float | None]) -> float | None:
    there = [value for value in values if value is not None and math.isfinite(value)]
    if not there:
        return None
    # Each by itself: the sum of large ones may be infinite. Rounded, it would leave a series that does not change.
    mean = sum(value / len(there) for value in there)
    return min(max(mean, min(there)), max(there))


def _bar(value: float, low: float, high: float) -> str:
    if high == low:
        return _BARS[len(_BARS) // 2]
    # Halved: their difference may be infinite.
    share = (value / 2 - low / 2) / (high / 2 - low / 2)
    return _BARS[min(int(share * len(_BARS)), len(_BARS) - 1)]
