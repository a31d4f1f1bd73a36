"""JSON Web Tokens: signatures by a key or a JWKS file, issuer, audience and times checked; nothing is fetched.

The algorithm is the key's, never what the token says of itself (RFC 8725): a symmetric key takes HS256 to HS512 only, a
public key never does. Roles, worlds and commands are claims; without the roles claim a token is good for WhoAmI only.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from cryptography.x509 import load_pem_x509_certificate

from tickwire_engine import CommandType
from tickwire_engine.errors import InvalidRequestError, TokenExpiredError, TokenInvalidError
from tickwire_server.auth.identity import Identity, actor_id

if TYPE_CHECKING:
    from pathlib import Path

    from tickwire_server.auth.identity import Credentials

MAX_BYTES = 8 << 10
"""Longer tokens are refused unread."""
_MIN_SECRET_BYTES = 32
_LAST_SECOND = 253_402_300_799.0
"""Of the year 9999, the last that times are told of."""
_CURVES = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512", "secp256k1": "ES256K"}
_RSA = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
_HMAC = ("HS256", "HS384", "HS512")


@dataclass(frozen=True, slots=True, kw_only=True)
class JwtSettings:
    """How tokens of one issuer are checked.

    Attributes:
        keys: A file: a JWKS document, a public key or certificate in PEM, or else a secret of 32 bytes and more.
        issuer: What ``iss`` must be.
        audience: What ``aud`` must be or hold.
        leeway_s: By how much clocks may differ.
        roles_claim: The claim with the roles: a list, or words in a string; dots lead into objects.
        worlds_claim: The claim with globs of world names; a token without it is good for `default_worlds`.
        commands_claim: The claim with command types, as "spawn", that restricts the roles'; absent: no restriction.
    """

    keys: Path
    issuer: str
    audience: str
    leeway_s: float = 30.0
    roles_claim: str = "roles"
    worlds_claim: str = "worlds"
    commands_claim: str = "commands"
    default_worlds: tuple[str, ...] = ("*",)


@dataclass(frozen=True, slots=True)
class _Key:
    value: Any
    algorithms: tuple[str, ...]


class JwtAuthenticator:
    """Judges bearer tokens that look like JWTs; reads its key file again when that changed."""

    def __init__(self, settings: JwtSettings) -> None:
        """Read the keys.

        Raises:
            InvalidRequestError: The file holds no keys.
        """
        if not settings.issuer or not settings.audience:
            raise InvalidRequestError(
                "jwt_keys needs jwt_issuer and jwt_audience: a token that was made for somebody else must not be good here"
            )
        self._settings = settings
        self._stamp = _stamp(settings.keys)
        self._keys = _read_keys(settings.keys)

    def authenticate(self, credentials: Credentials) -> Identity | None:
        """Return whom a JWT stands for; see `Authenticator`."""
        bearer = credentials.bearer
        if bearer.count(".") != 2:
            return None
        if len(bearer) > MAX_BYTES:
            raise TokenInvalidError(f"the token is longer than {MAX_BYTES} bytes")
        claims = self._claims(bearer)
        settings = self._settings
        commands = _words(_claim(claims, settings.commands_claim))
        known = {kind.value for kind in CommandType}
        if commands is not None and (not commands or not set(commands) <= known):
            raise TokenInvalidError(f"the claim {settings.commands_claim} names no command types as 'spawn'")
        worlds = _words(_claim(claims, settings.worlds_claim))
        return Identity(
            actor_id=actor_id(settings.issuer, claims["sub"]),
            subject=claims["sub"],
            roles=tuple(_words(_claim(claims, settings.roles_claim)) or ()),
            worlds=settings.default_worlds if worlds is None else tuple(worlds),
            allowed_commands=tuple(map(CommandType, commands or ())),
            expires_at_s=min(int(claims["exp"]) + settings.leeway_s, _LAST_SECOND),
        )

    def changed(self) -> bool:
        """Read the key file again if it changed; what cannot be read leaves the keys as they were."""
        stamp = _stamp(self._settings.keys)
        if stamp == self._stamp:
            return False
        self._stamp = stamp
        try:
            self._keys = _read_keys(self._settings.keys)
        except InvalidRequestError:
            return False
        return True

    def _claims(self, bearer: str) -> dict[str, Any]:
        settings = self._settings
        try:
            key = self._key_of(jwt.get_unverified_header(bearer))
            claims: dict[str, Any] = jwt.decode(
                bearer,
                key.value,
                algorithms=list(key.algorithms),
                audience=settings.audience,
                issuer=settings.issuer,
                leeway=settings.leeway_s,
                options={"require": ["exp", "sub", "iss", "aud"]},
            )
        except jwt.ExpiredSignatureError:
            raise TokenExpiredError("the token's time is over: get a new one") from None
        except jwt.InvalidAudienceError:
            raise TokenInvalidError(f"the token is for another audience than {settings.audience!r}") from None
        except jwt.InvalidIssuerError:
            raise TokenInvalidError(f"the token is of another issuer than {settings.issuer!r}") from None
        except jwt.MissingRequiredClaimError as error:
            raise TokenInvalidError(f"the token has no {error.claim} claim") from None
        except jwt.ImmatureSignatureError:
            raise TokenInvalidError("the token is not good yet: compare the clocks") from None
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError):
            # Whatever is wrong with it in detail is not the caller's business.
            raise TokenInvalidError("the token is no JWT that this server can verify") from None
        if not isinstance(claims["sub"], str) or not claims["sub"]:
            raise TokenInvalidError("the token's sub claim names nobody")
        return claims

    def _key_of(self, header: dict[str, Any]) -> _Key:
        kid = header.get("kid")
        if kid is None and len(self._keys) == 1:
            return next(iter(self._keys.values()))
        found = self._keys.get(kid) if isinstance(kid, str) else None
        if found is None and "" in self._keys:
            return self._keys[""]
        if found is None:
            raise TokenInvalidError("the token is signed by a key that this server does not have")
        return found


def _stamp(path: Path) -> tuple[int, int]:
    try:
        stat = path.stat()
    except OSError:
        return 0, 0
    return stat.st_mtime_ns, stat.st_size


def _read_keys(path: Path) -> dict[str, _Key]:
    """Return keys by their ids; the one key of a PEM or secret file is called ""."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InvalidRequestError(f"jwt_keys {path}: {error.strerror}") from None
    if content.lstrip().startswith(b"{"):
        return _jwks(content, path)
    if b"-----BEGIN" in content:
        return {"": _pem(content, path)}
    secret = content.strip()
    if len(secret) < _MIN_SECRET_BYTES:
        raise InvalidRequestError(f"jwt_keys {path}: a secret needs {_MIN_SECRET_BYTES} bytes and more")
    return {"": _Key(secret, _HMAC)}


