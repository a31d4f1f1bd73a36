"""From the contract's services to handlers: one table, read off the protos' own descriptors.

Every RPC of the contract is routed. One that a servicer does not define answers UNIMPLEMENTED with the reason
FEATURE_OFF and its name, which the generated base classes would not say.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf import message_factory
from google.protobuf.message import DecodeError

from tickwire.v1 import (
    auth_service_pb2,
    command_service_pb2,
    query_service_pb2,
    server_service_pb2,
    simulation_service_pb2,
    tick_service_pb2,
    world_service_pb2,
)
from tickwire_engine.errors import InvalidRequestError, MessageTooLargeError
from tickwire_server.grpc.errors import UnreadableRequest, answers, feature_off, streams

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor

    from tickwire_server.grpc.gate import Gate

SERVICES: tuple[ServiceDescriptor, ...] = tuple(
    service
    for module in (
        auth_service_pb2,
        command_service_pb2,
        query_service_pb2,
        server_service_pb2,
        simulation_service_pb2,
        tick_service_pb2,
        world_service_pb2,
    )
    for service in module.DESCRIPTOR.services_by_name.values()
)
"""Every service of the contract."""


def method_handlers(
    service: ServiceDescriptor, servicer: object | None, gate: Gate, *, max_request_bytes: int
) -> Mapping[str, grpc.RpcMethodHandler[Any, Any]]:
    """Return a handler for every RPC of `service`, behind the gate.

    A servicer's method has the RPC's name; one that yields bytes, encoded already, is marked by `encoded`. Requests of more
    than `max_request_bytes` are refused unread.
    """
    return {
        method.name: _handler(method, getattr(servicer, method.name, None), gate, max_request_bytes)
        for method in service.methods
    }


def encoded(method: Callable[..., Any]) -> Callable[..., Any]:
    """Mark a handler whose responses are serialised already: they go out as they are."""
    method.__dict__["encoded"] = True
    return method


def _handler(
    method: MethodDescriptor, served: Callable[..., Any] | None, gate: Gate, max_request_bytes: int
) -> grpc.RpcMethodHandler[Any, Any]:
    request = message_factory.GetMessageClass(method.input_type)
    response = message_factory.GetMessageClass(method.output_type)
    make = {
        (False, False): grpc.unary_unary_rpc_method_handler,
        (False, True): grpc.unary_stream_rpc_method_handler,
        (True, True): grpc.stream_stream_rpc_method_handler,
    }[method.client_streaming, method.server_streaming]
    if served is None:
        served = _unserved(
            f"{method.containing_service.name}.{method.name}", streaming=method.server_streaming
        )
    serializer = bytes if getattr(served, "encoded", False) else response.SerializeToString
    path = f"/{method.containing_service.full_name}/{method.name}"
    gated = gate.wrap(path, served, streaming=method.server_streaming)
    read = _reader(request.FromString, max_request_bytes)
    return make(gated, request_deserializer=read, response_serializer=serializer)


def _reader(parse: Callable[[bytes], Any], most: int) -> Callable[[bytes], Any]:
    def read(data: bytes) -> Any:
        if len(data) > most:
            return UnreadableRequest(
                MessageTooLargeError(
                    f"the request has {len(data)} bytes, and the server takes {most} (max_receive_bytes): send less at once",
                    limit=most,
                    size=len(data),
                )
            )
        try:
            return parse(data)
        except DecodeError:
            return UnreadableRequest(
                InvalidRequestError("the request's bytes are not the message that this method takes")
            )

    return read


def _unserved(name: str, *, streaming: bool) -> Callable[..., Any]:
    class Unserved:
        @answers
        async def one(self, request: Any, context: Any) -> Any:
            raise feature_off(name)

        @streams
        async def many(self, request: Any, context: Any) -> AsyncIterator[Any]:
            raise feature_off(name)
            yield

    return Unserved().many if streaming else Unserved().one
