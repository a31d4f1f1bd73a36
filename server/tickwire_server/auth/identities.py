"""Everything about identity of one server, wired from its configuration: made once, closed once.

In the background it saves what quotas count, writes the audit trail, and ends streams whose credentials ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING

import structlog

from tickwire_engine.errors import InvalidRequestError, StorageError
from tickwire_server.auth.access import Access
from tickwire_server.auth.audit import AuditLog
from tickwire_server.auth.certificates import CertificateAuthenticator, CertificateRule
from tickwire_server.auth.globs import check_globs
from tickwire_server.auth.jwts import JwtAuthenticator, JwtSettings
from tickwire_server.auth.policy import Policy
from tickwire_server.auth.quotas import COSTS, DAY_S, Limits, Quotas
from tickwire_server.auth.sessions import Sessions
from tickwire_server.auth.tokens import TokenAuthenticator

if TYPE_CHECKING:
    from collections.abc import Callable

    from tickwire_engine.storage._identity import IdentityStore
    from tickwire_server.auth.identity import Authenticator
    from tickwire_server.config import ServerConfig

_log = structlog.get_logger(__name__)
SAVE_EVERY_S = 1.0
CHECK_EVERY_S = 5.0
"""How often open streams are asked again for whom they are: well within the 30 s that are promised."""


class Identities:
    """The door, the tokens, the streams, the quotas and the audit trail of one server.

    Attributes:
        access: Credentials in, actors out.
        policy: What roles may do.
        tokens: The API tokens.
        sessions: Streams that are open.
        audit: Who did what.
        limits: What an actor may use.
    """

    def __init__(
        self, config: ServerConfig, store: IdentityStore, clock: Callable[[], float] = time.time
    ) -> None:
        """Read keys, rules and policy.

        Raises:
            InvalidRequestError: One of the files, or a rule, is wrong; the message says which and where.
        """
        self.clock = clock
        self.policy = Policy() if config.policy is None else Policy.load(config.policy)
        self.limits = Limits(
            commands_per_tick=config.commands_per_tick,
            cost_units_per_day=config.cost_units_per_day,
            streams=config.streams_per_actor,
            connections=config.connections_per_actor,
            costs={**COSTS, **config.command_costs},
        )
        self.tokens = TokenAuthenticator(store.tokens(), clock)
        self.quotas = Quotas(self.limits, clock)
        self.quotas.restore(store.quotas(int(clock() // DAY_S)))
        self.access = Access(
            authenticators=_authenticators(config, self.policy, self.tokens),
            policy=self.policy,
            quotas=self.quotas,
            required=config.authenticates,
            clock=clock,
        )
        self.sessions = Sessions()
        self.audit = AuditLog(store, keep=config.audit_events, days=config.audit_days, clock=clock)
        self._store = store
        self._upkeep: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin the work in the background."""
        self._upkeep = asyncio.create_task(self._keep_up(), name="identities")

    async def close(self) -> None:
        """End it, and make everything durable."""
        if self._upkeep is not None:
            self._upkeep.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._upkeep
        with contextlib.suppress(StorageError):
            await self.save()

    async def save(self) -> None:
        """Make quotas and audit events durable."""
        used = list(self.quotas.unsaved())
        if used:
            await asyncio.shield(self._store.save_quotas(used))
        await self.audit.flush()

    def check(self) -> None:
        """Look whether keys or tokens changed, and end the streams of those that are no longer good."""
        self.access.refresh()
        self.sessions.check(self.access)

    async def _keep_up(self) -> None:
        checked = self.clock()
        while True:
            await asyncio.sleep(SAVE_EVERY_S)
            try:
                await self.save()
                if abs(self.clock() - checked) >= CHECK_EVERY_S:
                    checked = self.clock()
                    self.check()
            except StorageError as error:
                # A full disk: what is not saved is tried again; failed for good: the server is on its way out.
                _log.warning("cannot save quotas and audit events", error=error.message)


def _authenticators(config: ServerConfig, policy: Policy, tokens: TokenAuthenticator) -> list[Authenticator]:
    found: list[Authenticator] = [tokens]
    if config.jwt_keys is not None:
        found.append(
            JwtAuthenticator(
                JwtSettings(
                    keys=config.jwt_keys,
                    issuer=config.jwt_issuer,
                    audience=config.jwt_audience,
                    leeway_s=config.jwt_leeway_s,
                    roles_claim=config.jwt_roles_claim,
                    worlds_claim=config.jwt_worlds_claim,
                    commands_claim=config.jwt_commands_claim,
                )
            )
        )
    if config.certificates:
        rules = []
        for number, setting in enumerate(config.certificates):
            unknown = [role for role in setting.roles if role not in policy.names]
            if unknown:
                raise InvalidRequestError(
                    f"certificates[{number}]: {unknown[0]!r} is no role: there are {', '.join(policy.names)}"
                )
            check_globs(setting.worlds, field=f"certificates[{number}].worlds")
            rules.append(CertificateRule(**setting.model_dump()))
        found.append(CertificateAuthenticator(rules))
    return found
