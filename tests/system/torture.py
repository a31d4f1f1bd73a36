"""How long, and with which seed: a few tries in every run of the tests, as many as there is time for by `make torture`."""

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
    """Yield `count` seeds, or as many as fit into a share of the time that is given; each is printed.

    The first is that of the environment, where it names one: a failure is repeated by it.
    """
    given = os.environ.get(SEED)
    until = time.monotonic() + share * float(os.environ.get(SECONDS, "0"))
    made = 0
    while made < count or time.monotonic() < until:
        seed = int(given) if given and not made else random.SystemRandom().randrange(1 << 32)
        print(f"seed {seed} (repeat with {SEED}={seed})", flush=True)
        yield seed
        made += 1


def same_seeds(count: int, *, share: float = 1.0) -> Iterator[int]:
    """As `seeds`; but without time given they are the same in every run, so that a green run stays green."""
    if SECONDS in os.environ:
        yield from seeds(count, share=share)
    else:
        yield from range(count)
