"""Who calls, and what they may do: identities, policy, quotas, audit. Knows no gRPC.

Credentials become an `Identity` by one of the `Authenticator`s (API tokens, JWTs, client certificates), and an `Actor` by
the `Policy` and the `Quotas`; `Access` is the door that puts them together. A call runs as its actor: `caller()`. Code that
serves no call runs as the local administrator.
"""

from __future__ import annotations

from tickwire_server.auth.access import Access
from tickwire_server.auth.actor import ANONYMOUS, LOCAL, LOCAL_ADMIN, Actor, caller, run_as
from tickwire_server.auth.audit import AuditLog
from tickwire_server.auth.certificates import CertificateAuthenticator, CertificateRule
from tickwire_server.auth.guard import RequestGuard, guard_for
from tickwire_server.auth.identity import Authenticator, Certificate, Credentials, Identity
from tickwire_server.auth.jwts import JwtAuthenticator, JwtSettings
from tickwire_server.auth.policy import OPEN, Policy
from tickwire_server.auth.quotas import Limits, Quotas
from tickwire_server.auth.sessions import Session, Sessions
from tickwire_server.auth.tokens import TokenAuthenticator

__all__ = [
    # Calls
    "Actor",
    "ANONYMOUS",
    "LOCAL",
    "LOCAL_ADMIN",
    "caller",
    "run_as",
    "RequestGuard",
    "guard_for",
    # The door
    "Access",
    "Credentials",
    "Certificate",
    "Identity",
    "Session",
    "Sessions",
    # What they did
    "AuditLog",
    # Ways to authenticate
    "Authenticator",
    "CertificateAuthenticator",
    "CertificateRule",
    "JwtAuthenticator",
    "JwtSettings",
    "TokenAuthenticator",
    # What they may
    "Limits",
    "OPEN",
    "Policy",
    "Quotas",
]
