"""What to ask and how to read the answer, for every call of the client: pure, and the same for both clients.

Each function makes a `Unary` or a `Streamed`, which a transport carries out. Here it is decided which calls
are safe to try again (`retry`), and how long they may take.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeAlias, TypeVar

import pyarrow as pa

from tickwire import _methods as methods
from tickwire._arrow import from_ipc
from tickwire._command_record import CommandRecord
from tickwire._definitions import ComponentInfo, ProcessorInfo, TokenInfo, type_value
from tickwire._methods import Method, RequestT, ResponseT
from tickwire._models import (
    CommandState,
    Outcome,
    Receipt,
    RunProgress,
    ServerInfo,
    StepResult,
    WorldInfo,
    components_of,
)
from tickwire._rollouts import BranchResult, EpisodeOptions, RolloutOptions, episode_message, rollout_message
from tickwire._rows import Rows
from tickwire._values import Json, new_id, to_duration, to_struct, to_timestamp
from tickwire.commands import Command, EntityIds, entity_id_list
from tickwire.v1 import (
    auth_service_pb2,
    command_pb2,
    command_service_pb2,
    query_service_pb2,
    server_service_pb2,
    simulation_service_pb2,
    world_pb2,
    world_service_pb2,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from datetime import datetime

ResultT = TypeVar("ResultT")
Wait: TypeAlias = Literal["accepted", "applied", "archived"]
"""How far commands must have come: on disk; their tick durable; that tick in LanceDB too."""
StateName: TypeAlias = Literal["pending", "applied", "rejected", "cancelled"]
CompressionName: TypeAlias = Literal["none", "lz4", "zstd"]

_WAITS: dict[str, command_service_pb2.WaitLevel.ValueType] = {
    "accepted": command_service_pb2.WAIT_LEVEL_ACCEPTED,
    "applied": command_service_pb2.WAIT_LEVEL_APPLIED,
    "archived": command_service_pb2.WAIT_LEVEL_ARCHIVED,
}
COMPRESSIONS: dict[str, world_pb2.Compression.ValueType] = {
    "none": world_pb2.COMPRESSION_NONE,
    "lz4": world_pb2.COMPRESSION_LZ4,
    "zstd": world_pb2.COMPRESSION_ZSTD,
}

UNBOUNDED = float("inf")


@dataclass(frozen=True, slots=True, kw_only=True)
class Unary(Generic[RequestT, ResponseT, ResultT]):
    """A call with one answer.

    Attributes:
        retry: whether it may be tried again.
        extra_s: seconds it may take beyond the client's `timeout_s`; UNBOUNDED: no time limit.
    """

    method: Method[RequestT, ResponseT]
    request: RequestT
    parse: Callable[[ResponseT], ResultT]
    retry: bool
    extra_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Streamed(Generic[RequestT, ResponseT, ResultT]):
    """A call with a stream of answers, each read by `parse`; without a time limit.

    Attributes:
        retry: whether it may be tried again as long as no answer has come.
    """

    method: Method[RequestT, ResponseT]
    request: RequestT
    parse: Callable[[ResponseT], ResultT]
    retry: bool


@dataclass(frozen=True, slots=True)
class Page(Generic[ResultT]):
    """A page of a list; an empty token ends it."""

    items: list[ResultT]
    next_page_token: str


def server_info() -> Unary[Any, Any, ServerInfo]:
    """GetServerInfo."""
    return Unary(
        method=methods.GET_SERVER_INFO,
        request=server_service_pb2.GetServerInfoRequest(),
        parse=ServerInfo.from_message,
        retry=True,
    )


def create_world(
    name: str,
    *,
    template: str,
    seed: int | None,
    labels: Mapping[str, str] | None,
    world_id: str | None,
    keep: Mapping[str, int | None],
) -> Unary[Any, Any, WorldInfo]:
    """CreateWorld, with an id of the client's so that it may be retried."""
    return Unary(
        method=methods.CREATE_WORLD,
        request=world_service_pb2.CreateWorldRequest(
            name=name,
            template=template,
            seed=seed,
            labels=labels or {},
            world_id=world_id or new_id(),
            retention=_retention(keep),
        ),
        parse=lambda response: WorldInfo.from_message(response.world),
        retry=True,
    )


