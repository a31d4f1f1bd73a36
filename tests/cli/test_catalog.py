"""`tickwire components` and `tickwire processors`."""

import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

from tickwire_server.cli.server_process import ServerProcess

from .conftest import Run


@pytest.fixture(scope="module")
def server(line_app: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server of its own: components belong to the whole server."""
    data = tmp_path_factory.mktemp("catalog") / "data"
    with ServerProcess(data, app="line_app:app", root=line_app) as process:
        yield process


def test_components_are_listed_with_or_without_ls(cli: Run):
    for arguments in (
        ("components",),
        ("components", "ls"),
        ("components", "--json"),
        ("components", "ls", "--json"),
    ):
        listed = cli(*arguments)
        assert (listed.code, "Position" in listed.out) == (0, True)
    known = {c["name"]: c for c in cli("components", "--json").document["components"]}
    assert known["Position"]["fields"][0] == {"name": "x", "type": "double", "nullable": False}


def test_a_component_is_registered_grows_and_refuses_another_shape(cli: Run, world: str, tmp_path: Path):
    made = cli("components", "register", "Hull", "-f", "fuel=float64", "--defaults", '{"fuel": 2.5}')
    assert (made.code, made.out) == (0, "component Hull: fuel: double; columns hull__...\n")
    grown = cli(
        *("components", "register", "Hull", "-f", "fuel=float64", "-f", "crew=list<string>?"),
        *("--defaults", '{"fuel": 2.5}', "--json"),
    ).document
    assert (grown["origin"], [f["name"] for f in grown["fields"]]) == ("rpc", ["fuel", "crew"])
    assert cli("spawn", world, "-c", 'Hull:{"crew": ["ann"]}').code == 0
    refused = cli("components", "register", "Hull", "-f", "fuel=int64", "--json")
    assert refused.code == 1
    assert json.loads(refused.err)["error"]["reason"] == "COMPONENT_EXISTS"
    file = tmp_path / "rig.parquet"
    pa.parquet.write_table(pa.table({"height": pa.array([], pa.float32())}), file)
    assert "height: float?" in cli("components", "register", "Rig", "--schema", file).out


def test_mistakes_of_registering_are_told_as_such(cli: Run, tmp_path: Path):
    wrong = cli("components", "register", "Bad", "-f", "x=float65")
    assert (wrong.code, "fields[0].type" in wrong.err) == (1, True)
    assert cli("components", "register", "Bad", "-f", "nonsense").code == 2
    other = tmp_path / "a.arrow"
    other.write_bytes(b"nothing")
    assert cli("components", "register", "Bad", "--schema", other).code == 2


def test_processors_come_and_go_at_the_exact_tick(cli: Run, world: str):
    cli("step", world)
    assert cli("processors", world).out.count("Move") == 1
    added = cli(
        *("processors", "add", world, "lift", "-c", "Position", "--set", "position__x=position__x + 100"),
        *("--where", "entity_id = 1", "--tick", 2, "--json"),
    )
    assert added.document["due_tick"] == 2
    assert cli("processors", "rm", world, "Move", "--tick", 3).code == 0
    cli("step", world, 4)
    xs = [
        cli("query", world, "-e", 1, "--at-tick", tick, "--json").document["rows"][0]["position__x"]
        for tick in range(5)
    ]
    # Move adds 1 in ticks 0 to 2, lift 100 from tick 2 on.
    assert xs == [1.0, 2.0, 103.0, 203.0, 303.0]
    (lift,) = cli("processors", "ls", world, "--json").document["processors"]
    assert (lift["name"], lift["path"], lift["where"]) == ("lift", "sql", "entity_id = 1")
    assert lift["assignments"] == {"position__x": "position__x + 100"}


def test_what_makes_no_processor_is_a_mistake_of_usage(cli: Run, world: str):
    assert cli("processors", "add", world, "p", "--set", "position__x=1").code == 2
    assert cli("processors", "add", world, "p", "--where", "entity_id = 1").code == 2
    assert (
        cli(
            "processors", "add", world, "p", "--type", "Move", "-c", "Position", "--set", "position__x=1"
        ).code
        == 2
    )
    refused = cli("processors", "add", world, "p", "--type", "Nothing")
    assert (refused.code, "Nothing" in refused.err) == (1, True)
