"""Run the Python of a page as one session, and hold what it prints to what the page says: ``run_page.py PAGE``.

A line's trailing comment is what it prints; comments that fill a line, after a block's last statement, are lines that it
prints by itself. Runs in a process of its own: components are unique by name in one.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import inspect
import io
import re
import sys
from pathlib import Path
from typing import Any

import structlog

_BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
_SAID = re.compile(r"^(?:\s*print\(.*\)\s\s# |\s*# )(.*)$")


async def run(text: str) -> int:
    """Run all blocks; returns how many lines they printed as the page says."""
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    names: dict[str, Any] = {"__name__": "__page__"}
    lines = 0
    for match in _BLOCK.finditer(text):
        source = match[1]
        said = [found[1] for line in source.splitlines() if (found := _SAID.match(line))]
        printed = io.StringIO()
        start = text.count("\n", 0, match.start(1))
        tree = ast.increment_lineno(ast.parse(source), start)
        with contextlib.redirect_stdout(printed):
            code = compile(tree, sys.argv[1], "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            running = eval(code, names)  # the pages are our own
            if inspect.isawaitable(running):
                await running
        found = [line for line in printed.getvalue().splitlines() if line]
        if said and found != said:
            raise AssertionError(f"the block at line {start} printed\n{found}\nthe page says\n{said}")
        lines += len(said)
    return lines


if __name__ == "__main__":
    print(asyncio.run(run(Path(sys.argv[1]).read_text())), "lines as the page says")
