"""Thin adapters: a servicer converts a request, calls a service, converts its answer."""

from tickwire_server.grpc.servicers.auth import AuthServicer
from tickwire_server.grpc.servicers.commands import CommandServicer
from tickwire_server.grpc.servicers.info import ServerServicer
from tickwire_server.grpc.servicers.queries import QueryServicer
from tickwire_server.grpc.servicers.simulation import SimulationServicer
from tickwire_server.grpc.servicers.ticks import TickServicer
from tickwire_server.grpc.servicers.worlds import WorldServicer

__all__ = [
    "AuthServicer",
    "CommandServicer",
    "QueryServicer",
    "ServerServicer",
    "SimulationServicer",
    "TickServicer",
    "WorldServicer",
]
