"""The Python client of Tickwire: queue commands, let ticks pass, stream and query worlds.

    from tickwire import Client

    with Client("127.0.0.1:7601") as client:
        world = client.create_world("orbit")
        receipt = world.spawn({"Position": {"x": 1.0}}, wait="accepted")
        world.step()
        print(world.entity(receipt.first_entity_id))

`AsyncClient` is the same for asyncio. Commands other than spawn, update and despawn are built by
`tickwire.commands`. Errors are `TickwireError`s, by family and by reason. The contract's own messages are in
`tickwire.v1`.
"""

from tickwire import commands
from tickwire._aio_client import AsyncClient, AsyncWorld
from tickwire._aio_live_state import AsyncLiveState
from tickwire._aio_outcome_stream import AsyncOutcomeStream
from tickwire._aio_tick_stream import AsyncTickStream
from tickwire._client import Client, World
from tickwire._command_record import CommandRecord
from tickwire._definitions import ComponentInfo, ProcessorInfo, TokenInfo
from tickwire._error_reasons import (
    CommandIdReusedError,
    CommandIdTooOldError,
    CommandNotFoundError,
    CommandNotPendingError,
    CommandTypeMismatchError,
    ComponentExistsError,
    ComponentNotFoundError,
    ConnectionLimitError,
    CustomRefusedError,
    EntityNotFoundError,
    EtagMismatchError,
    FeatureOffError,
    HistoryCorruptError,
    InvalidArrowError,
    InvalidCommandError,
    InvalidNameError,
    InvalidPageTokenError,
    InvalidRequestError,
    InvalidSqlError,
    MessageTooLargeError,
    ProcessorExistsError,
    ProcessorFailedError,
    ProcessorNotFoundError,
    QueueFullError,
    QuotaDayError,
    QuotaTickError,
    ResourceNotFoundError,
    ResultTooLargeError,
    RoleForbidsError,
    SchemaMismatchError,
    ServerInternalError,
    ShuttingDownError,
    StartingError,
    StorageFailedError,
    StreamLimitError,
    SubscriberTooSlowError,
    TemplateNotFoundError,
    TickInTheFutureError,
    TickInThePastError,
    TickMismatchError,
    TickNotKeptError,
    TokenExpiredError,
    TokenInvalidError,
    TokenMissingError,
    TokenNotFoundError,
    TokenRevokedError,
    UnknownComponentError,
    UnknownCustomCommandError,
    UnknownProcessorTypeError,
    WorldDestroyedError,
    WorldExistsError,
    WorldFaultedError,
    WorldForbiddenError,
    WorldFullError,
    WorldLimitError,
    WorldNotFoundError,
    WorldPlayingError,
    WorldRunningError,
)
from tickwire._errors import (
    AbortedError,
    AlreadyExistsError,
    CallCancelledError,
    DataLossError,
    DeadlineExceededError,
    FailedPreconditionError,
    InternalError,
    InvalidArgumentError,
    NotFoundError,
    OutOfRangeError,
    PermissionDeniedError,
    ProtocolError,
    ResourceExhaustedError,
    TickwireError,
    UnauthenticatedError,
    UnavailableError,
    UnimplementedError,
    Violation,
)
from tickwire._live_state import LiveState
from tickwire._models import (
    Archetype,
    CommandState,
    Limits,
    Outcome,
    Receipt,
    RunProgress,
    ServerInfo,
    StepResult,
    WorldInfo,
    WorldState,
)
from tickwire._outcome_stream import OutcomeStream
from tickwire._retry import RetryPolicy
from tickwire._rollouts import Branch, BranchResult, EpisodeOptions, RolloutOptions
from tickwire._rows import Rows
from tickwire._submit_stream import SubmitStream
from tickwire._subscription import ChangesOptions, ViewOptions
from tickwire._tick import Tick, TickSummary
from tickwire._tick_stream import TickStream
from tickwire._values import new_id
from tickwire._version import __version__
from tickwire.commands import Command, CommandOptions

__all__ = [
    # clients
    "AsyncClient",
    "AsyncWorld",
    "Client",
    "RetryPolicy",
    "World",
    # commands
    "AsyncOutcomeStream",
    "Command",
    "CommandOptions",
    "CommandRecord",
    "CommandState",
    "ComponentInfo",
    "Outcome",
    "OutcomeStream",
    "ProcessorInfo",
    "TokenInfo",
    "Receipt",
    "SubmitStream",
    "commands",
    "new_id",
    # worlds and time
    "Archetype",
    "Limits",
    "RunProgress",
    "ServerInfo",
    "StepResult",
    "WorldInfo",
    "WorldState",
    # futures
    "Branch",
    "BranchResult",
    "EpisodeOptions",
    "RolloutOptions",
    # rows of the present and the past
    "Rows",
    # ticks
    "AsyncLiveState",
    "AsyncTickStream",
    "ChangesOptions",
    "LiveState",
    "Tick",
    "TickStream",
    "TickSummary",
    "ViewOptions",
    # errors: the root and the families
    "AbortedError",
    "AlreadyExistsError",
    "CallCancelledError",
    "DataLossError",
    "DeadlineExceededError",
    "FailedPreconditionError",
    "InternalError",
    "InvalidArgumentError",
    "NotFoundError",
    "OutOfRangeError",
    "PermissionDeniedError",
    "ProtocolError",
    "ResourceExhaustedError",
    "TickwireError",
    "UnauthenticatedError",
    "UnavailableError",
    "UnimplementedError",
    "Violation",
    # errors: the reasons
    "CommandIdReusedError",
    "CommandIdTooOldError",
    "CommandNotFoundError",
    "CommandNotPendingError",
    "CommandTypeMismatchError",
    "ComponentExistsError",
    "ComponentNotFoundError",
    "ConnectionLimitError",
    "CustomRefusedError",
    "EntityNotFoundError",
    "EtagMismatchError",
    "FeatureOffError",
    "HistoryCorruptError",
    "InvalidArrowError",
    "InvalidCommandError",
    "InvalidNameError",
    "InvalidPageTokenError",
    "InvalidRequestError",
    "InvalidSqlError",
    "MessageTooLargeError",
    "ProcessorExistsError",
    "ProcessorFailedError",
    "ProcessorNotFoundError",
    "QueueFullError",
    "QuotaDayError",
    "QuotaTickError",
    "ResourceNotFoundError",
    "ResultTooLargeError",
    "RoleForbidsError",
    "SchemaMismatchError",
    "ServerInternalError",
    "ShuttingDownError",
    "StartingError",
    "StorageFailedError",
    "StreamLimitError",
    "SubscriberTooSlowError",
    "TemplateNotFoundError",
    "TickInTheFutureError",
    "TickInThePastError",
    "TickMismatchError",
    "TickNotKeptError",
    "TokenExpiredError",
    "TokenInvalidError",
    "TokenMissingError",
    "TokenNotFoundError",
    "TokenRevokedError",
    "UnknownComponentError",
    "UnknownCustomCommandError",
    "UnknownProcessorTypeError",
    "WorldDestroyedError",
    "WorldExistsError",
    "WorldFaultedError",
    "WorldForbiddenError",
    "WorldFullError",
    "WorldLimitError",
    "WorldNotFoundError",
    "WorldPlayingError",
    "WorldRunningError",
    # the distribution
    "__version__",
]
