"""The RPCs that the client calls: path and message classes, fit for either kind of channel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from google.protobuf.message import Message

from tickwire._received import Received
from tickwire.v1 import (
    auth_service_pb2,
    command_service_pb2,
    query_service_pb2,
    server_service_pb2,
    simulation_service_pb2,
    tick_service_pb2,
    world_service_pb2,
)

if TYPE_CHECKING:
    from collections.abc import Callable

RequestT = TypeVar("RequestT", bound=Message)
ResponseT = TypeVar("ResponseT", bound=Message)


@dataclass(frozen=True, slots=True)
class Method(Generic[RequestT, ResponseT]):
    """One RPC of the contract."""

    path: str
    request: type[RequestT]
    response: type[ResponseT]
    reader: Callable[[bytes], Any] | None = None
    """What reads an answer, if not the class itself."""

    @property
    def parse(self) -> Callable[[bytes], Any]:
        """Reads an answer's bytes."""
        return self.reader or self.response.FromString


SUBMIT = Method(
    "/tickwire.v1.CommandService/Submit",
    command_service_pb2.SubmitRequest,
    command_service_pb2.SubmitResponse,
)
SUBMIT_STREAM = Method(
    "/tickwire.v1.CommandService/SubmitStream",
    command_service_pb2.SubmitStreamRequest,
    command_service_pb2.SubmitStreamResponse,
)
GET_COMMAND = Method(
    "/tickwire.v1.CommandService/GetCommand",
    command_service_pb2.GetCommandRequest,
    command_service_pb2.GetCommandResponse,
)
LIST_COMMANDS = Method(
    "/tickwire.v1.CommandService/ListCommands",
    command_service_pb2.ListCommandsRequest,
    command_service_pb2.ListCommandsResponse,
)
READ_RESULT = Method(
    "/tickwire.v1.CommandService/ReadResult",
    command_service_pb2.ReadResultRequest,
    command_service_pb2.ReadResultResponse,
)
WATCH_OUTCOMES = Method(
    "/tickwire.v1.CommandService/WatchOutcomes",
    command_service_pb2.WatchOutcomesRequest,
    command_service_pb2.WatchOutcomesResponse,
)
CANCEL_COMMAND = Method(
    "/tickwire.v1.CommandService/CancelCommand",
    command_service_pb2.CancelCommandRequest,
    command_service_pb2.CancelCommandResponse,
)
CREATE_WORLD = Method(
    "/tickwire.v1.WorldService/CreateWorld",
    world_service_pb2.CreateWorldRequest,
    world_service_pb2.CreateWorldResponse,
)
FORK_WORLD = Method(
    "/tickwire.v1.WorldService/ForkWorld",
    world_service_pb2.ForkWorldRequest,
    world_service_pb2.ForkWorldResponse,
)
GET_WORLD = Method(
    "/tickwire.v1.WorldService/GetWorld",
    world_service_pb2.GetWorldRequest,
    world_service_pb2.GetWorldResponse,
)
LIST_WORLDS = Method(
    "/tickwire.v1.WorldService/ListWorlds",
    world_service_pb2.ListWorldsRequest,
    world_service_pb2.ListWorldsResponse,
)
UPDATE_WORLD = Method(
    "/tickwire.v1.WorldService/UpdateWorld",
    world_service_pb2.UpdateWorldRequest,
    world_service_pb2.UpdateWorldResponse,
)
DESTROY_WORLD = Method(
    "/tickwire.v1.WorldService/DestroyWorld",
    world_service_pb2.DestroyWorldRequest,
    world_service_pb2.DestroyWorldResponse,
)
REGISTER_COMPONENT = Method(
    "/tickwire.v1.WorldService/RegisterComponent",
    world_service_pb2.RegisterComponentRequest,
    world_service_pb2.RegisterComponentResponse,
)
LIST_COMPONENTS = Method(
    "/tickwire.v1.WorldService/ListComponents",
    world_service_pb2.ListComponentsRequest,
    world_service_pb2.ListComponentsResponse,
)
LIST_PROCESSORS = Method(
    "/tickwire.v1.WorldService/ListProcessors",
    world_service_pb2.ListProcessorsRequest,
    world_service_pb2.ListProcessorsResponse,
)
CREATE_TOKEN = Method(
    "/tickwire.v1.AuthService/CreateToken",
    auth_service_pb2.CreateTokenRequest,
    auth_service_pb2.CreateTokenResponse,
)
LIST_TOKENS = Method(
    "/tickwire.v1.AuthService/ListTokens",
    auth_service_pb2.ListTokensRequest,
    auth_service_pb2.ListTokensResponse,
)
REVOKE_TOKEN = Method(
    "/tickwire.v1.AuthService/RevokeToken",
    auth_service_pb2.RevokeTokenRequest,
    auth_service_pb2.RevokeTokenResponse,
)
STEP = Method(
    "/tickwire.v1.SimulationService/Step",
    simulation_service_pb2.StepRequest,
    simulation_service_pb2.StepResponse,
)
RUN = Method(
    "/tickwire.v1.SimulationService/Run",
    simulation_service_pb2.RunRequest,
    simulation_service_pb2.RunResponse,
)
RUN_ROLLOUT = Method(
    "/tickwire.v1.SimulationService/RunRollout",
    simulation_service_pb2.RunRolloutRequest,
    simulation_service_pb2.RunRolloutResponse,
)
RUN_EPISODE = Method(
    "/tickwire.v1.SimulationService/RunEpisode",
    simulation_service_pb2.RunEpisodeRequest,
    simulation_service_pb2.RunEpisodeResponse,
)
PLAY = Method(
    "/tickwire.v1.SimulationService/Play",
    simulation_service_pb2.PlayRequest,
    simulation_service_pb2.PlayResponse,
)
PAUSE = Method(
    "/tickwire.v1.SimulationService/Pause",
    simulation_service_pb2.PauseRequest,
    simulation_service_pb2.PauseResponse,
)
SUBSCRIBE = Method(
    "/tickwire.v1.TickService/Subscribe",
    tick_service_pb2.SubscribeRequest,
    tick_service_pb2.SubscribeResponse,
    Received.parse,
)
QUERY = Method(
    "/tickwire.v1.QueryService/Query",
    query_service_pb2.QueryRequest,
    query_service_pb2.QueryResponse,
)
SQL = Method(
    "/tickwire.v1.QueryService/Sql",
    query_service_pb2.SqlRequest,
    query_service_pb2.SqlResponse,
)
GET_ENTITY = Method(
    "/tickwire.v1.QueryService/GetEntity",
    query_service_pb2.GetEntityRequest,
    query_service_pb2.GetEntityResponse,
)
GET_SERVER_INFO = Method(
    "/tickwire.v1.ServerService/GetServerInfo",
    server_service_pb2.GetServerInfoRequest,
    server_service_pb2.GetServerInfoResponse,
)
