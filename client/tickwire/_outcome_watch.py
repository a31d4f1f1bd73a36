"""The life of a stream of outcomes over any number of connections: what to ask, what has come, when to resume.

Pure: a stream (`_outcome_stream`, `_aio_outcome_stream`) asks it what to do, and does the waiting. It promises that
outcomes come in order and once, whatever happens to connections.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc

from tickwire._errors import ProtocolError, TickwireError, UnavailableError
from tickwire._models import Outcome
from tickwire._retry import Attempts, RetryPolicy, is_disconnect
from tickwire.v1 import command_service_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Iterable

_AFTER = "tickwire-after-outcome-seq"


class OutcomeWatch:
    """Where a stream of outcomes is. Lives as long as the stream; one caller at a time.

    Attributes:
        after: the outcome_seq of the last outcome that came, or of the one before the first; None: the server has not
            said yet where the stream begins.
    """

    def __init__(self, world: str, *, after: int | None, actor_id: str, policy: RetryPolicy) -> None:
        self.after = after
        self._world = world
        self._actor_id = actor_id
        self._attempts = Attempts(policy)

    def connect(self) -> pb.WatchOutcomesRequest:
        """Begins a connection, after the last outcome that came."""
        return pb.WatchOutcomesRequest(
            world=self._world, after_outcome_seq=self.after, actor_id=self._actor_id
        )

    def began(self, metadata: Iterable[tuple[str, str | bytes]]) -> None:
        """Takes the initial metadata of a connection."""
        for key, value in metadata:
            if key == _AFTER:
                self._attempts.succeeded()
                if self.after is None:
                    self.after = int(value)

    def receive(self, message: pb.WatchOutcomesResponse) -> Outcome:
        """Takes an outcome."""
        outcome = Outcome.from_message(message.outcome)
        if self.after is not None and outcome.outcome_seq <= self.after:
            raise ProtocolError(f"outcome {outcome.outcome_seq} came after {self.after}")
        self.after = outcome.outcome_seq
        self._attempts.succeeded()
        return outcome

    def ended(self) -> float:
        """The connection ended OK, which the contract knows no reason for: the seconds to wait before resuming."""
        return self.failed(
            UnavailableError("the stream ended before its time", code=grpc.StatusCode.UNAVAILABLE)
        )

    def failed(self, error: TickwireError) -> float:
        """The connection ended with an error: the seconds to wait before resuming.

        Raises:
            TickwireError: the error itself, if it is not one of the connection or has lasted too long.
        """
        pause_s = self._attempts.pause_s(error) if is_disconnect(error) else None
        if pause_s is None:
            raise error
        return pause_s
