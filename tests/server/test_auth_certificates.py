"""Client certificates: whom they stand for, and connections without TLS, where tokens are not for."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from tests.server.answers import refused
from tests.server.secured import Authority, first_token, invoke, secured
from tickwire_engine.errors import InvalidRequestError
from tickwire_server.config import ServerConfig

if TYPE_CHECKING:
    from pathlib import Path

RULES: list[dict[str, Any]] = [
    {
        "spiffe": "spiffe://cluster.test/ns/game/sa/*",
        "subject": "game",
        "roles": ["player"],
        "worlds": ["game-*"],
    },
    {"san": "*.ops.test", "roles": ["admin"]},
    {"common_name": "carol", "roles": ["viewer"], "allowed_commands": []},
]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.make(tmp_path_factory.mktemp("ca"))


def tls(authority: Authority, **more: Any) -> dict[str, Any]:
    cert, key = authority.issue("localhost", "localhost", "127.0.0.1")
    return {"tls_cert": cert, "tls_key": key, "auth": False, **more}


@pytest.mark.parametrize(
    ("name", "names", "subject", "roles", "worlds"),
    [
        ("any", ("spiffe://cluster.test/ns/game/sa/bot",), "game", ["player"], ["game-*"]),
        ("any", ("box.ops.test",), "box.ops.test", ["admin"], ["*"]),
        ("carol", (), "carol", ["viewer"], ["*"]),
        ("carol", ("box.ops.test",), "box.ops.test", ["admin"], ["*"]),
    ],
)
async def test_a_certificate_stands_for_whom_the_first_rule_that_fits_says(
    tmp_path: Path,
    authority: Authority,
    name: str,
    names: tuple[str, ...],
    subject: str,
    roles: list[str],
    worlds: list[str],
):
    holder = authority.channel_credentials(*authority.issue(name, *names))
    settings = tls(authority, client_ca=authority.ca_file, certificates=RULES)
    async with secured(tmp_path / "data", credentials=holder, **settings) as made:
        actor = (await made.call("ServerService.WhoAmI", token="")).actor_ctx
        assert (actor.subject, list(actor.roles), list(actor.worlds)) == (subject, roles, worlds)
        # A token goes over the certificate.
        assert (await made.call("ServerService.WhoAmI")).actor_ctx.subject == "first"


async def test_a_certificate_that_no_rule_names_is_nobodys(tmp_path: Path, authority: Authority):
    holder = authority.channel_credentials(
        *authority.issue("mallory", "spiffe://elsewhere.test/ns/game/sa/bot")
    )
    settings = tls(authority, client_ca=authority.ca_file, certificates=RULES)
    async with secured(tmp_path / "data", credentials=holder, **settings) as made:
        assert (await refused(made.call("ServerService.WhoAmI", token=""))).reason == "TOKEN_INVALID"


async def test_without_a_certificate_of_the_ca_there_is_no_connection(tmp_path: Path, authority: Authority):
    other = Authority.make(tmp_path / "other")
    stranger = grpc.ssl_channel_credentials(
        authority.ca_file.read_bytes(), *(path.read_bytes() for path in reversed(other.issue("carol")))
    )
    settings = tls(authority, client_ca=authority.ca_file, certificates=RULES)
    for credentials in (authority.channel_credentials(), stranger):
        async with secured(tmp_path / "data", credentials=credentials, **settings) as made:
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await made.call("ServerService.WhoAmI")
            assert error.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_tokens_go_over_tls_without_client_certificates(tmp_path: Path, authority: Authority):
    settings = tls(authority) | {"auth": True}
    credentials = authority.channel_credentials()
    async with secured(tmp_path / "data", credentials=credentials, **settings) as made:
        assert (await made.call("ServerService.WhoAmI")).actor_ctx.subject == "first"
        assert (await refused(made.call("ServerService.WhoAmI", token=""))).reason == "TOKEN_MISSING"


def other_address() -> str:
    """An address of this machine that is not loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            # Nothing is sent: the system says where from it would be.
            probe.connect(("198.51.100.1", 9))
        except OSError:
            pytest.skip("this machine has no address but loopback")
        return str(probe.getsockname()[0])


@pytest.mark.parametrize(("insecure", "said"), [(False, "TOKEN_INVALID"), (True, "")])
async def test_a_token_over_plaintext_is_refused_off_loopback(tmp_path: Path, insecure: bool, said: str):
    token = await first_token(tmp_path / "data")
    settings = {"listen": "0.0.0.0:0", "insecure": insecure}
    async with secured(tmp_path / "data", admin=token, **settings) as made:
        # The same server, from this machine itself.
        assert (await made.call("ServerService.WhoAmI")).actor_ctx.subject == "first"
        async with grpc.aio.insecure_channel(f"{other_address()}:{made.server.port}") as channel:
            call = invoke(channel, "ServerService.WhoAmI", token=token)
            if said:
                refusal = await refused(call)
                assert refusal.reason == said
                assert "plaintext" in refusal.message
            else:
                assert (await call).actor_ctx.subject == "first"
            # Who sends none loses none.
            assert (await invoke(channel, "ServerService.GetServerInfo")).version


async def test_off_loopback_without_authentication_a_server_does_not_start_unless_told(tmp_path: Path):
    for listen in ("0.0.0.0:0", "[::]:0", f"{other_address()}:0"):
        with pytest.raises(InvalidRequestError, match="--insecure"):
            async with secured(tmp_path / "data", admin="x", auth=False, listen=listen):
                raise AssertionError("it started")
    async with secured(tmp_path / "data", admin="x", auth=False, listen="0.0.0.0:0", insecure=True) as made:
        assert (await made.call("ServerService.WhoAmI", token="")).actor_ctx.subject == "local"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"tls_cert": "c.pem"}, "tls_key"),
        ({"client_ca": "ca.pem"}, "needs TLS"),
        ({"certificates": RULES}, "client_ca"),
        (
            {"certificates": [{"roles": ["viewer"]}], "client_ca": "c", "tls_cert": "c", "tls_key": "k"},
            "spiffe",
        ),
    ],
)
def test_settings_that_do_not_go_together_are_refused(given: dict[str, Any], said: str):
    with pytest.raises(ValueError, match=said):
        ServerConfig(**given)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"certificates": [{"common_name": "a", "roles": ["god"]}]}, r"certificates\[0\].*god"),
        ({"certificates": [{"common_name": "a", "roles": ["viewer"], "worlds": ["A"]}]}, "'A'"),
        ({"tls_key": "missing.pem"}, "tls_key"),
        ({"client_ca": __file__}, "client_ca"),
        ({"tls_cert": __file__}, "tls_cert"),
        ({"policy": "missing.toml"}, "policy"),
    ],
)
async def test_a_server_with_wrong_rules_or_files_does_not_start(
    tmp_path: Path, authority: Authority, change: dict[str, Any], said: str
):
    settings = tls(authority, client_ca=authority.ca_file, certificates=RULES) | change
    with pytest.raises(InvalidRequestError, match=said):
        async with secured(tmp_path / "data", admin="x", **settings):
            raise AssertionError("it started")
