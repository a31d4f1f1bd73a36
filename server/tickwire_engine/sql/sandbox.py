"""SQL queries over Arrow tables, read-only, in processes that can do nothing else; see `_worker` for what holds them.

A `SqlSandbox` keeps a few such processes, started when they are first needed, and runs one query in each at a time. It
is for any thread; a running query blocks the thread that reads its rows. The rows of tables are asked for while the
query runs, page by page, with what its conditions say about ticks and entities, so a large history is never whole in
memory.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from tickwire_engine.errors import (
    InvalidSqlError,
    QueueFullError,
    ResultTooLargeError,
    ShuttingDownError,
    TickwireError,
)
from tickwire_engine.sql import _worker as wire
from tickwire_engine.sql._process import Process
from tickwire_engine.sql._pushdown import read_filter

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tickwire_engine.sql.catalog import SqlCatalog, SqlTable

MAX_SQL_LENGTH = 65_536
"""Characters of a query."""
_PATIENCE_S = 1.0
"""How long a query may take to heed an interrupt, before its process is ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SqlLimits:
    """What a query may take."""

    seconds: float = 30.0
    """From its start in a process until its last row was taken."""
    wait_s: float = 10.0
    """How long it may wait for a process."""
    rows: int = 1_000_000
    memory_bytes: int = 512 << 20
    processes: int = 2
    """Queries at a time; each has a process of its own."""


class SqlCancelledError(TickwireError):
    """A query was cancelled by whoever began it."""


class SqlSandbox:
    """The processes that queries run in."""

    def __init__(self, limits: SqlLimits | None = None) -> None:
        """Starts nothing yet."""
        self.limits = limits or SqlLimits()
        self._free: list[Process] = []
        self._all: set[Process] = set()
        self._changed = threading.Condition()
        self._closed = False

    def query(self, text: str, catalog: SqlCatalog, *, path: str = "sql") -> SqlRows:
        """Return a query that has not begun; see `select`."""
        return SqlRows(self, text, catalog, path)

    def select(self, text: str, catalog: SqlCatalog, *, path: str = "sql") -> SqlRows:
        """Begin a query and return its rows, to be read on this thread or another; close them, or read them out.

        Args:
            text: One SELECT statement, in DuckDB's SQL.
            catalog: What it may name.
            path: Where it stands in the request, for errors.

        Raises:
            InvalidSqlError: It is none, or cannot be run.
            ResultTooLargeError: It takes more time or memory than it may, before its first row.
            QueueFullError: Other queries took all processes for as long as it may wait.
        """
        rows = self.query(text, catalog, path=path)
        rows.begin()
        return rows

    def table(self, text: str, catalog: SqlCatalog, *, path: str = "sql") -> pa.Table:
        """Run a query and return all of its rows; see `select`."""
        with contextlib.closing(self.select(text, catalog, path=path)) as rows:
            return pa.Table.from_batches(list(rows), schema=rows.schema)

    def close(self) -> None:
        """End all processes, and the queries in them."""
        with self._changed:
            self._closed = True
            processes, self._all, self._free = self._all, set(), []
            self._changed.notify_all()
        for process in processes:
            process.end()

    def give_back(self, process: Process, *, usable: bool) -> None:
        """Take a process back from the query that had it."""
        with self._changed:
            if usable and not self._closed:
                self._free.append(process)
            else:
                self._all.discard(process)
            self._changed.notify()
        if not usable or self._closed:
            process.end()

    def take(self) -> Process:
        """Wait for a process."""
        ends_s = time.monotonic() + self.limits.wait_s
        with self._changed:
            while not self._closed:
                if self._free:
                    return self._free.pop()
                if len(self._all) < self.limits.processes:
                    process = Process(self.limits.memory_bytes)
                    self._all.add(process)
                    return process
                if not self._changed.wait(ends_s - time.monotonic()):
                    raise QueueFullError(
                        "other SQL queries take all the room there is for them: try again later"
                    )
        raise ShuttingDownError("the server is closing")


