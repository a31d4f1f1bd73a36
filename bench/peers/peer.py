"""What the scripts that serve a peer share; it needs nothing but Python, as each is run by an interpreter of its own."""

from __future__ import annotations

import asyncio
import json
import subprocess
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence

IN_FLIGHT = 4
"""Batches on their way at once."""


def measure(server: Sequence[str], per_s: Coroutine[Any, Any, float], **how: Any) -> None:
    """Run a server for as long as it is measured, and print commands a second as JSON.

    Args:
        server: The program and its arguments.
        per_s: Waits until the server is there, and measures it.
        how: Passed to `subprocess.Popen`.
    """
    process = subprocess.Popen(server, **how)
    try:
        print(json.dumps({"per_s": asyncio.run(per_s)}))
    finally:
        process.terminate()
        process.wait()
