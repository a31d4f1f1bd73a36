"""`tickwire submit` and `tickwire commands` against a real server."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from tickwire import new_id
from tickwire_server.cli._main import app as command_line

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Run
    from tickwire_server.cli.server_process import ServerProcess


def spawn(x: float = 0.0, **given: Any) -> dict[str, Any]:
    return {"spawn": {"components": {"Position": {"x": x}}}, **given}


def write(path: Path, *lines: object) -> Path:
    file = path / "commands.jsonl"
    file.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))
    return file


def test_a_file_of_commands_is_queued_in_its_order_and_again_is_known(
    cli: Run, world: str, tmp_path: Path
) -> None:
    ids = [new_id() for _ in range(3)]
    file = write(
        tmp_path,
        spawn(1.0, id=ids[0]),
        "",
        {"id": ids[1], "update": {"entityIds": [1], "components": {"Position": {"label": "é"}}}},
        {"id": ids[2], "despawn": {"entity_ids": [2]}, "tick": "9"},
    )
    first = cli("submit", world, file, "--json")
    assert first.code == 0
    assert [(line["line"], line["command_id"], line["duplicate"]) for line in first.documents] == [
        (1, ids[0], False),
        (3, ids[1], False),
        (4, ids[2], False),
    ]
    assert [line["seq"] for line in first.documents] == sorted(line["seq"] for line in first.documents)
    again = cli("submit", world, file)
    assert (again.code, again.out) == (0, "3 commands queued, 3 known already\n")
    assert cli("step", world, "--json").document["commands_applied"] == 6


def test_large_commands_are_sent_a_few_at_a_time(cli: Run, world: str, tmp_path: Path) -> None:
    label = "x" * 60_000
    line = {"spawn": {"components": {"Position": {"label": label}}}}
    result = cli("submit", world, write(tmp_path, *[line] * 300))
    assert (result.code, result.out) == (0, "300 commands queued\n")


def test_standard_input_is_submitted_and_waited_for(server: ServerProcess, cli: Run, world: str) -> None:
    assert cli("play", world, "--hz", "50").code == 0
    result = CliRunner().invoke(
        command_line,
        ["submit", world, "-", "--wait", "applied"],
        input="\n".join(json.dumps(line) for line in (spawn(), {"despawn": {"entity_ids": [999]}})),
        env={"TICKWIRE_SERVER": server.address},
    )
    assert cli("pause", world).code == 0
    assert result.exit_code == 1
    assert result.stdout == "2 commands queued, 1 applied, 1 rejected\n"
    assert "line 2: " in result.stderr
    assert "999" in result.stderr


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ('{"spawn": oops}', "line 2 is no command: no JSON"),
        ('{"jump": {}}', 'no field named "jump"'),
        ("{}", "line 2 asks for nothing"),
        ('"spawn"', "line 2 is no command"),
        ("[" * 2000, "line 2 is no command"),
        ('{"tick": 1e400, "spawn": {}}', "line 2 is no command"),
    ],
)
def test_a_line_that_is_no_command_is_named_and_nothing_is_sent(
    cli: Run, world: str, tmp_path: Path, line: str, why: str
) -> None:
    outcome = cli("submit", world, write(tmp_path, spawn(), line))
    assert outcome.code == 2
    assert why in " ".join(outcome.err.replace("│", " ").split())
    assert cli("worlds", "show", world, "--json").document["pending_commands"] == 4


def test_a_line_that_the_server_refuses_is_named_and_refuses_all(
    cli: Run, world: str, tmp_path: Path
) -> None:
    bad = {"spawn": {"components": {"Position": {"x": "far"}}}}
    file = write(tmp_path, spawn(), "", bad)
    refused = cli("submit", world, file)
    assert refused.code == 1
    assert refused.err.startswith("error: line 3: spawn.components.Position.x: 'far' does not fit")
    assert cli("submit", world, file, "--json").code == 1
    assert cli("worlds", "show", world, "--json").document["pending_commands"] == 4
    partial = cli("submit", world, file, "--partial", "--json")
    assert partial.code == 1
    assert [line["error"] is None for line in partial.documents] == [True, False]
    assert cli("worlds", "show", world, "--json").document["pending_commands"] == 5


def test_a_file_that_is_not_there_is_a_usage_error(cli: Run, world: str, tmp_path: Path) -> None:
    assert cli("submit", world, tmp_path / "none.jsonl").code == 2


def test_commands_are_listed_shown_and_cancelled(cli: Run, world: str) -> None:
    ids = [new_id(), new_id()]
    assert cli("spawn", world, "-c", 'Position:{"x": 7}', "--id", ids[0]).code == 0
    assert cli("despawn", world, 999, "--id", ids[1]).code == 0
    assert cli("step", world).code == 0
    waiting = cli("spawn", world, "-c", "Position", "--tick", 50, "--json").document["command_id"]
    listed = cli("commands", "ls", world, "--json").documents
    assert [line["outcome"]["state"] for line in listed] == ["pending", "rejected", *["applied"] * 5]
    assert [line["command"]["id"] for line in listed[:3]] == [waiting, ids[1], ids[0]]
    rejected = cli("commands", "ls", world, "--state", "rejected", "--type", "despawn")
    assert ids[1] in rejected.out
    assert "ENTITY_NOT_FOUND" in rejected.out
    assert ids[0] not in rejected.out
    assert cli("commands", "ls", world, "--since", "2999-01-01", "--json").out == ""
    assert len(cli("commands", "ls", world, "--limit", 2, "--json").documents) == 2
    shown = cli("commands", "show", world, ids[0])
    assert '{"components": {"Position": {"x": 7.0}}}' in shown.out
    assert "applied" in shown.out
    assert cli("commands", "cancel", world, ids[0]).code == 1
    assert cli("commands", "cancel", world, waiting).out == f"cancelled (command {waiting})\n"
    assert cli("commands", "show", world, waiting, "--json").document["outcome"]["state"] == "cancelled"
    unknown = cli("commands", "show", world, new_id(), "--json")
    assert unknown.code == 1
    assert json.loads(unknown.err)["error"]["reason"] == "COMMAND_NOT_FOUND"


def test_listed_commands_can_be_submitted_to_another_world(cli: Run, world: str, tmp_path: Path) -> None:
    other = f"w-{new_id()}"
    assert cli("worlds", "create", other).code == 0
    listed = cli("commands", "ls", world, "--json").documents
    file = write(tmp_path, *(line["command"] for line in reversed(listed)))
    assert cli("submit", other, file).code == 0
    assert cli("step", other).code == 0
    assert cli("worlds", "show", other, "--json").document["entities"] == 3


def test_outcomes_are_watched_from_the_first(cli: Run, world: str) -> None:
    assert cli("despawn", world, 999).code == 0
    assert cli("step", world).code == 0
    seen = cli("commands", "watch", world, "--after", 0, "--limit", 5, "--json").documents
    assert [outcome["outcome_seq"] for outcome in seen] == [1, 2, 3, 4, 5]
    lines = cli("commands", "watch", world, "--after", 3, "--limit", 2).out.splitlines()
    assert lines[0].startswith("4  applied in tick 0: entity 3 (command ")
    assert lines[1].startswith("5  rejected in tick 0: ENTITY_NOT_FOUND: ")


def test_a_command_without_a_table_has_an_empty_result(cli: Run, world: str) -> None:
    command_id = cli("spawn", world, "-c", "Position", "--json").document["command_id"]
    assert cli("step", world).code == 0
    result = cli("commands", "result", world, command_id)
    assert (result.code, result.out, result.err) == (0, "", "it answered no table\n")


def test_the_table_that_a_command_answered_is_read_and_written(cli: Run, world: str, tmp_path: Path) -> None:
    command_id = new_id()
    file = write(tmp_path, {"id": command_id, "query_world": {"components": ["Position"]}})
    assert cli("submit", world, file).code == 0
    for _ in range(3):
        assert cli("step", world).code == 0
    rows = cli("commands", "result", world, command_id, "--json").document["rows"]
    assert [row["entity_id"] for row in rows] == [1, 2, 3]
    assert "position__x" in cli("commands", "show", world, command_id).out
    assert "position__x" in cli("commands", "result", world, command_id).out
    out = tmp_path / "rows.csv"
    assert cli("commands", "result", world, command_id, "--out", out).out == f"3 rows in {out}\n"
    assert len(out.read_text().splitlines()) == 4


@pytest.mark.parametrize("option", [("--state", "gone"), ("--type", "jump"), ("--since", "soon")])
def test_a_condition_that_means_nothing_is_a_usage_error(
    cli: Run, world: str, option: tuple[str, str]
) -> None:
    assert cli("commands", "ls", world, *option).code == 2
