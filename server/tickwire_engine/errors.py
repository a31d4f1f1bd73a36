"""The engine's error tree: one root, one reason each, and typed fields instead of prose to parse.

A reason is the name that the wire uses too (`ErrorReason` without its prefix); the server turns an error into a
gRPC status in one place, by its reason. A message says what happened, to what, and what to do next.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Sequence


class TickwireError(Exception):
    """The root of every error that Tickwire raises on purpose.

    Attributes:
        reason: The contract's name of the condition, as "WORLD_NOT_FOUND".
        message: A sentence for a person.
        field: The path of the offending input field, or "" where no field is to blame.
        metadata: Facts a program may act on; string to string.
        also: What else is wrong with the same request.
    """

    reason: ClassVar[str] = "INTERNAL"
    also: Sequence[TickwireError] = ()

    def __init__(self, message: str, *, field: str = "", **metadata: object) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.metadata: dict[str, str] = {name: str(value) for name, value in metadata.items()}

    def at(self, prefix: str) -> TickwireError:
        """Put `prefix` before the field's path: a nested value does not know where it hangs."""
        self.field = f"{prefix}.{self.field}" if self.field else prefix
        return self


MOST_TOLD = 8
"""Of what is wrong with one request, as much is told; the rest is counted."""


def together(errors: Sequence[TickwireError]) -> TickwireError:
    """Return several errors of one request as one: the first, which knows of the others."""
    first = errors[0]
    first.also = tuple(errors[1:MOST_TOLD])
    if len(errors) > MOST_TOLD:
        first.metadata["more"] = str(len(errors) - MOST_TOLD)
    return first


# Invalid input


class InvalidRequestError(TickwireError):
    """A request that could never succeed, whatever the state."""

    reason = "INVALID_REQUEST"


class InvalidNameError(InvalidRequestError):
    """A name outside `[a-z][a-z0-9_-]{0,62}`."""

    reason = "INVALID_NAME"


class InvalidCommandError(InvalidRequestError):
    """A command that selects nothing, names unknown fields or has an unusable id."""

    reason = "INVALID_COMMAND"


class CommandTypeMismatchError(InvalidCommandError):
    """The command's type does not agree with its payload."""

    reason = "COMMAND_TYPE_MISMATCH"


class UnknownComponentError(InvalidRequestError):
    """A component that is not registered."""

    reason = "UNKNOWN_COMPONENT"


class UnknownProcessorTypeError(InvalidRequestError):
    """A processor type that is not registered."""

    reason = "UNKNOWN_PROCESSOR_TYPE"


class UnknownCustomCommandError(InvalidRequestError):
    """A custom command that the application has no handler for."""

    reason = "UNKNOWN_CUSTOM_COMMAND"


class SchemaMismatchError(InvalidRequestError):
    """A value that does not fit its column."""

    reason = "SCHEMA_MISMATCH"


class InvalidArrowError(InvalidRequestError):
    """Bytes that are no usable Arrow IPC stream."""

    reason = "INVALID_ARROW"


class InvalidSqlError(InvalidRequestError):
    """An SQL text that does not parse, or uses what is not allowed."""

    reason = "INVALID_SQL"


class InvalidPageTokenError(InvalidRequestError):
    """A page token that was not made by this server for this request."""

    reason = "INVALID_PAGE_TOKEN"


# Not found, exists


class NotFoundError(TickwireError):
    """Something named does not exist."""


class WorldNotFoundError(NotFoundError):
    """No such world."""

    reason = "WORLD_NOT_FOUND"


class EntityNotFoundError(NotFoundError):
    """No such entity at that tick.

    Attributes:
        missing_entity_ids: All that a command named, and that are not alive.
    """

    reason = "ENTITY_NOT_FOUND"
    missing_entity_ids: Sequence[int] = ()


class ComponentNotFoundError(NotFoundError):
    """An entity does not have that component."""

    reason = "COMPONENT_NOT_FOUND"


class ProcessorNotFoundError(NotFoundError):
    """No such processor in that world."""

    reason = "PROCESSOR_NOT_FOUND"


class ResourceNotFoundError(NotFoundError):
    """No such resource in that world, or no such resource type in the app."""

    reason = "RESOURCE_NOT_FOUND"


class TemplateNotFoundError(NotFoundError):
    """No world template of that name in the app."""

    reason = "TEMPLATE_NOT_FOUND"


class CommandNotFoundError(NotFoundError):
    """No command of that id was accepted in that world, or none that is still known."""

    reason = "COMMAND_NOT_FOUND"


class WorldExistsError(TickwireError):
    """A world of that name or id exists already."""

    reason = "WORLD_EXISTS"


class ProcessorExistsError(TickwireError):
    """A processor of that name runs in the world already."""

    reason = "PROCESSOR_EXISTS"


class ComponentExistsError(TickwireError):
    """A component of that name exists with another shape."""

    reason = "COMPONENT_EXISTS"


class CommandIdReusedError(TickwireError):
    """A command id that was accepted before with other content."""

    reason = "COMMAND_ID_REUSED"


# State


class WorldFaultedError(TickwireError):
    """The world's last tick failed; Step tries it again."""

    reason = "WORLD_FAULTED"


class WorldPlayingError(TickwireError):
    """The world is playing: pause it first."""

    reason = "WORLD_PLAYING"


