"""Writing a new world to the journal, whole with its first commands."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar

import apsw

from tickwire_engine import failpoints
from tickwire_engine.errors import WorldExistsError
from tickwire_engine.storage._accepting import Accept, log_commands
from tickwire_engine.storage._writes import FIRST_ISSUED_ENTITY_ID, WhenFull, WorldKey

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tickwire_engine.storage import TickLog
    from tickwire_engine.storage.rows import CommandRow, WorldRow
    from tickwire_engine.storage.tick_log import Location


@dataclass(slots=True)
class CreateWorld:
    """Give a world its key, and its first commands; the same request again answers the world that it made."""

    when_full: ClassVar[WhenFull] = WhenFull.REFUSED

    row: WorldRow
    commands: Sequence[CommandRow]
    ids: dict[int, bytes]
    """Learns the world's key once it is durable."""
    log: TickLog
    key: int = 0
    locations: dict[int, Location] = field(default_factory=dict)

    def prepare(self, *, alone: bool) -> bool:
        """Write large bodies to the tick log."""
        self.locations = log_commands(self.log, WorldKey(0, self.row.id), self.commands)
        return bool(self.locations)

    def apply(self, connection: apsw.Connection) -> WorldRow:
        """Insert the world, its head and its first commands.

        Raises:
            WorldExistsError: The id, or the name of a living world, is taken by another request.
        """
        known = self._known(connection)
        if known:
            self.key = known
        else:
            self.key = self._insert(connection)
            first = Accept(WorldKey(self.key, self.row.id), self.commands, self.log, self.locations)
            first.apply(connection)
        failpoints.reach("world_create.before")
        return self.stored

    @property
    def stored(self) -> WorldRow:
        """The world with its key, once it is durable."""
        return replace(self.row, key=self.key)

    def committed(self) -> None:
        """Make the key known."""
        failpoints.reach("world_create.after")
        self.ids[self.key] = self.row.id

    def _known(self, connection: apsw.Connection) -> int:
        row = self.row
        known = connection.execute("SELECT key, request_hash FROM worlds WHERE id = ?", (row.id,)).get
        if known is not None:
            if row.request_hash and known[1] == row.request_hash:
                return int(known[0])
            raise WorldExistsError(f"a world with the id {row.id.hex()} exists already", field="world_id")
        return 0

    def _insert(self, connection: apsw.Connection) -> int:
        row = self.row
        try:
            connection.execute(
                "INSERT INTO worlds VALUES (NULL, ?,?,?,?,?,?,?,?,?,?,?,?)",
                (
                    row.id,
                    row.name,
                    row.seed,
                    row.created_at_us,
                    row.template,
                    json.dumps(dict(row.labels)),
                    json.dumps(dict(row.retention)),
                    row.max_entities,
                    row.request_hash,
                    row.parent_key,
                    row.fork_tick,
                    row.destroyed_at_us,
                ),
            )
        except apsw.ConstraintError:
            raise WorldExistsError(f"a world named {row.name!r} exists already", field="name") from None
        key = connection.last_insert_rowid()
        first_tick = row.fork_tick + 1
        connection.execute(
            "INSERT INTO heads VALUES (?,?,1,1,1,?,1,x'',x'')", (key, first_tick, FIRST_ISSUED_ENTITY_ID)
        )
        connection.execute("INSERT INTO watermarks VALUES (?,?)", (key, first_tick - 1))
        connection.execute("INSERT INTO floors VALUES (?,?,0,0)", (key, first_tick))
        return key
