"""The one place where errors become gRPC statuses: a reason, its code, and the standard details.

Servicers are wrapped by `answers` (unary responses) and `streams` (response streams). Whatever is not a `TickwireError`
is a bug: it is logged under an id, and the caller gets the id, never a traceback or a path.
"""

from __future__ import annotations

import asyncio
import functools
import re
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar
from uuid import uuid4

import grpc
import structlog
from google.protobuf import any_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from tickwire_engine.errors import FeatureOffError, QuotaError, TickwireError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

    from google.protobuf.message import Message

_log = structlog.get_logger(__name__)
DOMAIN = "tickwire"
# In bytes. The message travels three times, once percent-encoded, and gRPC takes 8 KiB of trailers.
MAX_MESSAGE = 512
MAX_METADATA = 256
MAX_FIELD = 256
MAX_MESSAGE_OF_MANY = 160
MAX_FIELD_OF_MANY = 100
RETRY_AFTER_S = 1

CODES: dict[int, str] = {
    code_pb2.INVALID_ARGUMENT: """INVALID_REQUEST INVALID_NAME INVALID_COMMAND COMMAND_TYPE_MISMATCH UNKNOWN_COMPONENT
        UNKNOWN_PROCESSOR_TYPE UNKNOWN_CUSTOM_COMMAND SCHEMA_MISMATCH INVALID_ARROW INVALID_SQL INVALID_PAGE_TOKEN""",
    code_pb2.NOT_FOUND: """WORLD_NOT_FOUND ENTITY_NOT_FOUND COMPONENT_NOT_FOUND PROCESSOR_NOT_FOUND RESOURCE_NOT_FOUND
        TEMPLATE_NOT_FOUND COMMAND_NOT_FOUND TOKEN_NOT_FOUND""",
    code_pb2.ALREADY_EXISTS: "WORLD_EXISTS COMMAND_ID_REUSED PROCESSOR_EXISTS COMPONENT_EXISTS",
    code_pb2.UNAUTHENTICATED: "TOKEN_MISSING TOKEN_INVALID TOKEN_EXPIRED TOKEN_REVOKED",
    code_pb2.PERMISSION_DENIED: "ROLE_FORBIDS WORLD_FORBIDDEN",
    code_pb2.RESOURCE_EXHAUSTED: """QUOTA_TICK QUOTA_DAY QUEUE_FULL STREAM_LIMIT CONNECTION_LIMIT WORLD_FULL WORLD_LIMIT
        MESSAGE_TOO_LARGE RESULT_TOO_LARGE""",
    code_pb2.FAILED_PRECONDITION: """WORLD_FAULTED WORLD_PLAYING WORLD_RUNNING WORLD_DESTROYED COMMAND_NOT_PENDING
        TICK_IN_THE_PAST TICK_MISMATCH ETAG_MISMATCH COMMAND_ID_TOO_OLD CUSTOM_REFUSED""",
    code_pb2.OUT_OF_RANGE: "TICK_NOT_KEPT TICK_IN_THE_FUTURE",
    code_pb2.ABORTED: "PROCESSOR_FAILED SUBSCRIBER_TOO_SLOW",
    code_pb2.UNAVAILABLE: "STORAGE_FAILED STARTING SHUTTING_DOWN",
    code_pb2.DATA_LOSS: "HISTORY_CORRUPT",
    code_pb2.INTERNAL: "INTERNAL",
    code_pb2.UNIMPLEMENTED: "FEATURE_OFF",
}
CODE_OF: dict[str, int] = {reason: code for code, reasons in CODES.items() for reason in reasons.split()}
_COMMANDS = frozenset(("INVALID_COMMAND", "COMMAND_TYPE_MISMATCH"))
_COMMAND = re.compile(r"commands\[(\d+)\]")
RETRIABLE = frozenset(("QUOTA_TICK", "QUOTA_DAY", "QUEUE_FULL", "STREAM_LIMIT", "CONNECTION_LIMIT"))


class CallOutcome:
    """How a call ended, for whoever tracks it.

    Attributes:
        done: It was answered.
        status: What it was refused with, or None.
    """

    __slots__ = ("done", "status")

    def __init__(self) -> None:
        self.done = False
        self.status: status_pb2.Status | None = None


