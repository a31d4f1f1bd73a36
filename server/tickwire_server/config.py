"""The server's settings: flags over ``TICKWIRE_*`` variables over a TOML file over the defaults here."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from tickwire_engine import CommandType
from tickwire_engine.limits import DEFAULTS, Limits


class CertificateSetting(BaseModel):
    """Whom client certificates stand for; at least one of `spiffe`, `san` and `common_name` is given.

    In the TOML file each is a table ``[[certificates]]``; the first that matches counts.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    spiffe: str = ""
    """A glob of SPIFFE ids, as "spiffe://cluster.local/ns/game/sa/*"."""
    san: str = ""
    """A glob of subject alternative names: DNS names, addresses, URIs."""
    common_name: str = ""
    """A glob of common names."""
    subject: str = ""
    """The actor's name; "": the name that matched."""
    roles: tuple[str, ...] = Field(min_length=1)
    """Its roles, at least one."""
    worlds: tuple[str, ...] = ("*",)
    """Globs of the names of worlds that it may reach."""
    allowed_commands: tuple[CommandType, ...] = ()
    """Types of commands, as "spawn", that restrict the roles' further; none: as the roles say."""

    @model_validator(mode="after")
    def _matches_something(self) -> Self:
        if not (self.spiffe or self.san or self.common_name):
            raise ValueError("give one of spiffe, san and common_name")
        return self