def fork_world(
    world: str,
    name: str,
    *,
    at_tick: int | None,
    seed: int | None,
    with_pending: bool,
    labels: Mapping[str, str] | None,
    world_id: str | None,
) -> Unary[Any, Any, WorldInfo]:
    """ForkWorld, with an id of the client's so that it may be retried."""
    return Unary(
        method=methods.FORK_WORLD,
        request=world_service_pb2.ForkWorldRequest(
            world=world,
            name=name,
            at_tick=at_tick,
            seed=seed,
            with_pending=with_pending,
            labels=labels or {},
            world_id=world_id or new_id(),
        ),
        parse=lambda response: WorldInfo.from_message(response.world),
        retry=True,
    )


def get_world(world: str) -> Unary[Any, Any, WorldInfo]:
    """GetWorld, by id or name."""
    return Unary(
        method=methods.GET_WORLD,
        request=world_service_pb2.GetWorldRequest(world=world),
        parse=lambda response: WorldInfo.from_message(response.world),
        retry=True,
    )


def list_worlds(labels: Mapping[str, str] | None, page_token: str) -> Unary[Any, Any, Page[WorldInfo]]:
    """ListWorlds, one page."""
    return Unary(
        method=methods.LIST_WORLDS,
        request=world_service_pb2.ListWorldsRequest(
            labels=labels or {}, page_size=1000, page_token=page_token
        ),
        parse=lambda response: Page(
            [WorldInfo.from_message(world) for world in response.worlds], response.next_page_token
        ),
        retry=True,
    )


def _retention(keep: Mapping[str, int | None]) -> world_pb2.Retention | None:
    """What of (keep_ticks, keep_every, keep_bytes) is given; None where nothing is."""
    given = {name: value for name, value in keep.items() if value is not None}
    return world_pb2.Retention(**given) if given else None


def update_world(
    world_id: str,
    *,
    name: str | None,
    labels: Mapping[str, str] | None,
    keep: Mapping[str, int | None],
    etag: str,
) -> Unary[Any, Any, WorldInfo]:
    """UpdateWorld, of the fields that are given; with an etag a retry cannot undo what came between."""
    changes = world_pb2.World(name=name or "", labels=labels or {})
    mask = ["name"] if name is not None else []
    mask += ["labels"] if labels is not None else []
    retention = _retention(keep)
    if retention is not None:
        changes.retention.CopyFrom(retention)
        mask.append("retention")
    request = world_service_pb2.UpdateWorldRequest(world=world_id, changes=changes, etag=etag)
    request.update_mask.paths.extend(mask)
    return Unary(
        method=methods.UPDATE_WORLD,
        request=request,
        parse=lambda response: WorldInfo.from_message(response.world),
        retry=bool(etag),
    )


def register_component(
    name: str,
    fields: Mapping[str, str] | pa.Schema,
    defaults: Mapping[str, Any] | None,
) -> Unary[Any, Any, ComponentInfo]:
    """RegisterComponent; the same again changes nothing, so it may be retried."""
    request = world_service_pb2.RegisterComponentRequest(name=name, defaults=to_struct(defaults or {}))
    if isinstance(fields, pa.Schema):
        request.arrow_schema = fields.serialize().to_pybytes()
    else:
        for field, kind in fields.items():
            # "int64?" may be null; without a mark it may not.
            request.fields.add(name=field, type=kind.removesuffix("?"), nullable=kind.endswith("?"))
    return Unary(
        method=methods.REGISTER_COMPONENT,
        request=request,
        parse=lambda response: ComponentInfo.from_message(response.component),
        retry=True,
    )


def list_components() -> Unary[Any, Any, list[ComponentInfo]]:
    """ListComponents."""
    return Unary(
        method=methods.LIST_COMPONENTS,
        request=world_service_pb2.ListComponentsRequest(),
        parse=lambda response: [ComponentInfo.from_message(each) for each in response.components],
        retry=True,
    )


