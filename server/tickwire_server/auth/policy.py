"""What each role may do: one table of RPCs and command types, replaceable by a TOML file.

`DEFAULT` is the contract's. Whatever no role names, nobody may do: an RPC that is added without a line here is refused.
A file replaces the table whole::

    [roles.watcher]
    rpcs = ["TickService.*", "WorldService.GetWorld"]

    [roles.pilot]
    includes = ["watcher"]
    rpcs = ["CommandService.*"]
    commands = ["update", "message"]

    [roles.chief]
    includes = ["pilot"]
    rpcs = ["*"]
    commands = ["*"]
    others = true
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from tickwire_engine import CommandType
from tickwire_engine.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

OPEN = frozenset(("ServerService.GetServerInfo", "Health.Check", "Health.Watch", "Health.List"))
"""Called without credentials too."""
IDENTIFIED = frozenset(("ServerService.WhoAmI",))
"""Called by everybody whose credentials are good, whatever the roles."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """A name, and what it permits.

    Attributes:
        includes: Roles whose permissions it has too.
        rpcs: As "WorldService.GetWorld".
        commands: Types of commands that it may submit.
        others: It sees and cancels other actors' commands, and sees their outcomes.
    """

    name: str
    includes: tuple[str, ...] = ()
    rpcs: frozenset[str] = frozenset()
    commands: frozenset[CommandType] = frozenset()
    others: bool = False


_VIEWER = """
    CommandService.GetCommand CommandService.ListCommands CommandService.ReadResult CommandService.WatchOutcomes
    CommandService.Submit CommandService.SubmitStream
    QueryService.Query QueryService.Sql QueryService.GetEntity
    TickService.Subscribe TickService.ListTicks
    WorldService.GetWorld WorldService.ListWorlds WorldService.WatchWorld WorldService.ListComponents
    WorldService.ListProcessors WorldService.ListResources
    ServerReflection.ServerReflectionInfo
"""
_OPERATOR = """
    WorldService.ForkWorld WorldService.RegisterComponent
    SimulationService.Step SimulationService.Run SimulationService.Play SimulationService.Pause
    SimulationService.RunRollout SimulationService.RunEpisode
"""
_ADMIN = """
    WorldService.CreateWorld WorldService.UpdateWorld WorldService.DestroyWorld
    AuthService.CreateToken AuthService.ListTokens AuthService.RevokeToken
    ServerService.ListAuditEvents
    Channelz.GetTopChannels Channelz.GetServers Channelz.GetServer Channelz.GetServerSockets Channelz.GetChannel
    Channelz.GetSubchannel Channelz.GetSocket
"""
_T = CommandType

DEFAULT: tuple[Role, ...] = (
    # Submit is everybody's: commands are judged one by one, after the look-up of known ids, whose receipts stay good.
    Role(name="viewer", rpcs=frozenset(_VIEWER.split())),
    Role(
        name="player",
        includes=("viewer",),
        rpcs=frozenset(("CommandService.CancelCommand",)),
        commands=frozenset((_T.SPAWN, _T.DESPAWN, _T.UPDATE, _T.MESSAGE, _T.CUSTOM, _T.QUERY_WORLD)),
    ),
    Role(
        name="operator",
        includes=("player",),
        rpcs=frozenset(_OPERATOR.split()),
        commands=frozenset(
            (
                *(_T.ADD_COMPONENT, _T.REMOVE_COMPONENT, _T.ADD_PROCESSOR, _T.REMOVE_PROCESSOR),
                *(_T.SET_RESOURCE, _T.REMOVE_RESOURCE, _T.FORK_WORLD, _T.RUN_ROLLOUT, _T.RUN_EPISODE),
            )
        ),
        others=True,
    ),
    Role(
        name="admin",
        includes=("operator",),
        rpcs=frozenset(_ADMIN.split()),
        commands=frozenset((_T.CREATE_WORLD, _T.DESTROY_WORLD)),
    ),
)
"""The contract's roles, each with what it adds to those that it includes; the least first."""
KNOWN_RPCS = frozenset[str]().union(*(role.rpcs for role in DEFAULT))
"""The RPCs that a policy decides about."""


@dataclass(frozen=True, slots=True)
class Permissions:
    """What an actor may do, whichever of its roles says so."""

    rpcs: frozenset[str]
    commands: frozenset[CommandType]
    others: bool

    def covers(self, inner: Permissions) -> bool:
        """Whether all that `inner` permits is permitted here too."""
        return (
            inner.rpcs <= self.rpcs and inner.commands <= self.commands and (self.others or not inner.others)
        )

    def only(self, commands: Iterable[CommandType]) -> Permissions:
        """Return the same with no other commands than `commands`; none given: as it is."""
        wanted = frozenset(commands)
        return Permissions(self.rpcs, self.commands & wanted, self.others) if wanted else self


