"""`python -m bench.peers`: others and ours in turn, and their ratios. What is not installed is skipped, and said so.

Everything of ours is durable as it is by default; Redis and NATS sync every write; what archetype-ecs makes durable is its
own choice.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from bench.report import Figure, figure, show

HERE = Path(__file__).parent
SIZES = {1: 60, 1_000: 60, 10_000: 40, 100_000: 12}
ROUNDS = 3
BATCHES, BATCH = 20, 1_000
HTTP_BATCHES = 4
"""For archetype-ecs, which takes longer for each: more of them would say less for it."""


def main() -> None:
    """Run what is there, interleaved, and print medians."""
    parser = argparse.ArgumentParser(prog="python -m bench.peers", description=__doc__)
    parser.add_argument("--archetype", default="", help="an interpreter that has archetype-ecs")
    parser.add_argument("--brokers", default="", help="an interpreter that has redis and nats-py")
    parser.add_argument("--json", action="store_true", help="print JSON")
    given = parser.parse_args()
    figures: list[Figure] = []
    commands: dict[str, list[str]] = {}
    if _found(given.archetype, "archetype-ecs: it needs python3.12"):
        for size, steps in SIZES.items():
            figures += _ticks(given.archetype, size, steps)
        http = [given.archetype, str(HERE / "archetype_http.py"), str(HTTP_BATCHES), str(BATCH)]
        commands["archetype-ecs over HTTP"] = http
    if _found(given.brokers, "Redis Streams and NATS JetStream: their clients are not installed"):
        commands |= _brokers(given.brokers)
    if commands:
        figures += _batches(commands)
    show(figures, as_json=given.json)


def _found(program: str, what: str) -> bool:
    there = bool(program) and shutil.which(program) is not None
    if not there:
        print(f"SKIPPED {what}", file=sys.stderr)
    return there


def _ticks(python: str, size: int, steps: int) -> list[Figure]:
    peer, ours = [], []
    for _ in range(ROUNDS):
        peer.append(_run([python, str(HERE / "archetype_ecs.py"), str(size), str(steps)]))
        ours.append(_run([sys.executable, "-m", "bench.peers.tickwire_engine", str(size), str(steps)]))
    figures = []
    for key, what in (("step_ms", "awaited step"), ("run_ms", "tick of a run")):
        theirs, mine = ([_median(run[key]) for run in runs] for runs in (peer, ours))
        ratio = f"{statistics.median(theirs) / statistics.median(mine):.1f}x"
        figures.append(figure("archetype-ecs", f"{what} @{size:,}: archetype-ecs", theirs, "ms"))
        figures.append(figure("archetype-ecs", f"{what} @{size:,}: Tickwire", mine, "ms", ratio))
    return figures


def _brokers(python: str) -> dict[str, list[str]]:
    brokers = {
        "Redis Streams, appendfsync always": ("redis-server", "redis_streams.py"),
        "NATS JetStream, sync_interval: always": ("nats-server", "nats_jetstream.py"),
    }
    there = {}
    for name, (server, script) in brokers.items():
        path = os.pathsep.join((str(Path(python).parent.absolute()), os.environ.get("PATH", "")))
        program = shutil.which(server, path=path)
        if _found(program or "", f"{name}: there is no {server}"):
            there[name] = [python, str(HERE / script), program or "", str(BATCHES), str(BATCH)]
    return there


def _batches(commands: dict[str, list[str]]) -> list[Figure]:
    rates: dict[str, list[float]] = {name: [] for name in commands}
    ours = []
    for _ in range(ROUNDS):
        for name, command in commands.items():
            rates[name].append(_run(command)["per_s"])
        measured = subprocess.run(
            [sys.executable, "-m", "bench", "batches", "--quick", "--json"],
            check=True,
            capture_output=True,
            text=True,
        )
        ours.append(json.loads(measured.stdout)[0]["value"])
    what = f"durable commands, {BATCH:,} a batch"
    figures = [figure("batches", f"{what}: {name}", found, "commands/s") for name, found in rates.items()]
    ratios = [f"{statistics.median(ours) / entry.value:.1f}x" for entry in figures]
    return [*figures, figure("batches", f"{what}: Tickwire", ours, "commands/s", " and ".join(ratios))]


def _median(samples: list[float] | float) -> float:
    return statistics.median(samples) if isinstance(samples, list) else samples


def _run(command: list[str]) -> Any:
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.strip().splitlines()[-1])


if __name__ == "__main__":
    main()
