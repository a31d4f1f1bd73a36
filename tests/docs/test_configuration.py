"""docs/configuration.md lists every setting with its unit and default, word for word as config.py has them."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest

from tests.docs.settings_table import page
from tickwire_server.config import ServerConfig

DOCS = Path(__file__).parents[2] / "docs"
TEXT = (DOCS / "configuration.md").read_text()


def test_every_setting_is_there_as_the_code_says() -> None:
    assert page() in TEXT, "write the tables anew: python -m tests.docs.settings_table"


def test_numbers_of_something_say_of_what() -> None:
    for name, field in ServerConfig.model_fields.items():
        if field.annotation in (int, float):
            # Seconds, bytes, days, commands, rows: a plural says of what.
            assert name.endswith(("s", "_depth")) or "_per_" in name, f"{name} has no unit in its name"


def test_the_example_is_a_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    example = re.findall(r"```toml\n(.*?)```", TEXT, re.DOTALL)[0]
    file = tmp_path / "tickwire.toml"
    file.write_text(example)
    document = tomllib.loads(example)
    config = ServerConfig.load(file, commands_per_tick=7)
    assert config.commands_per_tick == 7
    assert config.listen == document["listen"]
    assert config.command_costs == {"spawn": 2, "run_rollout": 500}
    assert config.certificates[0].worlds == ("game-*",)
    monkeypatch.setenv("TICKWIRE_LISTEN", "127.0.0.1:1")
    monkeypatch.setenv("TICKWIRE_COMMAND_COSTS", json.dumps({"spawn": 9}))
    config = ServerConfig.load(file)
    assert config.listen == "127.0.0.1:1"
    # Entries of tables go over those of the file one by one.
    assert config.command_costs == {"spawn": 9, "run_rollout": 500}
    file.write_text(f"no_such_setting = 1\n{example}")
    with pytest.raises(ValueError, match="no_such_setting"):
        ServerConfig.load(file)
