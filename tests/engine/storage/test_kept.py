"""Claims about which ticks are kept: the algebra of floors, thinned ranges and pins."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tickwire_engine.storage.retention import Kept, Retention, Thinned

moves = st.tuples(
    st.integers(0, 30), st.integers(0, 30), st.sampled_from([0, 1, 2, 3, 4, 6]), st.integers(0, 60)
)


ranges = st.tuples(st.integers(0, 60), st.integers(0, 10)).map(lambda r: Thinned(r[0], r[0] + r[1], 1))


@given(st.lists(moves, max_size=6), st.lists(ranges, max_size=3))
def test_what_is_kept_only_ever_shrinks_and_is_what_every_retention_on_the_way_wanted(
    steps: list[tuple[int, int, int, int]], pinned: list[Thinned]
) -> None:
    kept = Kept(0, pins=tuple(pinned))
    pins = {tick for pin in pinned for tick in pin.between(0, 200)}
    committed, wanted = -1, set(range(200))
    for more, keep_ticks, keep_every, cut in steps:
        committed += more
        archived = committed // 2
        before = kept
        kept = kept.moved(
            Retention(keep_ticks=keep_ticks, keep_every=keep_every), committed=committed, archived=archived
        )
        assert kept.floor == max(
            before.floor, min(committed + 1 - keep_ticks, archived) if keep_ticks else before.floor
        )
        wanted = {
            tick
            for tick in wanted
            if tick >= kept.floor or tick in pins or (keep_every and tick % keep_every == 0)
        }
        if cut <= archived:
            kept = kept.cut(cut)
            wanted = {tick for tick in wanted if tick >= cut or tick in pins}
        there = {tick for tick in range(200) if tick in kept}
        # A pin of a tick that is there at the time keeps it; none of these is put in later.
        assert there == wanted
        assert kept.below_floor(0, 199).tolist() == sorted(tick for tick in there if tick < kept.floor)
        for tick in range(-1, 100):
            assert kept.first_after(tick) == min(t for t in (*there, kept.floor) if t > tick)
        for pin in pinned:
            dense = kept.dense_until(pin.last_tick)
            assert all(tick in kept for tick in range(dense, pin.last_tick + 1))
            assert dense == kept.floor or dense <= pin.first_tick


def test_ranges_of_one_thinning_are_one() -> None:
    kept = Kept(0)
    for committed in range(100):
        kept = kept.moved(
            Retention(keep_ticks=10, keep_every=5), committed=committed, archived=max(committed - 1, 0)
        )
    assert kept == Kept(90, (Thinned(0, 89, 5),))
