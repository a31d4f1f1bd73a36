"""AuthService over gRPC."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID

from tickwire.v1 import auth_service_pb2 as pb
from tickwire_engine.errors import InvalidRequestError
from tickwire_server.auth import caller
from tickwire_server.grpc.convert import command_types, parse_uuid, seconds, type_protos
from tickwire_server.grpc.errors import answers
from tickwire_server.grpc.wire import timestamp
from tickwire_server.services.auth import TokenRequest

if TYPE_CHECKING:
    from tickwire_engine.storage.rows import TokenRow
    from tickwire_server.services.auth import AuthService


class AuthServicer:
    """CreateToken, ListTokens, RevokeToken."""

    def __init__(self, service: AuthService) -> None:
        self._service = service

    @answers
    async def CreateToken(self, request: pb.CreateTokenRequest, context: Any) -> pb.CreateTokenResponse:
        """Make a token; the only time that its secret is told."""
        row, secret = await self._service.create_token(
            TokenRequest(
                name=request.name,
                roles=tuple(request.roles),
                worlds=tuple(request.worlds),
                allowed_commands=command_types(request.allowed_commands, field="allowed_commands"),
                ttl_s=seconds(request.ttl, field="ttl") if request.HasField("ttl") else None,
            ),
            caller(),
        )
        return pb.CreateTokenResponse(token=_token_proto(row), secret=secret)

    @answers
    async def ListTokens(self, request: pb.ListTokensRequest, context: Any) -> pb.ListTokensResponse:
        """List tokens, a page at a time."""
        rows, token = self._service.list_tokens(page_size=request.page_size, page_token=request.page_token)
        return pb.ListTokensResponse(tokens=map(_token_proto, rows), next_page_token=token)

    @answers
    async def RevokeToken(self, request: pb.RevokeTokenRequest, context: Any) -> pb.RevokeTokenResponse:
        """End a token."""
        if not request.token_id:
            raise InvalidRequestError("token_id must be given", field="token_id")
        row = await self._service.revoke_token(parse_uuid(request.token_id, field="token_id"))
        return pb.RevokeTokenResponse(token=_token_proto(row))


def _token_proto(row: TokenRow) -> pb.Token:
    message = pb.Token(
        id=str(UUID(bytes=row.id)),
        name=row.name,
        roles=row.roles,
        worlds=row.worlds,
        allowed_commands=type_protos(row.allowed_commands),
        created_at=timestamp(row.created_at_us),
        created_by=row.created_by,
    )
    if row.expires_at_us:
        message.expires_at.CopyFrom(timestamp(row.expires_at_us))
    if row.revoked_at_us:
        message.revoked_at.CopyFrom(timestamp(row.revoked_at_us))
    return message
