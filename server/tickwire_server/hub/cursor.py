"""Where one subscriber is. A cursor lives as long as its subscription, on the event loop."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tickwire_server.hub.view import LagPolicy, TickMode

if TYPE_CHECKING:
    from tickwire_engine.storage.rows import Stream
    from tickwire_server.hub._selecting import Selector
    from tickwire_server.hub.ticks import ShownTick
    from tickwire_server.hub.view import View


class Cursor:
    """The next tick that a subscriber wants, and what it has."""

    def __init__(
        self,
        view: View,
        selector: Selector,
        next_tick: int,
        last_tick: int,
        *,
        every: int = 1,
        lag: LagPolicy = LagPolicy.CATCH_UP,
        outcomes_of: str | None = None,
    ) -> None:
        self.view = view
        self.selector = selector
        self.next_tick = next_tick
        """The first tick that it has not heard of."""
        self.last_tick = last_tick
        """Inclusive; nothing after it is sent."""
        self.every = every
        self.lag = lag
        self.outcomes_of = outcomes_of
        """The actor whose commands' outcomes come with the ticks; "": everybody's; None: nobody's."""
        self.has_caught_up = False
        """Whether it was once at the newest ticks: only then can it fall behind."""
        self.base_tick: int | None = None
        """In CHANGES: the tick whose state it holds; None: nothing that the next tick could build on."""
        self.known_streams: frozenset[int] = frozenset()
        self._shown: frozenset[int] = frozenset()
        self._with_rows: dict[int, Stream] = {}

    @property
    def wanted(self) -> int:
        """The next tick to send, as long as it keeps up."""
        return -(-self.next_tick // self.every) * self.every

    def newest(self, committed: int) -> int:
        """Return the last tick up to `committed` that it may be sent."""
        return min(committed, self.last_tick) // self.every * self.every

    def is_over(self, committed: int) -> bool:
        """Whether all that it asked for was sent."""
        return self.wanted > self.last_tick and committed >= self.last_tick

    def emptied(self, shown: ShownTick) -> tuple[Stream, ...]:
        """Return the streams that have rows no more, which it must be told once."""
        if self.view.mode is TickMode.CHANGES or self._shown <= shown.streams:
            return ()
        return tuple(
            stream for number, stream in sorted(self._with_rows.items()) if number not in shown.streams
        )

    def sent(self, tick: int, shown: ShownTick) -> None:
        """Move on past a tick, which was sent."""
        self.next_tick = tick + 1
        if not shown.streams <= self.known_streams:
            self.known_streams |= shown.streams
        if self.view.mode is TickMode.CHANGES:
            self.base_tick = tick
        elif self._shown != shown.streams:
            self._shown = shown.streams
            self._with_rows = {stream.number: stream for stream, _ in shown.frames}