EVERYTHING = Permissions(KNOWN_RPCS, frozenset(CommandType), True)


class Policy:
    """Roles by name; unchanging."""

    def __init__(self, roles: Sequence[Role] = DEFAULT) -> None:
        """Resolves what roles include.

        Raises:
            InvalidRequestError: A role includes one that is not there, or itself.
        """
        self._roles = {role.name: role for role in roles}
        self._resolved = {name: self._resolve(name, ()) for name in self._roles}
        self.permissions = lru_cache(maxsize=1024)(self._permissions)
        """permissions(names) -> Permissions: of all the roles together; names that are no roles give nothing."""

    @property
    def names(self) -> tuple[str, ...]:
        """The roles there are, as they were defined."""
        return tuple(self._roles)

    def least_for_rpc(self, rpc: str) -> str:
        """Return the first role that may call `rpc`, or "" where none may."""
        return next((name for name, given in self._resolved.items() if rpc in given.rpcs), "")

    def least_for_command(self, kind: CommandType) -> str:
        """Return the first role that may submit `kind`, or "" where none may."""
        return next((name for name, given in self._resolved.items() if kind in given.commands), "")

    def _permissions(self, names: tuple[str, ...]) -> Permissions:
        given = [self._resolved[name] for name in names if name in self._resolved]
        return _union(given)

    def _resolve(self, name: str, inside: tuple[str, ...]) -> Permissions:
        if name in inside:
            raise InvalidRequestError(
                f"policy: role {name!r} includes itself ({' -> '.join((*inside, name))})"
            )
        if name not in self._roles:
            raise InvalidRequestError(
                f"policy: role {inside[-1]!r} includes {name!r}, which is no role: there are {', '.join(self._roles)}"
            )
        role = self._roles[name]
        included = [self._resolve(other, (*inside, name)) for other in role.includes]
        return _union((*included, Permissions(role.rpcs, role.commands, role.others)))

    @classmethod
    def load(cls, path: Path) -> Policy:
        """Read a policy file.

        Raises:
            InvalidRequestError: It is no policy; the message says where.
        """
        try:
            document = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise InvalidRequestError(f"policy {path}: {error.strerror}") from None
        except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise InvalidRequestError(f"policy {path}: {error}") from None
        roles = document.pop("roles", None)
        if not isinstance(roles, dict) or not roles or document:
            odd = f", not {', '.join(map(repr, document))}" if document else ""
            raise InvalidRequestError(f"policy {path}: expects tables [roles.NAME]{odd}")
        return cls([_role(name, given, f"policy {path}: roles.{name}") for name, given in roles.items()])


def _role(name: str, given: Mapping[str, Any], where: str) -> Role:
    if not isinstance(given, dict):
        raise InvalidRequestError(f"{where} is no table")
    unknown = set(given) - {"includes", "rpcs", "commands", "others"}
    if unknown:
        raise InvalidRequestError(
            f"{where} has {', '.join(sorted(unknown))}: known are includes, rpcs, commands, others"
        )
    others = given.get("others", False)
    if not isinstance(others, bool):
        raise InvalidRequestError(f"{where}.others is neither true nor false")
    values = {kind.value: kind for kind in CommandType}
    commands = _expand(_texts(given, "commands", where), values, f"{where}.commands")
    return Role(
        name=name,
        includes=_texts(given, "includes", where),
        rpcs=_expand(_texts(given, "rpcs", where), KNOWN_RPCS, f"{where}.rpcs"),
        commands=frozenset(values[value] for value in commands),
        others=others,
    )


def _texts(given: Mapping[str, Any], key: str, where: str) -> tuple[str, ...]:
    texts = given.get(key, [])
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise InvalidRequestError(f"{where}.{key} is no list of strings")
    return tuple(texts)


def _expand(patterns: Iterable[str], known: Iterable[str], where: str) -> frozenset[str]:
    found: set[str] = set()
    for pattern in patterns:
        prefix = pattern[:-1] if pattern == "*" or pattern.endswith(".*") else None
        matched = {name for name in known if (name == pattern if prefix is None else name.startswith(prefix))}
        if not matched:
            raise InvalidRequestError(
                f"{where}: {pattern!r} is none of {', '.join(sorted(known))}, nor a prefix of them as 'WorldService.*'"
            )
        found |= matched
    return frozenset(found)


def _union(parts: Iterable[Permissions]) -> Permissions:
    parts = tuple(parts)
    return Permissions(
        frozenset[str]().union(*(part.rpcs for part in parts)),
        frozenset[CommandType]().union(*(part.commands for part in parts)),
        any(part.others for part in parts),
    )