_outcome: ContextVar[CallOutcome | None] = ContextVar("tickwire_call_outcome", default=None)


def track() -> CallOutcome:
    """Return what will tell how the call of this task ends."""
    outcome = CallOutcome()
    _outcome.set(outcome)
    return outcome


class UnreadableRequest:
    """Stands for a request that could not be read: only inside a handler can it be answered well."""

    __slots__ = ("error",)

    def __init__(self, error: TickwireError) -> None:
        self.error = error


S = TypeVar("S")
Req = TypeVar("Req")
Res = TypeVar("Res")


def status_of(error: TickwireError) -> status_pb2.Status:
    """Return the status that `error` is answered with."""
    code = CODE_OF.get(error.reason, code_pb2.INTERNAL)
    message = _cut(error.message, MAX_MESSAGE)
    field = _cut(error.field, MAX_FIELD)
    metadata = {key: _cut(value, MAX_METADATA) for key, value in _metadata_of(error).items()}
    details: list[Message] = [
        error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=metadata)
    ]
    if code == code_pb2.INVALID_ARGUMENT and field:
        details.append(error_details_pb2.BadRequest(field_violations=_violations(error)))
    elif code in (code_pb2.NOT_FOUND, code_pb2.ALREADY_EXISTS):
        kind, name = next(iter(metadata.items()), ("", ""))
        details.append(
            error_details_pb2.ResourceInfo(resource_type=kind, resource_name=name, description=message)
        )
    elif code == code_pb2.FAILED_PRECONDITION:
        failed = error_details_pb2.PreconditionFailure.Violation(
            type=error.reason, subject=field, description=message
        )
        details.append(error_details_pb2.PreconditionFailure(violations=[failed]))
    elif code == code_pb2.RESOURCE_EXHAUSTED:
        quota = error_details_pb2.QuotaFailure.Violation(subject=error.reason, description=message)
        details.append(error_details_pb2.QuotaFailure(violations=[quota]))
    if code == code_pb2.UNAVAILABLE or error.reason in RETRIABLE:
        retry = error_details_pb2.RetryInfo()
        after_s = error.retry_after_s if isinstance(error, QuotaError) else RETRY_AFTER_S
        retry.retry_delay.FromMilliseconds(max(int(after_s * 1000), 1))
        details.append(retry)
    packed = []
    for detail in details:
        wrapped = any_pb2.Any()
        wrapped.Pack(detail)
        packed.append(wrapped)
    return status_pb2.Status(code=code, message=message, details=packed)


def _violations(error: TickwireError) -> list[error_details_pb2.BadRequest.FieldViolation]:
    make = error_details_pb2.BadRequest.FieldViolation
    if not error.also:
        return [make(field=_cut(error.field, MAX_FIELD), description=_cut(error.message, MAX_MESSAGE))]
    return [
        make(field=_cut(each.field, MAX_FIELD_OF_MANY), description=_cut(each.message, MAX_MESSAGE_OF_MANY))
        for each in (error, *error.also)
    ]


def _metadata_of(error: TickwireError) -> Mapping[str, str]:
    """Return an error's own metadata, and what the contract promises of its reason that is told elsewhere already."""
    if CODE_OF.get(error.reason) != code_pb2.INVALID_ARGUMENT or not error.field:
        return error.metadata
    told = {"field": error.field}
    if error.reason in _COMMANDS and (command := _COMMAND.match(error.field)):
        told["command"] = command[1]
    if error.reason in ("INVALID_ARROW", "INVALID_SQL"):
        told["problem"] = error.message.removeprefix(f"{error.field}: ")
    if error.reason == "SCHEMA_MISMATCH":
        *_, owner, name = ("", *error.field.split("."))
        told["column"] = name if "__" in name else f"{owner.lower()}__{name}"
    return error.metadata | {key: value for key, value in told.items() if key not in error.metadata}


def require_readable(request: object) -> None:
    """Refuse bytes that were no message, or too many.

    Raises:
        InvalidRequestError: They were none.
        MessageTooLargeError: They were too many.
    """
    if isinstance(request, UnreadableRequest):
        raise request.error


