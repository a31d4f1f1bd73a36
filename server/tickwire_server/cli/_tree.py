"""What lies in the source tree beside the packages, `examples` and `bench`, made importable."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from pathlib import Path

import typer

from tickwire_server.cli._output import print_error

_TREE = Path(__file__).parents[3]


def require(what: str, needs: Mapping[str, str]) -> None:
    """Import modules, from the source tree or where the command runs, or end the command.

    Args:
        what: Who needs them, for the error.
        needs: Their names, and what to do where one is not there.
    """
    root = str(_TREE if (_TREE / "examples" / "orrery").is_dir() else Path.cwd())
    if root not in sys.path:
        sys.path.insert(0, root)
    for module, remedy in needs.items():
        try:
            importlib.import_module(module)
        except ImportError:
            print_error(f"{what} needs {module}, which is not there", hint=remedy)
            raise typer.Exit(1) from None
