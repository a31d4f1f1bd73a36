"""Servers that ask who calls: TLS files, tokens, and calls with them."""

from __future__ import annotations

import datetime
import ipaddress
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from google.protobuf import message_factory

from tests.server.application import application
from tickwire.v1 import auth_service_pb2, world_service_pb2
from tickwire_engine.storage.store import Store
from tickwire_server.auth.tokens import new_token
from tickwire_server.config import ServerConfig
from tickwire_server.grpc.routing import SERVICES
from tickwire_server.grpc.server import GrpcServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

METHODS = {f"{service.name}.{method.name}": method for service in SERVICES for method in service.methods}


def invoke(channel: Any, rpc: str, request: Any = None, *, token: str = "", **metadata: str) -> Any:
    """Call an RPC, as "WorldService.GetWorld"; a stream of requests is the one request, or none at all."""
    method = METHODS[rpc]
    kind = message_factory.GetMessageClass(method.input_type)
    response = message_factory.GetMessageClass(method.output_type)
    path = f"/{method.containing_service.full_name}/{method.name}"
    sent = [("authorization", f"Bearer {token}")] if token else []
    sent += metadata.items()
    if method.client_streaming:
        open_ = channel.stream_stream(path, kind.SerializeToString, response.FromString)
        return open_(iter([] if request is None else [request]), metadata=sent)
    make = channel.unary_stream if method.server_streaming else channel.unary_unary
    return make(path, kind.SerializeToString, response.FromString)(request or kind(), metadata=sent)


@dataclass
class Secured:
    """A server and a channel to it.

    Attributes:
        admin: The secret of a token for everything.
    """

    server: GrpcServer
    channel: Any
    admin: str

    def call(self, rpc: str, request: Any = None, *, token: str | None = None, **metadata: str) -> Any:
        """Call as the administrator, unless another token is given; "" is none."""
        return invoke(self.channel, rpc, request, token=self.admin if token is None else token, **metadata)

    async def token(self, *roles: str, name: str = "t", token: str | None = None, **given: Any) -> Any:
        """Make a token; answers CreateTokenResponse."""
        request = auth_service_pb2.CreateTokenRequest(name=name, roles=roles, **given)
        return await self.call("AuthService.CreateToken", request, token=token)

    async def create(self, name: str, template: str = "line", **given: Any) -> Any:
        """Make a world."""
        request = world_service_pb2.CreateWorldRequest(name=name, template=template, **given)
        return (await self.call("WorldService.CreateWorld", request)).world


@asynccontextmanager
async def secured(
    path: Path, *, credentials: grpc.ChannelCredentials | None = None, admin: str = "", **settings: Any
) -> AsyncIterator[Secured]:
    """Serve with authentication; the first token is made before the server starts, as the command line does."""
    given = {"listen": "127.0.0.1:0", "auth": True, **settings}
    if not admin:
        admin = await first_token(path)
    server = await GrpcServer.start(ServerConfig(data=path, grace_s=5.0, **given), application())
    address = f"localhost:{server.port}"
    channel = (
        grpc.aio.insecure_channel(address)
        if credentials is None
        else grpc.aio.secure_channel(address, credentials)
    )
    try:
        yield Secured(server, channel, admin)
    finally:
        await channel.close()
        await server.stop()


async def first_token(path: Path, *roles: str) -> str:
    """Write a token to a data directory that no server has, and return its secret."""
    row, secret = new_token(
        "first", roles=roles or ("admin",), worlds=("*",), allowed_commands=(), expires_at_us=0, created_by=""
    )
    store = Store.open(path)
    await store.identity.put_token(row)
    store.close()
    return secret


@dataclass(frozen=True)
class Authority:
    """A CA of the tests; keys and certificates are files below `path`."""

    path: Path
    key: ec.EllipticCurvePrivateKey
    cert: x509.Certificate

    @classmethod
    def make(cls, path: Path) -> Authority:
        path.mkdir(parents=True, exist_ok=True)
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tests' CA")])
        cert = (
            _builder(name, name, key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(key, hashes.SHA256())
        )
        made = cls(path, key, cert)
        made.file("ca", cert.public_bytes(serialization.Encoding.PEM))
        return made

    @property
    def ca_file(self) -> Path:
        return self.path / "ca.pem"

    def file(self, name: str, content: bytes) -> Path:
        target = self.path / f"{name}.pem"
        target.write_bytes(content)
        return target

    def issue(self, common_name: str, *names: str) -> tuple[Path, Path]:
        """Return (certificate file, key file) of a holder with DNS names, addresses and URIs."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
        alternative = [_general_name(name) for name in names]
        builder = _builder(subject, self.cert.subject, key.public_key()).add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
            critical=False,
        )
        if alternative:
            builder = builder.add_extension(x509.SubjectAlternativeName(alternative), critical=False)
        cert = builder.sign(self.key, hashes.SHA256())
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return (
            self.file(f"{common_name}-cert", cert.public_bytes(serialization.Encoding.PEM)),
            self.file(f"{common_name}-key", pem),
        )

    def channel_credentials(self, *holder: Path) -> grpc.ChannelCredentials:
        """Return what a client connects with: trust in this CA, and its own (certificate, key)."""
        ca = self.ca_file.read_bytes()
        if not holder:
            return grpc.ssl_channel_credentials(ca)
        cert, key = holder
        return grpc.ssl_channel_credentials(ca, key.read_bytes(), cert.read_bytes())


def _builder(subject: x509.Name, issuer: x509.Name, key: Any) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(hours=1))
    )


def _general_name(name: str) -> x509.GeneralName:
    if "://" in name:
        return x509.UniformResourceIdentifier(name)
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
