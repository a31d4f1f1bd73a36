"""JWTs: whose they are, what they grant, and every way in which one is not good here."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from typing import TYPE_CHECKING, Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from tests.server.answers import refused, spawn
from tests.server.secured import Secured, secured
from tickwire.v1 import command_pb2, command_service_pb2, tick_service_pb2, world_service_pb2
from tickwire_engine.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

SECRET = "a secret of the tests that is long enough"
SETTINGS = {"jwt_issuer": "https://issuer.test", "jwt_audience": "tickwire", "auth": False}


def claims(**given: Any) -> dict[str, Any]:
    now = int(time.time())
    made = {
        "iss": "https://issuer.test",
        "aud": "tickwire",
        "sub": "ann",
        "exp": now + 600,
        "roles": ["viewer"],
    }
    return {name: value for name, value in (made | given).items() if value is not None}


def signed(
    key: Any = SECRET, algorithm: str = "HS256", headers: dict[str, Any] | None = None, **given: Any
) -> str:
    return jwt.encode(claims(**given), key, algorithm, headers=headers)


def public_pem(key: Any) -> bytes:
    pem: bytes = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return pem


def jwks(**keys: Any) -> str:
    listed = []
    for name, key in keys.items():
        algorithm = (
            jwt.algorithms.RSAAlgorithm if isinstance(key, rsa.RSAPrivateKey) else jwt.algorithms.ECAlgorithm
        )
        listed.append(json.loads(algorithm.to_jwk(key.public_key())) | {"kid": name, "use": "sig"})
    return json.dumps({"keys": listed})


@pytest.fixture
async def trusting(tmp_path: Path) -> AsyncIterator[Secured]:
    """A server that takes JWTs signed by `SECRET`."""
    keys = tmp_path / "keys"
    keys.write_text(SECRET + "\n")
    async with secured(tmp_path / "data", jwt_keys=keys, **SETTINGS) as made:
        yield made


async def who(made: Secured, token: str) -> command_pb2.ActorCtx:
    actor: command_pb2.ActorCtx = (await made.call("ServerService.WhoAmI", token=token)).actor_ctx
    return actor


async def test_a_jwt_is_who_its_subject_is_with_its_roles_worlds_and_commands(trusting: Secured):
    token = signed(roles="player viewer", worlds=["game-*"], commands=["spawn"])
    actor = await who(trusting, token)
    assert (actor.subject, list(actor.roles), list(actor.worlds)) == ("ann", ["player", "viewer"], ["game-*"])
    assert list(actor.allowed_commands) == [command_pb2.COMMAND_TYPE_SPAWN]
    assert actor.expires_at.seconds > time.time()
    assert actor.id == (await who(trusting, signed(roles=["admin"]))).id
    assert actor.id != (await who(trusting, signed(sub="bob"))).id


async def test_a_jwt_without_roles_may_ask_who_it_is_and_no_more(trusting: Secured):
    token = signed(roles=None)
    assert (await who(trusting, token)).subject == "ann"
    assert (await refused(trusting.call("WorldService.ListWorlds", token=token))).reason == "ROLE_FORBIDS"
    unknown = signed(roles=["god"])
    assert list((await who(trusting, unknown)).roles) == []
    assert (await refused(trusting.call("WorldService.ListWorlds", token=unknown))).reason == "ROLE_FORBIDS"


def unsigned(**given: Any) -> str:
    header = base64.urlsafe_b64encode(b'{"alg":"none"}').rstrip(b"=")
    body = base64.urlsafe_b64encode(json.dumps(claims(**given)).encode()).rstrip(b"=")
    return f"{header.decode()}.{body.decode()}."


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: signed(key="another secret that is just as long as it"), "TOKEN_INVALID"),
        (lambda: signed()[:-2] + "AA", "TOKEN_INVALID"),
        (lambda: unsigned(), "TOKEN_INVALID"),
        (lambda: signed(aud="others"), "TOKEN_INVALID"),
        (lambda: signed(aud=None), "TOKEN_INVALID"),
        (lambda: signed(iss="https://elsewhere.test"), "TOKEN_INVALID"),
        (lambda: signed(iss=None), "TOKEN_INVALID"),
        (lambda: signed(sub=None), "TOKEN_INVALID"),
        (lambda: signed(sub=""), "TOKEN_INVALID"),
        (lambda: signed(exp=None), "TOKEN_INVALID"),
        (lambda: signed(nbf=int(time.time()) + 3600), "TOKEN_INVALID"),
        (lambda: signed(iat=int(time.time()) + 3600), "TOKEN_INVALID"),
        (lambda: signed(exp=int(time.time()) - 3600), "TOKEN_EXPIRED"),
        (lambda: signed(roles={"admin": True}), "TOKEN_INVALID"),
        (lambda: signed(worlds=7), "TOKEN_INVALID"),
        (lambda: signed(commands=["everything"]), "TOKEN_INVALID"),
        (lambda: signed(commands=[]), "TOKEN_INVALID"),
    ],
)
async def test_a_jwt_that_is_not_good_here_is_refused(
    trusting: Secured, make: Callable[[], str], reason: str
):
    # Made here: one that was made when the tests were gathered may have expired by now.
    token = make()
    refusal = await refused(trusting.call("WorldService.ListWorlds", token=token))
    assert refusal.reason == reason
    assert token not in refusal.message
    assert SECRET not in refusal.message


async def test_clocks_may_differ_by_the_leeway_and_not_by_more(tmp_path: Path):
    keys = tmp_path / "keys"
    keys.write_text(SECRET)
    async with secured(tmp_path / "data", jwt_keys=keys, jwt_leeway_s=300.0, **SETTINGS) as made:
        now = int(time.time())
        for good in (signed(exp=now - 200), signed(nbf=now + 200), signed(iat=now + 200)):
            assert (await who(made, good)).subject == "ann"
        for bad in (signed(exp=now - 400), signed(nbf=now + 400)):
            assert (await refused(made.call("ServerService.WhoAmI", token=bad))).reason in (
                *("TOKEN_EXPIRED", "TOKEN_INVALID"),
            )


async def test_claims_may_lie_deep_and_be_called_as_the_issuer_likes(tmp_path: Path):
    keys = tmp_path / "keys"
    keys.write_text(SECRET)
    names = {"jwt_roles_claim": "realm_access.roles", "jwt_worlds_claim": "https://issuer.test/worlds"}
    async with secured(tmp_path / "data", jwt_keys=keys, **SETTINGS, **names) as made:
        given = {"realm_access": {"roles": ["operator"]}, "https://issuer.test/worlds": "lab-*"}
        actor = await who(made, signed(**given))
        assert (list(actor.roles), list(actor.worlds)) == (["operator"], ["lab-*"])


async def test_keys_of_a_jwks_file_are_found_by_their_ids_and_changed_while_it_serves(tmp_path: Path):
    first, second = ec.generate_private_key(ec.SECP256R1()), rsa.generate_private_key(65537, 2048)
    keys = tmp_path / "keys.json"
    keys.write_text(jwks(one=first))
    async with secured(tmp_path / "data", jwt_keys=keys, **SETTINGS) as made:
        old = signed(first, "ES256", {"kid": "one"})
        new = signed(second, "RS256", {"kid": "two"})
        await made.create("w")
        assert (await who(made, old)).subject == "ann"
        assert (await refused(made.call("ServerService.WhoAmI", token=new))).reason == "TOKEN_INVALID"
        stream = made.call("TickService.Subscribe", tick_service_pb2.SubscribeRequest(world="w"), token=old)
        assert (await stream.read()).HasField("started")
        keys.write_text(jwks(two=second))
        made.server.identities.check()
        assert (await who(made, new)).subject == "ann"
        assert (await refused(made.call("ServerService.WhoAmI", token=old))).reason == "TOKEN_INVALID"
        assert (await refused(_rest(stream))).reason == "TOKEN_INVALID"
        keys.write_text("broken")
        made.server.identities.check()
        assert (await who(made, new)).subject == "ann"


async def _rest(stream: Any) -> None:
    while await stream.read():
        pass


async def test_a_public_key_is_no_secret_to_sign_with(tmp_path: Path):
    key = rsa.generate_private_key(65537, 2048)
    keys = tmp_path / "key.pem"
    keys.write_bytes(public_pem(key))
    async with secured(tmp_path / "data", jwt_keys=keys, **SETTINGS) as made:
        assert (await who(made, signed(key, "RS256"))).subject == "ann"
        head = base64.urlsafe_b64encode(b'{"alg":"HS256","typ":"JWT"}').rstrip(b"=")
        body = base64.urlsafe_b64encode(json.dumps(claims(roles=["admin"])).encode()).rstrip(b"=")
        mac = hmac.new(public_pem(key), head + b"." + body, hashlib.sha256).digest()
        forged = b".".join((head, body, base64.urlsafe_b64encode(mac).rstrip(b"="))).decode()
        assert (await refused(made.call("ServerService.WhoAmI", token=forged))).reason == "TOKEN_INVALID"


async def test_what_a_jwt_may_do_ends_at_its_globs(trusting: Secured):
    for name in ("game-1", "lab-1"):
        await trusting.create(name)
    token = signed(roles=["player"], worlds=["game-*"])
    request = command_service_pb2.SubmitRequest(world="game-1", commands=[spawn()])
    assert (await trusting.call("CommandService.Submit", request, token=token)).receipts
    request.world = "lab-1"
    assert (
        await refused(trusting.call("CommandService.Submit", request, token=token))
    ).reason == "WORLD_FORBIDDEN"
    listed = await trusting.call(
        "WorldService.ListWorlds", world_service_pb2.ListWorldsRequest(), token=token
    )
    assert [world.name for world in listed.worlds] == ["game-1"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"short", "32 bytes"),
        (b"{}", "JWKS"),
        (b'{"keys": []}', "JWKS"),
        (b"-----BEGIN PUBLIC KEY-----\nx\n-----END PUBLIC KEY-----\n", "PEM"),
        (b"-----BEGIN PRIVATE KEY-----\nx\n-----END PRIVATE KEY-----\n", "private key"),
    ],
)
async def test_a_server_with_unusable_keys_does_not_start(tmp_path: Path, content: bytes, said: str):
    keys = tmp_path / "keys"
    keys.write_bytes(content)
    with pytest.raises(InvalidRequestError, match=said):
        async with secured(tmp_path / "data", jwt_keys=keys, **SETTINGS):
            raise AssertionError("it started")


async def test_a_server_without_its_key_file_does_not_start(tmp_path: Path):
    with pytest.raises(InvalidRequestError, match="jwt_keys"):
        async with secured(tmp_path / "data", jwt_keys=tmp_path / "none", **SETTINGS):
            raise AssertionError("it started")
    with pytest.raises(ValueError, match="jwt_audience"):
        async with secured(tmp_path / "data", jwt_keys=tmp_path / "none", jwt_issuer="i", auth=False):
            raise AssertionError("it started")
