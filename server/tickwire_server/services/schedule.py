"""The beats of Play: when the next tick is due. Pure arithmetic, so that tests need no clock.

Beats lie on a grid that begins with the first tick: waking up late moves no later beat, so there is no drift. A tick that
takes longer than its period misses beats; they are skipped and counted, never made up for in a burst.
"""

from __future__ import annotations

import math
from typing import NamedTuple


class Beat(NamedTuple):
    """When a tick is due.

    Attributes:
        missed: The beats before it that were due while the tick before was still computing.
    """

    time: float
    missed: int


def next_beat(last: float, period: float, now: float) -> Beat:
    """Return the first beat after `last` that is not over yet.

    Args:
        last: The beat of the tick before, in seconds of any clock.
        period: Seconds between two beats, more than 0.
        now: The time at which the tick before was computed.
    """
    missed = max(math.ceil((now - last) / period) - 1, 0)
    beat = last + (missed + 1) * period
    if beat < now:
        # The division was rounded.
        return Beat(beat + period, missed + 1)
    return Beat(beat, missed)
