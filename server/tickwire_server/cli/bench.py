"""`tickwire bench`: the benchmarks of the source tree, `python -m bench` by another name."""

from __future__ import annotations

import importlib
from typing import Annotated

import typer

from tickwire_server.cli._options import AsJson
from tickwire_server.cli._tree import require


def bench(
    cases: Annotated[
        list[str] | None,
        typer.Argument(metavar="CASE...", help="Which ones; default: all. A name that is none lists them."),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Smaller sizes: a minute instead of several.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Measure this machine: ticks, submits, streams, queries, forks; servers of its own, temporary data."""
    require(
        "the benchmark",
        {
            "bench.report": "It is in Tickwire's source tree: run `tickwire bench` from its root.",
            "polars": "It compares with it: install what development needs, by `make setup`.",
        },
    )
    # By its name: what is installed does not depend on what the source tree has beside it.
    importlib.import_module("bench.__main__").main(
        [*(cases or []), *(["--quick"] if quick else []), *(["--json"] if as_json else [])]
    )