def list_processors(world: str) -> Unary[Any, Any, list[ProcessorInfo]]:
    """ListProcessors."""
    return Unary(
        method=methods.LIST_PROCESSORS,
        request=world_service_pb2.ListProcessorsRequest(world=world),
        parse=lambda response: [ProcessorInfo.from_message(each) for each in response.processors],
        retry=True,
    )


def create_token(
    name: str,
    *,
    roles: Iterable[str],
    worlds: Iterable[str],
    allowed_commands: Iterable[str],
    ttl_s: float | None,
) -> Unary[Any, Any, TokenInfo]:
    """CreateToken; a retry would make another one."""
    return Unary(
        method=methods.CREATE_TOKEN,
        request=auth_service_pb2.CreateTokenRequest(
            name=name,
            roles=roles,
            worlds=worlds,
            allowed_commands=map(type_value, allowed_commands),
            ttl=to_duration(ttl_s),
        ),
        parse=lambda response: TokenInfo.from_message(response.token, secret=response.secret),
        retry=False,
    )


def list_tokens(page_token: str) -> Unary[Any, Any, Page[TokenInfo]]:
    """ListTokens, one page."""
    return Unary(
        method=methods.LIST_TOKENS,
        request=auth_service_pb2.ListTokensRequest(page_size=1000, page_token=page_token),
        parse=lambda response: Page(
            [TokenInfo.from_message(each) for each in response.tokens], response.next_page_token
        ),
        retry=True,
    )


def revoke_token(token_id: str) -> Unary[Any, Any, TokenInfo]:
    """RevokeToken; once revoked it stays so."""
    return Unary(
        method=methods.REVOKE_TOKEN,
        request=auth_service_pb2.RevokeTokenRequest(token_id=token_id),
        parse=lambda response: TokenInfo.from_message(response.token),
        retry=True,
    )


def destroy_world(world_id: str) -> Unary[Any, Any, WorldInfo]:
    """DestroyWorld, by id: so a retry cannot hit a new world of the same name."""
    return Unary(
        method=methods.DESTROY_WORLD,
        request=world_service_pb2.DestroyWorldRequest(world=world_id),
        parse=lambda response: WorldInfo.from_message(response.world),
        retry=True,
    )


def submit(
    world: str,
    commands: Iterable[Command],
    *,
    allow_partial: bool,
    wait: Wait,
    max_wait_s: float,
) -> Unary[Any, Any, list[Receipt]]:
    """Submit; ids are made here, before the first try, so that every try carries the same."""
    waits = wait != "accepted"
    return Unary(
        method=methods.SUBMIT,
        request=command_service_pb2.SubmitRequest(
            world=world,
            commands=with_ids(commands),
            allow_partial=allow_partial,
            wait=_WAITS[wait],
            max_wait=to_duration(max_wait_s) if waits else None,
        ),
        parse=lambda response: receipts_of(response.receipts),
        retry=True,
        extra_s=max_wait_s if waits else 0.0,
    )


def submit_stream_request(
    world: str, commands: Iterable[Command], *, allow_partial: bool, wait: Wait, max_wait_s: float | None
) -> command_service_pb2.SubmitStreamRequest:
    """One request of a SubmitStream, its commands with ids."""
    return command_service_pb2.SubmitStreamRequest(
        world=world,
        commands=with_ids(commands),
        allow_partial=allow_partial,
        wait=_WAITS[wait],
        max_wait=to_duration(max_wait_s) if wait != "accepted" else None,
    )


def with_ids(commands: Iterable[Command]) -> list[Command]:
    """Gives an id to those that have none, on copies: the caller's messages are left alone."""
    return [command if command.id else _with_id(command) for command in commands]


def _with_id(command: Command) -> Command:
    copy = Command()
    copy.CopyFrom(command)
    copy.id = new_id()
    return copy


