"""docs/security.md: its commands run, its files are read, and its tables say what the code does."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tickwire import Client, PermissionDeniedError, UnauthenticatedError
from tickwire_engine import CommandType
from tickwire_server.auth.policy import Policy
from tickwire_server.auth.quotas import COSTS
from tickwire_server.cli.server_process import ServerProcess
from tickwire_server.config import ServerConfig

if TYPE_CHECKING:
    from collections.abc import Iterator

DOCS = Path(__file__).parents[2] / "docs"
TEXT = (DOCS / "security.md").read_text()


def blocks(language: str) -> Iterator[str]:
    yield from re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)


def block(language: str, having: str) -> str:
    return next(text for text in blocks(language) if having in text)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="the page's certificates are made by openssl")
def test_the_certificates_of_the_page_stand_for_whom_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    subprocess.run(["bash", "-ec", block("bash", "openssl")], check=True, capture_output=True)
    (tmp_path / "mtls.toml").write_text(block("toml", "mtls.toml"))
    server = ServerProcess(
        tmp_path / "data", root=tmp_path, arguments=("--config", "mtls.toml", "--metrics", "")
    )
    with server:
        code = block("python", "ssl_channel_credentials").replace("localhost:7601", server.address)
        names: dict[str, object] = {}
        exec(code.replace("127.0.0.1", "localhost"), names)
        client = names["client"]
        assert isinstance(client, Client)
        with client:
            assert list(client.worlds()) == []
            with pytest.raises(PermissionDeniedError):
                client.create_world("game-1")


def test_the_commands_of_the_page_make_the_first_token_and_the_others(tmp_path: Path) -> None:
    tickwire = f"{sys.executable} -m tickwire_server.cli"
    first, serve, *others = block("bash", "tokens create root").strip().splitlines()
    assert serve == "tickwire serve --auth &"

    def run(line: str, **variables: str) -> str:
        command = re.sub(r"\btickwire (?=tokens)", f"{tickwire} ", line)
        done = subprocess.run(
            ["bash", "-ec", command],
            cwd=tmp_path,
            env={**os.environ, **variables},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{line}: {done.stderr}"
        return done.stdout

    secret = run(f"{first}\necho $TICKWIRE_TOKEN").split()[-1]
    with ServerProcess(tmp_path / "tickwire-data", arguments=("--auth", "--metrics", "")) as server:
        told = [run(line, TICKWIRE_TOKEN=secret, TICKWIRE_SERVER=server.address) for line in others]
        ann = told[0].split()[-1]
        assert "ann" in told[1]
        with Client(server.address, token=ann) as client, pytest.raises(UnauthenticatedError):
            list(client.worlds())


def test_the_example_policy_is_one(tmp_path: Path) -> None:
    file = tmp_path / "policy.toml"
    file.write_text(block("toml", "[roles.watcher]"))
    policy = Policy.load(file)
    assert policy.names == ("watcher", "pilot", "chief")
    assert policy.least_for_command(CommandType.UPDATE) == "pilot"


def test_the_tables_have_every_limit_and_quota_with_its_default() -> None:
    defaults = ServerConfig()
    rows = dict(re.findall(r"^\| `(\w+)` \| ([\d,]+)", TEXT, re.MULTILINE))
    named = {*ServerConfig.model_fields} & {
        *("commands_per_tick", "cost_units_per_day", "streams_per_actor", "connections_per_actor"),
        *(name for name in defaults.limits.__slots__),
        "max_receive_bytes",
    }
    assert set(rows) == named
    for name, shown in rows.items():
        number = int(shown.replace(",", ""))
        assert getattr(defaults, name) in (number, number << 20), name


def test_the_costs_are_told() -> None:
    told = TEXT.partition("A command costs 1 unit;")[2].partition("`command_costs`")[0]
    for cost in set(COSTS.values()) - {1}:
        assert re.search(rf"\b{cost:,}\b", told), cost
