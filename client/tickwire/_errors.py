"""The root and the families of the errors that Tickwire raises; the leaves are in `_error_reasons`.

Decide by class (or `reason`), not by message. The families are the gRPC status codes; an error whose reason
this version does not know is raised as its family.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Mapping

    import grpc


@dataclass(frozen=True, slots=True)
class Violation:
    """One thing that is wrong with a request, or one limit or condition that it meets.

    Attributes:
        field: the path of the field (`commands[3].spawn.components.Position.x`), or the subject of the limit.
        description: what is wrong with it.
    """

    field: str
    description: str


class TickwireError(Exception):
    """The root of everything that this package raises about a call.

    Attributes:
        message: what happened, to what, and what to do next.
        code: the gRPC status code; None for an error that arose in the client itself.
        reason: the name of the `ErrorReason` without its prefix; empty: it did not come from a tickwire
            server.
        metadata: details by name, as the reason documents.
        retry_delay_s: how long the server asks to wait before a retry; None: it does not.
        violations: the fields or limits at fault, at most 8; `more` in the metadata counts the rest.
    """

    REASON: ClassVar[str] = ""

    def __init__(
        self,
        message: str,
        *,
        code: grpc.StatusCode | None = None,
        reason: str = "",
        metadata: Mapping[str, str] | None = None,
        retry_delay_s: float | None = None,
        violations: tuple[Violation, ...] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.reason = reason
        self.metadata: dict[str, str] = dict(metadata or {})
        self.retry_delay_s = retry_delay_s
        self.violations = violations

    def __str__(self) -> str:
        label = self.reason or (self.code.name if self.code else "")
        lines = [f"{label}: {self.message}" if label else self.message]
        lines += [f"  {violation.field}: {violation.description}" for violation in self.violations]
        return "\n".join(lines)

    def _number(self, key: str) -> int | None:
        text = self.metadata.get(key, "")
        return int(text) if text.lstrip("-").isdecimal() else None


class ProtocolError(TickwireError):
    """The server sent what the contract does not allow, such as a tick twice."""


class InvalidArgumentError(TickwireError):
    """The request is not well-formed; `violations` name its fields. A retry fails again."""


class NotFoundError(TickwireError):
    """What the request names does not exist."""


class AlreadyExistsError(TickwireError):
    """What the request would make exists."""


class UnauthenticatedError(TickwireError):
    """The server does not know who is calling."""


class PermissionDeniedError(TickwireError):
    """The caller may not do this."""


class ResourceExhaustedError(TickwireError):
    """A limit is reached; `retry_delay_s` is set where waiting helps."""


class FailedPreconditionError(TickwireError):
    """The world is not in a state that allows this."""


class OutOfRangeError(TickwireError):
    """The tick is not one that can be read."""


class AbortedError(TickwireError):
    """The operation was undone or ended."""


class UnavailableError(TickwireError):
    """The server cannot be reached or cannot answer now. What was sent is undecided."""


class DataLossError(TickwireError):
    """Stored data is damaged."""


class InternalError(TickwireError):
    """An error in the server itself, or in what lies between."""


class UnimplementedError(TickwireError):
    """The server does not have this."""


class DeadlineExceededError(TickwireError):
    """The call took longer than its time limit. What was sent is undecided."""


class CallCancelledError(TickwireError):
    """The call was cancelled."""