def receipts_of(messages: Iterable[command_service_pb2.CommandReceipt]) -> list[Receipt]:
    """Reads the receipts of a request."""
    return [Receipt.from_message(message) for message in messages]


def get_command(world: str, command_id: str) -> Unary[Any, Any, CommandRecord]:
    """GetCommand."""
    return Unary(
        method=methods.GET_COMMAND,
        request=command_service_pb2.GetCommandRequest(world=world, command_id=command_id),
        parse=CommandRecord.from_message,
        retry=True,
    )


def list_commands(
    world: str,
    *,
    states: Iterable[CommandState | StateName],
    types: Iterable[str],
    actor_id: str,
    from_time: datetime | None,
    tables: bool,
    page_size: int,
    page_token: str,
) -> Unary[Any, Any, Page[CommandRecord]]:
    """ListCommands, one page."""
    request = command_service_pb2.ListCommandsRequest(
        world=world,
        states=[_number(command_pb2.CommandState, "COMMAND_STATE", state) for state in states],
        types=[_number(command_pb2.CommandType, "COMMAND_TYPE", kind) for kind in types],
        actor_id=actor_id,
        view=command_service_pb2.COMMAND_VIEW_FULL if tables else command_service_pb2.COMMAND_VIEW_BASIC,
        page_size=page_size,
        page_token=page_token,
    )
    if from_time is not None:
        request.from_time.CopyFrom(to_timestamp(from_time))
    return Unary(
        method=methods.LIST_COMMANDS,
        request=request,
        parse=lambda response: Page(
            [CommandRecord.from_message(record) for record in response.commands], response.next_page_token
        ),
        retry=True,
    )


def _number(enum: Any, prefix: str, name: str) -> Any:
    try:
        return enum.Value(f"{prefix}_{name.upper()}")
    except ValueError:
        known = ", ".join(key.removeprefix(f"{prefix}_").lower() for key in enum.keys()[1:])
        raise ValueError(f"{name!r} is none of {known}") from None


def read_result(world: str, command_id: str) -> Streamed[Any, Any, bytes]:
    """ReadResult."""
    return Streamed(
        method=methods.READ_RESULT,
        request=command_service_pb2.ReadResultRequest(world=world, command_id=command_id),
        parse=lambda response: response.ipc,
        retry=True,
    )


def cancel_command(world: str, command_id: str) -> Unary[Any, Any, Outcome]:
    """CancelCommand; cancelling twice answers the same."""
    return Unary(
        method=methods.CANCEL_COMMAND,
        request=command_service_pb2.CancelCommandRequest(world=world, command_id=command_id),
        parse=lambda response: Outcome.from_message(response.outcome),
        retry=True,
        extra_s=UNBOUNDED,
    )


def step(
    world: str,
    ticks: int,
    *,
    inputs: Mapping[str, Any] | None,
    expected_tick: int | None,
    max_wait_s: float | None,
) -> Unary[Any, Any, StepResult]:
    """Step; safe to retry only with `expected_tick`."""
    return Unary(
        method=methods.STEP,
        request=simulation_service_pb2.StepRequest(
            world=world,
            ticks=ticks,
            inputs=None if inputs is None else to_struct(inputs),
            max_wait=to_duration(max_wait_s),
            expected_tick=expected_tick,
        ),
        parse=StepResult.from_message,
        retry=expected_tick is not None,
        extra_s=UNBOUNDED,
    )


def run(
    world: str, ticks: int, *, inputs: Mapping[str, Any] | None, expected_tick: int | None
) -> Streamed[Any, Any, RunProgress]:
    """Run; safe to retry only with `expected_tick`."""
    return Streamed(
        method=methods.RUN,
        request=simulation_service_pb2.RunRequest(
            world=world,
            ticks=ticks,
            inputs=None if inputs is None else to_struct(inputs),
            expected_tick=expected_tick,
        ),
        parse=RunProgress.from_message,
        retry=expected_tick is not None,
    )


