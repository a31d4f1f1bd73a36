"""TickRandom: randomness that replays.

Seeded from (world seed, tick, processor, archetype): the same journal draws the same numbers, in whatever order archetypes
run, and no two calls share a stream.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tickwire_engine.errors import InvalidRequestError
from tickwire_engine.tick.context import current_call

if TYPE_CHECKING:
    import numpy as np


class TickRandom:
    """A resource of every world: ``resources.require(TickRandom).generator()``."""

    def generator(self) -> np.random.Generator:
        """Return the generator of the call that asks (PCG64); asked again, it goes on where it was.

        Raises:
            InvalidRequestError: No processor is running: outside a tick nothing would be replayed.
        """
        call = current_call.get()
        if call is None:
            raise InvalidRequestError("TickRandom is for processors, inside a tick")
        return call.random()
