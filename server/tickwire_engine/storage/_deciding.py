"""Outcomes in their own order, out of the journal: those of ticks, of cancelled commands and of archived ones.

An outcome of the journal's tail lies in its tick; of a cancelled command, and of an archived one, in `applied`, until the
horizon. Each function runs inside its caller's read transaction.
"""

from __future__ import annotations

import heapq
from itertools import islice
from operator import attrgetter
from typing import TYPE_CHECKING

from tickwire_engine.ids import MAX_CLOCK_AHEAD_MS
from tickwire_engine.storage import _packing as packing
from tickwire_engine.storage.rows import DecidedCommand

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import apsw

    from tickwire_engine.storage.rows import Outcome

_AT_ONCE = 256
_FIRST_SEQ = "substr(outcomes, 6, 8)"
"""Of a tick's packed outcomes: the outcome seq of the first, big-endian; the journal indexes it."""


def last_outcome_seq(connection: apsw.Connection, key: int) -> int:
    """Read the number of the last outcome; 0 before the first."""
    following: int = connection.execute("SELECT next_outcome_seq FROM heads WHERE world = ?", (key,)).get
    return following - 1


def first_outcome_seq(connection: apsw.Connection, key: int) -> int:
    """Read the number of the first outcome from which on all are kept; the next one's, if there is none.

    Past the horizon outcomes go by the times of their commands' ids, too: of those settled shortly before the floor some
    may be there that others before and after them are not.
    """
    floor_ms: int = connection.execute("SELECT id_ms FROM floors WHERE world = ?", (key,)).get
    first = following = 1
    if not floor_ms:
        return first
    first = last_outcome_seq(connection, key) + 1
    following = 0
    for begin, end, kept_ms in heapq.merge(
        _ranges_of_ticks(connection, key), _ranges_of_applied(connection, key)
    ):
        if kept_ms < floor_ms:
            # It may go at any moment.
            following = 0
            continue
        if begin != following:
            first = begin
        following = end
        if kept_ms - MAX_CLOCK_AHEAD_MS >= floor_ms:
            # It was settled after the floor, as was everything that follows.
            return first
    return first if following else last_outcome_seq(connection, key) + 1


def _ranges_of_ticks(connection: apsw.Connection, key: int) -> Iterator[tuple[int, int, int]]:
    cursor = connection.execute(
        f"SELECT committed_at_us / 1000, outcomes FROM ticks "  # noqa: S608
        f"WHERE world = ? AND outcomes <> x'' ORDER BY {_FIRST_SEQ}",
        (key,),
    )
    for committed_ms, blob in cursor:
        begin, count = packing.outcome_range(blob)
        yield begin, begin + count, committed_ms


def _ranges_of_applied(connection: apsw.Connection, key: int) -> Iterator[tuple[int, int, int]]:
    cursor = connection.execute(
        "SELECT outcome_seq, kept_ms FROM applied WHERE world = ? ORDER BY outcome_seq", (key,)
    )
    for outcome_seq, kept_ms in cursor:
        yield outcome_seq, outcome_seq + 1, kept_ms


def decided(connection: apsw.Connection, key: int, first: int, limit: int) -> list[DecidedCommand]:
    """Read up to `limit` consecutive outcomes, from `first` on, or from the first that is kept after it."""
    merged = heapq.merge(
        _of_ticks(connection, key, first), _of_applied(connection, key, first), key=attrgetter("outcome_seq")
    )
    found: list[DecidedCommand] = []
    for each in islice(merged, limit):
        if found and each.outcome_seq != found[-1].outcome_seq + 1:
            # What lies between was deleted: nobody is told less than everything.
            break
        found.append(each)
    return found


def decided_in(
    connection: apsw.Connection, key: int, outcomes: Mapping[int, Sequence[Outcome]]
) -> dict[int, tuple[DecidedCommand, ...]]:
    """Say whose commands outcomes are of, by tick; those of commands that were forgotten are left out."""
    found: dict[int, tuple[DecidedCommand, ...]] = {}
    for tick, decisions in outcomes.items():
        named = []
        for outcome in decisions:
            row = connection.execute(
                "SELECT id, actor FROM commands WHERE world = ?1 AND seq = ?2 "
                "UNION ALL SELECT id, actor FROM applied WHERE world = ?1 AND seq = ?2",
                (key, outcome.seq),
            ).get
            if row is not None:
                id_, actor = row
                named.append(DecidedCommand(id_, actor, outcome.outcome_seq, tick, outcome))
        found[tick] = tuple(named)
    return found


def _of_ticks(connection: apsw.Connection, key: int, first: int) -> Iterator[DecidedCommand]:
    first_blob = connection.execute(
        f"SELECT max({_FIRST_SEQ}) FROM ticks WHERE world = ? AND outcomes <> x'' AND {_FIRST_SEQ} <= ?",  # noqa: S608
        (key, first.to_bytes(8)),
    ).get
    cursor = connection.execute(
        f"SELECT tick, outcomes FROM ticks WHERE world = ? AND outcomes <> x'' AND {_FIRST_SEQ} >= ? "  # noqa: S608
        f"ORDER BY {_FIRST_SEQ}",
        (key, first_blob or bytes(8)),
    )
    for tick, blob in cursor:
        begin, count = packing.outcome_range(blob)
        # A few at a time: a page seldom holds all of a large tick.
        for start in range(max(first - begin, 0), count, _AT_ONCE):
            for outcome in packing.outcomes_at(blob, range(start, min(start + _AT_ONCE, count))):
                id_, actor = connection.execute(
                    "SELECT id, actor FROM commands WHERE world = ? AND seq = ?", (key, outcome.seq)
                ).get
                yield DecidedCommand(id_, actor, outcome.outcome_seq, tick, outcome)


def _of_applied(connection: apsw.Connection, key: int, first: int) -> Iterator[DecidedCommand]:
    cursor = connection.execute(
        "SELECT id, actor, outcome_seq, applied_tick, outcome FROM applied WHERE world = ? AND outcome_seq >= ? "
        "ORDER BY outcome_seq",
        (key, first),
    )
    for id_, actor, outcome_seq, tick, blob in cursor:
        yield DecidedCommand(id_, actor, outcome_seq, tick, packing.unpack_outcomes(blob)[0])
