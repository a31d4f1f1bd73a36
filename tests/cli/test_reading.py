"""`tickwire query`, `sql` and `history`, against a server process."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

import pyarrow.parquet
import pytest

from tickwire import new_id
from tickwire_server.cli._output import fitting
from tickwire_server.cli._sparkline import sparkline

if TYPE_CHECKING:
    from pathlib import Path

    from .conftest import Run


@pytest.fixture
def walked(cli: Run, world: str) -> str:
    """A world of three points, four ticks on; the last tick has one of them less."""
    cli("step", world, 3)
    cli("despawn", world, 3)
    cli("step", world, 1)
    return world


def test_query_reads_ranges_and_conditions(cli: Run, walked: str) -> None:
    asked = ("query", walked, "-c", "Position", "--ticks", "1:2", "--where", "position__x > 2", "--json")
    rows = cli(*asked).document["rows"]
    assert [(row["tick"], row["entity_id"], row["position__x"]) for row in rows] == [
        (1, 2, 3.0),
        (1, 3, 4.0),
        (2, 1, 3.0),
        (2, 2, 4.0),
        (2, 3, 5.0),
    ]
    assert len(cli("query", walked, "--ticks", ":", "--json").document["rows"]) == 11
    assert len(cli("query", walked, "--ticks", "3:", "--json").document["rows"]) == 2
    for wrong in (("--ticks", "x"), ("--ticks", "1:2", "--at-tick", "1"), ("--json", "--csv")):
        assert cli("query", walked, *wrong).code == 2
    assert "where" in cli("query", walked, "--where", "position__x >").err


def test_rows_come_as_a_table_as_csv_or_in_a_file(cli: Run, walked: str, tmp_path: Path) -> None:
    asked = ("query", walked, "-c", "Position", "--at-tick", 0)
    shown = cli(*asked)
    assert "position__x" in shown.out
    assert "3 rows" in shown.err
    (first, *_) = csv.DictReader(io.StringIO(cli(*asked, "--csv").out))
    assert first == {
        "tick": "0",
        "entity_id": "1",
        "is_active": "true",
        "position__x": "1",
        "position__label": "",
    }
    file = tmp_path / "rows.parquet"
    assert cli(*asked, "--out", file).out == f"3 rows in {file}\n"
    assert pyarrow.parquet.read_table(file)["entity_id"].to_pylist() == [1, 2, 3]


def test_sql_reads_history_and_tells_what_tables_there_are(cli: Run, walked: str) -> None:
    text = f'SELECT tick, sum(position__x) AS total FROM "{walked}".position GROUP BY tick ORDER BY tick'
    rows = cli("sql", text, "--json").document["rows"]
    assert [row["total"] for row in rows] == [6.0, 9.0, 12.0, 9.0]
    assert cli("sql", text, "--at-tick", 1, "--csv").out == '"tick","total"\n1,9\n'
    shown = cli("sql", text, "--rows", 2)
    assert "4 rows; 2 shown" in shown.err
    for _ in range(8):  # of whose tables nobody asked
        assert cli("worlds", "create", f"a-{new_id()}").code == 0
    wrong = cli("sql", f'SELECT * FROM "{walked}".positon')
    assert wrong.code == 1
    assert f'"{walked}".position' in wrong.err


def test_history_draws_each_field_over_ticks(cli: Run, walked: str) -> None:
    rows = cli("history", walked, 3, "--json").document["rows"]
    assert [(row["tick"], row["position__x"]) for row in rows] == [(0, 3.0), (1, 4.0), (2, 5.0)]
    shown = cli("history", walked, 1, "--rows", 1)
    assert "ticks 0 to 3" in shown.out
    (line,) = [line for line in shown.out.splitlines() if line.strip().startswith("position__x ")]
    assert line.split() == ["position__x", "1", "4", "1", "4", "▁▃▆█"]
    assert "0 changes" in shown.out
    gone = cli("history", walked, 3, "--ticks", "3:")
    assert (gone.code, gone.out) == (1, "")
    assert f"no entity 3 in these ticks of {walked}" in gone.err


def test_a_sparkline_goes_from_the_least_to_the_greatest() -> None:
    assert sparkline([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0], 8) == "▁▂▃▄▅▆▇█"
    assert sparkline([float(n) for n in range(800)], 8) == "▁▂▃▄▅▆▇█"
    assert sparkline([3.0, None, 4.0], 10) == "▁ █"
    assert sparkline([1.0, float("nan"), float("inf"), 2.0], 4) == "▁  █"
    assert sparkline([-1.7e308, 1.7e308, 1.7e308, -1.7e308], 2) == "▅▅"
    assert sparkline([0.1] * 1000, 7) == "▅" * 7
    assert sparkline([None, None], 5) == "  "
    assert sparkline([], 5) == sparkline([1.0], 0) == ""


def test_a_table_shows_the_columns_that_fit() -> None:
    table = pyarrow.table({"a": [1], "long": ["x" * 100], "b": [2]})
    assert fitting(table, 200).column_names == ["a", "long", "b"]
    assert fitting(table, 50).column_names == ["a", "long"]
    assert fitting(table, 1).column_names == ["a"]
