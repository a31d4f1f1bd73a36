"""`python -m bench`: run the cases and print their figures."""

from __future__ import annotations

import argparse
import asyncio
import logging
from typing import TYPE_CHECKING

import structlog

from bench import archiving, floods, futures, history, in_process, large, streams, submits
from bench.report import show

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.report import Figure

CASES = {
    "ticks": in_process.ticks,
    "flatness": in_process.flatness,
    "spawns": in_process.spawns,
    "archiving": archiving.archiving,
    "submits": submits.submits,
    "batches": submits.batches,
    "floods": floods.floods,
    "runs": streams.runs,
    "full_state": streams.full_state,
    "catching_up": streams.catching_up,
    "latency": streams.latency,
    "idle": streams.idle,
    "large": large.large,
    "histories": history.histories,
    "forks": futures.forks,
    "rollouts": futures.rollouts,
}


async def _measure(names: list[str], *, quick: bool) -> list[Figure]:
    return [entry for name in names async for entry in CASES[name](quick=quick)]


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line, or `arguments` in its place, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="Tickwire's own figures.")
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"default all: {', '.join(CASES)}")
    parser.add_argument("--quick", action="store_true", help="smaller sizes: a minute instead of several")
    parser.add_argument("--json", action="store_true", help="print JSON")
    given = parser.parse_args(arguments)
    if unknown := [name for name in given.cases if name not in CASES]:
        parser.error(f"there is no case {unknown[0]!r}; there are {', '.join(CASES)}")
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    show(asyncio.run(_measure(given.cases or list(CASES), quick=given.quick)), as_json=given.json)


if __name__ == "__main__":
    main()
