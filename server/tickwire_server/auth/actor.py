"""Actors: who calls, resolved to what they may do. Made once per credentials, read on every call."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

from tickwire_engine import ActorCtx
from tickwire_engine.errors import WorldForbiddenError, WorldNotFoundError
from tickwire_server.auth.globs import WorldGlobs
from tickwire_server.auth.policy import EVERYTHING, Permissions, Policy

if TYPE_CHECKING:
    from tickwire_server.auth.quotas import Account

LOCAL_ADMIN = ActorCtx(
    id=UUID("00000000-0000-7000-8000-000000000001"), subject="local", roles=("admin",), worlds=("*",)
)
"""The actor of calls while no authentication is configured, and of code in this process: everything, no quotas."""


@dataclass(frozen=True, slots=True, eq=False)
class Actor:
    """Who calls, and what they may do.

    Attributes:
        key: The actor as commands name it: `ctx.id` in hex.
        policy: What its permissions come from; tells what others would need.
        account: What it has used up; None: it has no quotas.
    """

    ctx: ActorCtx
    key: str
    permissions: Permissions
    worlds: WorldGlobs
    policy: Policy
    account: Account | None = None

    @property
    def sees_others(self) -> bool:
        """Whether it sees and cancels other actors' commands."""
        return self.permissions.others

    def may_see(self, command_actor: str) -> bool:
        """Whether it sees, and may cancel, a command of `command_actor` (as `CommandRow.actor` has it)."""
        return self.permissions.others or command_actor == self.key

    def may_enter(self, world_name: str) -> bool:
        """Whether a world of that name is one it may reach."""
        return self.worlds.match(world_name)

    def require_name(self, world_name: str, *, field: str = "world") -> None:
        """Refuse a world's name that is outside its globs, whether or not there is such a world.

        Raises:
            WorldForbiddenError: It is.
        """
        if not self.worlds.match(world_name):
            raise WorldForbiddenError(
                f"world {world_name!r} is outside of what your credentials are for: WhoAmI tells which are inside",
                field=field,
                world=world_name,
            )

    def require_found(self, ref: str, world_name: str) -> None:
        """Answer a world that was found by its id, and is outside its globs, as if it were not there.

        Raises:
            WorldNotFoundError: It is outside.
        """
        if not self.worlds.match(world_name):
            raise WorldNotFoundError(f"no world {ref!r}; list the worlds to see which there are", world=ref)


LOCAL = Actor(LOCAL_ADMIN, LOCAL_ADMIN.id.hex, EVERYTHING, WorldGlobs(("*",)), Policy())
ANONYMOUS = Actor(
    ActorCtx(id=UUID(int=0), worlds=()),
    UUID(int=0).hex,
    Permissions(frozenset(), frozenset(), False),
    WorldGlobs(()),
    Policy(()),
)
"""The actor of calls without credentials, where credentials are asked for: what is open to everybody, no more."""
_caller: ContextVar[Actor] = ContextVar("tickwire_caller", default=LOCAL)


def caller() -> Actor:
    """Return who makes the call that runs here; code of this process itself is the local administrator."""
    return _caller.get()


def run_as(actor: Actor) -> None:
    """Make `actor` the caller of what this task does from now on, and of the tasks that it starts."""
    _caller.set(actor)


def as_id(ref: str) -> UUID | None:
    """Return `ref` as an id, or None where it is a name."""
    try:
        return UUID(ref)
    except ValueError:
        return None
