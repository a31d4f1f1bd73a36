"""The process in which SQL queries run: DuckDB behind closed doors, fed by its parent.

Run as a script, it imports neither this package nor anything of its parent's: DuckDB and pyarrow are all it has. It opens
no file, no socket and no extension, its settings are locked, and what it may allocate is limited by the operating
system, because a function as `repeat` allocates past DuckDB's own limit. It ends with its parent: nothing outlives a
closed pipe. Its parent kills it where an interrupt is not heeded, so nothing here needs to be undone.

Frames go both ways over stdin and stdout: a kind of one byte, the length, the body.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import struct
import sys
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

_HEAD = struct.Struct("<cI")

# What a parent says.
QUERY, TABLES, BATCH, FAILED, CANCEL = b"Q", b"T", b"B", b"F", b"X"
# What a worker says.
READY, NAMES, SCAN, NEXT, SCHEMA, ROWS, DONE, ERROR = b"I", b"N", b"S", b"G", b"H", b"R", b"D", b"E"

ALLOWED_TABLE_FUNCTIONS = frozenset(("range", "generate_series", "unnest"))
THREADS = 2
BATCH_ROWS = 8_192
_SPARE_BYTES = 256 << 20
"""Addresses that threads and allocators reserve beside what they use."""


def send(file: BinaryIO, kind: bytes, body: bytes = b"") -> None:
    """Write a frame."""
    file.write(_HEAD.pack(kind, len(body)))
    file.write(body)
    file.flush()


def receive(file: BinaryIO) -> tuple[bytes, bytes]:
    """Read a frame.

    Raises:
        EOFError: The other side is gone.
    """
    head = file.read(_HEAD.size)
    if len(head) < _HEAD.size:
        raise EOFError
    kind, length = _HEAD.unpack(head)
    body = file.read(length)
    if len(body) < length:
        raise EOFError
    return kind, body


class QueryRefusedError(Exception):
    """The text is nothing that is run here."""


class TooManyRowsError(Exception):
    """The answer has more rows than it may."""


class Worker:
    """One database without data, and the query that runs in it."""

    def __init__(self, reader: BinaryIO, writer: BinaryIO, *, memory_bytes: int) -> None:
        import duckdb

        self._reader = reader
        self._writer = writer
        self._writing = threading.Lock()
        self._asking = threading.Lock()
        self._answers: queue.SimpleQueue[tuple[bytes, bytes]] = queue.SimpleQueue()
        self._scans = 0
        self._cancelled = threading.Event()
        self._running: Any = None
        self._database = duckdb.connect(
            ":memory:",
            config={
                "allow_community_extensions": False,
                "autoinstall_known_extensions": False,
                "autoload_known_extensions": False,
                "max_temp_directory_size": "0B",
                "memory_limit": f"{memory_bytes // 2}B",
                "python_enable_replacements": False,
                "temp_directory": "",
                "threads": THREADS,
            },
        )
        for setting in ("TimeZone='UTC'", "enable_external_access=false", "lock_configuration=true"):
            self._database.execute(f"SET {setting}")

    def serve(self) -> None:
        """Run queries one after another, until the parent goes away."""
        self._send(READY)
        with contextlib.suppress(EOFError):
            while True:
                kind, body = receive(self._reader)
                if kind == QUERY:
                    self._cancelled.clear()
                    threading.Thread(target=self._query, args=(json.loads(body),), daemon=True).start()
                elif kind == CANCEL:
                    self._cancelled.set()
                    if self._running is not None:
                        self._running.interrupt()
                else:
                    self._answers.put((kind, body))

    def _query(self, asked: dict[str, Any]) -> None:
        connection = self._database.cursor()
        self._running = connection
        timer = threading.Timer(asked["seconds"], connection.interrupt)
        timer.start()
        views: list[str] = []
        try:
            end = DONE, b""
            self._make_tables(connection, self._parse(asked["sql"]), views)
            self._run(connection, asked["sql"], asked["rows"])
        except Exception as error:
            kind = self._kind_of(error)
            end = ERROR, json.dumps({"kind": kind, "message": str(error)[:4000]}).encode()
        timer.cancel()
        self._running = None
        for view in views:
            connection.execute(f"DROP VIEW {view}")
        connection.close()
        self._send(*end)

    def _kind_of(self, error: Exception) -> str:
        import duckdb

        if isinstance(error, QueryRefusedError):
            return "refused"
        if isinstance(error, TooManyRowsError):
            return "rows"
        if isinstance(error, duckdb.FatalException):
            return "crash"
        # Out of a reader errors come as an OSError.
        if isinstance(error, duckdb.InterruptException) or "INTERRUPT Error" in str(error):
            return "cancelled" if self._cancelled.is_set() else "time"
        if isinstance(error, (duckdb.OutOfMemoryException, MemoryError)) or "Out of Memory Error" in str(
            error
        ):
            return "memory"
        expected = isinstance(error, (duckdb.Error, OSError))
        return "failed" if expected else "internal"

    def _make_tables(self, connection: Any, names: list[tuple[str, str]], made: list[str]) -> None:
        """Make a view of each table that the text names, as far as the parent knows it."""
        tables = json.loads(self._ask(NAMES, json.dumps(names).encode()))
        for number, (schema, name, arrow_schema) in enumerate(tables):
            source = f"source_{number}"
            connection.register(source, _table_class()(self, number, arrow_schema))
            view = _quoted(name)
            if schema:
                connection.execute(f"CREATE SCHEMA IF NOT EXISTS {_quoted(schema)}")
                view = f"{_quoted(schema)}.{view}"
            connection.execute(f"CREATE VIEW {view} AS SELECT * FROM {source}")  # noqa: S608
            made.append(view)

    def _parse(self, sql: str) -> list[tuple[str, str]]:
        """Return the (schema, name) of all tables in one SELECT statement that calls no table function of its own choice."""
        statements = self._database.extract_statements(sql)
        if len(statements) != 1 or statements[0].type.name != "SELECT":
            raise QueryRefusedError("one SELECT statement is taken, and nothing else")
        ((text,),) = self._database.execute("SELECT json_serialize_sql(?)", [sql]).fetchall()
        try:
            tree = json.loads(text)
        except RecursionError:
            raise QueryRefusedError("it is nested too deeply: write it flatter") from None
        if tree["error"]:
            raise QueryRefusedError(tree.get("error_message") or "this form of SELECT is not taken")
        names: dict[tuple[str, str], None] = {}
        for node in _nodes(tree):
            kind = node.get("type")
            if kind == "BASE_TABLE":
                if node.get("catalog_name"):
                    raise QueryRefusedError("a table is called world.component, without a database before it")
                names[node["schema_name"], node["table_name"]] = None
            elif kind == "TABLE_FUNCTION":
                function = str((node.get("function") or {}).get("function_name", ""))
                if function.lower() not in ALLOWED_TABLE_FUNCTIONS:
                    allowed = ", ".join(sorted(ALLOWED_TABLE_FUNCTIONS))
                    raise QueryRefusedError(
                        f"the table function {function} is not allowed; there are {allowed}"
                    )
        return [*names]

    def _run(self, connection: Any, sql: str, max_rows: int) -> None:
        import pyarrow as pa

        reader = connection.sql(sql).to_arrow_reader(BATCH_ROWS)
        schema = _wire_schema(reader.schema)
        self._send(SCHEMA, schema.serialize().to_pybytes())
        rows = 0
        for batch in reader:
            rows += batch.num_rows
            if rows > max_rows:
                reader.close()
                raise TooManyRowsError
            columns = [
                _wire_array(column, field.type) for column, field in zip(batch.columns, schema, strict=True)
            ]
            made = pa.RecordBatch.from_arrays(columns, schema=schema)
            self._send(ROWS, made.serialize().to_pybytes())

    def scan(
        self, table: int, columns: list[str] | None, filter_bytes: bytes
    ) -> tuple[list[str], Iterator[bytes]]:
        """Begin to read a table; returns the columns of its encoded batches: those asked for first."""
        with self._asking:
            self._scans += 1
            number = self._scans
        asked = {"scan": number, "table": table, "columns": columns, "filter": filter_bytes.hex()}
        names = json.loads(self._ask(SCAN, json.dumps(asked).encode()))
        return names, iter(lambda: self._ask(NEXT, str(number).encode()), b"")

    def _ask(self, kind: bytes, body: bytes) -> bytes:
        with self._asking:
            self._send(kind, body)
            answer, content = self._answers.get()
        if answer == FAILED:
            # The parent knows why, and tells.
            raise QueryRefusedError(content.decode())
        return content

    def _send(self, kind: bytes, body: bytes = b"") -> None:
        with self._writing:
            send(self._writer, kind, body)


def _table_class() -> Any:
    """Return the class of tables whose rows come from the parent; to DuckDB it is a dataset that filters by itself."""
    import pyarrow as pa
    import pyarrow.dataset

    class Table(pa.dataset.Dataset):
        def __init__(self, worker: Worker, number: int, arrow_schema: str) -> None:
            self._worker = worker
            self._number = number
            self._schema = pa.ipc.read_schema(pa.py_buffer(bytes.fromhex(arrow_schema)))

        @property
        def schema(self) -> Any:
            return self._schema

        def scanner(  # type: ignore[override]
            self,
            columns: list[str] | None = None,
            filter: Any = None,  # noqa: A002
            **_: Any,
        ) -> Any:
            return pa.dataset.Scanner.from_batches(
                pa.RecordBatchReader.from_batches(
                    pa.schema([self._schema.field(name) for name in columns or self._schema.names]),
                    self._read(columns, filter),
                )
            )

        def _read(self, columns: list[str] | None, condition: Any) -> Iterator[Any]:
            encoded = b"" if condition is None else condition.__reduce__()[1][0].to_pybytes()
            names, messages = self._worker.scan(self._number, columns, encoded)
            schema = pa.schema([self._schema.field(name) for name in names])
            for message in messages:
                batch = pa.ipc.read_record_batch(pa.py_buffer(message), schema)
                batch = batch if condition is None else batch.filter(condition)
                yield batch.select(columns) if columns else batch

    return Table


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            yield node
            waiting.extend(node.values())
        elif isinstance(node, list):
            waiting.extend(node)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _wire_schema(schema: Any) -> Any:
    """Return the types that every reader knows, and names that differ."""
    import pyarrow as pa

    fields = []
    taken: set[str] = set()
    for field in schema:
        name, number = field.name, 0
        while name in taken:
            number += 1
            name = f"{field.name}_{number}"
        taken.add(name)
        fields.append(pa.field(name, _wire_type(field.type, field.name)))
    return pa.schema(fields)


def _wire_type(kind: Any, column: str) -> Any:
    import pyarrow as pa

    types = pa.types
    if (
        types.is_null(kind)
        or types.is_time(kind)
        or types.is_large_string(kind)
        or types.is_string_view(kind)
    ):
        return pa.utf8()
    if types.is_large_binary(kind) or types.is_binary_view(kind):
        return pa.binary()
    if types.is_dictionary(kind):
        return _wire_type(kind.value_type, column)
    if types.is_timestamp(kind):
        return pa.timestamp("us", "UTC")
    if types.is_interval(kind) or types.is_duration(kind):
        return pa.duration("us")
    if types.is_map(kind):
        pair = [pa.field("key", _wire_type(kind.key_type, column), nullable=False)]
        pair.append(pa.field("value", _wire_type(kind.item_type, column)))
        return pa.list_(pa.field("entries", pa.struct(pair), nullable=False))
    if types.is_fixed_size_list(kind):
        return pa.list_(pa.field("item", _wire_type(kind.value_type, column)), kind.list_size)
    if types.is_list(kind) or types.is_large_list(kind):
        return pa.list_(pa.field("item", _wire_type(kind.value_type, column)))
    if types.is_struct(kind):
        return pa.struct([pa.field(f.name, _wire_type(f.type, column)) for f in kind])
    if types.is_union(kind) or isinstance(kind, pa.BaseExtensionType):
        raise QueryRefusedError(f"column {column} is of a type that no answer has ({kind}): cast it to text")
    return kind


def _wire_array(array: Any, kind: Any) -> Any:
    import pyarrow as pa

    if array.type == kind:
        return array
    if pa.types.is_interval(array.type):
        # Months count 30 days, as in DuckDB's own arithmetic of epochs.
        micros = [
            None if v is None else (v.months * 30 + v.days) * 86_400_000_000 + v.nanoseconds // 1000
            for v in array.to_pylist()
        ]
        return pa.array(micros, pa.int64()).cast(kind)
    if pa.types.is_struct(kind) and pa.types.is_struct(array.type):
        parts = [_wire_array(part, field.type) for part, field in zip(array.flatten(), kind, strict=True)]
        return pa.StructArray.from_arrays(parts, fields=list(kind), mask=array.is_null())
    return array.cast(kind)


def _limit(memory_bytes: int) -> None:
    """Let the operating system refuse what goes beyond; where it has no such limit, DuckDB's own has to do."""
    try:
        import resource
        from pathlib import Path

        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + memory_bytes + _SPARE_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    except (ImportError, OSError, ValueError):
        return


def main() -> None:
    """Serve the parent that started this process."""
    import signal

    memory_bytes = int(sys.argv[1])
    # Ctrl-C in a terminal reaches all of its processes; this one ends when its parent does.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    worker = Worker(sys.stdin.buffer, sys.stdout.buffer, memory_bytes=memory_bytes)
    _limit(memory_bytes)
    worker.serve()
    # A query may be running still.
    os._exit(0)


if __name__ == "__main__":
    main()
