"""The command line, `tickwire`: one file per noun, a Python client behind all but `serve` and `demo`.

Every command prints for people by default and JSON with `--json`: one document, or one a line where there is a stream.
Results go to standard output, everything else to standard error. Exit codes: 0, 1 for a failure, 2 for wrong usage.
"""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line of this process; ends it with the exit code."""
    # Imported here, so that Ctrl-C while it is read in ends the process as it does later.
    try:
        from tickwire_server.cli._main import main as run

        run()
    except KeyboardInterrupt:
        sys.exit("interrupted")
