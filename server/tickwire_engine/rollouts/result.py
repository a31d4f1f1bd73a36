"""What is asked of a branch: its table, its score, whether it is over; and what came of it."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from tickwire_engine.errors import InvalidSqlError, ResultTooLargeError
from tickwire_engine.reading import TICK, rows_having
from tickwire_engine.sql.worlds import StateCatalog
from tickwire_engine.world import ipc_stream

if TYPE_CHECKING:
    from tickwire_engine.engine import Engine
    from tickwire_engine.errors import TickwireError
    from tickwire_engine.rollouts.plan import Rollout
    from tickwire_engine.state import WorldState
    from tickwire_engine.storage.rows import Outcome


@dataclass(frozen=True, slots=True)
class BranchResult:
    """What came of one branch.

    Attributes:
        number: Counting copies: branch i, copy c is i * copies + c.
        last_tick: The last tick that it computed.
        table: Its rows as an Arrow IPC stream; b"": none were asked for, or it failed.
        world_id: The world that was made of it, or "".
        stopped: The condition to stop came true.
        error: Why it failed, or None.
        rejected: Of its commands those that could not be applied.
    """

    number: int
    name: str
    last_tick: int
    table: bytes = b""
    world_id: str = ""
    stopped: bool = False
    score: float = 0.0
    error: TickwireError | None = None
    rejected: tuple[Outcome, ...] = ()


class Questions:
    """Asks one branch what its plan wants to know. Blocks where SQL is run; one thread."""

    def __init__(self, engine: Engine, plan: Rollout) -> None:
        self._sandbox = engine.sandbox
        self._catalog = engine.setup.vocabulary.components
        self._limits = engine.rollouts.limits
        self._plan = plan
        self._by_tick: list[pa.Table] = []

    def after_tick(self, state: WorldState) -> None:
        """Take the rows of a tick, if each tick has some."""
        if self._plan.tick_sql:
            rows = self._sql(self._plan.tick_sql, state, "tick_sql")
            tick = pa.array(np.full(rows.num_rows, state.tick - 1, np.int64))
            self._by_tick.append(rows.add_column(0, pa.field(TICK, pa.int64(), nullable=False), tick))
            self._require_fits(sum(table.nbytes for table in self._by_tick))

    def is_over(self, state: WorldState) -> bool:
        """Ask whether a branch is over; NULL and no row mean that it is not."""
        if not self._plan.stop_sql:
            return False
        value = self._value(self._plan.stop_sql, state, "stop_sql")
        if value is not None and not isinstance(value, bool):
            raise InvalidSqlError(f"stop_sql: {value!r} is no boolean", field="stop_sql")
        return bool(value)

    def score(self, state: WorldState) -> float:
        """Ask for the score of a branch."""
        if not self._plan.score_sql:
            return 0.0
        value = self._value(self._plan.score_sql, state, "score_sql")
        if value is None or isinstance(value, bool | str | bytes):
            raise InvalidSqlError(f"score_sql: {value!r} is no number", field="score_sql")
        try:
            return float(value)  # type: ignore[arg-type]  # a Decimal too; what is no number raises
        except (TypeError, ValueError):
            raise InvalidSqlError(f"score_sql: {value!r} is no number", field="score_sql") from None

    def table(self, state: WorldState) -> bytes:
        """Return the table of a branch as an Arrow IPC stream; b"": none is asked for."""
        plan = self._plan
        rows: pa.Table | pa.RecordBatch
        if plan.tick_sql:
            if not self._by_tick:
                return b""
            rows = pa.concat_tables(self._by_tick, promote_options="permissive").combine_chunks()
        elif plan.result_sql:
            rows = self._sql(plan.result_sql, state, "result_sql")
        elif plan.components:
            kinds = [self._catalog.require(name) for name in plan.components]
            rows = rows_having({sig: table.batch for sig, table in state.tables.items()}, kinds)
        else:
            return b""
        self._require_fits(rows.nbytes)
        return ipc_stream(rows)

    def _value(self, text: str, state: WorldState, path: str) -> object:
        rows = self._sql(text, state, path)
        if rows.num_columns != 1 or rows.num_rows > 1:
            raise InvalidSqlError(
                f"{path}: one value is expected, not {rows.num_rows} rows of {rows.num_columns} columns",
                field=path,
            )
        return next(itertools.chain(rows.column(0).to_pylist(), [None]))

    def _sql(self, text: str, state: WorldState, path: str) -> pa.Table:
        tables = {sig: table.batch for sig, table in state.tables.items()}
        catalog = StateCatalog("", state.tick - 1, tables, self._catalog)
        return self._sandbox.table(text, catalog, path=path)

    def _require_fits(self, nbytes: int) -> None:
        limit = self._limits.table_bytes
        if nbytes > limit:
            raise ResultTooLargeError(
                f"the table of a branch takes {nbytes} bytes, more than {limit}: ask for fewer rows or columns",
                limit_bytes=limit,
            )
