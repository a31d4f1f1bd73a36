"""A stranger at a real server's door: calls any RPC with anything, and holds every answer against the contract."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf import message_factory
from google.rpc import code_pb2, error_details_pb2, status_pb2

from tickwire_server.grpc.errors import CODE_OF
from tickwire_server.grpc.routing import SERVICES

if TYPE_CHECKING:
    from google.protobuf.descriptor import Descriptor, MethodDescriptor
    from google.protobuf.message import Message

METHODS: dict[str, MethodDescriptor] = {
    f"{service.name}.{method.name}": method for service in SERVICES for method in service.methods
}
REASONS = frozenset(CODE_OF)
EXTRA_DETAIL = {
    code_pb2.NOT_FOUND: error_details_pb2.ResourceInfo,
    code_pb2.ALREADY_EXISTS: error_details_pb2.ResourceInfo,
    code_pb2.RESOURCE_EXHAUSTED: error_details_pb2.QuotaFailure,
    code_pb2.FAILED_PRECONDITION: error_details_pb2.PreconditionFailure,
    code_pb2.UNAVAILABLE: error_details_pb2.RetryInfo,
}
"""The detail that the contract names for a code, besides ErrorInfo; BadRequest is looked at by its fields."""
_PART = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)((?:\[\d+\])*)(?:\.|$)")
_SECRETS = re.compile(r"Traceback|File \"|site-packages|\.py\b|/tmp/|pyarrow\.lib|0x[0-9a-f]{8}")
_FREE = frozenset(("google.protobuf.Struct", "google.protobuf.Value"))


@dataclass(frozen=True)
class Answer:
    """What came of a call: `messages` of an answer, or a `status` that refuses it; neither: it went on."""

    messages: tuple[Any, ...] = ()
    status: status_pb2.Status | None = None
    reason: str = ""


class Stranger:
    """Calls over one channel with one token.

    Attributes:
        method: The RPC last called.
    """

    def __init__(self, channel: grpc.Channel, token: str = "") -> None:
        self._channel = channel
        self._metadata = [("authorization", f"Bearer {token}")] if token else []

    def call(self, rpc: str, request: Message | bytes, *, wait_s: float = 10.0, most: int = 3) -> Answer:
        """Call an RPC, and check that the answer is the contract's.

        Args:
            rpc: As "WorldService.GetWorld".
            request: What to send.
            wait_s: How long to wait for an answer, or for the next message of a stream.
            most: Messages to read of a stream before it is left.
        """
        method = METHODS[rpc]
        path = f"/{method.containing_service.full_name}/{method.name}"
        read = message_factory.GetMessageClass(method.output_type).FromString
        data = request if isinstance(request, bytes) else request.SerializeToString()
        kinds: dict[tuple[bool, bool], Any] = {
            (False, False): self._channel.unary_unary,
            (False, True): self._channel.unary_stream,
            (True, True): self._channel.stream_stream,
        }
        make = kinds[method.client_streaming, method.server_streaming]
        invoke = make(path, request_serializer=bytes, response_deserializer=read)
        sent = iter((data,)) if method.client_streaming else data
        try:
            if not method.server_streaming:
                return Answer((invoke(sent, timeout=wait_s, metadata=self._metadata),))
            return self._stream(invoke(sent, timeout=wait_s, metadata=self._metadata), most)
        except grpc.RpcError as error:
            return self._refusal(method, request, error)

    @staticmethod
    def _stream(call: Any, most: int) -> Answer:
        got = []
        try:
            for message in call:
                got.append(message)
                if len(got) == most:
                    break
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.DEADLINE_EXCEEDED:
                raise
            # It stays open: there was nothing more to tell.
        finally:
            call.cancel()
        return Answer(tuple(got))

    @staticmethod
    def _refusal(method: MethodDescriptor, request: Message | bytes, error: Any) -> Answer:
        details = dict(error.trailing_metadata() or ()).get("grpc-status-details-bin")
        assert details is not None, f"no details: {error.code()} {error.details()}"
        status = status_pb2.Status.FromString(details)
        assert status.code == error.code().value[0]
        return Answer(
            (), status, check_status(status, method.input_type, read=not isinstance(request, bytes))
        )


def check_status(status: status_pb2.Status, request: Descriptor, *, read: bool = True) -> str:
    """Check that a status is the contract's, its field's path one of `request`, and return its reason.

    Args:
        status: Of a call, or of a command in a batch.
        request: The type of message that the path begins in.
        read: The request was readable, so that a field must be named.
    """
    said = str(status)
    info = error_details_pb2.ErrorInfo()
    assert status.details, said
    assert status.details[0].Unpack(info), said
    assert info.domain == "tickwire", said
    assert info.reason in REASONS, said
    assert info.reason != "INTERNAL", said
    assert CODE_OF[info.reason] == status.code, said
    assert status.message, said
    assert status.ByteSize() <= 4096, said
    assert not _SECRETS.search(status.message), said
    extra = EXTRA_DETAIL.get(status.code)
    if extra is not None:
        assert any(detail.Is(extra.DESCRIPTOR) for detail in status.details), said
    if status.code == code_pb2.INVALID_ARGUMENT and read:
        bad = error_details_pb2.BadRequest()
        assert any(detail.Unpack(bad) for detail in status.details), said
        assert 1 <= len(bad.field_violations) <= 8, said
        for violation in bad.field_violations:
            assert resolves(violation.field, request), said
    return info.reason


def resolves(path: str, descriptor: Descriptor) -> bool:
    """Whether a field's path leads somewhere in a message: to a field, or into a free-form value, a table or a text."""
    part = _PART.match(path)
    if part is None:
        return False
    field = descriptor.fields_by_name.get(part[1])
    if field is None:
        return False
    rest = path[part.end() :]
    if not rest:
        return True
    inner = field.message_type
    if inner is None:
        return field.type == field.TYPE_BYTES
    if inner.full_name in _FREE or inner.GetOptions().map_entry:
        return True
    return resolves(rest, inner)


def memory_kb(pid: int) -> int:
    """Return what a process holds in memory."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise AssertionError("no VmRSS")
