"""A world's state that keeps itself up to date: the asyncio one. Iterate in one task, on the loop of its client."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from tickwire._replica import Replica

if TYPE_CHECKING:
    from types import TracebackType

    from tickwire._aio_tick_stream import AsyncTickStream
    from tickwire._tick import Tick


class AsyncLiveState(Replica):
    """A replica that follows its world, as `LiveState`; made by `AsyncWorld.state`."""

    def __init__(self, changes: AsyncTickStream) -> None:
        super().__init__()
        self._changes = changes

    @property
    def committed_tick(self) -> int:
        """The world's last durable tick, as far as the stream has heard."""
        return self._changes.committed_tick

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Tick:
        """Waits for the next tick and applies it; raises as `AsyncWorld.ticks` does."""
        tick = await anext(self._changes)
        self.apply(tick)
        return tick

    async def aclose(self) -> None:
        """Ends the stream; the state stays as it is."""
        await self._changes.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()
