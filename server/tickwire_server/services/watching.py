"""WatchWorld: a world whenever it changed, not too often. On the event loop."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from tickwire_engine.errors import ShuttingDownError
from tickwire_server.services.simulation import RunState

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from tickwire_engine import AsyncWorld
    from tickwire_server.hub import TickHub
    from tickwire_server.services.worlds import WorldView

LEAST_INTERVAL_S = 0.25
"""Between two views, unless the world's state changed."""
_LOOK_AGAIN_S = 1.0
"""Labels, pending commands and the archive change without waking anybody."""


async def watch_world(
    world: AsyncWorld, hub: TickHub, view: Callable[[AsyncWorld], WorldView], stopping: asyncio.Event
) -> AsyncIterator[WorldView]:
    """Yield the world at once, then as it changes; its end is the last.

    Raises:
        ShuttingDownError: The server stops.
    """
    loop = asyncio.get_running_loop()
    told: WorldView | None = None
    told_at = 0.0
    while True:
        if stopping.is_set():
            raise ShuttingDownError("the server is stopping: watch again once it is back")
        seen = view(world)
        news = told is None or (seen.state, seen.fault) != (told.state, told.fault)
        waited_s = loop.time() - told_at
        if news or (seen != told and waited_s >= LEAST_INTERVAL_S):
            told, told_at = seen, loop.time()
            yield seen
            if seen.state is RunState.DESTROYED:
                return
            continue
        if seen == told:
            await hub.wait(seen.tick, _LOOK_AGAIN_S)
        else:
            # Something is to be told, and only a change of state may hurry it.
            await hub.wait_for_news(LEAST_INTERVAL_S - waited_s)
