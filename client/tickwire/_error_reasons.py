"""One error class per reason of the contract, under the family of its code (see `_errors`).

Properties are the documented metadata, None where the server did not send it. The remedy for each reason is
in `protos/tickwire/v1/error_reason.proto`.
"""

from __future__ import annotations

from typing import ClassVar

from tickwire._errors import (
    AbortedError,
    AlreadyExistsError,
    DataLossError,
    FailedPreconditionError,
    InternalError,
    InvalidArgumentError,
    NotFoundError,
    OutOfRangeError,
    PermissionDeniedError,
    ResourceExhaustedError,
    UnauthenticatedError,
    UnavailableError,
    UnimplementedError,
)


class InvalidRequestError(InvalidArgumentError):
    """A field of the request is missing, out of its range, or not allowed together with another."""

    REASON: ClassVar[str] = "INVALID_REQUEST"


class InvalidNameError(InvalidArgumentError):
    """A name or an id does not have the form it must have."""

    REASON: ClassVar[str] = "INVALID_NAME"


class InvalidCommandError(InvalidArgumentError):
    """A command is not well-formed, selects nothing, or has a bad id."""

    REASON: ClassVar[str] = "INVALID_COMMAND"


class CommandTypeMismatchError(InvalidArgumentError):
    """A command's type says something else than its payload."""

    REASON: ClassVar[str] = "COMMAND_TYPE_MISMATCH"


class UnknownComponentError(InvalidArgumentError):
    """A component type is not registered, or has no such field."""

    REASON: ClassVar[str] = "UNKNOWN_COMPONENT"

    @property
    def component(self) -> str | None:
        """The `component` it is about."""
        return self.metadata.get("component")


class UnknownProcessorTypeError(InvalidArgumentError):
    """The server's app has no processor class of that name."""

    REASON: ClassVar[str] = "UNKNOWN_PROCESSOR_TYPE"


class UnknownCustomCommandError(InvalidArgumentError):
    """The server's app has no handler of that name."""

    REASON: ClassVar[str] = "UNKNOWN_CUSTOM_COMMAND"


class SchemaMismatchError(InvalidArgumentError):
    """A value or a table's column does not fit the component's field."""

    REASON: ClassVar[str] = "SCHEMA_MISMATCH"

    @property
    def column(self) -> str | None:
        """The `column` it is about."""
        return self.metadata.get("column")


class InvalidArrowError(InvalidArgumentError):
    """The bytes of a table are not a readable Arrow IPC stream."""

    REASON: ClassVar[str] = "INVALID_ARROW"


class InvalidSqlError(InvalidArgumentError):
    """A SQL text does not parse, or uses what is not allowed."""

    REASON: ClassVar[str] = "INVALID_SQL"

    @property
    def problem(self) -> str | None:
        """The `problem` it is about."""
        return self.metadata.get("problem")


class InvalidPageTokenError(InvalidArgumentError):
    """A page token was not made by this server, or for other conditions."""

    REASON: ClassVar[str] = "INVALID_PAGE_TOKEN"


class WorldNotFoundError(NotFoundError):
    """No world has that id or name, or the caller may not see it."""

    REASON: ClassVar[str] = "WORLD_NOT_FOUND"

    @property
    def world(self) -> str | None:
        """The `world` it is about."""
        return self.metadata.get("world")


class EntityNotFoundError(NotFoundError):
    """No entity with that id is alive at that tick."""

    REASON: ClassVar[str] = "ENTITY_NOT_FOUND"

    @property
    def entity_id(self) -> int | None:
        """The `entity_id` it is about."""
        return self._number("entity_id")

    @property
    def tick(self) -> int | None:
        """The tick it is about."""
        return self._number("tick")


class ComponentNotFoundError(NotFoundError):
    """The entity does not have that component, or no type of that name is registered."""

    REASON: ClassVar[str] = "COMPONENT_NOT_FOUND"

    @property
    def component(self) -> str | None:
        """The `component` it is about."""
        return self.metadata.get("component")


