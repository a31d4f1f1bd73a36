"""How commands fail that work on a data directory themselves, without a server."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, NoReturn

import typer

from tickwire import TickwireError
from tickwire_server.cli._output import plain, print_error, print_json

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def errors_told(doing: str, *, as_json: bool) -> Iterator[None]:
    """Tell the engine's errors and the system's as the command's; `doing` says at what the system failed."""
    from tickwire_engine import errors

    try:
        yield
    except errors.TickwireError as error:
        fail(error.message, reason=error.reason, metadata=error.metadata, as_json=as_json)
    except OSError as error:
        fail(f"cannot {doing}: {error.strerror or error}", as_json=as_json)


def fail(
    message: str, *, reason: str = "", metadata: dict[str, str] | None = None, as_json: bool
) -> NoReturn:
    """Tell what went wrong, in the words and the JSON of a server's errors, and end the command."""
    if as_json:
        error = TickwireError(message, reason=reason, metadata=metadata)
        print_json({"error": plain(error)}, err=True)
    else:
        print_error(message)
    raise typer.Exit(1)
