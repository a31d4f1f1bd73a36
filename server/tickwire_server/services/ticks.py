"""The tick side of a world's history in small facts: summaries, page by page."""

from __future__ import annotations

import asyncio
from itertools import islice
from typing import TYPE_CHECKING

from tickwire_engine.archetype import MAX_ID
from tickwire_engine.errors import InvalidRequestError
from tickwire_server.services.paging import page_position, page_size_of, page_token

if TYPE_CHECKING:
    from tickwire_engine import AsyncWorld
    from tickwire_engine.storage.rows import TickSummary


async def tick_page(
    world: AsyncWorld, first: int | None, last: int | None, *, size: int, token: str
) -> tuple[list[TickSummary], str]:
    """Return a page of the summaries of kept ticks, ascending, and the next page's token.

    Args:
        first: The first tick; None: the earliest kept.
        last: The last tick, included; None: the last committed when the page is read.
        size: At most so many; 0: 100.
        token: Of the page before.

    Raises:
        InvalidRequestError: A tick or the size is negative.
        InvalidPageTokenError: The token belongs to another range.
    """
    for name, tick in (("from_tick", first), ("to_tick", last)):
        if tick is not None and not 0 <= tick <= MAX_ID:
            raise InvalidRequestError(f"{name} must lie in [0, 2^53)", field=name)
    count = page_size_of(size)
    conditions = (world.row.key, first, last)
    start = page_position(token, conditions) or first or 0
    end = world.state.tick - 1 if last is None else min(last, world.state.tick - 1)

    def read() -> list[TickSummary]:
        history, key = world.history, world.row.key
        begin = max(start, history.earliest_tick(key))
        return [*islice(history.summaries(key, begin, end), count + 1)]

    found = await asyncio.to_thread(read)
    if len(found) <= count:
        return found, ""
    return found[:count], page_token(found[count].tick, conditions)
