"""What the server does, in plain Python: no gRPC, no protobuf. A servicer converts, calls one of these, converts back."""

from tickwire_server.services.commands import CommandService
from tickwire_server.services.queries import QueryService
from tickwire_server.services.rollouts import RolloutService
from tickwire_server.services.simulation import RunState, SimulationService
from tickwire_server.services.worlds import WorldService

__all__ = [
    "CommandService",
    "QueryService",
    "RolloutService",
    "RunState",
    "SimulationService",
    "WorldService",
]
