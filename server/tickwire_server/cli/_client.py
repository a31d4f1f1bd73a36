"""The connection of a command to its server, and how its errors are told."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypedDict

import grpc
import typer

from tickwire import Client, RetryPolicy, TickwireError
from tickwire_server.cli._output import plain, print_error, print_json

_COMMAND = re.compile(r"^commands\[\d+\]\.")
TOKEN_VARIABLE = "TICKWIRE_TOKEN"  # noqa: S105  (the name of a variable)
"""An API token or JWT, for servers that ask who calls."""
CA_VARIABLE = "TICKWIRE_CA"
"""A PEM file with the certificates that a server's is trusted by; without it the connection is plaintext."""
PATIENCE_S = 60.0
"""How long a stream goes on trying to reach a server that went away."""


@contextmanager
def connected(server: str, *, as_json: bool, patience_s: float = 0.0) -> Iterator[Client]:
    """Yield a client; what it raises ends the command with exit code 1 and a line or two.

    Args:
        server: host:port.
        as_json: Tell errors as JSON too.
        patience_s: How long calls are retried. A person would rather hear at once that no server is there.
    """
    with told(server, as_json=as_json):
        given = _credentials()
        with Client(server, retry=RetryPolicy(retry_for_s=patience_s), **given) as client:
            yield client


class _Credentials(TypedDict):
    token: str | None
    credentials: grpc.ChannelCredentials | None


def _credentials() -> _Credentials:
    """Return who calls, by the environment: a secret on the command line would be there for all to see."""
    ca = os.environ.get(CA_VARIABLE, "")
    try:
        trusted = grpc.ssl_channel_credentials(Path(ca).read_bytes()) if ca else None
    except OSError as error:
        raise typer.BadParameter(f"{CA_VARIABLE}: cannot read {ca}: {error.strerror}") from None
    return {"token": os.environ.get(TOKEN_VARIABLE) or None, "credentials": trusted}


@contextmanager
def told(server: str, *, as_json: bool) -> Iterator[None]:
    """Tell the errors of calls to `server`, and end the command."""
    try:
        yield
    except TickwireError as error:
        _tell(error, server, as_json=as_json)
    except grpc.RpcError as error:
        code, details = error.code(), error.details()
        _tell(TickwireError(details or code.name, code=code), server, as_json=as_json)
    except KeyboardInterrupt:
        typer.echo("interrupted", err=True)
        raise typer.Exit(1) from None


def fail(error: TickwireError, server: str, *, as_json: bool) -> None:
    """Tell an error that came as a value, such as a rejected command's, and end the command."""
    _tell(error, server, as_json=as_json)


def _tell(error: TickwireError, server: str, *, as_json: bool) -> None:
    message, hint = error.message, ""
    unreachable = error.code is grpc.StatusCode.UNAVAILABLE and not error.reason
    if unreachable:
        message = f"no tickwire server answers at {server}"
        hint = "Start one with `tickwire serve`, or name another with --server host:port or TICKWIRE_SERVER."
    if error.code is grpc.StatusCode.UNAUTHENTICATED:
        hint = f"Put a token into {TOKEN_VARIABLE}; `tickwire tokens create` makes them."
    if as_json:
        print_json({"error": {**plain(error), "message": message}}, err=True)
    else:
        print_error(_located(error, message), hint=hint)
    raise typer.Exit(1)


def _located(error: TickwireError, message: str) -> str:
    """Put the field at fault before the message, unless that names it already."""
    fields = [violation.field for violation in error.violations if violation.field]
    unnamed = [field for field in fields if _COMMAND.sub("", field) not in message]
    return f"{', '.join(unnamed)}: {message}" if unnamed else message
