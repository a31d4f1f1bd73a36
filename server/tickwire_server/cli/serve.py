"""`tickwire serve`: a server in this process, until it is told to stop."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
import threading
import time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import ValidationError

from tickwire_server.cli import _apps
from tickwire_server.cli._options import AsJson
from tickwire_server.cli._output import print_error, print_json
from tickwire_server.cli._process import ensure_environment

if TYPE_CHECKING:
    from tickwire_server.app import App
    from tickwire_server.config import ServerConfig

_LOCK_RETRY_S = 0.1


class LogLevel(StrEnum):
    """What is logged."""

    DEBUG = "DEBUG"
    INFO = "INFO"
    WARNING = "WARNING"
    ERROR = "ERROR"


def serve(
    app: Annotated[
        str | None,
        typer.Option(metavar="MODULE:ATTR", help="The App to serve; without one worlds have no processors."),
    ] = None,
    listen: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Default 127.0.0.1:7601; port 0 takes a free one.")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(metavar="DIR", file_okay=False, help="The data directory; default ./tickwire-data."),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", exists=True, dir_okay=False, help="A TOML file of settings; flags go over it."
        ),
    ] = None,
    metrics: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help='Prometheus metrics; default 127.0.0.1:7602, "" serves none.'),
    ] = None,
    auth: Annotated[
        bool | None, typer.Option("--auth", help="Ask every caller for credentials; see docs/security.md.")
    ] = None,
    insecure: Annotated[
        bool | None, typer.Option("--insecure", help="Serve other machines without authentication.")
    ] = None,
    log_level: Annotated[LogLevel | None, typer.Option(case_sensitive=False, help="Default INFO.")] = None,
    log_json: Annotated[bool | None, typer.Option("--log-json", help="Log one JSON object a line.")] = None,
    wait_for_data: Annotated[
        float,
        typer.Option(
            metavar="SECONDS", min=0.0, help="How long to wait for another process to leave the data."
        ),
    ] = 0.0,
    until_stdin_closes: Annotated[
        bool,
        typer.Option(
            "--until-stdin-closes", help="Stop when standard input ends too: with whoever started this."
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Serve the worlds of a data directory until Ctrl-C or SIGTERM."""
    ensure_environment()
    # Nothing is garbage while everything is imported and the worlds are loaded; serving turns it on again.
    gc.disable()
    settings = _settings(
        config,
        app=app,
        listen=listen,
        data=data,
        metrics=metrics,
        auth=auth,
        insecure=insecure,
        log_level=log_level.value if log_level else None,
        log_json=log_json,
    )
    from tickwire_server import logging

    try:
        logging.configure(settings.log_level, json_lines=settings.log_json)
    except KeyError:
        raise typer.BadParameter(
            f"log_level {settings.log_level!r} is none of {', '.join(LogLevel)}"
        ) from None
    try:
        application = _apps.load(settings.app)
    except _apps.AppNotFoundError as error:
        raise typer.BadParameter(str(error)) from None
    except _apps.AppBrokenError as error:
        _stop(str(error), "Correct it, and serve again.")
    if until_stdin_closes:
        threading.Thread(target=_stop_at_end_of_stdin, name="stdin", daemon=True).start()
    _serve(settings, application, wait_for_data_s=wait_for_data, as_json=as_json)


def _settings(config: Path | None, **flags: object) -> ServerConfig:
    from tickwire_server.config import ServerConfig

    try:
        return ServerConfig.load(config, **flags)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        if first["type"] == "extra_forbidden":
            raise typer.BadParameter(
                f"there is no setting {name}; docs/configuration.md has them all"
            ) from None
        raise typer.BadParameter(f"setting {name}: {first['msg']} (it is {first['input']!r})") from None
    except ValueError as error:
        raise typer.BadParameter(f"cannot read {config}: {error}") from None


def _serve(settings: ServerConfig, application: App, *, wait_for_data_s: float, as_json: bool) -> None:
    from tickwire_engine.errors import DataDirectoryLockedError, TickwireError
    from tickwire_server.grpc.server import GrpcServer, serve_until_signalled

    def started(server: GrpcServer) -> None:
        if as_json:
            print_json(
                {
                    "serving": f"{settings.host}:{server.port}",
                    "app": application.name,
                    "data": str(settings.data.resolve()),
                    "pid": os.getpid(),
                }
            )

    deadline = time.monotonic() + wait_for_data_s
    while True:
        try:
            asyncio.run(serve_until_signalled(settings, application, started))
        except DataDirectoryLockedError as error:
            if time.monotonic() < deadline:
                time.sleep(_LOCK_RETRY_S)
                continue
            _stop(error.message, "")
        except TickwireError as error:
            _stop(error.message, "")
        except OSError as error:
            _stop(f"cannot serve {settings.data}: {error.strerror or error}", "")
        return


def _stop(message: str, hint: str) -> None:
    print_error(message, hint=hint)
    raise typer.Exit(1)


def _stop_at_end_of_stdin() -> None:
    # Not sys.stdin.read: its lock, held by this thread for ever, would stand in the way of the interpreter's end.
    while os.read(sys.stdin.fileno(), 65536):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