def rollout(world: str, ticks: int, options: RolloutOptions) -> Streamed[Any, Any, BranchResult]:
    """RunRollout; never retried: it computes everything again."""
    return Streamed(
        method=methods.RUN_ROLLOUT,
        request=simulation_service_pb2.RunRolloutRequest(
            world=world, rollout=rollout_message(ticks, options)
        ),
        parse=BranchResult.from_message,
        retry=False,
    )


def episode(world: str, max_ticks: int, options: EpisodeOptions) -> Streamed[Any, Any, BranchResult]:
    """RunEpisode; never retried: it computes everything again."""
    return Streamed(
        method=methods.RUN_EPISODE,
        request=simulation_service_pb2.RunEpisodeRequest(
            world=world, episode=episode_message(max_ticks, options)
        ),
        parse=BranchResult.from_message,
        retry=False,
    )


def play(
    world: str,
    *,
    hz: float,
    max_ticks: int,
    inputs: Mapping[str, Any] | None,
    expected_tick: int | None,
) -> Unary[Any, Any, WorldInfo]:
    """Play; safe to retry only with `expected_tick`."""
    return Unary(
        method=methods.PLAY,
        request=simulation_service_pb2.PlayRequest(
            world=world,
            hz=hz,
            max_ticks=max_ticks,
            inputs=None if inputs is None else to_struct(inputs),
            expected_tick=expected_tick,
        ),
        parse=lambda response: WorldInfo.from_message(response.world),
        retry=expected_tick is not None,
    )


def pause(world: str) -> Unary[Any, Any, WorldInfo]:
    """Pause; not retried, for it would stop what somebody else began since."""
    return Unary(
        method=methods.PAUSE,
        request=simulation_service_pb2.PauseRequest(world=world),
        parse=lambda response: WorldInfo.from_message(response.world),
        retry=False,
        extra_s=UNBOUNDED,
    )


def query(
    world: str,
    *,
    at_tick: int | None,
    ticks: tuple[int, int] | None,
    components: Iterable[str],
    where: str,
    entity_ids: EntityIds | None,
    limit: int,
    compression: CompressionName,
) -> Streamed[Any, Any, bytes]:
    """Query, in Arrow."""
    if at_tick is not None and ticks is not None:
        raise ValueError("give at_tick or ticks, not both")
    request = query_service_pb2.QueryRequest(
        world=world,
        components=components,
        where=where,
        entity_ids=entity_id_list(entity_ids),
        limit=limit,
        compression=COMPRESSIONS[compression],
        format=query_service_pb2.FORMAT_ARROW,
    )
    if at_tick is not None:
        request.at_tick = at_tick
    if ticks is not None:
        request.ticks.from_tick, request.ticks.to_tick = ticks
    return Streamed(
        method=methods.QUERY,
        request=request,
        parse=lambda response: response.ipc,
        retry=True,
    )


def sql(text: str, at_tick: int | None) -> Streamed[Any, Any, bytes]:
    """Sql, in Arrow."""
    return Streamed(
        method=methods.SQL,
        request=query_service_pb2.SqlRequest(
            sql=text, at_tick=at_tick, format=query_service_pb2.FORMAT_ARROW
        ),
        parse=lambda response: response.ipc,
        retry=True,
    )


def rows_of(pieces: Iterable[bytes]) -> Rows:
    """Joins the pieces that a query streams."""
    return Rows(from_ipc(pieces))


def kept_ticks(info: WorldInfo, ticks: tuple[int, int] | None) -> tuple[int, int] | None:
    """Answers the range that a history is about: what was asked, or all that is kept; None: there is no tick yet."""
    if ticks is not None:
        return ticks
    return (info.earliest_tick, info.tick - 1) if info.tick > info.earliest_tick else None


def get_entity(world: str, entity_id: int, at_tick: int | None) -> Unary[Any, Any, dict[str, Json]]:
    """GetEntity."""
    return Unary(
        method=methods.GET_ENTITY,
        request=query_service_pb2.GetEntityRequest(world=world, entity_id=entity_id, at_tick=at_tick),
        parse=components_of,
        retry=True,
    )
