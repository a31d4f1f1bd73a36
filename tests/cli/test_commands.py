"""The commands that talk to a server."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from tickwire import __version__

from .conftest import Run


def test_a_made_world_is_listed_and_shown(cli: Run):
    made = cli("worlds", "create", "made", "--seed", 7, "--label", "team=a", "--json")
    assert made.code == 0
    listed = cli("worlds", "ls", "--label", "team=a", "--json").document["worlds"]
    assert [item["id"] for item in listed] == [made.document["id"]]
    shown = cli("worlds", "show", "made", "--json").document
    assert (shown["seed"], shown["labels"], shown["tick"], shown["committed_tick"]) == (
        7,
        {"team": "a"},
        0,
        -1,
    )
    assert "team=a" in cli("worlds", "show", "made").out


def test_the_same_world_id_again_finds_the_same_world(cli: Run):
    request = ("worlds", "create", "again", "--id", "01900000-0000-7000-8000-00000000abcd", "--json")
    assert cli(*request).document["id"] == cli(*request).document["id"]


def test_an_entity_lives_from_spawn_through_update_to_despawn(cli: Run, world: str):
    spawned = cli("spawn", world, "-c", 'Position:{"x": 5, "label": "mine"}', "--json").document
    assert (spawned["due_tick"], spawned["entity_count"]) == (0, 1)
    entity = spawned["first_entity_id"]
    assert cli("step", world, "--json").document["last_tick"] == 0
    (row,) = cli("query", world, "-c", "Position", "-e", entity, "--json").document["rows"]
    assert (row["position__x"], row["position__label"]) == (5.0, "mine")

    assert cli("update", world, entity, "-c", 'Position:{"x": 6}').code == 0
    cli("step", world)
    (row,) = cli("query", world, "-e", entity, "--json").document["rows"]
    assert (row["position__x"], row["position__label"]) == (6.0, "mine")
    (row,) = cli("query", world, "-e", entity, "--at-tick", 0, "--json").document["rows"]
    assert row["position__x"] == 5.0

    assert cli("despawn", world, entity).code == 0
    cli("step", world)
    assert cli("query", world, "-e", entity, "--json").document == {"rows": []}


@pytest.mark.parametrize("suffix", [".arrow", ".parquet", ".csv"])
def test_a_table_spawns_a_row_an_entity(cli: Run, world: str, tmp_path: Path, suffix: str):
    file = tmp_path / f"points{suffix}"
    table = pa.table({"position__x": [10.0, 20.0], "position__label": ["a", "b"]})
    if suffix == ".parquet":
        pa.parquet.write_table(table, file)
    elif suffix == ".csv":
        pa.csv.write_csv(table, file)
    else:
        with pa.ipc.new_stream(str(file), table.schema) as writer:
            writer.write_table(table)
    spawned = cli("spawn", world, "--table", file)
    assert (spawned.code, "entities 4 to 5" in spawned.out) == (0, True)
    cli("step", world)
    back = tmp_path / f"back{suffix}"
    assert cli("query", world, "-c", "Position", "-e", 4, "-e", 5, "--out", back).code == 0
    assert back.stat().st_size > 0


def test_a_command_sent_twice_under_one_id_is_queued_once(cli: Run, world: str):
    request = ("spawn", world, "-c", "Position", "--id", "01900000-0000-7000-8000-000000000001", "--json")
    assert [cli(*request).document["duplicate"] for _ in range(2)] == [False, True]


def test_waiting_tells_what_became_of_a_command(cli: Run, world: str):
    cli("play", world, "--hz", 50)
    assert "applied in tick" in cli("spawn", world, "-c", "Position", "--wait", "applied").out
    rejected = cli("despawn", world, 999, "--wait", "applied")
    assert rejected.code == 1
    assert "999" in rejected.err
    assert cli("despawn", world, 999, "--wait", "applied", "--json").code == 1
    assert cli("pause", world).code == 0


def test_run_tells_progress_and_ends_at_its_last_tick(cli: Run, world: str):
    assert "5 ticks durable, the last is 4" in cli("run", world, 5).out
    last = cli("run", world, 3, "--expected-tick", 5, "--json").documents[-1]
    assert (last["tick"], last["ticks_done"], last["ticks_total"]) == (7, 3, 3)
    repeated = cli("run", world, 3, "--expected-tick", 5)
    assert repeated.code == 1
    assert "at tick 8, not 5" in repeated.err


def test_play_goes_on_until_pause(cli: Run, world: str):
    assert cli("play", world, "--hz", 100, "--json").document["state"] == "playing"
    refused = cli("step", world)
    assert (refused.code, "pause it first" in refused.err) == (1, True)
    cli("watch", world, "--until-tick", 5)
    paused = cli("pause", world, "--json").document
    assert paused["state"] == "idle"
    assert paused["tick"] >= 6


def test_watch_gives_every_tick_once_in_order(cli: Run, world: str):
    cli("step", world, 4)
    ticks = cli(
        "watch", world, "--from-tick", 0, "--until-tick", 3, "-c", "Position", "-e", 2, "--json"
    ).documents
    assert [item["tick"] for item in ticks] == [0, 1, 2, 3]
    assert [item["rows"][0]["position__x"] for item in ticks] == [2.0, 3.0, 4.0, 5.0]
    lines = cli("watch", world, "--from-tick", 1, "--until-tick", 2).out.splitlines()
    assert [line.split()[:2] for line in lines] == [["tick", "1"], ["tick", "2"]]


def test_components_and_processors_are_listed(cli: Run, world: str):
    found = {item["name"]: item for item in cli("components", "--json").document["components"]}
    assert [field["name"] for field in found["Position"]["fields"]] == ["x", "label"]
    assert "label: string" in cli("components").out
    cli("step", world)
    (processor,) = cli("processors", world, "--json").document["processors"]
    assert (processor["name"], processor["components"]) == ("Move", ["Position", "Velocity"])
    assert processor["last_time_ms"] > 0.0
    assert "Move" in cli("processors", world).out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("worlds", "show", "nowhere"), "no world 'nowhere'"),
        (("watch", "nowhere"), "no world 'nowhere'"),
        (("processors", "nowhere"), "no world 'nowhere'"),
        (("worlds", "create", "Not a name"), "is no world name"),
        (("worlds", "create", "x", "--template", "nine"), "three"),
    ],
)
def test_a_refused_call_ends_with_1_and_a_line(cli: Run, arguments: tuple[str, ...], said: str):
    refused = cli(*arguments)
    assert (refused.code, refused.out) == (1, "")
    assert said in refused.err
    assert len(refused.err.splitlines()) == 1


def test_an_error_in_a_value_names_its_field(cli: Run, world: str):
    refused = cli("spawn", world, "-c", 'Position:{"x": "far"}')
    assert refused.code == 1
    assert refused.err.count("spawn.components.Position.x") == 1


def test_with_json_errors_are_json_on_standard_error(cli: Run):
    refused = cli("worlds", "show", "nowhere", "--json")
    error = json.loads(refused.err)["error"]
    assert (error["code"], error["reason"]) == ("NOT_FOUND", "WORLD_NOT_FOUND")


@pytest.mark.parametrize(
    "arguments",
    [
        ("spawn", "w"),
        ("spawn", "w", "-c", 'Position:{"x":'),
        ("spawn", "w", "-c", "Position:[1]"),
        ("spawn", "w", "-c", "Position", "-c", "Position"),
        ("spawn", "w", "--table", "missing.arrow"),
        ("spawn", "w", "--table", "table.xlsx"),
        ("update", "w", "1"),
        ("despawn", "w"),
        ("step", "w", "0"),
        ("step", "w", "--inputs", "7"),
        ("worlds", "ls", "--label", "no-equals-sign"),
        ("no-such-command",),
    ],
)
def test_wrong_usage_ends_with_2_and_sends_nothing(cli: Run, arguments: tuple[str, ...]):
    # At an address where nobody answers: 2 and not 1 shows that nothing was asked of it.
    assert cli(*arguments, address="127.0.0.1:1").code == 2


def test_no_server_is_told_with_how_to_start_one(cli: Run):
    for command in (("worlds", "ls"), ("watch", "w"), ("components",)):
        refused = cli(*command, address="127.0.0.1:1")
        assert refused.code == 1
        assert refused.err.splitlines()[0] == "error: no tickwire server answers at 127.0.0.1:1"
        assert "tickwire serve" in refused.err


def test_the_version_is_printed(cli: Run):
    assert cli("--version").out == f"tickwire {__version__}\n"


def test_a_fork_shares_history_and_goes_its_own_way(cli: Run, world: str):
    cli("step", world, 3)
    forked = cli("worlds", "fork", world, f"{world}-fork", "--at", 1, "--seed", 3, "--json").document
    assert (forked["fork_tick"], forked["tick"], forked["seed"]) == (1, 2, 3)
    cli("despawn", forked["name"], 1)
    cli("step", forked["name"])
    assert len(cli("query", world, "--json").document["rows"]) == 3
    assert len(cli("query", forked["name"], "--json").document["rows"]) == 2
    assert len(cli("query", forked["name"], "--at-tick", 1, "--json").document["rows"]) == 3
    assert "after tick 1" in cli("worlds", "show", forked["name"]).out
    assert "shares the ticks up to 2" in cli("worlds", "fork", world).out
