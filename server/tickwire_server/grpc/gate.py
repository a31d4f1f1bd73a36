"""The gate: where a call becomes an actor's. Every RPC goes through it once, before its servicer sees it.

It authenticates, refuses what the actor's roles do not permit, counts streams and connections, ends streams whose
credentials end, and tells the audit trail. Servicers ask `caller()`. While no authentication is configured, calls that are
not audited pass as they are: then the gate costs nothing.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote

import grpc
from google.rpc import code_pb2

from tickwire_engine.errors import TickwireError, TokenInvalidError
from tickwire_server.auth import ANONYMOUS, OPEN, Actor, Certificate, Credentials, Session, run_as
from tickwire_server.grpc.errors import CallOutcome, abort, reason_of, status_of, track

if TYPE_CHECKING:
    from collections.abc import Callable

    from tickwire_server.auth.identities import Identities

AUDITED = frozenset(
    (
        *("WorldService.CreateWorld", "WorldService.UpdateWorld", "WorldService.DestroyWorld"),
        *("WorldService.ForkWorld", "WorldService.RegisterComponent", "CommandService.CancelCommand"),
        *("SimulationService.Step", "SimulationService.Run", "SimulationService.Play"),
        *("SimulationService.Pause", "SimulationService.RunRollout", "SimulationService.RunEpisode"),
        *("AuthService.CreateToken", "AuthService.ListTokens", "AuthService.RevokeToken"),
        "ServerService.ListAuditEvents",
    )
)
"""RPCs whose every outcome the audit trail has; of all others it has the refusals of who called."""
_REFUSALS = frozenset((code_pb2.UNAUTHENTICATED, code_pb2.PERMISSION_DENIED))
_RESOURCES = ("command_id", "token_id", "name")
_LOOPBACK = ("ipv4:127.", "ipv6:[::1]", "unix:")


class World(NamedTuple):
    """The world that a call is about."""

    id: str = ""
    name: str = ""


@dataclass(frozen=True, slots=True)
class _Entered:
    path: str
    rpc: str
    actor: Actor
    credentials: Credentials
    peer: str
    outcome: CallOutcome


class Gate:
    """Wraps handlers; lives as long as its server."""

    def __init__(
        self,
        identities: Identities,
        find_world: Callable[[str], World | None],
        *,
        plaintext: bool,
        certificates: bool,
    ) -> None:
        """Makes a gate.

        Args:
            identities: Who may call.
            find_world: Looks up the world that a request names, for the audit trail.
            plaintext: Connections are readable on their way: tokens are refused, unless the peer is this machine.
            certificates: Connections bring client certificates.
        """
        self._access = identities.access
        self._sessions = identities.sessions
        self._audit = identities.audit
        self._find_world = find_world
        self._plaintext = plaintext
        self._certificates = certificates

    def wrap(self, path: str, handler: Callable[[Any, Any], Any], *, streaming: bool) -> Callable[..., Any]:
        """Return what takes the calls of `handler`.

        Args:
            path: The RPC's full name, "/tickwire.v1.WorldService/GetWorld".
            handler: A coroutine function; where it is `streaming`, an asynchronous generator function too.
            streaming: Whether it sends a stream of responses.
        """
        service, _, method = path.rpartition("/")
        rpc = f"{service.rpartition('.')[2]}.{method}"
        if not self._access.required and rpc not in AUDITED:
            return handler
        return self._stream(path, rpc, handler) if streaming else self._unary(path, rpc, handler)

    def _unary(self, path: str, rpc: str, handler: Callable[[Any, Any], Any]) -> Callable[..., Any]:
        async def call(request: Any, context: Any) -> Any:
            entered = await self._enter(path, rpc, context)
            world = self._world_of(rpc, request)
            response = None
            try:
                response = await handler(request, context)
                entered.outcome.done = True
                return response
            finally:
                self._leave(entered, context, request, response, world)

        return call

    def _stream(self, path: str, rpc: str, handler: Callable[[Any, Any], Any]) -> Callable[..., Any]:
        # A coroutine that writes, not a generator: only so is it told when it must end while its reader is slow.
        async def call(request: Any, context: Any) -> None:
            entered = await self._enter(path, rpc, context)
            world = self._world_of(rpc, request)
            try:
                await self._follow(entered, handler, request, context)
                entered.outcome.done = True
            finally:
                self._leave(entered, context, request, None, world)

        return call

    async def _follow(
        self, entered: _Entered, handler: Callable[[Any, Any], Any], request: Any, context: Any
    ) -> None:
        task = asyncio.current_task()
        assert task is not None
        session = Session(entered.rpc, entered.credentials, task)
        account = entered.actor.account
        if account is not None:
            try:
                account.open_stream()
            except TickwireError as error:
                await abort(context, status_of(error))
        self._sessions.add(session)
        try:
            responses = handler(request, context)
            if asyncio.iscoroutine(responses):
                await responses
                return
            async with aclosing(responses):
                async for response in responses:
                    await context.write(response)
        except asyncio.CancelledError:
            if session.ended is None:
                raise
            task.uncancel()
            await abort(context, status_of(session.ended))
        finally:
            self._sessions.remove(session)
            if account is not None:
                account.close_stream()

    async def _enter(self, path: str, rpc: str, context: Any) -> _Entered:
        outcome = track()
        actor, credentials, peer = ANONYMOUS, Credentials(), ""
        try:
            credentials = self._credentials(context)
            if rpc not in OPEN or credentials != Credentials():
                actor = self._access.actor(credentials)
            if rpc not in OPEN:
                self._access.require_rpc(actor, rpc)
            if actor.account is not None:
                peer = context.peer()
                actor.account.connect(peer)
        except TickwireError as error:
            refused = status_of(error)
            self._note(path, actor, context, refused.code, reason_of(refused), World(), "")
            await abort(context, refused)
        run_as(actor)
        return _Entered(path, rpc, actor, credentials, peer, outcome)

    def _leave(
        self, entered: _Entered, context: Any, request: object, response: object, world: World
    ) -> None:
        if entered.actor.account is not None:
            entered.actor.account.disconnect(entered.peer)
        status = entered.outcome.status
        if entered.rpc not in AUDITED and (status is None or status.code not in _REFUSALS):
            return
        code: int = code_pb2.OK if entered.outcome.done else code_pb2.CANCELLED
        reason = ""
        if status is not None:
            code, reason = status.code, reason_of(status)
        made = getattr(response, "world", None)
        if made is not None:
            world = World(made.id, made.name)
        resource = next((found for name in _RESOURCES if (found := getattr(request, name, ""))), "")
        token = getattr(response, "token", None)
        self._note(
            entered.path, entered.actor, context, code, reason, world, resource if token is None else token.id
        )

    def _note(
        self, path: str, actor: Actor, context: Any, code: int, reason: str, world: World, resource: str
    ) -> None:
        self._audit.record(
            actor="" if actor is ANONYMOUS else str(actor.ctx.id),
            subject=actor.ctx.subject,
            method=path,
            world=world.id,
            world_name=world.name,
            resource=resource,
            code=code,
            reason=reason,
            peer=unquote(context.peer()),
        )

    def _world_of(self, rpc: str, request: object) -> World:
        ref = getattr(request, "world", "") if rpc in AUDITED else ""
        return (self._find_world(ref) if isinstance(ref, str) and ref else None) or World()

    def _credentials(self, context: Any) -> Credentials:
        if not self._access.required:
            return Credentials()
        bearer = ""
        for key, value in context.invocation_metadata() or ():
            if key == "authorization":
                scheme, _, token = value.partition(" ")
                if scheme.lower() != "bearer" or not token.strip() or bearer:
                    raise TokenInvalidError("send one `authorization: Bearer <token>`, nothing else")
                bearer = token.strip()
        if bearer and self._plaintext and not unquote(context.peer()).startswith(_LOOPBACK):
            raise TokenInvalidError(
                "tokens are refused over plaintext, where others can read them: use TLS, and another token than this"
            )
        return Credentials(bearer, _certificate(context) if self._certificates else None)


class GatedServer:
    """Stands for a server where services that are not the contract's add themselves: their RPCs get the gate too."""

    def __init__(self, server: grpc.aio.Server, gate: Gate) -> None:
        self._server = server
        self._gate = gate

    def add_generic_rpc_handlers(self, handlers: tuple[grpc.GenericRpcHandler[Any, Any], ...]) -> None:
        """Do nothing: the same handlers come by name, below."""

    def add_registered_method_handlers(
        self, service: str, handlers: dict[str, grpc.RpcMethodHandler[Any, Any]]
    ) -> None:
        """Add a service."""
        gated = {name: self._gated(f"/{service}/{name}", handler) for name, handler in handlers.items()}
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, gated),))

    def _gated(self, path: str, handler: grpc.RpcMethodHandler[Any, Any]) -> grpc.RpcMethodHandler[Any, Any]:
        make: Any
        method: Any
        make, method = {
            (False, False): (grpc.unary_unary_rpc_method_handler, handler.unary_unary),
            (False, True): (grpc.unary_stream_rpc_method_handler, handler.unary_stream),
            (True, False): (grpc.stream_unary_rpc_method_handler, handler.stream_unary),
            (True, True): (grpc.stream_stream_rpc_method_handler, handler.stream_stream),
        }[bool(handler.request_streaming), bool(handler.response_streaming)]
        gated: grpc.RpcMethodHandler[Any, Any] = make(
            self._gate.wrap(path, method, streaming=bool(handler.response_streaming)),
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )
        return gated


def _certificate(context: Any) -> Certificate | None:
    properties = context.auth_context()
    names: dict[str, None] = {}
    for key in ("peer_spiffe_id", "x509_subject_alternative_name"):
        names.update((name.decode(errors="replace"), None) for name in properties.get(key, ()))
    common_names = [name.decode(errors="replace") for name in properties.get("x509_common_name", ())]
    if not names and not common_names:
        return None
    return Certificate(common_names[0] if common_names else "", tuple(names))
