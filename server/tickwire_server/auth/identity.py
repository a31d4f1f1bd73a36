"""Credentials in, identities out: what the ways to authenticate have in common."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from tickwire_engine import CommandType

_NAMESPACE = uuid.UUID("9b7a7ce4-2f7c-5d0e-9c44-6d1c0a7f3b11")


@dataclass(frozen=True, slots=True)
class Certificate:
    """What a verified client certificate says of its holder."""

    common_name: str = ""
    alternative_names: tuple[str, ...] = ()
    """DNS names, addresses and URIs; a SPIFFE id is one of the URIs."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """What came with a call."""

    bearer: str = ""
    """The token of `authorization: Bearer`; "": none."""
    certificate: Certificate | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who somebody is, and what they were granted.

    Attributes:
        actor_id: The same for the same identity, always.
        expires_at_s: When it ends by itself, in seconds since the epoch; None: never.
    """

    actor_id: uuid.UUID
    subject: str
    roles: tuple[str, ...]
    worlds: tuple[str, ...] = ("*",)
    allowed_commands: tuple[CommandType, ...] = ()
    expires_at_s: float | None = None


class Authenticator(Protocol):
    """One way to authenticate."""

    def authenticate(self, credentials: Credentials) -> Identity | None:
        """Return who presents `credentials`; None: they are of a kind that others judge.

        Raises:
            UnauthenticatedError: They are of this kind, and not good.
        """
        ...

    def changed(self) -> bool:
        """Whether what was answered before may no longer hold; asked every few seconds."""
        ...


def actor_id(issuer: str, subject: str) -> uuid.UUID:
    """Return the id of an identity that has none of its own: the same for the same issuer and subject."""
    return uuid.uuid5(_NAMESPACE, f"{issuer}\0{subject}")
