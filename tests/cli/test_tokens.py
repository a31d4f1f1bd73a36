"""`tickwire tokens`, against a server that asks who calls."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from tickwire_server.cli._main import app as command_line
from tickwire_server.cli.server_process import ServerProcess

from .conftest import Outcome

if TYPE_CHECKING:
    from pathlib import Path


def _run(*arguments: object, address: str = "", token: str = "") -> Outcome:
    environment = {"TICKWIRE_SERVER": address, "TICKWIRE_TOKEN": token}
    result = CliRunner().invoke(command_line, list(map(str, arguments)), env=environment)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Outcome(result.exit_code, result.stdout, result.stderr)


def test_the_first_token_is_made_beside_no_server_and_makes_the_others(tmp_path: Path, line_app: Path):
    data = tmp_path / "data"
    first = _run("tokens", "create", "root", "--role", "admin", "--data", data)
    secret = first.out.strip()
    assert (first.code, "\n" in secret) == (0, False)
    with ServerProcess(
        data, app="line_app:app", root=line_app, variables={"TICKWIRE_AUTH": "true"}
    ) as server:

        def run(*arguments: object, token: str = secret) -> Outcome:
            return _run(*arguments, address=server.address, token=token)

        assert "TOKEN_MISSING" in run("worlds", "ls", "--json", token="").err
        assert "Put a token into TICKWIRE_TOKEN" in run("worlds", "ls", token="").err
        assert run("worlds", "create", "game-1", "--template", "three").code == 0
        made = run(
            "tokens",
            "create",
            "ann",
            "-r",
            "player",
            "-w",
            "game-*",
            "--command",
            "spawn",
            "--ttl",
            "1h",
            "--json",
        )
        ann = made.document
        assert (ann["roles"], ann["worlds"], ann["allowed_commands"]) == (["player"], ["game-*"], ["spawn"])
        assert run("spawn", "game-1", "-c", "Position", token=ann["secret"]).code == 0
        refused = run("despawn", "game-1", 1, "--json", token=ann["secret"])
        assert json.loads(refused.err)["error"]["reason"] == "ROLE_FORBIDS"
        listed = run("tokens", "ls", "--json").document["tokens"]
        assert [(token["name"], token["state"]) for token in listed] == [("ann", "good"), ("root", "good")]
        assert "secret" not in listed[0]
        assert secret not in run("tokens", "ls").out
        assert run("tokens", "revoke", "ann").out.startswith("token ann (")
        assert run("tokens", "ls", "--json").document["tokens"][0]["state"] == "revoked"
        late = run("spawn", "game-1", "-c", "Position", "--json", token=ann["secret"])
        assert json.loads(late.err)["error"]["reason"] == "TOKEN_REVOKED"
        # A directory that is served belongs to its server.
        assert _run("tokens", "create", "x", "-r", "admin", "--data", data).code == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ("create", "x"),
        ("create", "x", "-r", "admin", "--ttl", "soon", "--data", "nowhere"),
        ("create", "x", "-r", "admin", "--command", "fly", "--data", "nowhere"),
    ],
)
def test_mistakes_of_usage_make_nothing(
    arguments: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    assert _run("tokens", *arguments).code == 2
    assert not list(tmp_path.iterdir())