def _jwks(content: bytes, path: Path) -> dict[str, _Key]:
    try:
        keys = jwt.PyJWKSet.from_dict(json.loads(content)).keys
    except (ValueError, TypeError, AttributeError, jwt.PyJWTError) as error:
        raise InvalidRequestError(f"jwt_keys {path}: it is no JWKS document ({error})") from None
    found: dict[str, _Key] = {}
    for number, key in enumerate(keys):
        if key.public_key_use not in (None, "sig"):
            continue
        given = (key.algorithm_name,) if key.algorithm_name else ()
        if given:
            found[key.key_id or f"#{number}"] = _Key(key.key, given)
    if not found:
        raise InvalidRequestError(f"jwt_keys {path}: it has no key to check signatures with")
    return found


def _pem(content: bytes, path: Path) -> _Key:
    if b"PRIVATE KEY" in content:
        raise InvalidRequestError(f"jwt_keys {path}: it is a private key; give the server the public one")
    try:
        if b"BEGIN CERTIFICATE" in content:
            key: object = load_pem_x509_certificate(content).public_key()
        else:
            key = load_pem_public_key(content)
    except ValueError:
        raise InvalidRequestError(f"jwt_keys {path}: it is no PEM of a public key or certificate") from None
    if isinstance(key, rsa.RSAPublicKey):
        return _Key(key, _RSA)
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in _CURVES:
        return _Key(key, (_CURVES[key.curve.name],))
    if isinstance(key, ed25519.Ed25519PublicKey | ed448.Ed448PublicKey):
        return _Key(key, ("EdDSA",))
    raise InvalidRequestError(f"jwt_keys {path}: keys of that kind sign no JWTs")


def _claim(claims: dict[str, Any], path: str) -> object:
    if path in claims:
        # Claims of other people's names have dots themselves: "https://example.org/roles".
        return claims[path]
    value: object = claims
    for name in path.split("."):
        if not isinstance(value, dict) or name not in value:
            return None
        value = value[name]
    return value


def _words(value: object) -> list[str] | None:
    if value is None:
        return None
    if isinstance(value, str):
        return value.split()
    if isinstance(value, list) and all(isinstance(word, str) for word in value):
        return value
    raise TokenInvalidError("a claim of the token is neither a list of strings nor a string")