class ProcessorNotFoundError(NotFoundError):
    """The world has no processor of that name."""

    REASON: ClassVar[str] = "PROCESSOR_NOT_FOUND"

    @property
    def processor(self) -> str | None:
        """The processor's name."""
        return self.metadata.get("processor")


class ResourceNotFoundError(NotFoundError):
    """The world has no resource of that name."""

    REASON: ClassVar[str] = "RESOURCE_NOT_FOUND"

    @property
    def resource(self) -> str | None:
        """The `resource` it is about."""
        return self.metadata.get("resource")


class TemplateNotFoundError(NotFoundError):
    """The server's app has no world template of that name."""

    REASON: ClassVar[str] = "TEMPLATE_NOT_FOUND"

    @property
    def template(self) -> str | None:
        """The `template` it is about."""
        return self.metadata.get("template")


class CommandNotFoundError(NotFoundError):
    """The world has no command of that id, or it is another actor's or too old."""

    REASON: ClassVar[str] = "COMMAND_NOT_FOUND"

    @property
    def command_id(self) -> str | None:
        """The `command_id` it is about."""
        return self.metadata.get("command_id")


class TokenNotFoundError(NotFoundError):
    """No token has that id."""

    REASON: ClassVar[str] = "TOKEN_NOT_FOUND"

    @property
    def token_id(self) -> str | None:
        """The `token_id` it is about."""
        return self.metadata.get("token_id")


class WorldExistsError(AlreadyExistsError):
    """A living world has that name, or that id was used by another request."""

    REASON: ClassVar[str] = "WORLD_EXISTS"

    @property
    def world_id(self) -> str | None:
        """The `world_id` it is about."""
        return self.metadata.get("world_id")


class CommandIdReusedError(AlreadyExistsError):
    """The command id is known with other content, or from another actor."""

    REASON: ClassVar[str] = "COMMAND_ID_REUSED"

    @property
    def command_id(self) -> str | None:
        """The `command_id` it is about."""
        return self.metadata.get("command_id")


class ProcessorExistsError(AlreadyExistsError):
    """The world has a processor of that name."""

    REASON: ClassVar[str] = "PROCESSOR_EXISTS"

    @property
    def processor(self) -> str | None:
        """The processor's name."""
        return self.metadata.get("processor")


class ComponentExistsError(AlreadyExistsError):
    """A component type of that name has another shape."""

    REASON: ClassVar[str] = "COMPONENT_EXISTS"

    @property
    def component(self) -> str | None:
        """The `component` it is about."""
        return self.metadata.get("component")


class TokenMissingError(UnauthenticatedError):
    """The call has no credentials: give the client a `token`."""

    REASON: ClassVar[str] = "TOKEN_MISSING"


class TokenInvalidError(UnauthenticatedError):
    """The server does not know the credentials, or refuses them over plaintext."""

    REASON: ClassVar[str] = "TOKEN_INVALID"


class TokenExpiredError(UnauthenticatedError):
    """The token's time is over."""

    REASON: ClassVar[str] = "TOKEN_EXPIRED"


class TokenRevokedError(UnauthenticatedError):
    """The token was revoked."""

    REASON: ClassVar[str] = "TOKEN_REVOKED"


class RoleForbidsError(PermissionDeniedError):
    """The caller's roles do not cover this call or command."""

    REASON: ClassVar[str] = "ROLE_FORBIDS"

    @property
    def needs(self) -> str | None:
        """The role that it takes."""
        return self.metadata.get("needs")


class WorldForbiddenError(PermissionDeniedError):
    """The world's name is outside of those the credentials are for."""

    REASON: ClassVar[str] = "WORLD_FORBIDDEN"

    @property
    def world(self) -> str | None:
        """The `world` it is about."""
        return self.metadata.get("world")


class QuotaTickError(ResourceExhaustedError):
    """The actor has queued as many commands for this tick as it may."""

    REASON: ClassVar[str] = "QUOTA_TICK"

    @property
    def limit(self) -> int | None:
        """The limit that is reached."""
        return self._number("limit")


