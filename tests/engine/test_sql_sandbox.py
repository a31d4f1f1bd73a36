"""SQL queries over tables: DuckDB's answers, within limits, and nothing but the tables."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.parts import setup
from tickwire_engine.errors import (
    InvalidSqlError,
    QueueFullError,
    ResultTooLargeError,
    ShuttingDownError,
    TickNotKeptError,
)
from tickwire_engine.sql import Bounds, MemoryCatalog, SqlLimits, SqlSandbox
from tickwire_engine.sql._pushdown import read_filter
from tickwire_engine.sql.catalog import MemoryTable
from tickwire_engine.sql.worlds import StateCatalog

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


EVERYTHING = Bounds().ticks
PLACES = pa.table(
    {
        "tick": pa.array([tick for tick in range(100) for _ in range(10)], pa.int64()),
        "entity_id": pa.array([*range(1, 11)] * 100, pa.int64()),
        "place__x": pa.array([float(n) for n in range(1000)]),
    }
)
# Texts that no interrupt ends, and that take far more than the memory of a test.
ENDLESS = "SELECT levenshtein(repeat('a', 200000), repeat('b', 200000))"
HUGE = "SELECT length(repeat('x', 2000000000))"


class Noted(MemoryTable):
    """Notes what is asked of it."""

    def __init__(self, rows: pa.Table) -> None:
        super().__init__(rows)
        self.asked: list[tuple[list[str], Bounds]] = []

    def scan(self, columns: Sequence[str], bounds: Bounds) -> Iterator[pa.RecordBatch]:
        self.asked.append((list(columns), bounds))
        return super().scan(columns, bounds)


class Catalog(MemoryCatalog):
    """One table of places, in a world whose name needs quotes; and one that cannot be read."""

    def __init__(self) -> None:
        super().__init__({})
        self.places = Noted(PLACES)
        self._tables = {"or-bit.place": self.places, "place": self.places, "or-bit.gone": Gone(PLACES)}


class Gone(MemoryTable):
    """Cannot be read."""

    def scan(self, columns: Sequence[str], bounds: Bounds) -> Iterator[pa.RecordBatch]:
        raise TickNotKeptError("tick 0 is not kept", earliest=7)


@pytest.fixture(scope="module")
def sandbox() -> Iterator[SqlSandbox]:
    made = SqlSandbox(SqlLimits(seconds=30, rows=10_000, memory_bytes=256 << 20, processes=1))
    yield made
    made.close()


def test_a_query_is_answered_from_the_tables_it_names(sandbox: SqlSandbox) -> None:
    catalog = Catalog()
    found = sandbox.table(
        'SELECT p.entity_id, count(*) n, max(p.place__x) x FROM "or-bit".Place p JOIN PLACE q '
        "USING (tick, entity_id) GROUP BY 1 ORDER BY 1 DESC LIMIT 2",
        catalog,
    )
    assert found.to_pylist() == [
        {"entity_id": 10, "n": 100, "x": 999.0},
        {"entity_id": 9, "n": 100, "x": 998.0},
    ]
    assert sandbox.table("SELECT 1 AS a, 2 AS a", catalog).to_pylist() == [{"a": 1, "a_1": 2}]
    assert sandbox.table("SELECT * FROM place WHERE FALSE", catalog).schema.names == PLACES.schema.names
    assert sandbox.table("DESCRIBE place", catalog).column(0).to_pylist() == PLACES.schema.names


def test_only_what_conditions_and_columns_leave_is_asked_for(sandbox: SqlSandbox) -> None:
    catalog = Catalog()
    for text, columns, ticks, entity_ids in (
        ("SELECT count(*) FROM place", None, EVERYTHING, EVERYTHING),
        ("SELECT place__x FROM place", ["place__x"], EVERYTHING, EVERYTHING),
        ("SELECT * FROM place WHERE tick BETWEEN 5 AND 7", None, ((5, 7),), EVERYTHING),
        ("SELECT tick FROM place WHERE place__x < 20", ["tick", "place__x"], EVERYTHING, EVERYTHING),
        ("SELECT * FROM place WHERE tick >= 90 AND entity_id IN (3, 7)", None, None, ((3, 3), (7, 7))),
        ("SELECT * FROM place WHERE tick = 3 OR tick = 9 AND entity_id = 4", None, ((3, 3), (9, 9)), None),
        ("SELECT * FROM place WHERE 5 > tick AND place__x > 2", None, ((-(1 << 63), 4),), EVERYTHING),
    ):
        catalog.places.asked.clear()
        found = sandbox.table(text, catalog)
        ((asked, bounds),) = catalog.places.asked
        assert columns is None or asked == columns, text
        assert ticks is None or bounds.ticks == ticks, text
        assert entity_ids is None or bounds.entity_ids == entity_ids, text
        if "WHERE" in text:
            assert 0 < found.num_rows < PLACES.num_rows, text


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_bounds_never_leave_out_a_row_that_a_filter_keeps(data: st.DataObject) -> None:
    fields = {name: pc.field(name) for name in ("tick", "entity_id", "place__x")}
    comparisons = st.builds(
        lambda name, how, value, flip: _compared(fields[name], how, value, flip=flip),
        st.sampled_from([*fields]),
        st.sampled_from(["eq", "ne", "lt", "le", "gt", "ge", "in", "valid"]),
        st.integers(0, 12),
        st.booleans(),
    )
    expressions = st.recursive(
        comparisons,
        lambda inner: st.one_of(
            st.tuples(inner, inner).map(lambda two: two[0] & two[1]),
            st.tuples(inner, inner).map(lambda two: two[0] | two[1]),
            inner.map(lambda one: ~one),
        ),
        max_leaves=6,
    )
    condition = data.draw(expressions)
    seen = read_filter(condition.__reduce__()[1][0].to_pybytes())
    bounds = seen.bounds
    assert seen.columns is not None
    assert PLACES.select(sorted(seen.columns)).filter(condition).num_rows == PLACES.filter(condition).num_rows
    for row in PLACES.filter(condition).to_pylist():
        assert any(first <= row["tick"] <= last for first, last in bounds.ticks)
        assert any(first <= row["entity_id"] <= last for first, last in bounds.entity_ids)


def _compared(field: pc.Expression, how: str, value: int, *, flip: bool) -> pc.Expression:
    if how == "in":
        members = field.isin(pa.array([value, value + 2], pa.int64()))
        return pc.if_else(field.is_valid(), members, pa.scalar(None, pa.bool_()))  # type: ignore[call-overload, no-any-return]
    if how == "valid":
        return field.is_valid()
    number: Any = pc.scalar(value)
    left, right = (number, field) if flip else (field, number)
    return getattr(left, f"__{how}__")(right)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    "text",
    [
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM read_text('/etc/passwd')",
        "FROM '/etc/passwd'",
        "SELECT * FROM glob('/*')",
        "SELECT * FROM 'https://example.com/x.parquet'",
        "SELECT (SELECT content FROM read_text('/etc/passwd'))",
        "SELECT * FROM query('SELECT 1')",
        "SELECT * FROM query_table('place')",
        "SELECT * FROM arrow_scan(1, 2, 3)",
        "SELECT * FROM sniff_csv('/etc/passwd')",
        "SELECT * FROM duckdb_settings()",
        "SELECT * FROM a.b.c",
        "SELECT getenv('HOME')",
        "COPY (SELECT 1) TO '/tmp/x.csv'",
        "ATTACH ':memory:' AS x",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET memory_limit = '100GB'",
        "RESET memory_limit",
        "PRAGMA enable_profiling",
        "CALL enable_logging()",
        "EXPLAIN SELECT 1",
        "CREATE TABLE x (i INTEGER)",
        "CREATE TEMP MACRO m() AS 1",
        "WITH x AS (INSERT INTO place VALUES (1) RETURNING *) SELECT * FROM x",
        "EXPORT DATABASE '/tmp/x'",
        "SELECT 1; SELECT 2",
        "",
        "SELEC 1",
        "SELECT no_such_column FROM place",
        "SELECT no_such_function(1)",
        "SELECT error('no')",
        "SELECT * FROM no_such_table",
        "SELECT union_value(k := 1)",
        "SELECT 'x'::INTEGER",
        "SELECT " + "1 + " * 40_000 + "1",
        "SELECT " + "(" * 3_000 + "1" + ")" * 3_000,
        "SELECT * FROM " + "(SELECT * FROM " * 400 + "place" + ")" * 400,
        "SELECT * FROM place WHERE tick = $1",
    ],
)
def test_whatever_is_no_query_over_the_tables_is_refused(sandbox: SqlSandbox, text: str) -> None:
    with pytest.raises(InvalidSqlError) as refused:
        sandbox.table(text, Catalog(), path="query_world.sql")
    assert refused.value.field == "query_world.sql"
    assert "/site-packages/" not in refused.value.message
    assert sandbox.table("SELECT 1 AS one", Catalog()).to_pylist() == [{"one": 1}]


def test_a_table_that_is_not_there_is_told_with_those_that_are(sandbox: SqlSandbox) -> None:
    with pytest.raises(InvalidSqlError, match=r"There are: or-bit\.gone, or-bit\.place, place"):
        sandbox.table("SELECT * FROM plaice", Catalog())


def test_what_a_table_raises_is_what_its_reader_gets(sandbox: SqlSandbox) -> None:
    with pytest.raises(TickNotKeptError):
        sandbox.table('SELECT * FROM "or-bit".gone', Catalog())


def test_rows_beyond_the_limit_are_an_error_not_a_cut(sandbox: SqlSandbox) -> None:
    assert sandbox.table("SELECT * FROM range(10000)", Catalog()).num_rows == 10_000
    with pytest.raises(ResultTooLargeError, match="10000 rows"):
        sandbox.table("SELECT * FROM range(10001)", Catalog())


def test_memory_is_bounded_also_where_duckdb_does_not_count(sandbox: SqlSandbox) -> None:
    with pytest.raises(ResultTooLargeError, match="memory"):
        sandbox.table(HUGE, Catalog())
    assert sandbox.table("SELECT 1 AS one", Catalog()).num_rows == 1


def test_time_is_bounded_also_where_duckdb_heeds_no_interrupt() -> None:
    made = SqlSandbox(SqlLimits(seconds=0.5))
    try:
        with pytest.raises(ResultTooLargeError, match=r"0\.5 s"):
            made.table(ENDLESS, Catalog())
        with pytest.raises(ResultTooLargeError, match=r"0\.5 s"):
            made.table("SELECT count(*) FROM range(1000000000) a, range(1000) b", Catalog())
    finally:
        made.close()


def test_queries_wait_for_a_process_and_are_told_when_none_comes_free() -> None:
    made = SqlSandbox(SqlLimits(wait_s=0.1, processes=1))
    try:
        first = made.select("SELECT * FROM range(100000)", Catalog())
        with pytest.raises(QueueFullError):
            made.table("SELECT 1", Catalog())
        first.close()
    finally:
        made.close()


def test_a_query_that_is_closed_or_cancelled_leaves_its_process_to_the_next(sandbox: SqlSandbox) -> None:
    rows = sandbox.select("SELECT * FROM range(10000)", Catalog())
    assert next(iter(rows)).num_rows > 0
    rows.close()
    assert sandbox.table("SELECT 2 AS two", Catalog()).to_pylist() == [{"two": 2}]
    endless = sandbox.query("SELECT count(*) FROM range(1000000000) a, range(1000000) b", Catalog())
    canceller = threading.Timer(0.1, endless.cancel)
    canceller.start()
    begun = time.monotonic()
    with pytest.raises(Exception, match="cancelled"):
        endless.begin()
    canceller.join()
    assert time.monotonic() - begun < sandbox.limits.seconds
    assert sandbox.table("SELECT 3 AS three", Catalog()).to_pylist() == [{"three": 3}]


def test_closing_ends_the_queries_under_way() -> None:
    made = SqlSandbox(SqlLimits(seconds=60))
    failed: list[BaseException] = []

    def run() -> None:
        try:
            made.table("SELECT count(*) FROM range(1000000000) a, range(1000000) b", Catalog())
        except Exception as error:
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    while not made._all:
        time.sleep(0.001)
    made.close()
    thread.join(30)
    assert len(failed) == 1
    with pytest.raises(ShuttingDownError):
        made.table("SELECT 1", Catalog())


@pytest.mark.skipif(not Path("/proc").exists(), reason="looks into /proc")
def test_a_worker_has_neither_the_environment_nor_the_files_of_its_parent(
    sandbox: SqlSandbox, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TICKWIRE_SECRET", "a secret")
    with (tmp_path / "open").open("w") as file:
        os.set_inheritable(file.fileno(), True)
        made = SqlSandbox(SqlLimits(memory_bytes=256 << 20))
        try:
            made.table("SELECT 1", Catalog())
            (process,) = made._all
            folder = Path(f"/proc/{process._process.pid}")
            assert b"a secret" not in (folder / "environ").read_bytes()
            assert str(tmp_path) not in " ".join(str(entry.readlink()) for entry in (folder / "fd").iterdir())
        finally:
            made.close()


def test_every_type_of_an_answer_is_one_that_goes_on_the_wire(sandbox: SqlSandbox) -> None:
    found = sandbox.table(
        "SELECT sum(3) AS a, uuid() AS b, TIME '10:00:00' AS c, TIMESTAMP '2020-01-01' AS d, INTERVAL 90 SECOND AS e, "
        "map {'k': 1} AS f, 'x'::ENUM('x', 'y') AS g, [1, 2] AS h, {'i': TIME '10:00:00'} AS i, NULL AS j, "
        "array_value(1, 2) AS k, 'x'::BLOB AS l, '2020-01-01'::TIMESTAMP_NS AS m, 2.5 AS n",
        Catalog(),
    )
    types = {field.name: str(field.type) for field in found.schema}
    assert types == {
        "a": "decimal128(38, 0)",
        "b": "string",
        "c": "string",
        "d": "timestamp[us, tz=UTC]",
        "e": "duration[us]",
        "f": "list<entries: struct<key: string not null, value: int32> not null>",
        "g": "string",
        "h": "list<item: int32>",
        "i": "struct<i: string>",
        "j": "string",
        "k": "fixed_size_list<item: int32>[2]",
        "l": "binary",
        "m": "timestamp[us, tz=UTC]",
        "n": "decimal128(2, 1)",
    }
    found.validate(full=True)
    assert found.to_pylist()[0]["e"].total_seconds() == 90


def test_what_goes_in_comes_out(sandbox: SqlSandbox) -> None:
    table = pa.table(
        {
            "a": pa.array([True, None]),
            "b": pa.array([(1 << 64) - 1, None], pa.uint64()),
            "c": pa.array([1.5, float("nan")], pa.float32()),
            "d": pa.array(["é", None]),
            "e": pa.array([b"\x00\xff", None]),
            "f": pa.array([0, None], pa.date32()),
            "g": pa.array([1, None], pa.timestamp("us", "UTC")),
            "h": pa.array([-1, None], pa.duration("us")),
            "i": pa.array([None, [1, None]], pa.list_(pa.int32())),
            "j": pa.array([None, [1.0, 2.0]], pa.list_(pa.float32(), 2)),
            "k": pa.array([None, {"x": 1, "y": None}], pa.struct([("x", pa.int8()), ("y", pa.string())])),
        }
    )
    found = sandbox.table("SELECT * FROM t", MemoryCatalog({"t": table}))
    assert found.to_pylist()[0] == table.to_pylist()[0]
    assert str(found.to_pylist()[1]) == str(table.to_pylist()[1])


def test_a_state_has_a_table_for_every_component_and_one_of_all_entities(sandbox: SqlSandbox) -> None:
    vocabulary = setup().vocabulary.components
    place, tag = vocabulary.require("Place"), vocabulary.require("Tag")

    def rows(ids: list[int], active: list[bool], **columns: list[Any]) -> pa.RecordBatch:
        return pa.RecordBatch.from_pydict({"entity_id": ids, "is_active": active, **columns})

    catalog = StateCatalog(
        "w",
        5,
        {
            ("Place",): rows([1, 3], [True, False], place__x=[1.0, 3.0], place__y=[0.0, 0.0]),
            ("Place", "Tag"): rows(
                [2], [True], place__x=[2.0], place__y=[0.5], tag__text=["t"], tag__count=[7], tag__note=["n"]
            ),
        },
        (place, tag),
    )
    assert sandbox.table("SELECT * FROM w.place ORDER BY entity_id", catalog).to_pylist() == [
        {"tick": 5, "entity_id": 1, "is_active": True, "place__x": 1.0, "place__y": 0.0},
        {"tick": 5, "entity_id": 2, "is_active": True, "place__x": 2.0, "place__y": 0.5},
    ]
    text = "SELECT entity_id, archetype, components, tag__count FROM entities WHERE entity_id IN (1, 2, 3) ORDER BY 1"
    assert sandbox.table(text, catalog).to_pylist() == [
        {"entity_id": 1, "archetype": "Place", "components": ["Place"], "tag__count": None},
        {"entity_id": 2, "archetype": "Place+Tag", "components": ["Place", "Tag"], "tag__count": 7},
    ]
    assert sandbox.table("SELECT * FROM tag WHERE tick = 4", catalog).num_rows == 0
    with pytest.raises(InvalidSqlError, match="There are: entities, place, tag"):
        sandbox.table("SELECT * FROM w.score", catalog)
