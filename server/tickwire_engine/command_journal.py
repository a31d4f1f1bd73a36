"""Where a world's accepted commands go on their way to the disk, and where those of long ago are looked up.

Requests that come while others are being written wait, and then go as one write: what a write costs by itself (a journal
request, a transaction's statements, two changes of thread) is paid once for all of them. Used on the world's event loop.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NamedTuple

from tickwire_engine.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tickwire_engine.storage._reads import FoundCommand
    from tickwire_engine.storage.rows import CommandRow, Outcome
    from tickwire_engine.storage.store import Store


class _Request(NamedTuple):
    rows: Sequence[CommandRow]
    decided: Callable[[BaseException | None], None]


class CommandJournal:
    """Makes a world's commands durable; before the world itself is, they are staged to be written with it."""

    def __init__(self, store: Store, world_key: int = 0) -> None:
        self._store = store
        self.world_key = world_key
        """0: the world is not in the journal yet."""
        self.staged: list[CommandRow] = []
        self._waiting: list[_Request] = []
        self._writing = False

    def accept(self, rows: Sequence[CommandRow], decided: Callable[[BaseException | None], None]) -> None:
        """Write one request's commands, all of them or none.

        Args:
            rows: In the order of their seqs, after those of every request before.
            decided: Called on the loop, in the order of the requests, once they are durable or staged; with the
                error, once they will never be.
        """
        if not self.world_key:
            self.staged.extend(rows)
            decided(None)
            return
        self._waiting.append(_Request(rows, decided))
        if not self._writing:
            # What else this turn of the loop brings goes along.
            self._writing = True
            asyncio.get_running_loop().call_soon(self._write_waiting)

    def cancel(self, seq: int) -> asyncio.Future[Outcome]:
        """Withdraw a command for good."""
        if not self.world_key:
            raise InvalidRequestError("nothing is cancelled in a world that is still being made")
        return self._store.cancel(self.world_key, seq)

    def now_us(self) -> int:
        """Return the time that commands are dated by."""
        return self._store.now_us()

    @property
    def id_floor_ms(self) -> int:
        """The time below which unknown ids are refused; 0: none are."""
        return self._store.id_floor_ms(self.world_key)

    def find(self, ids: Sequence[bytes]) -> dict[bytes, FoundCommand]:
        """Look up commands that are no longer in memory."""
        return self._store.find_commands(self.world_key, ids) if self.world_key else {}

    def greatest_archived_id(self) -> bytes:
        """Return the greatest id among the commands that were archived; empty if there are none."""
        return self._store.greatest_archived_id(self.world_key) if self.world_key else b""

    def _write_waiting(self) -> None:
        requests, self._waiting = self._waiting, []
        self._writing = bool(requests)
        if requests:
            self._write(requests, self._written)

    def _write(
        self, requests: list[_Request], then: Callable[[list[_Request], BaseException | None], None]
    ) -> None:
        (rows, _), *more = requests
        if more:
            rows = [row for request in requests for row in request.rows]
        try:
            written = self._store.accept(self.world_key, rows)
        except Exception as error:
            then(requests, error)
            return
        written.add_done_callback(lambda done: then(requests, done.exception()))

    def _written(self, requests: list[_Request], error: BaseException | None) -> None:
        if error is not None and len(requests) > 1:
            # Nothing was written. One of them may be at fault, and by itself it takes nobody along.
            for request in requests[:-1]:
                self._write([request], _tell)
            self._write(requests[-1:], self._written)
            return
        try:
            _tell(requests, error)
        finally:
            self._write_waiting()


def _tell(requests: list[_Request], error: BaseException | None) -> None:
    for request in requests:
        request.decided(error)