class QuotaDayError(ResourceExhaustedError):
    """The actor has used up its cost units for this day."""

    REASON: ClassVar[str] = "QUOTA_DAY"

    @property
    def limit(self) -> int | None:
        """The limit that is reached."""
        return self._number("limit")


class QueueFullError(ResourceExhaustedError):
    """The world has as many pending commands as it may."""

    REASON: ClassVar[str] = "QUEUE_FULL"

    @property
    def limit(self) -> int | None:
        """The limit that is reached."""
        return self._number("limit")


class StreamLimitError(ResourceExhaustedError):
    """There are as many open streams as there may be."""

    REASON: ClassVar[str] = "STREAM_LIMIT"

    @property
    def limit(self) -> int | None:
        """The limit that is reached."""
        return self._number("limit")


class ConnectionLimitError(ResourceExhaustedError):
    """The server has as many connections as it may."""

    REASON: ClassVar[str] = "CONNECTION_LIMIT"

    @property
    def limit(self) -> int | None:
        """The limit that is reached."""
        return self._number("limit")


class WorldFullError(ResourceExhaustedError):
    """The world holds as many entities as it may."""

    REASON: ClassVar[str] = "WORLD_FULL"

    @property
    def limit(self) -> int | None:
        """The limit that is reached."""
        return self._number("limit")


class WorldLimitError(ResourceExhaustedError):
    """The server holds as many worlds as it may."""

    REASON: ClassVar[str] = "WORLD_LIMIT"

    @property
    def limit(self) -> int | None:
        """The limit that is reached."""
        return self._number("limit")


class MessageTooLargeError(ResourceExhaustedError):
    """The request is larger than the server accepts: split it."""

    REASON: ClassVar[str] = "MESSAGE_TOO_LARGE"

    @property
    def limit(self) -> int | None:
        """The limit that is reached."""
        return self._number("limit")


class ResultTooLargeError(ResourceExhaustedError):
    """The result is larger than may be kept or answered."""

    REASON: ClassVar[str] = "RESULT_TOO_LARGE"

    @property
    def limit(self) -> int | None:
        """The limit that is reached."""
        return self._number("limit")


class WorldFaultedError(FailedPreconditionError):
    """A processor of the world failed; replace it or correct the data, then step."""

    REASON: ClassVar[str] = "WORLD_FAULTED"

    @property
    def processor(self) -> str | None:
        """The processor's name."""
        return self.metadata.get("processor")

    @property
    def tick(self) -> int | None:
        """The tick it is about."""
        return self._number("tick")


class WorldPlayingError(FailedPreconditionError):
    """The world is playing: pause it first."""

    REASON: ClassVar[str] = "WORLD_PLAYING"


class WorldRunningError(FailedPreconditionError):
    """A run is computing the world's ticks."""

    REASON: ClassVar[str] = "WORLD_RUNNING"


class WorldDestroyedError(FailedPreconditionError):
    """The world was destroyed."""

    REASON: ClassVar[str] = "WORLD_DESTROYED"

    @property
    def world_id(self) -> str | None:
        """The `world_id` it is about."""
        return self.metadata.get("world_id")


class CommandNotPendingError(FailedPreconditionError):
    """The command was decided already, so it cannot be cancelled."""

    REASON: ClassVar[str] = "COMMAND_NOT_PENDING"

    @property
    def command_id(self) -> str | None:
        """The `command_id` it is about."""
        return self.metadata.get("command_id")

    @property
    def tick(self) -> int | None:
        """The tick it is about."""
        return self._number("tick")


class TickInThePastError(FailedPreconditionError):
    """The command asks for a tick that was drained already."""

    REASON: ClassVar[str] = "TICK_IN_THE_PAST"

    @property
    def tick(self) -> int | None:
        """The tick it is about."""
        return self._number("tick")

    @property
    def next_tick(self) -> int | None:
        """The next tick of the world, or of the stream."""
        return self._number("next_tick")


