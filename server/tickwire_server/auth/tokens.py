"""API tokens: made here, shown once, known afterwards by their hash only.

A secret is 256 bits from the system's random source. Against such a secret no guessing helps, so a plain SHA-256 is
the right hash: a slow one protects short, human secrets, and would cost every first call of a connection instead. What is
stored tells nothing that could be sent.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from uuid import UUID

from tickwire_engine import CommandType
from tickwire_engine.errors import (
    TokenExpiredError,
    TokenInvalidError,
    TokenNotFoundError,
    TokenRevokedError,
)
from tickwire_engine.ids import uuid7
from tickwire_engine.storage.rows import TokenRow
from tickwire_server.auth.identity import Identity

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from tickwire_server.auth.identity import Credentials

PREFIX = "tw_"
"""Tells a token from a JWT, and lets scanners find one that leaked."""
_SECRET = re.compile(r"tw_[A-Za-z0-9_-]{43}")


def new_token(
    name: str,
    *,
    roles: Sequence[str],
    worlds: Sequence[str],
    allowed_commands: Sequence[CommandType],
    expires_at_us: int,
    created_by: str,
) -> tuple[TokenRow, str]:
    """Make a token.

    Args:
        name: What it is for.
        roles: Those it grants.
        worlds: Globs of world names.
        allowed_commands: Restricts the types of commands further; none: as the roles say.
        expires_at_us: When it ends by itself, in microseconds since the epoch; 0: never.
        created_by: The id of the actor that makes it.

    Returns:
        (What to store, the secret: nobody can tell it again.)
    """
    secret = PREFIX + secrets.token_urlsafe(32)
    row = TokenRow(
        id=uuid7().bytes,
        name=name,
        hash=hash_of(secret),
        roles=tuple(roles),
        worlds=tuple(worlds),
        allowed_commands=tuple(kind.value for kind in allowed_commands),
        created_at_us=time.time_ns() // 1000,
        expires_at_us=expires_at_us,
        revoked_at_us=0,
        created_by=created_by,
    )
    return row, secret


def hash_of(secret: str) -> bytes:
    """Return what a token is known by."""
    return hashlib.sha256(secret.encode()).digest()


class TokenAuthenticator:
    """Knows the tokens of one data directory; they are few, and all in memory."""

    def __init__(self, rows: Iterable[TokenRow], clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._by_hash: dict[bytes, TokenRow] = {}
        self._by_id: dict[bytes, TokenRow] = {}
        self._changed = False
        for row in rows:
            self.put(row)

    @property
    def rows(self) -> list[TokenRow]:
        """All tokens, the newest first."""
        return sorted(self._by_id.values(), key=lambda row: row.id, reverse=True)

    def put(self, row: TokenRow) -> None:
        """Note a token that was made or revoked, durably."""
        self._by_hash[row.hash] = row
        self._by_id[row.id] = row
        self._changed = True

    def find(self, token_id: UUID) -> TokenRow:
        """Return a token by its id.

        Raises:
            TokenNotFoundError: There is none.
        """
        found = self._by_id.get(token_id.bytes)
        if found is None:
            raise TokenNotFoundError(
                f"no token {token_id}: list the tokens", field="token_id", token_id=token_id
            )
        return found

    def authenticate(self, credentials: Credentials) -> Identity | None:
        """Return whom a token stands for; see `Authenticator`."""
        if not credentials.bearer.startswith(PREFIX):
            return None
        # Anything else cannot have been made here, and need not be hashed.
        row = None
        if _SECRET.fullmatch(credentials.bearer):
            row = self._by_hash.get(hash_of(credentials.bearer))
        if row is None:
            raise TokenInvalidError("this server knows no such token: check it, or ask for a new one")
        if row.revoked_at_us:
            raise TokenRevokedError("the token was revoked: ask an administrator for a new one")
        expires_at_s = row.expires_at_us / 1e6 if row.expires_at_us else None
        if expires_at_s is not None and expires_at_s <= self._clock():
            raise expired(expires_at_s)
        return Identity(
            actor_id=UUID(bytes=row.id),
            subject=row.name,
            roles=row.roles,
            worlds=row.worlds,
            allowed_commands=tuple(map(CommandType, row.allowed_commands)),
            expires_at_s=expires_at_s,
        )

    def changed(self) -> bool:
        """Whether a token was made or revoked since the last time."""
        changed, self._changed = self._changed, False
        return changed


def expired(at_s: float) -> TokenExpiredError:
    """Return the error of a token whose time is over."""
    moment = datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return TokenExpiredError(f"the token expired at {moment}: get a new one", expired_at=moment)
