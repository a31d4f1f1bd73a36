"""The command line as a whole: what it loads, how it lists itself, and how it is interrupted."""

import subprocess
import sys
from pathlib import Path

import typer
from typer.core import TyperGroup

from tickwire_server.cli._main import app as command_line

from .conftest import Run

ROOT = Path(__file__).parents[2]


def _python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_asking_a_server_does_not_load_the_engine():
    heavy = _python(
        "import sys, tickwire_server.cli._main; "
        "print(*{'tickwire_engine', 'lancedb', 'daft', 'duckdb', 'pandas'} & set(sys.modules))"
    )
    assert (heavy.stderr, heavy.stdout.strip()) == ("", "")


def test_an_interrupt_while_it_is_loaded_ends_it_without_a_traceback():
    ended = _python(
        "import builtins\n"
        "from tickwire_server.cli import main\n"
        "load = builtins.__import__\n"
        "def interrupted(name, *rest, **options):\n"
        "    if name == 'tickwire_server.cli._main': raise KeyboardInterrupt\n"
        "    return load(name, *rest, **options)\n"
        "builtins.__import__ = interrupted\n"
        "main()"
    )
    assert (ended.returncode, ended.stderr) == (1, "interrupted\n")


def test_every_command_stands_under_a_heading_in_the_order_of_a_newcomers_day():
    group = typer.main.get_command(command_line)
    assert isinstance(group, TyperGroup)
    names = group.list_commands(typer.Context(group))
    headings = list(dict.fromkeys(group.commands[name].rich_help_panel for name in names))
    assert headings == [
        "Servers",
        "Worlds",
        "Entities",
        "Commands and outcomes",
        "Time",
        "Reading",
        "Data directories",
    ]
    assert names.index("serve") == 0


def test_a_benchmark_that_is_none_is_wrong_usage():
    # In a process of its own: its worlds have components by the names of others'.
    refused = _python("from tickwire_server.cli import main; main()", "bench", "nope")
    assert refused.returncode == 2
    assert "there is no case 'nope'; there are ticks," in refused.stderr


def test_entities_are_changed_and_ended_by_a_condition(cli: Run, world: str):
    cli("step", world)
    moved = cli("update", world, "-w", "position__x >= 2", "-c", 'Position:{"label": "far"}')
    ended = cli("despawn", world, 1, 3, "--where", "position__label = 'far'")
    assert (moved.code, ended.code) == (0, 0)
    assert "2 commands applied" in cli("step", world).out
    rows = cli("query", world, "-c", "Position", "--json").document["rows"]
    assert [(row["entity_id"], row["position__label"]) for row in rows] == [(1, ""), (2, "far")]
    assert cli("despawn", world).code == 2


def test_a_wait_that_ended_without_an_outcome_says_so(cli: Run, world: str):
    sent = cli("despawn", world, 1, "--wait", "applied", "--max-wait", 0.05)
    assert sent.code == 0
    assert "queued for tick 0" in sent.out
    assert f"stays queued, and is decided once {world} ticks" in sent.err


def test_commands_alone_lists_them(cli: Run, world: str):
    assert cli("commands", world, "--json").documents == cli("commands", "ls", world, "--json").documents


def test_a_token_that_is_none_is_named(cli: Run):
    refused = cli("tokens", "revoke", "nobody")
    assert refused.code == 1
    assert "no token that is good is called 'nobody'" in refused.err


def test_a_backup_of_nothing_leaves_nothing(cli: Run, tmp_path: Path):
    assert cli("backup", tmp_path, tmp_path / "copy").code == 1
    assert list(tmp_path.iterdir()) == []
