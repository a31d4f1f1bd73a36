"""What a server logs, and how: structured events on standard error, for people or as one JSON object a line.

`configure` is called once, at the start of a process; libraries never call it. Records of the standard library's
loggers (gRPC, asyncio) go the same way. A line that cannot be written, to a full disk or a closed pipe, is lost: nothing
else may fail of it.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
from typing import TYPE_CHECKING, TextIO, cast

import structlog

if TYPE_CHECKING:
    from structlog.typing import Processor

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")


def configure(level: str, *, json_lines: bool) -> None:
    """Send everything from `level` up to standard error.

    Args:
        level: One of `LEVELS`.
        json_lines: One JSON object a line rather than text for people.
    """
    threshold = logging.getLevelNamesMapping()[level.upper()]
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    out = cast("TextIO", _Lossy(sys.stderr))
    last: list[Processor]
    if json_lines:
        last = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    else:
        last = [
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(),
                # Without the values of variables: they are users' data, and pages long.
                exception_formatter=structlog.dev.plain_traceback,
            )
        ]
    structlog.configure(
        processors=[*shared, *last],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.WriteLoggerFactory(out),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    # Other people's libraries are chatty below WARNING.
    logging.basicConfig(level=max(threshold, logging.WARNING), handlers=[handler], force=True)


class _Lossy(io.TextIOBase):
    """A stream whose writes never fail, and that keeps nothing back which could fail later."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream
        try:
            self._descriptor: int | None = stream.fileno()
        except (OSError, ValueError):
            self._descriptor = None

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError, ValueError):
            if self._descriptor is None:
                self._stream.write(text)
            else:
                os.write(self._descriptor, text.encode(errors="backslashreplace"))
        return len(text)
