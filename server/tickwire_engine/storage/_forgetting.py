"""The horizon: how long the id of a settled command is remembered, and what keeps a forgotten one from being applied again.

The floor of ids moves by a row of the journal first; from then on an id timed below it that is not known is refused. Only
then rows go, and only those whose ids are timed below it. It never goes back, whatever the clocks do.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

from tickwire_engine import failpoints
from tickwire_engine.errors import CommandIdTooOldError
from tickwire_engine.storage._writes import Plain

if TYPE_CHECKING:
    from collections.abc import Callable, MutableMapping

    import apsw

    from tickwire_engine.storage import Journal
    from tickwire_engine.storage.retention import Horizon

_BITE_ROWS = 400


def require_remembered(command_id: bytes, floor_ms: int) -> None:
    """Refuse an id that is not known and timed below the floor: it may be one that was forgotten.

    Raises:
        CommandIdTooOldError: It is.
    """
    if id_ms(command_id) < floor_ms:
        oldest = datetime.datetime.fromtimestamp(floor_ms / 1000, datetime.UTC)
        raise CommandIdTooOldError(
            f"command id {UUID(bytes=command_id)} is from before {oldest:%Y-%m-%dT%H:%M:%SZ}, and ids of that time are "
            "forgotten: look whether the command was applied; if it was not, send it with a new id",
            field="id",
            command_id=UUID(bytes=command_id),
            oldest=f"{oldest:%Y-%m-%dT%H:%M:%SZ}",
        )


def id_ms(command_id: bytes) -> int:
    """Return the time in a UUIDv7, in milliseconds since the Unix epoch."""
    return int.from_bytes(command_id[:6], "big")


def id_floors(connection: apsw.Connection) -> dict[int, int]:
    """Read where the floors of ids are, by world, in milliseconds since the Unix epoch; 0 where nothing was forgotten."""
    return dict(connection.execute("SELECT world, id_ms FROM floors"))


class Forgetting:
    """Forgets settled commands past the horizon; on the archiver's thread only."""

    def __init__(
        self,
        journal: Journal,
        horizon: Horizon,
        clock_us: Callable[[], int],
        floors_ms: MutableMapping[int, int],
    ) -> None:
        """Set it up.

        Args:
            journal: Where commands are remembered.
            horizon: How long.
            clock_us: The time, in microseconds since the Unix epoch.
            floors_ms: By world; learns each floor once it is durable, before anything is forgotten for it.
        """
        self._journal = journal
        self._horizon = horizon
        self._clock_us = clock_us
        self._floors_ms = floors_ms

    def forget(self, world: int) -> None:
        """Forget a world's settled commands that are past the horizon."""
        before_ms = max(self._past_ms(world), self._floors_ms.get(world, 0))
        with self._journal.read() as connection:
            overdue = connection.execute(
                "SELECT 1 FROM applied WHERE world = ? AND kept_ms < ? LIMIT 1", (world, before_ms)
            ).get
        if overdue is None:
            return
        self._journal.call(MoveIdFloor(world, before_ms, self._floors_ms))
        while self._journal.call(Forget(world, _BITE_ROWS)):
            pass

    def _past_ms(self, world: int) -> int:
        """Return the time before which commands are past the horizon."""
        horizon, now_ms = self._horizon, self._clock_us() // 1000
        before_ms = now_ms - int(horizon.age_s * 1000)
        with self._journal.read() as connection:
            # Outcomes are numbered without gaps: whatever is beyond the bound is older than this one.
            surplus = connection.execute(
                "SELECT kept_ms FROM applied WHERE world = ?1 AND outcome_seq < (SELECT next_outcome_seq FROM heads "
                "WHERE world = ?1) - ?2 ORDER BY outcome_seq DESC LIMIT 1",
                (world, horizon.rows),
            ).get
        if surplus is not None:
            before_ms = max(before_ms, min(surplus + 1, now_ms - int(horizon.least_s * 1000)))
        return before_ms


@dataclass(slots=True)
class MoveIdFloor(Plain):
    """Refuse unknown ids timed below the new floor from now on."""

    world: int
    floor_ms: int
    floors_ms: MutableMapping[int, int]

    def apply(self, connection: apsw.Connection) -> None:
        """Move it, never back."""
        connection.execute(
            "UPDATE floors SET id_ms = max(id_ms, ?) WHERE world = ?", (self.floor_ms, self.world)
        )
        failpoints.reach("id_floor.before")

    def committed(self) -> None:
        """Have commands judged by it."""
        self.floors_ms[self.world] = max(self.floor_ms, self.floors_ms.get(self.world, 0))
        failpoints.reach("id_floor.after")


@dataclass(slots=True)
class Forget(Plain):
    """Let go of settled commands below the floor of ids, in small bites: commits wait behind it."""

    world: int
    max_rows: int

    def apply(self, connection: apsw.Connection) -> bool:
        """Delete some: those whose ids and whose settlement lie below it.

        Returns:
            Whether there may be more.
        """
        connection.execute(
            "DELETE FROM applied WHERE world = ?1 AND id IN (SELECT id FROM applied WHERE world = ?1 "
            "AND kept_ms < (SELECT id_ms FROM floors WHERE world = ?1) LIMIT ?2)",
            (self.world, self.max_rows),
        )
        failpoints.reach("forget.before")
        return connection.changes() == self.max_rows

    def committed(self) -> None:
        """Do nothing but mark the place."""
        failpoints.reach("forget.after")
