"""AuthService: makes, lists and revokes API tokens, and lists the audit trail."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tickwire_engine.errors import InvalidPageTokenError, InvalidRequestError, RoleForbidsError
from tickwire_server.auth.actor import caller
from tickwire_server.auth.globs import check_globs
from tickwire_server.auth.tokens import new_token

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from tickwire_engine import CommandType
    from tickwire_engine.storage._identity import IdentityStore
    from tickwire_engine.storage.rows import AuditRow, TokenRow
    from tickwire_server.auth import Actor
    from tickwire_server.auth.identities import Identities

DEFAULT_PAGE = 100
MAX_PAGE = 1_000
MAX_NAME = 256
MAX_GRANTS = 100
MAX_TTL_S = 100 * 366 * 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRequest:
    """A token that somebody asks for; `ttl_s` None: it does not end by itself."""

    name: str
    roles: Sequence[str]
    worlds: Sequence[str] = ()
    allowed_commands: Sequence[CommandType] = ()
    ttl_s: float | None = None


class AuthService:
    """Used on the event loop; what it answers is durable."""

    def __init__(self, identities: Identities, store: IdentityStore) -> None:
        self._identities = identities
        self._store = store

    async def create_token(self, request: TokenRequest, creator: Actor) -> tuple[TokenRow, str]:
        """Make a token, and return it with its secret.

        Raises:
            InvalidRequestError: The request is no token's.
            RoleForbidsError: It would grant more than `creator` has.
        """
        self._check(request)
        worlds = tuple(request.worlds) or creator.worlds.globs
        self._require_no_more(request, worlds, creator)
        now_s = self._identities.clock()
        row, secret = new_token(
            request.name,
            roles=request.roles,
            worlds=worlds,
            allowed_commands=request.allowed_commands,
            expires_at_us=0 if request.ttl_s is None else int((now_s + request.ttl_s) * 1e6),
            created_by=str(creator.ctx.id),
        )
        await self._store.put_token(row)
        self._identities.tokens.put(row)
        return row, secret

    def list_tokens(self, *, page_size: int, page_token: str) -> tuple[list[TokenRow], str]:
        """Return a page of all tokens, the newest first, and the next page's token."""
        size = _page_size(page_size)
        before = _read_page(page_token, "tokens")
        rows = [row for row in self._identities.tokens.rows if not before or row.id.hex() < before]
        token = _make_page(rows[size - 1].id.hex(), "tokens") if len(rows) > size else ""
        return rows[:size], token

    async def revoke_token(self, token_id: UUID) -> TokenRow:
        """End a token; open streams that it opened end at once. Again: the same.

        Raises:
            TokenNotFoundError: There is none of that id.
        """
        row = self._identities.tokens.find(token_id)
        if not row.revoked_at_us:
            row = replace(row, revoked_at_us=int(self._identities.clock() * 1e6))
            await self._store.put_token(row)
            self._identities.tokens.put(row)
        self._identities.check()
        return row

    async def list_audit_events(
        self, *, actor: str, world: str, from_us: int, page_size: int, page_token: str
    ) -> tuple[list[AuditRow], str]:
        """Return a page of audit events of worlds that the caller may reach, the newest first, and the next page's token."""
        size = _page_size(page_size)
        bound = f"audit {actor} {world} {from_us}"
        before = _read_page(page_token, bound)
        if before and not before.isdecimal():
            raise _strange_page()
        reach, number, more = caller().worlds, int(before or 0), True
        events: list[AuditRow] = []
        while more and len(events) <= size:
            found = await self._identities.audit.events(
                actor=actor, world=world, from_us=from_us, before=number, limit=MAX_PAGE
            )
            # Events of no world, as of tokens, are everybody's who may read the trail.
            events += [row for row in found if not row.world_name or reach.match(row.world_name)]
            more = len(found) == MAX_PAGE
            number = found[-1].number if found else 0
        token = _make_page(str(events[size - 1].number), bound) if len(events) > size else ""
        return events[:size], token

    def _check(self, request: TokenRequest) -> None:
        if not request.name or len(request.name) > MAX_NAME:
            raise InvalidRequestError(f"a token needs a name of at most {MAX_NAME} letters", field="name")
        if not request.roles:
            raise InvalidRequestError("a token needs a role", field="roles")
        for field in ("roles", "worlds", "allowed_commands"):
            if len(getattr(request, field)) > MAX_GRANTS:
                raise InvalidRequestError(f"at most {MAX_GRANTS} {field}", field=field)
        known = self._identities.policy.names
        for index, role in enumerate(request.roles):
            if role not in known:
                raise InvalidRequestError(
                    f"{role!r} is no role: there are {', '.join(known)}", field=f"roles[{index}]"
                )
        check_globs(request.worlds, field="worlds")
        if request.ttl_s is not None and not 0 < request.ttl_s <= MAX_TTL_S:
            raise InvalidRequestError("ttl must be positive, and at most 100 years", field="ttl")

    def _require_no_more(self, request: TokenRequest, worlds: Sequence[str], creator: Actor) -> None:
        granted = self._identities.policy.permissions(tuple(request.roles)).only(request.allowed_commands)
        if not creator.permissions.covers(granted):
            raise RoleForbidsError(
                f"a token cannot grant more than you have: {', '.join(request.roles)} is more",
                field="roles",
                needs=request.roles[-1],
            )
        for index, glob in enumerate(worlds):
            if not creator.worlds.covers(glob):
                raise RoleForbidsError(
                    f"a token cannot grant more than you have: worlds {glob!r} go beyond yours",
                    field=f"worlds[{index}]",
                )


def _page_size(asked: int) -> int:
    if asked < 0:
        raise InvalidRequestError("page_size must not be negative", field="page_size")
    return min(asked or DEFAULT_PAGE, MAX_PAGE)


def _make_page(after: str, bound: str) -> str:
    return base64.urlsafe_b64encode(json.dumps([after, bound]).encode()).decode()


def _read_page(token: str, bound: str) -> str:
    if not token:
        return ""
    try:
        after, given = json.loads(base64.urlsafe_b64decode(token.encode()))
    except (ValueError, TypeError):
        raise _strange_page() from None
    if given != bound or not isinstance(after, str):
        raise _strange_page()
    return after


def _strange_page() -> InvalidPageTokenError:
    return InvalidPageTokenError(
        "this page_token was not made for this request: start over without one", field="page_token"
    )
