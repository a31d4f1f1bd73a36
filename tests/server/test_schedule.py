"""The beats of Play, as arithmetic."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tickwire_server.services.schedule import next_beat

PERIODS = st.floats(1e-5, 1e4)
TIMES = st.floats(0.0, 1e6)


@given(TIMES, PERIODS, st.floats(0.0, 1e5))
@settings(max_examples=50, deadline=None)
def test_the_next_beat_is_the_first_of_the_grid_that_is_not_over(
    last: float, period: float, late: float
) -> None:
    now = last + late * period
    beat = next_beat(last, period, now)
    assert beat.time >= now
    assert beat.time - now < period * 1.01
    assert abs(beat.time - (last + (beat.missed + 1) * period)) <= 1e-9 * max(beat.time, 1.0)


@given(PERIODS, st.lists(st.floats(0.0, 0.999), min_size=1, max_size=50))
@settings(max_examples=50, deadline=None)
def test_ticks_that_keep_their_period_never_drift(period: float, shares: list[float]) -> None:
    beat, skipped = 0.0, 0
    for share in shares:
        beat, missed = next_beat(beat, period, beat + share * period)
        skipped += missed
    assert skipped == 0
    assert abs(beat - len(shares) * period) <= 1e-9 * len(shares) * period


def test_an_overrun_skips_beats_and_makes_up_for_none() -> None:
    assert next_beat(10.0, 1.0, 10.5) == (11.0, 0)
    assert next_beat(10.0, 1.0, 11.0) == (11.0, 0)
    assert next_beat(10.0, 1.0, 11.25) == (12.0, 1)
    assert next_beat(10.0, 1.0, 14.5) == (15.0, 4)
