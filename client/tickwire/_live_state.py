"""A world's state that keeps itself up to date: the blocking one. Iterate on one thread."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from tickwire._replica import Replica

if TYPE_CHECKING:
    from types import TracebackType

    from tickwire._tick import Tick
    from tickwire._tick_stream import TickStream


class LiveState(Replica):
    """A replica that follows its world; made by `World.state`.

    Iterating waits for the next tick, applies it, and answers what changed; `table`, `tables` and `entity` then show the
    state after it. Over broken connections it goes on with a snapshot of the very next tick.
    """

    def __init__(self, changes: TickStream) -> None:
        super().__init__()
        self._changes = changes

    @property
    def committed_tick(self) -> int:
        """The world's last durable tick, as far as the stream has heard."""
        return self._changes.committed_tick

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Tick:
        """Waits for the next tick and applies it; raises as `World.ticks` does."""
        tick = next(self._changes)
        self.apply(tick)
        return tick

    def close(self) -> None:
        """Ends the stream; the state stays as it is."""
        self._changes.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
