"""Binding the server's address: plaintext, TLS, or TLS with client certificates."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

import grpc

from tickwire_engine.errors import InvalidRequestError

if TYPE_CHECKING:
    from pathlib import Path

    from tickwire_server.config import ServerConfig


def bind(server: grpc.aio.Server, config: ServerConfig) -> int:
    """Bind the configured address and return its port.

    Raises:
        InvalidRequestError: The address is taken, or the files of TLS are none.
    """
    credentials = _credentials(config)
    try:
        if credentials is None:
            return server.add_insecure_port(config.listen)
        return server.add_secure_port(config.listen, credentials)
    except RuntimeError:
        raise InvalidRequestError(
            f"cannot listen on {config.listen}: is another server there? choose another with --listen"
        ) from None


def _credentials(config: ServerConfig) -> grpc.ServerCredentials | None:
    if config.tls_cert is None or config.tls_key is None:
        return None
    cert, key = _read(config.tls_cert, "tls_cert"), _read(config.tls_key, "tls_key")
    # gRPC takes what is no certificate without a word, and then shakes no hands.
    checked = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        checked.load_cert_chain(config.tls_cert, config.tls_key)
    except ssl.SSLError as error:
        raise InvalidRequestError(
            f"tls_cert {config.tls_cert} and tls_key {config.tls_key} are no certificate and its key "
            f"({error.reason or 'unreadable'})"
        ) from None
    if config.client_ca is None:
        return grpc.ssl_server_credentials([(key, cert)])
    ca = _read(config.client_ca, "client_ca")
    try:
        checked.load_verify_locations(config.client_ca)
    except ssl.SSLError:
        raise InvalidRequestError(f"client_ca {config.client_ca} holds no certificates in PEM") from None
    return grpc.ssl_server_credentials([(key, cert)], root_certificates=ca, require_client_auth=True)


def _read(path: Path, setting: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidRequestError(f"{setting} {path}: {error.strerror}") from None