def _cut(text: str, max_bytes: int) -> str:
    return text.encode(errors="replace")[:max_bytes].decode(errors="ignore")


def _cancelled_from_outside() -> bool:
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


def internal(error: BaseException, method: str) -> status_pb2.Status:
    """Log a bug and return the status that hides it."""
    error_id = uuid4().hex
    _log.error("internal error", error_id=error_id, method=method, exc_info=error)
    hidden = TickwireError(
        f"internal error {error_id}: the server's log has more under this id", error_id=error_id
    )
    return status_of(hidden)


def reason_of(status: status_pb2.Status) -> str:
    """Return the reason in a status that `status_of` made."""
    info = error_details_pb2.ErrorInfo()
    return info.reason if status.details and status.details[0].Unpack(info) else ""


async def abort(context: grpc.aio.ServicerContext[Any, Any], status: status_pb2.Status) -> NoReturn:
    """End a call with a status; raises what gRPC ends handlers with."""
    outcome = _outcome.get()
    if outcome is not None:
        outcome.status = status
    # The stubs leave abort_with_status out.
    await context.abort_with_status(rpc_status.to_status(status))  # type: ignore[attr-defined]
    raise AssertionError("abort returned")


def answers(
    method: Callable[[S, Req, grpc.aio.ServicerContext[Req, Res]], Awaitable[Res]],
) -> Callable[[S, Req, grpc.aio.ServicerContext[Req, Res]], Awaitable[Res]]:
    """Wrap a handler with one response."""

    @functools.wraps(method)
    async def call(self: S, request: Req, context: grpc.aio.ServicerContext[Req, Res]) -> Res:
        try:
            require_readable(request)
            return await method(self, request, context)
        except TickwireError as error:
            await abort(context, status_of(error))
        except grpc.aio.AbortError:
            raise
        except asyncio.CancelledError as error:
            if _cancelled_from_outside():
                raise
            # Out of a handler that nobody cancelled it would leave the caller waiting for ever.
            await abort(context, internal(error, method.__qualname__))
        except Exception as error:
            await abort(context, internal(error, method.__qualname__))

    return call


def streams(
    method: Callable[[S, Req, grpc.aio.ServicerContext[Any, Any]], AsyncIterator[Res]],
) -> Callable[[S, Req, grpc.aio.ServicerContext[Any, Any]], AsyncIterator[Res]]:
    """Wrap a handler that yields responses."""

    @functools.wraps(method)
    async def call(self: S, request: Req, context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[Res]:
        responses = method(self, request, context)
        try:
            require_readable(request)
            async for response in responses:
                yield response
        except TickwireError as error:
            await abort(context, status_of(error))
        except (grpc.aio.AbortError, GeneratorExit):
            raise
        except asyncio.CancelledError as error:
            if _cancelled_from_outside():
                raise
            await abort(context, internal(error, method.__qualname__))
        except Exception as error:
            await abort(context, internal(error, method.__qualname__))
        finally:
            await responses.aclose()  # type: ignore[attr-defined]

    return call


def writes(
    method: Callable[[S, Req, grpc.aio.ServicerContext[Any, Any]], Awaitable[None]],
) -> Callable[[S, Req, grpc.aio.ServicerContext[Any, Any]], Awaitable[None]]:
    """Wrap a handler of a response stream that writes by itself, so that it can give up a write."""

    @functools.wraps(method)
    async def call(self: S, request: Req, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        try:
            require_readable(request)
            await method(self, request, context)
        except TickwireError as error:
            await abort(context, status_of(error))
        except grpc.aio.AbortError:
            raise
        except asyncio.CancelledError as error:
            if _cancelled_from_outside():
                raise
            await abort(context, internal(error, method.__qualname__))
        except Exception as error:
            await abort(context, internal(error, method.__qualname__))

    return call


def feature_off(rpc: str) -> FeatureOffError:
    """Return the error of a part of the contract that this version does not serve."""
    return FeatureOffError(f"{rpc} is not served by this version", feature=rpc)
