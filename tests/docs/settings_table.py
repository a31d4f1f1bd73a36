"""The tables of settings of docs/configuration.md: `python -m tests.docs.settings_table` writes them anew."""

from __future__ import annotations

import ast
import inspect
import json
import re
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic_core import PydanticUndefined

from tickwire_server import config

if TYPE_CHECKING:
    from pydantic import BaseModel

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"
_MIB = 1 << 20


def table(model: type[BaseModel]) -> str:
    """Return a row for every setting of `model`: its name, its default, and what config.py says of it."""
    said = _docstrings(model)
    rows = ["| setting | default | what |", "|---|---|---|"]
    for name, field in model.model_fields.items():
        default = field.get_default(call_default_factory=True)
        rows.append(f"| `{name}` | {_shown(default)} | {said[name]} |")
    return "\n".join(rows)


def _docstrings(model: type[BaseModel]) -> dict[str, str]:
    """Read what stands below each field, as one line of Markdown."""
    (definition,) = ast.parse(inspect.getsource(model)).body
    assert isinstance(definition, ast.ClassDef)
    found = {}
    for field, text in zip(definition.body, definition.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            assert isinstance(text, ast.Expr), f"{field.target.id} says nothing of itself"
            assert isinstance(text.value, ast.Constant), f"{field.target.id} says nothing of itself"
            words = re.sub(r"\s+", " ", str(text.value.value))
            found[field.target.id] = re.sub(r"``?([^`]+)``?", r"`\1`", words).replace("|", "\\|")
    return found


def _shown(default: object) -> str:
    if default is PydanticUndefined:
        return "required"
    if default is None or default in ((), {}):
        return "none"
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    if isinstance(default, int) and default >= _MIB and default % _MIB == 0:
        return f"`{default}` ({default // _MIB} MiB)"
    if isinstance(default, Enum):
        return f"`{default.value}`"
    if isinstance(default, tuple):
        return f"`{json.dumps(default)}`"
    return f'`"{default}"`' if isinstance(default, str | Path) else f"`{default}`"


def page() -> str:
    """Return both tables, as they stand in the page."""
    return f"{table(config.ServerConfig)}\n\n## Certificates\n\n{_CERTIFICATES}\n\n{table(config.CertificateSetting)}\n"


_CERTIFICATES = (
    "Each `[[certificates]]` of the TOML file says whom client certificates stand for; the first that fits counts\n"
    "([security](security.md#client-certificates))."
)

if __name__ == "__main__":
    head, heading, _ = PAGE.read_text().partition("## Settings\n\n")
    PAGE.write_text(head + heading + page())
