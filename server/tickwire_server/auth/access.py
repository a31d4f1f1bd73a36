"""The door: credentials in, an actor out. Whoever was let in is remembered, until something about it changed.

Used on the event loop. Without authentication configured everybody is the local administrator.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from tickwire_engine import ActorCtx
from tickwire_engine.errors import RoleForbidsError, TokenInvalidError, TokenMissingError
from tickwire_server.auth.actor import LOCAL, Actor
from tickwire_server.auth.globs import WorldGlobs
from tickwire_server.auth.policy import IDENTIFIED
from tickwire_server.auth.tokens import expired

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tickwire_server.auth.identity import Authenticator, Credentials, Identity
    from tickwire_server.auth.policy import Policy
    from tickwire_server.auth.quotas import Quotas

_REMEMBERED = 10_000


class Access:
    """Who may come in, and as whom.

    Attributes:
        required: Whether calls need credentials.
        policy: What roles may do.
        quotas: What actors have used up.
    """

    def __init__(
        self,
        *,
        authenticators: Sequence[Authenticator],
        policy: Policy,
        quotas: Quotas,
        required: bool,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.required = required
        self.policy = policy
        self.quotas = quotas
        self._authenticators = tuple(authenticators)
        self._clock = clock
        self._remembered: OrderedDict[Credentials, tuple[Actor, float | None]] = OrderedDict()

    def actor(self, credentials: Credentials) -> Actor:
        """Return who presents `credentials`.

        Raises:
            UnauthenticatedError: Nobody whom this server knows.
        """
        if not self.required:
            return LOCAL
        known = self._remembered.get(credentials)
        if known is not None:
            actor, expires_at_s = known
            if expires_at_s is not None and expires_at_s <= self._clock():
                raise expired(expires_at_s)
            return actor
        identity = self._identify(credentials)
        actor = self._actor_of(identity)
        self._remembered[credentials] = actor, identity.expires_at_s
        if len(self._remembered) > _REMEMBERED:
            self._remembered.popitem(last=False)
        return actor

    def permits(self, actor: Actor, rpc: str) -> bool:
        """Whether `actor` may call `rpc`."""
        return rpc in actor.permissions.rpcs or rpc in IDENTIFIED

    def require_rpc(self, actor: Actor, rpc: str) -> None:
        """Refuse an RPC that no role of `actor` permits.

        Raises:
            RoleForbidsError: None does.
        """
        if self.permits(actor, rpc):
            return
        needs = self.policy.least_for_rpc(rpc)
        remedy = f": it needs the role {needs}" if needs else ", nor may anybody else"
        raise RoleForbidsError(f"you may not call {rpc}{remedy}", method=rpc, needs=needs)

    def refresh(self) -> bool:
        """Forget whom it knows if anything changed; returns whether it did. Called every few seconds."""
        changed = [authenticator.changed() for authenticator in self._authenticators]
        if any(changed):
            self._remembered.clear()
        return any(changed)

    def _identify(self, credentials: Credentials) -> Identity:
        for authenticator in self._authenticators:
            identity = authenticator.authenticate(credentials)
            if identity is not None:
                return identity
        if credentials.bearer:
            raise TokenInvalidError("the token is of no kind that this server takes")
        raise TokenMissingError("this server asks who you are: send `authorization: Bearer <token>`")

    def _actor_of(self, identity: Identity) -> Actor:
        expires = identity.expires_at_s
        key = identity.actor_id.hex
        return Actor(
            ctx=ActorCtx(
                id=identity.actor_id,
                subject=identity.subject,
                roles=tuple(role for role in identity.roles if role in self.policy.names),
                worlds=identity.worlds,
                allowed_commands=identity.allowed_commands,
                expires_at=None if expires is None else datetime.fromtimestamp(expires, UTC),
            ),
            key=key,
            permissions=self.policy.permissions(identity.roles).only(identity.allowed_commands),
            worlds=WorldGlobs(identity.worlds),
            policy=self.policy,
            account=self.quotas.account(key),
        )