class SqlRows:
    """A query's rows, as they are found. One thread reads at a time; `cancel` is for any.

    Attributes:
        schema: Their columns, in types that go on the wire, with names that differ.
    """

    schema: pa.Schema

    def __init__(self, sandbox: SqlSandbox, text: str, catalog: SqlCatalog, path: str) -> None:
        self._sandbox = sandbox
        self._text = text
        self._catalog = catalog
        self._path = path
        self._limits = sandbox.limits
        self._process: Process | None = None
        self._tables: list[SqlTable] = []
        self._scans: dict[int, Iterator[bytes]] = {}
        self._timers: list[threading.Timer] = []
        self._failure: BaseException | None = None
        self._usable = False
        self._late = False
        self._cancelled = False

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        """Yield the rows in the query's order.

        Raises:
            InvalidSqlError: A row has a value that the query cannot work with.
            ResultTooLargeError: There are more rows than there may be, or it takes more time or memory than it may.
        """
        try:
            while (message := self._until(wire.ROWS)) is not None:
                yield pa.ipc.read_record_batch(pa.py_buffer(message), self.schema)
        finally:
            self.close()

    def begin(self) -> None:
        """Send the query, and wait until its columns are known; raises what `SqlSandbox.select` says."""
        if len(self._text) > MAX_SQL_LENGTH:
            raise InvalidSqlError(
                f"{self._path}: {len(self._text)} characters are more than {MAX_SQL_LENGTH}", field=self._path
            )
        self._process = self._sandbox.take()
        try:
            self._process.wait_until_ready()
            self._end_after(self._limits.seconds + _PATIENCE_S, late=True)
            asked = {"sql": self._text, "rows": self._limits.rows, "seconds": self._limits.seconds}
            self._process.send(wire.QUERY, json.dumps(asked).encode())
            if self._cancelled:
                self.cancel()
            message = self._until(wire.SCHEMA)
            assert message is not None
            self.schema = pa.ipc.read_schema(pa.py_buffer(message))
        except BaseException:
            self.close()
            raise

    def cancel(self) -> None:
        """Let the query end soon, wherever it is; whoever reads its rows gets an error."""
        self._cancelled = True
        if self._process is not None:
            self._process.send(wire.CANCEL)
            self._end_after(_PATIENCE_S)

    def close(self) -> None:
        """End the query, if it has not ended."""
        process = self._process
        if process is None:
            return
        if not self._usable and process.alive:
            self.cancel()
            # Nobody wants what comes; its end is waited for, so that the process can be used again.
            with contextlib.suppress(TickwireError):
                while self._until(wire.ROWS) is not None:
                    pass
        self._process = None
        for timer in self._timers:
            timer.cancel()
        self._scans.clear()
        self._sandbox.give_back(process, usable=self._usable)

    def _until(self, wanted: bytes) -> bytes | None:
        """Serve the process until it says `wanted`; None: the query is done."""
        process = self._process
        if process is None:
            return None
        while True:
            kind, body = process.receive()
            if kind == wanted:
                return body
            if kind == wire.DONE:
                self._usable = True
                return None
            if kind == wire.ERROR:
                raise self._error(json.loads(body))
            if not kind:
                raise self._ended()
            self._answer(process, kind, body)

    def _answer(self, process: Process, kind: bytes, body: bytes) -> None:
        try:
            if self._cancelled:
                process.send(wire.FAILED, b"cancelled")
            elif kind == wire.NAMES:
                process.send(wire.TABLES, self._known(json.loads(body)))
            elif kind == wire.SCAN:
                process.send(wire.BATCH, json.dumps(self._begin_scan(json.loads(body))).encode())
            elif kind == wire.NEXT:
                process.send(wire.BATCH, next(self._scans[int(body)], b""))
        except Exception as error:
            self._failure = error
            process.send(wire.FAILED, b"a table cannot be read")

    def _known(self, names: Sequence[tuple[str, str]]) -> bytes:
        found: dict[tuple[str, str], tuple[str, str, str]] = {}
        for schema, name in names:
            key = schema.lower(), name.lower()
            table = None if key in found else self._catalog.table(schema, name)
            if table is not None:
                self._tables.append(table)
                found[key] = schema, name, table.schema.serialize().to_pybytes().hex()
        return json.dumps([*found.values()]).encode()

    def _begin_scan(self, asked: dict[str, Any]) -> list[str]:
        """Begin to read a table; returns the columns that its batches have: those asked for first."""
        table = self._tables[asked["table"]]
        condition = read_filter(bytes.fromhex(asked["filter"]))
        names = table.schema.names
        columns: list[str] = [*(asked["columns"] or names)]
        columns += [
            n for n in names if n not in columns and (condition.columns is None or n in condition.columns)
        ]
        batches = table.scan(columns, condition.bounds)
        self._scans[asked["scan"]] = (batch.serialize().to_pybytes() for batch in batches if batch.num_rows)
        return columns

    def _error(self, told: dict[str, str]) -> BaseException:
        kind, message = told["kind"], told["message"]
        # After one that ran out of memory a fresh process is better.
        self._usable = kind != "memory" and kind != "crash"
        if self._failure is not None:
            return self._failure
        if self._cancelled:
            return SqlCancelledError("the query was cancelled")
        if kind == "internal":
            return RuntimeError(message)
        if kind == "time":
            return self._too_slow()
        if kind == "memory":
            return ResultTooLargeError(
                f"{self._path}: the query takes more than {self._limits.memory_bytes >> 20} MiB of memory: "
                "read fewer rows, or fewer columns",
                field=self._path,
                limit=self._limits.memory_bytes,
            )
        if kind == "rows":
            return ResultTooLargeError(
                f"{self._path}: the query has more than {self._limits.rows} rows: add a LIMIT, or aggregate",
                field=self._path,
                limit=self._limits.rows,
            )
        return InvalidSqlError(
            f"{self._path}: {self._explained(message, refused=kind == 'refused')}", field=self._path
        )

    def _ended(self) -> TickwireError:
        if self._late:
            return self._too_slow()
        if self._cancelled:
            return SqlCancelledError("the query was cancelled")
        return ResultTooLargeError(
            f"{self._path}: the query's process ended, as if it had run out of memory: ask for less",
            field=self._path,
            limit=self._limits.memory_bytes,
        )

    def _too_slow(self) -> TickwireError:
        return ResultTooLargeError(
            f"{self._path}: the query takes more than {self._limits.seconds:g} s: read fewer ticks or entities, as "
            "with WHERE tick BETWEEN ... AND ...",
            field=self._path,
            limit=self._limits.seconds,
        )

    def _explained(self, message: str, *, refused: bool) -> str:
        if refused:
            return message
        what = message.split("\n\nLINE ")[0].split("\n\tCandidate functions")[0].split(" Detail: Python")[0]
        family, mark, rest = what.partition(" Error: ")
        what = (rest if mark and family.replace(" ", "").isalpha() else what).strip()
        if what.startswith("Max expression depth"):
            return "it is nested too deeply: write it flatter"
        if what.startswith("Table with name"):
            there = sorted(self._catalog.names(), key=self._is_elsewhere)
            shown = ", ".join(there[:20]) + (", ..." if len(there) > 20 else "")
            return f"{what.splitlines()[0]} There are: {shown or 'none'}"
        if what.startswith("Referenced column") and self._tables:
            there = [*dict.fromkeys(name for table in self._tables for name in table.schema.names)]
            return f"{what.splitlines()[0]} There are: {', '.join(there[:40])}"
        return what

    def _is_elsewhere(self, name: str) -> bool:
        """Say whether a table is of a world that the query does not name: those it names are told first."""
        world = name.rpartition(".")[0].strip('"').lower()
        return not world or world not in self._text.lower()

    def _end_after(self, seconds: float, *, late: bool = False) -> None:
        process = self._process
        assert process is not None

        def end() -> None:
            self._late = self._late or late
            process.end()

        timer = threading.Timer(seconds, end)
        timer.daemon = True
        self._timers.append(timer)
        timer.start()
