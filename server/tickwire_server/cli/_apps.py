"""Finding the application that `tickwire serve --app module:attribute` names."""

from __future__ import annotations

import importlib
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import ModuleType

    from tickwire_server.app import App


class AppNotFoundError(Exception):
    """The name leads to no application; the message says at which point it stopped."""


class AppBrokenError(Exception):
    """The application's module raised while it was imported."""


def load(name: str) -> App:
    """Import an application; "" is one with nothing of its own.

    Args:
        name: module:attribute; modules are found in the working directory too.

    Raises:
        AppNotFoundError: There is no such module or attribute, or it is no `App`.
        AppBrokenError: Its module raises.
    """
    from tickwire_server.app import App

    if not name:
        return App("tickwire")
    module_name, _, attribute = name.partition(":")
    if not module_name or not attribute:
        raise AppNotFoundError(f"--app {name!r} should look like package.module:app")
    cwd = str(Path.cwd())
    if cwd not in sys.path:
        sys.path.insert(0, cwd)
    module = _import(module_name)
    found = getattr(module, attribute, None)
    if isinstance(found, App):
        return found
    apps = [key for key, value in vars(module).items() if isinstance(value, App)]
    known = f"its apps: {', '.join(apps)}" if apps else "it has no App at all"
    what = f"is a {type(found).__name__}, no App" if found is not None else "does not exist"
    raise AppNotFoundError(f"--app {name}: {attribute!r} in {module_name} {what}; {known}")


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if name == missing or name.startswith(f"{missing}."):
            raise AppNotFoundError(
                f"--app: no module {missing!r} in {Path.cwd()} or among the installed packages"
            ) from None
        raise AppBrokenError(f"importing {name} failed: {error}{_place(error)}") from error
    except Exception as error:
        raise AppBrokenError(
            f"importing {name} failed: {type(error).__name__}: {error}{_place(error)}"
        ) from error


def _place(error: Exception) -> str:
    frames = [
        frame for frame in traceback.extract_tb(error.__traceback__) if "importlib" not in frame.filename
    ]
    return f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
