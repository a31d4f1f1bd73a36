"""Reads damaged tables in a process of its own: `python -m tests.hostile.read_tables SEED COUNT FILE`.

FILE holds the table in hand, for whoever finds this process dead. Prints what became of them, as JSON.
"""

from __future__ import annotations

import json
import random
import resource
import sys
from collections import Counter
from pathlib import Path

from tests.engine.parts import setup
from tests.hostile.tables import damaged, good_streams
from tickwire_engine import TickwireError
from tickwire_engine.commands.rows import spawn_batch, update_batch


def main(seed: int, count: int, file: Path) -> None:
    """Read `count` damaged tables."""
    catalog = setup().vocabulary.components
    wholes = good_streams("place__x", "tag__text", "tag__note")
    rng = random.Random(seed)
    answers: Counter[str] = Counter()
    with file.open("wb", buffering=0) as hand:
        for _ in range(count):
            data = damaged(rng, rng.choice(wholes))
            hand.seek(0)
            hand.truncate()
            hand.write(data)
            read = rng.choice((spawn_batch, update_batch))
            try:
                rows = read(data, catalog, path="t")[1]
            except TickwireError as error:
                answers[error.reason if error.field.startswith("t") else "without a field"] += 1
            else:
                rows.validate(full=True)
                answers["read"] += 1
    print(json.dumps({"peak_mb": peak_mb(), **answers}))


def peak_mb() -> int:
    """Return the most memory that this program held, in MiB.

    Linux hands what its parent held down to ``ru_maxrss``: of a large one it would tell nothing else.
    """
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    (peak,) = [line for line in status.read_text().splitlines() if line.startswith("VmHWM:")]
    return int(peak.split()[1]) >> 10


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