class ServerConfig(BaseSettings):
    """Everything that a server can be told, each with its unit."""

    model_config = SettingsConfigDict(env_prefix="TICKWIRE_", extra="forbid")

    listen: str = "127.0.0.1:7601"
    """host:port of the gRPC endpoint; port 0 takes a free one."""
    data: Path = Path("./tickwire-data")
    """The data directory; one server at a time."""
    app: str = ""
    """module:attribute of the `App` to serve; "" serves worlds without processors of their own."""
    insecure: bool = False
    """Allow an address off loopback without authentication, and tokens over plaintext."""
    auth: bool = False
    """Ask every caller for credentials; also on whenever `jwt_keys` or `certificates` are given."""
    tls_cert: Path | None = None
    """PEM file of the server's certificate chain; with `tls_key`: serve TLS."""
    tls_key: Path | None = None
    """PEM file of its private key."""
    client_ca: Path | None = None
    """PEM file of the CAs of client certificates: every connection must bring one (mTLS)."""
    certificates: tuple[CertificateSetting, ...] = ()
    """Whom client certificates stand for."""
    jwt_keys: Path | None = None
    """A JWKS file, a public key or certificate in PEM, or a secret of 32 bytes and more: takes JWTs. Read on change."""
    jwt_issuer: str = ""
    """What a JWT's iss must be."""
    jwt_audience: str = ""
    """What a JWT's aud must be or hold."""
    jwt_leeway_s: float = Field(default=30.0, ge=0.0, le=600.0)
    """By how much the clocks of issuer and server may differ, in seconds."""
    jwt_roles_claim: str = "roles"
    """The claim with the roles; dots lead into objects, as "realm_access.roles"."""
    jwt_worlds_claim: str = "worlds"
    """The claim with globs of world names; a JWT without it is good for all."""
    jwt_commands_claim: str = "commands"
    """The claim with the types of commands that restrict the roles'; a JWT without it is not restricted."""
    policy: Path | None = None
    """TOML file of roles, in place of viewer, player, operator and admin; see docs/security.md."""
    commands_per_tick: int = Field(default=500, ge=0)
    """Commands that an actor may queue for one tick of a world; 0: no limit."""
    cost_units_per_day: int = Field(default=200_000, ge=0)
    """Cost units that an actor may use up in a day (UTC); 0: no limit."""
    command_costs: dict[CommandType, int] = Field(default_factory=dict)
    """Cost units of a command, by type, where they are not the default's."""
    streams_per_actor: int = Field(default=1_000, ge=0)
    """Streams that an actor may have open; 0: no limit."""
    connections_per_actor: int = Field(default=256, ge=0)
    """Connections that an actor's calls under way may come over; 0: no limit."""
    pending_commands: int = Field(default=DEFAULTS.pending_commands, ge=1)
    """Commands that may wait in one world; more are refused (QUEUE_FULL)."""
    batch_commands: int = Field(default=DEFAULTS.batch_commands, ge=1)
    """Commands in one request."""
    worlds: int = Field(default=DEFAULTS.worlds, ge=1)
    """Worlds that there may be at once (WORLD_LIMIT)."""
    world_entities: int = Field(default=DEFAULTS.world_entities, ge=1, lt=1 << 52)
    """Active entities that a new world may hold (WORLD_FULL)."""
    struct_depth: int = Field(default=DEFAULTS.struct_depth, ge=1, le=32)
    """Objects and lists inside one another, in free-form values."""
    string_bytes: int = Field(default=DEFAULTS.string_bytes, ge=64)
    """Longest string in a command, in bytes of UTF-8."""
    sql_chars: int = Field(default=DEFAULTS.sql_chars, ge=1, le=65_536)
    """Longest SQL text, in characters."""
    table_rows: int = Field(default=DEFAULTS.table_rows, ge=1)
    """Rows of an Arrow table in a command."""
    table_columns: int = Field(default=DEFAULTS.table_columns, ge=1)
    """Columns of an Arrow table in a command."""
    table_bytes: int = Field(default=DEFAULTS.table_bytes, ge=1 << 20)
    """Largest Arrow table in a command, decoded, in bytes."""
    rollout_branches: int = Field(default=DEFAULTS.rollout_branches, ge=1)
    """Branches of one rollout, copies counted."""
    rollout_entity_ticks: int = Field(default=DEFAULTS.rollout_entity_ticks, ge=1)
    """Branches by ticks by entities of one rollout, in entity ticks; a tick counts as 1,000 entities at least."""
    rollout_depth: int = Field(default=DEFAULTS.rollout_depth, ge=1, le=8)
    """How deep rollouts inside rollouts go; 1: the processors of branches begin none."""
    result_bytes: int = Field(default=DEFAULTS.result_bytes, ge=1 << 10, le=512 << 20)
    """Largest table that a command answers, in bytes: it is kept with the command's tick (RESULT_TOO_LARGE)."""
    audit_events: int = Field(default=200_000, ge=1_000)
    """Audit events that are kept; the oldest go."""
    audit_days: float = Field(default=90.0, gt=0.0)
    """How long audit events are kept, in days."""
    max_receive_bytes: int = Field(default=16 << 20, ge=1 << 20, le=1 << 30)
    """Largest request message, in bytes."""
    max_message_bytes: int = Field(default=4 << 20, ge=1 << 20, le=64 << 20)
    """Largest message of a tick stream that a subscriber may ask for, in bytes."""
    ring_bytes: int = Field(default=64 << 20, ge=1 << 20)
    """Newest ticks of a world kept in memory for its subscribers, encoded copies included, in bytes; the rest comes from
    disk."""
    sql_s: float = Field(default=30.0, gt=0.0)
    """How long a SQL query may take, until its last row was taken, in seconds."""
    sql_rows: int = Field(default=1_000_000, ge=1)
    """Rows that the answer of a SQL query may have."""
    sql_memory_bytes: int = Field(default=512 << 20, ge=64 << 20)
    """Memory that a SQL query may take, in bytes, beside some 100 MiB that its process is made of."""
    sql_processes: int = Field(default=2, ge=1, le=64)
    """SQL queries at a time; each has a process of its own, started when it is first needed."""
    min_free_bytes: int = Field(default=256 << 20, ge=0)
    """With less free space than this on the data's disk ticks wait and submits are refused, in bytes; 0: only once it is
    full."""
    ballast_bytes: int = Field(default=16 << 20, ge=0)
    """Size of a file in the data directory that is given up when the disk is full, so that cancelling, destroying and
    trimming go on, in bytes."""
    horizon_s: float = Field(default=604_800.0, ge=600.0)
    """How long a settled command is remembered, for its retries, in seconds: 7 days; see docs/history.md."""
    horizon_commands: int = Field(default=5_000_000, ge=1_000)
    """At most so many settled commands of a world are remembered, but none for less than 10 minutes."""
    archive_lag_bytes: int = Field(default=4 << 30, ge=64 << 20)
    """Of how many bytes of ticks the archive may be behind, for each world, before its ticks wait."""
    stalled_write_s: float = Field(default=10.0, gt=0.0)
    """How long one message may take to a subscriber that asked to be disconnected when too slow, in seconds."""
    keepalive_s: float = Field(default=30.0, ge=1.0)
    """After how long without traffic a connection is pinged, in seconds."""
    keepalive_timeout_s: float = Field(default=20.0, ge=1.0)
    """How long the answer may take before the connection counts as dead, in seconds."""
    metrics: str = "127.0.0.1:7602"
    """host:port of the Prometheus endpoint, /metrics, which asks nobody who he is; "" serves none."""
    grace_s: float = Field(default=5.0, ge=0.0)
    """How long calls under way may take to end when the server stops, in seconds."""
    log_level: str = "INFO"
    """The least that is logged: DEBUG, INFO, WARNING or ERROR."""
    log_json: bool = False
    """One JSON object a line instead of text for people."""

    @field_validator("listen")
    @classmethod
    def _is_an_address(cls, listen: str) -> str:
        host, _, port = listen.rpartition(":")
        if not listen.startswith("unix:") and not (host and port.isdecimal() and int(port) < 65_536):
            raise ValueError("it should look like 127.0.0.1:7601")
        return listen

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key belong together: give both")
        if self.client_ca is not None and self.tls_cert is None:
            raise ValueError("client_ca needs TLS: give tls_cert and tls_key too")
        if self.certificates and self.client_ca is None:
            raise ValueError("certificates need client_ca: without it no client certificate is asked for")
        if self.jwt_keys is not None and not (self.jwt_issuer and self.jwt_audience):
            raise ValueError(
                "jwt_keys needs jwt_issuer and jwt_audience, or tokens for others would be good here"
            )
        return self

    @property
    def authenticates(self) -> bool:
        """Whether callers are asked who they are."""
        return self.auth or self.jwt_keys is not None or bool(self.certificates)

    @property
    def limits(self) -> Limits:
        """How much may be sent to this server's worlds."""
        return Limits(**{name: getattr(self, name) for name in Limits.__slots__})

    @property
    def host(self) -> str:
        """The host part of `listen`."""
        return self.listen.rpartition(":")[0].strip("[]")

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach the endpoint."""
        if self.host == "localhost" or self.listen.startswith("unix:"):
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Put flags over the environment over the file."""
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)

    @classmethod
    def load(cls, config_file: Path | None = None, **flags: Any) -> ServerConfig:
        """Read the settings; a flag that is None was not given."""

        class _Loaded(cls):  # type: ignore[valid-type, misc]
            model_config = SettingsConfigDict(env_prefix="TICKWIRE_", extra="forbid", toml_file=config_file)

        given = {name: value for name, value in flags.items() if value is not None}
        loaded = _Loaded(**given)
        return cls.model_construct(**{name: getattr(loaded, name) for name in cls.model_fields})