class WorldRunningError(TickwireError):
    """A Step or Run is under way in the world."""

    reason = "WORLD_RUNNING"


class WorldDestroyedError(TickwireError):
    """The world was destroyed."""

    reason = "WORLD_DESTROYED"


class CommandNotPendingError(TickwireError):
    """A tick has applied or rejected the command: it cannot be cancelled."""

    reason = "COMMAND_NOT_PENDING"


class CustomRefusedError(TickwireError):
    """A custom command's handler refuses it: raise this in a handler, with a message for the sender."""

    reason = "CUSTOM_REFUSED"


class TickInThePastError(TickwireError):
    """A command is due at a tick that was computed already."""

    reason = "TICK_IN_THE_PAST"


class EtagMismatchError(TickwireError):
    """The world was changed since the caller looked at it."""

    reason = "ETAG_MISMATCH"


class TickMismatchError(TickwireError):
    """The world is not at the expected tick."""

    reason = "TICK_MISMATCH"


class CommandIdTooOldError(TickwireError):
    """A command whose id is from before the horizon: it may have been applied, and forgotten."""

    reason = "COMMAND_ID_TOO_OLD"


class TickNotKeptError(TickwireError):
    """A tick before the earliest one kept."""

    reason = "TICK_NOT_KEPT"


class TickInTheFutureError(TickwireError):
    """A tick that is not committed yet."""

    reason = "TICK_IN_THE_FUTURE"


class ProcessorFailedError(TickwireError):
    """A processor raised or returned what it must not; its tick was aborted whole."""

    reason = "PROCESSOR_FAILED"


# Limits


class SubscriberTooSlowError(TickwireError):
    """A subscriber that reads more slowly than ticks come, and asked to be told so."""

    reason = "SUBSCRIBER_TOO_SLOW"


class QueueFullError(TickwireError):
    """Too many commands wait in the world."""

    reason = "QUEUE_FULL"


class WorldFullError(TickwireError):
    """The world has as many entities as it may."""

    reason = "WORLD_FULL"


class ResultTooLargeError(TickwireError):
    """An answer takes more rows, memory or time than it may."""

    reason = "RESULT_TOO_LARGE"


class WorldLimitError(TickwireError):
    """The data directory has as many worlds as it may."""

    reason = "WORLD_LIMIT"


class MessageTooLargeError(TickwireError):
    """One row, or one message, is larger than the limit."""

    reason = "MESSAGE_TOO_LARGE"


# Storage


class StorageError(TickwireError):
    """The root of what goes wrong on disk."""

    reason = "STORAGE_FAILED"


class StorageFailedError(StorageError):
    """A sync or I/O failed: nothing more is acknowledged, and only a restart recovers."""


class StorageFullError(StorageError):
    """No room on the disk: nothing was lost, and room lets it go on."""


class DataDirectoryLockedError(StorageError):
    """Another process serves this data directory."""


class DuplicateCommandError(StorageError):
    """The journal holds a command of that id already; the broker looks ids up before it writes."""


class CorruptRecordError(StorageError):
    """Stored bytes do not match their checksum."""

    reason = "HISTORY_CORRUPT"


class ShuttingDownError(TickwireError):
    """The server is stopping: try again, elsewhere or later."""

    reason = "SHUTTING_DOWN"


class FeatureOffError(TickwireError):
    """Part of the contract that this server does not serve."""

    reason = "FEATURE_OFF"


# Identity: who calls, and what they may


class UnauthenticatedError(TickwireError):
    """The root of what is wrong with a caller's credentials."""


class TokenMissingError(UnauthenticatedError):
    """The call has no credentials, and the server asks for them."""

    reason = "TOKEN_MISSING"


class TokenInvalidError(UnauthenticatedError):
    """Credentials that this server does not know, or not over such a connection."""

    reason = "TOKEN_INVALID"


class TokenExpiredError(UnauthenticatedError):
    """The token's time is over."""

    reason = "TOKEN_EXPIRED"


class TokenRevokedError(UnauthenticatedError):
    """The token was revoked."""

    reason = "TOKEN_REVOKED"


class TokenNotFoundError(NotFoundError):
    """No token has that id."""

    reason = "TOKEN_NOT_FOUND"


class ForbiddenError(TickwireError):
    """The root of what a caller may not do."""


class RoleForbidsError(ForbiddenError):
    """The caller's roles, or the commands allowed to it, do not cover this."""

    reason = "ROLE_FORBIDS"


class WorldForbiddenError(ForbiddenError):
    """A world's name outside of those that the caller's credentials are for."""

    reason = "WORLD_FORBIDDEN"


class QuotaError(TickwireError):
    """The root of what an actor has used up.

    Attributes:
        retry_after_s: When trying again may help.
    """

    retry_after_s: float = 1.0


class QuotaTickError(QuotaError):
    """The actor has queued as many commands for that tick as it may."""

    reason = "QUOTA_TICK"


class QuotaDayError(QuotaError):
    """The actor has used up its cost units for this day."""

    reason = "QUOTA_DAY"


class StreamLimitError(QuotaError):
    """The actor has as many open streams as it may."""

    reason = "STREAM_LIMIT"


class ConnectionLimitError(QuotaError):
    """The actor calls over as many connections as it may."""

    reason = "CONNECTION_LIMIT"
