"""The audit trail: who called what, when, and how it ended. Written off the calls' way, in batches.

Commands are not repeated here: the command history has each with its actor and its outcome. The same event again within
some seconds is one event: whoever steps a world in a loop, or hammers the door with a bad token, does not push the rest
out. What a call carried is never written down, names and ids apart.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from tickwire_engine.storage.rows import AuditRow

if TYPE_CHECKING:
    from collections.abc import Callable

    from tickwire_engine.storage._identity import IdentityStore

SAME_WITHIN_S = 10.0
_MAX_WAITING = 50_000
_MAX_TEXT = 256
_DAY_US = 86_400_000_000


class AuditLog:
    """Lives on the event loop; `flush` is called every second or so, and once more at the end.

    Attributes:
        dropped: Events that were not written, because more came than could be.
    """

    def __init__(
        self, store: IdentityStore, *, keep: int, days: float, clock: Callable[[], float] = time.time
    ) -> None:
        self.dropped = 0
        self._store = store
        self._keep = keep
        self._days = days
        self._clock = clock
        self._waiting: list[AuditRow] = []
        self._writing: asyncio.Lock = asyncio.Lock()
        self._seen: dict[tuple[object, ...], float] = {}

    def record(
        self,
        *,
        actor: str,
        subject: str,
        method: str,
        world: str,
        world_name: str,
        resource: str,
        code: int,
        reason: str,
        peer: str,
    ) -> None:
        """Note an event; it is durable within a second or so."""
        now = self._clock()
        # Ports change from one connection to the next.
        host = peer.rpartition(":")[0] or peer
        same = (actor, method, world, resource, code, reason, host)
        if now - self._seen.get(same, 0.0) < SAME_WITHIN_S:
            return
        if len(self._waiting) >= _MAX_WAITING:
            self.dropped += 1
            return
        self._seen[same] = now
        row = AuditRow(
            int(now * 1e6), actor, subject, method, world, world_name, resource, code, reason, peer
        )
        self._waiting.append(
            replace(row, subject=subject[:_MAX_TEXT], world=world[:_MAX_TEXT], resource=resource[:_MAX_TEXT])
        )

    async def flush(self) -> None:
        """Make everything noted so far durable."""
        async with self._writing:
            events, self._waiting = self._waiting, []
            now = self._clock()
            if len(self._seen) > _MAX_WAITING or not events:
                self._seen = {same: at for same, at in self._seen.items() if now - at < SAME_WITHIN_S}
            if events:
                since_us = int(now * 1e6 - self._days * _DAY_US)
                await asyncio.shield(self._store.append_audit(events, keep=self._keep, since_us=since_us))

    async def events(
        self, *, actor: str = "", world: str = "", from_us: int = 0, before: int = 0, limit: int
    ) -> list[AuditRow]:
        """Return events, the newest first, those just noted included; see `IdentityStore.audit`."""
        await self.flush()
        return await asyncio.to_thread(
            self._store.audit, actor=actor, world=world, from_us=from_us, before=before, limit=limit
        )
