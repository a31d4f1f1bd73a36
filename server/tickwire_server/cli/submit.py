"""`tickwire submit`: commands out of a file, one a line, in the contract's JSON form."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import IO, Annotated, NamedTuple

import typer
from google.protobuf.json_format import Parse, ParseError

from tickwire import Command, CommandState, Receipt, TickwireError, World, new_id
from tickwire_server.cli._client import connected
from tickwire_server.cli._options import (
    DEFAULT_SERVER,
    AsJson,
    MaxWait,
    Server,
    Wait,
    WaitName,
    WorldRef,
)
from tickwire_server.cli._output import plain, print_error, print_json

_FIELD = re.compile(r"commands\[(\d+)\]\.?(.*)")
_AT_ONCE = 1_000
"""Commands in one request: each is all or nothing."""
_BYTES_AT_ONCE = 4 << 20
"""Of commands in one request: servers take some more."""


class Line(NamedTuple):
    """A command, and where it stands in its file, from 1."""

    number: int
    command: Command


def submit(
    world: WorldRef,
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE",
            help="""Lines like {"spawn": {"components": {"Position": {"x": 1}}}}; - reads standard input.""",
        ),
    ],
    partial: Annotated[
        bool, typer.Option("--partial", help="Queue what can be queued, even where other lines are refused.")
    ] = False,
    wait: Wait = WaitName.ACCEPTED,
    max_wait: MaxWait = 30.0,
    server: Server = DEFAULT_SERVER,
    as_json: AsJson = False,
) -> None:
    """Queue the commands of a file, one JSON object a line, in its order.

    A file is read whole before anything is sent, so a line that is no command sends nothing. Commands with an "id" may be
    submitted again after an interruption: each is applied once.
    """
    counts = _Counts()
    with _opened(file) as opened, connected(server, as_json=as_json) as client:
        handle = client.world(world)
        for lines in _batches(_checked(opened), counts):
            receipts = _send(handle, lines, wait, max_wait, partial=partial, so_far=counts.accepted)
            for line, receipt in zip(lines, receipts, strict=True):
                counts.add(receipt)
                _tell(line, receipt, as_json=as_json)
    if not as_json:
        typer.echo(counts.sentence())
    if counts.refused or counts.rejected:
        raise typer.Exit(1)


class _Counts:
    """How many of the lines came how far."""

    def __init__(self) -> None:
        self.accepted = self.duplicates = self.refused = self.applied = self.rejected = 0

    def add(self, receipt: Receipt) -> None:
        """Count a line."""
        if receipt.error is not None:
            self.refused += 1
            return
        self.accepted += 1
        self.duplicates += receipt.duplicate
        if receipt.outcome is not None:
            self.applied += receipt.outcome.state is CommandState.APPLIED
            self.rejected += receipt.outcome.state is CommandState.REJECTED

    def sentence(self) -> str:
        """Say it."""
        known = {
            "known already": self.duplicates,
            "applied": self.applied,
            "rejected": self.rejected,
            "refused": self.refused,
        }
        more = "".join(f", {count} {what}" for what, count in known.items() if count)
        return f"{self.accepted} command{'' if self.accepted == 1 else 's'} queued{more}"


def _opened(file: str) -> AbstractContextManager[IO[bytes]]:
    if file == "-":
        return nullcontext(sys.stdin.buffer)
    try:
        return Path(file).open("rb")
    except OSError as error:
        raise typer.BadParameter(f"cannot read {file}: {error.strerror or error}") from None


def _batches(lines: Iterator[Line], counts: _Counts) -> Iterator[list[Line]]:
    batch: list[Line] = []
    size = 0
    try:
        for line in lines:
            nbytes = line.command.ByteSize()
            if batch and (len(batch) == _AT_ONCE or size + nbytes > _BYTES_AT_ONCE):
                yield batch
                batch, size = [], 0
            batch.append(line)
            size += nbytes
        if batch:
            yield batch
    except typer.BadParameter as error:
        if counts.accepted:
            error.message += f" ({counts.accepted} commands of earlier lines are queued)"
        raise


def _checked(opened: IO[bytes]) -> Iterator[Line]:
    if not opened.seekable() or opened is sys.stdin.buffer:
        # Whoever writes to a pipe may wait for answers.
        return _lines(opened)
    for _ in _lines(opened):
        pass
    opened.seek(0)
    return _lines(opened)


def _lines(opened: IO[bytes]) -> Iterator[Line]:
    for number, text in enumerate(opened, 1):
        if text.strip():
            yield Line(number, _command(text, number))


def _command(text: bytes, number: int) -> Command:
    try:
        command = Parse(text.decode(), Command())
    except (ParseError, UnicodeDecodeError, RecursionError) as error:
        raise typer.BadParameter(f"line {number} is no command: {_why(text, error)}") from None
    if command.WhichOneof("payload") is None:
        raise typer.BadParameter(
            f"""line {number} asks for nothing: give one of "spawn", "update", "despawn", ..."""
        )
    # What the server set in commands that it listed: it sets them anew.
    command.ClearField("actor_id")
    command.ClearField("seq")
    if not command.id:
        # Made once, so that every try of the request carries the same.
        command.id = new_id()
    return command


def _why(text: bytes, error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        return f"byte {error.start + 1} is no UTF-8"
    try:
        json.loads(text)
    except ValueError as malformed:
        return f"no JSON: {malformed}"
    except RecursionError:
        return "nested too deep"
    return str(error)


def _send(
    world: World,
    lines: Sequence[Line],
    wait: WaitName,
    max_wait_s: float,
    *,
    partial: bool,
    so_far: int,
) -> list[Receipt]:
    try:
        return world.submit(
            [line.command for line in lines], allow_partial=partial, wait=wait.value, max_wait_s=max_wait_s
        )
    except TickwireError as error:
        error.message = f"{_place(error, lines)}{error.message}"
        if so_far:
            error.message += f" ({so_far} commands before line {lines[0].number} are queued)"
        raise


def _place(error: TickwireError, lines: Sequence[Line]) -> str:
    """Say which line an error is about: `commands[3].spawn` is in the fourth."""
    for violation in error.violations:
        found = _FIELD.fullmatch(violation.field)
        if found is not None and int(found[1]) < len(lines):
            field = found[2]
            named = f"{field}: " if field and field not in error.message else ""
            return f"line {lines[int(found[1])].number}: {named}"
    return ""


def _tell(line: Line, receipt: Receipt, *, as_json: bool) -> None:
    if as_json:
        print_json({"line": line.number, **plain(receipt)})
        return
    error = receipt.error or (receipt.outcome.error if receipt.outcome is not None else None)
    if error is not None:
        print_error(f"line {line.number}: {error.message}")
