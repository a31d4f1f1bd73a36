"""Open streams, and their end when the credentials that opened them are no longer good.

A call is judged when it begins; a stream lasts. So whoever opened one is asked for again every few seconds, and at once when
a token is revoked. Used on the event loop.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tickwire_engine.errors import TokenInvalidError, UnauthenticatedError

if TYPE_CHECKING:
    import asyncio

    from tickwire_server.auth.access import Access
    from tickwire_server.auth.identity import Credentials


class Session:
    """One open stream.

    Attributes:
        ended: Why it was ended, or None.
    """

    __slots__ = ("credentials", "ended", "rpc", "task")

    def __init__(self, rpc: str, credentials: Credentials, task: asyncio.Task[object]) -> None:
        self.rpc = rpc
        self.credentials = credentials
        self.task = task
        self.ended: UnauthenticatedError | None = None

    def end(self, error: UnauthenticatedError) -> None:
        """Interrupt the stream wherever it waits: for the next message, or for a slow reader."""
        if self.ended is None:
            self.ended = error
            self.task.cancel()


class Sessions:
    """The streams that are open now."""

    def __init__(self) -> None:
        self._open: set[Session] = set()

    def __len__(self) -> int:
        return len(self._open)

    def add(self, session: Session) -> None:
        """Watch a stream."""
        self._open.add(session)

    def remove(self, session: Session) -> None:
        """Watch it no longer."""
        self._open.discard(session)

    def check(self, access: Access) -> None:
        """End the streams whose credentials are refused by now, or no longer good for them."""
        for session in list(self._open):
            try:
                actor = access.actor(session.credentials)
            except UnauthenticatedError as error:
                session.end(error)
                continue
            if not access.permits(actor, session.rpc):
                session.end(TokenInvalidError(f"your token is no longer good for {session.rpc}"))
