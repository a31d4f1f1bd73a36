"""ServerService over gRPC: what this server is, and who the caller is."""

from __future__ import annotations

import importlib.metadata
from typing import TYPE_CHECKING, Any

from google.rpc import code_pb2

from tickwire.v1 import command_pb2, error_reason_pb2
from tickwire.v1 import server_service_pb2 as pb
from tickwire_engine.commands import COMMANDS
from tickwire_engine.encoding import HASH_ALGORITHM
from tickwire_server.auth import ANONYMOUS, caller
from tickwire_server.grpc.convert import micros, parse_uuid, type_protos
from tickwire_server.grpc.errors import answers
from tickwire_server.grpc.wire import timestamp
from tickwire_server.services.worlds import MAX_PAGE

if TYPE_CHECKING:
    from tickwire_engine.storage.rows import AuditRow
    from tickwire_server.config import ServerConfig
    from tickwire_server.services.auth import AuthService

FEATURES = (*(f"command.{kind.value}" for kind in COMMANDS), "subscribe.full", "query.at_tick")
"""What of the contract is served, for clients that want to know before they ask."""


class ServerServicer:
    """Facts about the server."""

    def __init__(self, config: ServerConfig, app_name: str, auth: AuthService) -> None:
        self._config = config
        self._app_name = app_name
        self._auth = auth

    @answers
    async def GetServerInfo(self, request: pb.GetServerInfoRequest, context: Any) -> pb.GetServerInfoResponse:
        """Describe the server; strangers get the version."""
        actor = caller()
        if actor is ANONYMOUS:
            return pb.GetServerInfoResponse(version=version())
        limits = self._config.limits
        quotas = None if actor.account is None else actor.account.limits
        return pb.GetServerInfoResponse(
            version=version(),
            limits=pb.Limits(
                max_request_bytes=self._config.max_receive_bytes,
                max_table_bytes=limits.table_bytes,
                max_subscribe_message_bytes=self._config.max_message_bytes,
                max_page_size=MAX_PAGE,
                max_entities=limits.world_entities,
                max_worlds=limits.worlds,
                commands_per_tick=0 if quotas is None else quotas.commands_per_tick,
                cost_units_per_day=0 if quotas is None else quotas.cost_units_per_day,
            ),
            app=self._app_name,
            features=[*FEATURES, f"batch.{limits.batch_commands}"],
            hash_algorithm=HASH_ALGORITHM,
        )

    @answers
    async def WhoAmI(self, request: pb.WhoAmIRequest, context: Any) -> pb.WhoAmIResponse:
        """Describe the caller."""
        actor = caller().ctx
        message = command_pb2.ActorCtx(
            id=str(actor.id),
            subject=actor.subject,
            roles=actor.roles,
            worlds=actor.worlds,
            allowed_commands=type_protos(actor.allowed_commands),
        )
        if actor.expires_at is not None:
            message.expires_at.FromDatetime(actor.expires_at)
        return pb.WhoAmIResponse(actor_ctx=message)

    @answers
    async def ListAuditEvents(
        self, request: pb.ListAuditEventsRequest, context: Any
    ) -> pb.ListAuditEventsResponse:
        """List who did what, a page at a time."""
        actor = str(parse_uuid(request.actor_id, field="actor_id")) if request.actor_id else ""
        rows, token = await self._auth.list_audit_events(
            actor=actor,
            world=request.world,
            from_us=max(micros(request.from_time, field="from_time"), 0),
            page_size=request.page_size,
            page_token=request.page_token,
        )
        return pb.ListAuditEventsResponse(events=map(_event_proto, rows), next_page_token=token)


def _event_proto(row: AuditRow) -> pb.AuditEvent:
    reason = f"ERROR_REASON_{row.reason or 'UNSPECIFIED'}"
    return pb.AuditEvent(
        time=timestamp(row.at_us),
        actor_id=row.actor,
        subject=row.subject,
        method=row.method,
        world_id=row.world,
        resource=row.resource,
        code=code_pb2.Code.Name(row.code),  # type: ignore[arg-type]  # the stubs know values only
        reason=error_reason_pb2.ErrorReason.Value(reason),
        peer=row.peer,
    )


def version() -> str:
    """Return the distribution's version, or "unknown" where it runs from source, uninstalled."""
    try:
        return importlib.metadata.version("tickwire")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
