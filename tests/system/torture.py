"""How long, and with which seeds: the same few in every run of the tests, as many new ones as there is time for."""

from __future__ import annotations

import os
import random
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

SECONDS = "TICKWIRE_TORTURE_S"
SEED = "TICKWIRE_TORTURE_SEED"


def seeds(count: int, *, share: float = 1.0) -> Iterator[int]:
    """Yield the first `count` seeds, so that a green run stays green; or new ones for a share of the time that is given.

    Those are printed. The first is that of the environment, where it names one: a failure is repeated by it.
    """
    if SECONDS not in os.environ:
        yield from range(count)
        return
    given = os.environ.get(SEED)
    until = time.monotonic() + share * float(os.environ[SECONDS])
    made = 0
    while made < count or time.monotonic() < until:
        seed = int(given) if given and not made else random.SystemRandom().randrange(1 << 32)
        print(f"seed {seed} (repeat with {SEED}={seed})", flush=True)
        yield seed
        made += 1