class TickMismatchError(FailedPreconditionError):
    """The world's next tick is not the expected one; after a retry: the first try was carried out."""

    REASON: ClassVar[str] = "TICK_MISMATCH"

    @property
    def expected(self) -> int | None:
        """The tick that was expected."""
        return self._number("expected")

    @property
    def actual(self) -> int | None:
        """The tick the world is at."""
        return self._number("actual")


class EtagMismatchError(FailedPreconditionError):
    """The world was changed since the etag was read."""

    REASON: ClassVar[str] = "ETAG_MISMATCH"


class CommandIdTooOldError(FailedPreconditionError):
    """The time in the command id is before the horizon, where ids are forgotten."""

    REASON: ClassVar[str] = "COMMAND_ID_TOO_OLD"

    @property
    def command_id(self) -> str | None:
        """The `command_id` it is about."""
        return self.metadata.get("command_id")


class CustomRefusedError(FailedPreconditionError):
    """The app's handler refused the command; the message is the handler's."""

    REASON: ClassVar[str] = "CUSTOM_REFUSED"


class TickNotKeptError(OutOfRangeError):
    """Retention does not keep that tick; begin at `earliest`."""

    REASON: ClassVar[str] = "TICK_NOT_KEPT"

    @property
    def tick(self) -> int | None:
        """The tick it is about."""
        return self._number("tick")

    @property
    def earliest(self) -> int | None:
        """The oldest tick that is kept."""
        return self._number("earliest")


class TickInTheFutureError(OutOfRangeError):
    """The tick is not committed yet."""

    REASON: ClassVar[str] = "TICK_IN_THE_FUTURE"

    @property
    def tick(self) -> int | None:
        """The tick it is about."""
        return self._number("tick")

    @property
    def committed_tick(self) -> int | None:
        """The last committed tick."""
        return self._number("committed_tick")


class ProcessorFailedError(AbortedError):
    """A processor failed; its tick was undone whole, `ticks_done` before it are durable."""

    REASON: ClassVar[str] = "PROCESSOR_FAILED"

    @property
    def processor(self) -> str | None:
        """The processor's name."""
        return self.metadata.get("processor")

    @property
    def tick(self) -> int | None:
        """The tick it is about."""
        return self._number("tick")

    @property
    def ticks_done(self) -> int | None:
        """How many ticks were committed before."""
        return self._number("ticks_done")


class SubscriberTooSlowError(AbortedError):
    """The subscriber was too slow and had asked to be disconnected then."""

    REASON: ClassVar[str] = "SUBSCRIBER_TOO_SLOW"

    @property
    def next_tick(self) -> int | None:
        """The next tick of the world, or of the stream."""
        return self._number("next_tick")


class StorageFailedError(UnavailableError):
    """The server cannot make anything durable."""

    REASON: ClassVar[str] = "STORAGE_FAILED"


class StartingError(UnavailableError):
    """The server is starting, and reads its journal."""

    REASON: ClassVar[str] = "STARTING"


class ShuttingDownError(UnavailableError):
    """The server is stopping. What was acknowledged is durable."""

    REASON: ClassVar[str] = "SHUTTING_DOWN"

    @property
    def next_tick(self) -> int | None:
        """The next tick of the world, or of the stream."""
        return self._number("next_tick")


class HistoryCorruptError(DataLossError):
    """A stored record does not have its checksum."""

    REASON: ClassVar[str] = "HISTORY_CORRUPT"

    @property
    def world(self) -> str | None:
        """The `world` it is about."""
        return self.metadata.get("world")

    @property
    def tick(self) -> int | None:
        """The tick it is about."""
        return self._number("tick")


class ServerInternalError(InternalError):
    """An error in the server, logged there under `error_id`."""

    REASON: ClassVar[str] = "INTERNAL"

    @property
    def error_id(self) -> str | None:
        """What the server's log has it under."""
        return self.metadata.get("error_id")


class FeatureOffError(UnimplementedError):
    """The feature is switched off on this server, or not part of it."""

    REASON: ClassVar[str] = "FEATURE_OFF"

    @property
    def feature(self) -> str | None:
        """The `feature` it is about."""
        return self.metadata.get("feature")
