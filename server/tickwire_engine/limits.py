"""How much strangers may send: one value, handed to everything that parses what they sent.

The engine has no configuration file; a server fills this from its own (`tickwire_server.config`). What the journal holds
was accepted under the limits of its day: it is read again under `UNLIMITED`, so that a lower limit never loses a command.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

from tickwire_engine.errors import InvalidSqlError


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds of input; a value at its bound is taken.

    Attributes:
        pending_commands: Commands that may wait in one world.
        batch_commands: Commands in one request.
        world_entities: Active entities that a new world may hold, unless it was made with a number of its own.
        worlds: Living worlds in one data directory.
        struct_depth: Objects and lists inside one another, in free-form values.
        string_bytes: One string, in bytes of UTF-8.
        sql_chars: One SQL text, in characters.
        table_rows: Rows of one Arrow table.
        table_columns: Columns of one Arrow table.
        table_bytes: One Arrow table, decoded, in bytes.
        rollout_branches: Branches of one rollout, copies counted.
        rollout_entity_ticks: Branches by ticks by entities of one rollout, with those that its branches begin; a tick counts
            as 1,000 entities at least.
        rollout_depth: Rollouts inside one another; 1: the processors of branches begin none.
        result_bytes: The table that a command answers, which is kept with its tick, in bytes.
    """

    pending_commands: int = 1_000_000
    batch_commands: int = 10_000
    world_entities: int = 10_000_000
    worlds: int = 10_000
    struct_depth: int = 32
    string_bytes: int = 1 << 20
    sql_chars: int = 8_192
    table_rows: int = 5_000_000
    table_columns: int = 1_000
    table_bytes: int = 512 << 20
    rollout_branches: int = 1_024
    rollout_entity_ticks: int = 1_000_000_000
    rollout_depth: int = 2
    result_bytes: int = 64 << 20

    def require_sql(self, text: str, *, path: str) -> None:
        """Refuse an SQL text that is too long.

        Raises:
            InvalidSqlError: It is; the error's field is `path`.
        """
        if len(text) > self.sql_chars:
            raise InvalidSqlError(
                f"{path}: {len(text)} characters are more than {self.sql_chars}, the server's limit (sql_chars)",
                field=path,
                limit=self.sql_chars,
            )


DEFAULTS = Limits()
UNLIMITED = Limits(**dict.fromkeys(Limits.__slots__, sys.maxsize))
"""For what was accepted before."""
