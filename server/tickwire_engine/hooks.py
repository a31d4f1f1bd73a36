"""Hooks: functions that a world calls around its ticks.

``pre_tick`` fires before the drain, so what it issues is applied in the same tick. The others fire in order once
their tick is durable. A hook that fails is logged and counted, and stops nothing.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, Literal, get_args

import structlog

from tickwire_engine.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Callable

HookEvent = Literal["pre_tick", "post_tick", "on_spawn", "on_despawn"]
_log = structlog.get_logger(__name__)


class Hooks:
    """The hooks of one world, in the order they were added; used on the world's event loop."""

    def __init__(self) -> None:
        self._hooks: dict[str, list[Callable[..., Any]]] = {event: [] for event in get_args(HookEvent)}
        self.failures = 0
        """Hook calls that raised, since the world was opened."""

    def add(self, event: HookEvent, fn: Callable[..., Any]) -> None:
        """Call `fn` with the event's keywords from now on."""
        self._of(event).append(fn)

    def remove(self, event: HookEvent, fn: Callable[..., Any]) -> None:
        """Stop calling `fn`; one that was never added is no error."""
        listeners = self._of(event)
        if fn in listeners:
            listeners.remove(fn)

    def has(self, event: HookEvent) -> bool:
        """Tell whether anybody listens, so that nobody prepares keywords in vain."""
        return bool(self._hooks[event])

    async def fire(self, event: HookEvent, **keywords: Any) -> None:
        """Call every hook of `event` with `keywords`, one after another."""
        for fn in tuple(self._hooks[event]):
            try:
                result = fn(**keywords)
                if inspect.isawaitable(result):
                    await result
            except Exception:
                self.failures += 1
                _log.exception("hook failed", hook_event=event, hook=getattr(fn, "__qualname__", repr(fn)))

    def _of(self, event: str) -> list[Callable[..., Any]]:
        if event not in self._hooks:
            raise InvalidRequestError(f"no hook event {event!r}; there are {', '.join(self._hooks)}")
        return self._hooks[event]
