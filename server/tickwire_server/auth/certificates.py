"""mTLS: who holds a verified client certificate, by rules in the configuration.

gRPC has verified the certificate against the configured CA before a call is seen. The first rule that matches says who it
is; a certificate that no rule matches is nobody's.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from tickwire_engine.errors import TokenInvalidError
from tickwire_server.auth.identity import Identity, actor_id

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tickwire_engine import CommandType
    from tickwire_server.auth.identity import Certificate, Credentials

ISSUER = "certificate"


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateRule:
    """Whom certificates stand for.

    Attributes:
        spiffe: A glob of SPIFFE ids, as "spiffe://cluster.local/ns/game/sa/*".
        san: A glob of subject alternative names: DNS names, addresses, URIs.
        common_name: A glob of common names; what CAs check least.
        subject: The actor's name; "": the name that matched.
    """

    spiffe: str = ""
    san: str = ""
    common_name: str = ""
    subject: str = ""
    roles: tuple[str, ...]
    worlds: tuple[str, ...] = ("*",)
    allowed_commands: tuple[CommandType, ...] = ()

    def matched(self, certificate: Certificate) -> str:
        """Return the first name of `certificate` that it matches, or ""."""
        return next(self._matches(certificate), "")

    def _matches(self, certificate: Certificate) -> Iterator[str]:
        for name in certificate.alternative_names:
            is_spiffe = name.startswith("spiffe://")
            if (self.spiffe and is_spiffe and fnmatchcase(name, self.spiffe)) or (
                self.san and fnmatchcase(name, self.san)
            ):
                yield name
        common_name = certificate.common_name
        if self.common_name and common_name and fnmatchcase(common_name, self.common_name):
            yield common_name


class CertificateAuthenticator:
    """Judges calls that bring no token over a connection with a client certificate."""

    def __init__(self, rules: Sequence[CertificateRule]) -> None:
        self._rules = tuple(rules)

    def authenticate(self, credentials: Credentials) -> Identity | None:
        """Return whom a certificate stands for; see `Authenticator`."""
        certificate = credentials.certificate
        if certificate is None or credentials.bearer:
            return None
        for rule in self._rules:
            name = rule.matched(certificate)
            if name:
                subject = rule.subject or name
                return Identity(
                    actor_id=actor_id(ISSUER, subject),
                    subject=subject,
                    roles=rule.roles,
                    worlds=rule.worlds,
                    allowed_commands=rule.allowed_commands,
                )
        raise TokenInvalidError(
            "no rule of this server names the holder of your certificate: ask its administrator to add one"
        )

    def changed(self) -> bool:
        """Whether the rules changed: they do not."""
        return False
