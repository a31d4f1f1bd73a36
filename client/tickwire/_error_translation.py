"""The one place where gRPC errors become Tickwire's.

A tickwire server sends a google.rpc.Status in the trailing metadata `grpc-status-details-bin`; what lies
between client and server (a proxy, the transport) sends a code and a text only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias, cast

import grpc
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2

from tickwire import _error_reasons as reasons
from tickwire import _errors as errors
from tickwire._errors import TickwireError, Violation

if TYPE_CHECKING:
    from collections.abc import Iterable

    from google.protobuf import any_pb2

_Metadata: TypeAlias = "Iterable[tuple[str, str | bytes]]"
_DETAILS_KEY = "grpc-status-details-bin"

_FAMILIES: dict[grpc.StatusCode, type[TickwireError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: errors.InvalidArgumentError,
    grpc.StatusCode.NOT_FOUND: errors.NotFoundError,
    grpc.StatusCode.ALREADY_EXISTS: errors.AlreadyExistsError,
    grpc.StatusCode.UNAUTHENTICATED: errors.UnauthenticatedError,
    grpc.StatusCode.PERMISSION_DENIED: errors.PermissionDeniedError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: errors.ResourceExhaustedError,
    grpc.StatusCode.FAILED_PRECONDITION: errors.FailedPreconditionError,
    grpc.StatusCode.OUT_OF_RANGE: errors.OutOfRangeError,
    grpc.StatusCode.ABORTED: errors.AbortedError,
    grpc.StatusCode.UNAVAILABLE: errors.UnavailableError,
    grpc.StatusCode.DATA_LOSS: errors.DataLossError,
    grpc.StatusCode.INTERNAL: errors.InternalError,
    grpc.StatusCode.UNIMPLEMENTED: errors.UnimplementedError,
    grpc.StatusCode.DEADLINE_EXCEEDED: errors.DeadlineExceededError,
    grpc.StatusCode.CANCELLED: errors.CallCancelledError,
    grpc.StatusCode.UNKNOWN: errors.InternalError,
}
_LEAVES: dict[str, type[TickwireError]] = {
    leaf.REASON: leaf
    for leaf in vars(reasons).values()
    if isinstance(leaf, type) and issubclass(leaf, TickwireError) and leaf.REASON
}
_DETAILS: tuple[type[Message], ...] = (
    error_details_pb2.ErrorInfo,
    error_details_pb2.RetryInfo,
    error_details_pb2.BadRequest,
    error_details_pb2.QuotaFailure,
    error_details_pb2.PreconditionFailure,
)
_CODES = {code.value[0]: code for code in grpc.StatusCode}


def from_rpc_error(error: grpc.RpcError) -> TickwireError:
    """Translates the error of a call, of the blocking or the asyncio API."""
    for key, value in cast("_Metadata", error.trailing_metadata() or ()):
        if key == _DETAILS_KEY and isinstance(value, bytes):
            try:
                return from_status(status_pb2.Status.FromString(value))
            except DecodeError:
                break
    code = error.code()
    return _FAMILIES.get(code, TickwireError)(error.details() or code.name, code=code)


def from_status(status: status_pb2.Status) -> TickwireError:
    """Translates a Status, of a failed call or inside of a message (a receipt, an outcome, a fault)."""
    code = _CODES.get(status.code, grpc.StatusCode.UNKNOWN)
    reason = ""
    metadata: dict[str, str] = {}
    retry_delay_s: float | None = None
    violations: list[Violation] = []
    for detail in status.details:
        match _unpack(detail):
            case error_details_pb2.ErrorInfo(domain="tickwire") as info:
                reason = info.reason
                metadata.update(info.metadata)
            case error_details_pb2.RetryInfo() as retry:
                retry_delay_s = retry.retry_delay.ToNanoseconds() / 1e9
            case error_details_pb2.BadRequest() as bad:
                violations += [Violation(v.field, v.description) for v in bad.field_violations]
            case error_details_pb2.QuotaFailure() as quota:
                violations += [Violation(v.subject, v.description) for v in quota.violations]
            case error_details_pb2.PreconditionFailure() as failure:
                violations += [Violation(v.subject, v.description) for v in failure.violations]
    return _error_class(code, reason)(
        status.message,
        code=code,
        reason=reason,
        metadata=metadata,
        retry_delay_s=retry_delay_s,
        violations=tuple(violations),
    )


def _error_class(code: grpc.StatusCode, reason: str) -> type[TickwireError]:
    return _LEAVES.get(reason) or _FAMILIES.get(code, TickwireError)


def _unpack(detail: any_pb2.Any) -> Message | None:
    for kind in _DETAILS:
        if detail.type_url.endswith(f"/{kind.DESCRIPTOR.full_name}"):
            message = kind()
            try:
                detail.Unpack(message)
            except DecodeError:
                return None
            return message
    return None
