"""What one request's sender may do with its commands: judged between the look-up of known ids and all other checks."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from tickwire_engine import CommandType
from tickwire_engine.errors import QuotaDayError, QuotaTickError, RoleForbidsError
from tickwire_server.auth.actor import LOCAL, as_id
from tickwire_server.auth.quotas import DAY_S

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from uuid import UUID

    from tickwire_engine import AsyncWorld, Submission
    from tickwire_engine.storage.rows import CommandRow
    from tickwire_server.auth.actor import Actor

_NEW_NAMES = {CommandType.CREATE_WORLD: "name", CommandType.FORK_WORLD: "name"}
_WORLDS = {CommandType.DESTROY_WORLD: "world", CommandType.FORK_WORLD: "world"}
_NESTING = frozenset((CommandType.RUN_ROLLOUT, CommandType.RUN_EPISODE))
_LOOKED_INTO = _NESTING.union(_NEW_NAMES, _WORLDS)


def guard_for(actor: Actor, world: AsyncWorld, name_of: Callable[[UUID], str | None]) -> RequestGuard | None:
    """Return what judges a request's commands; None: everything is allowed to `actor`.

    Args:
        actor: Who sends them.
        world: Where to.
        name_of: Tells a world's name, for commands that name other worlds by their ids.
    """
    return None if actor is LOCAL else RequestGuard(actor, world, name_of)


class RequestGuard:
    """A `tickwire_engine` Guard: role and allowed types, worlds that commands name, quotas. Lean: one a request."""

    __slots__ = (
        *("_account", "_actor", "_cost", "_day", "_due", "_inside", "_kind", "_name_of", "_new", "_now"),
        "_units",
    )

    def __init__(self, actor: Actor, world: AsyncWorld, name_of: Callable[[UUID], str | None]) -> None:
        self._actor = actor
        self._name_of = name_of
        self._kind: CommandType | None = None
        self._account = actor.account
        if self._account is not None:
            self._now = self._account.clock()
            self._day = int(self._now // DAY_S)
            self._due = self._account.due(world)
            self._new: Counter[int] = Counter()
            self._units = self._account.used_on(self._day)

    def check(self, submission: Submission, tick: int) -> None:
        """Judge a command that was not accepted before, due at `tick`.

        Raises:
            RoleForbidsError: The actor may not submit that type.
            WorldForbiddenError: It names a world outside of the actor's.
            WorldNotFoundError: The same, by its id.
            QuotaTickError: The actor has queued as many for that tick as it may.
            QuotaDayError: The actor has used up its cost units.
        """
        kind = submission.type
        if kind is not self._kind:
            # Most requests bring commands of one type.
            self._require_type(kind)
            self._inside = kind in _LOOKED_INTO
            self._cost = 0 if self._account is None else self._account.limits.costs[kind]
            self._kind = kind
        if self._inside:
            self._look_into(kind, submission.payload, kind.value)
        if self._account is not None:
            self._charge(kind, tick)

    def admitted(self, rows: Sequence[CommandRow]) -> None:
        """Count what was accepted."""
        account = self._account
        if account is None or not rows:
            return
        costs = account.limits.costs
        due = self._due
        by_type: Counter[str] = Counter()
        for row in rows:
            due[row.tick] += 1
            by_type[row.type] += 1
        account.spend(sum(costs[CommandType(kind)] * count for kind, count in by_type.items()), self._day)

    def _charge(self, kind: CommandType, tick: int) -> None:
        account = self._account
        assert account is not None
        limits = account.limits
        if limits.commands_per_tick and self._due[tick] + self._new[tick] >= limits.commands_per_tick:
            raise QuotaTickError(
                f"you have queued {limits.commands_per_tick} commands for tick {tick}, as many as you may: "
                "wait until it is computed, or send one command with a table",
                limit=limits.commands_per_tick,
                tick=tick,
            )
        if limits.cost_units_per_day and self._units + self._cost > limits.cost_units_per_day:
            error = QuotaDayError(
                f"{kind.value} costs {self._cost} units, and {self._units} of today's "
                f"{limits.cost_units_per_day} are used: wait for the next day (UTC), or ask for more",
                limit=limits.cost_units_per_day,
                used=self._units,
            )
            error.retry_after_s = (self._day + 1) * DAY_S - self._now
            raise error
        self._new[tick] += 1
        self._units += self._cost

    def _require_type(self, kind: CommandType) -> None:
        if kind in self._actor.permissions.commands:
            return
        needs = self._actor.policy.least_for_command(kind)
        remedy = f": it needs the role {needs}, and a token that allows it" if needs else ""
        raise RoleForbidsError(
            f"you may not submit {kind.value}{remedy}", field=kind.value, command=kind.value, needs=needs
        )

    def _look_into(self, kind: CommandType, payload: Mapping[str, Any], path: str) -> None:
        if kind in _NEW_NAMES:
            # A world without a name gets one like this.
            name = payload.get("name") or "world-000000000000"
            self._actor.require_name(str(name), field=f"{path}.name")
        if kind in _WORLDS and payload.get("world"):
            self._require_world(str(payload["world"]), f"{path}.world")
        if kind in _NESTING:
            self._look_into_branches(kind, payload, path)

    def _look_into_branches(self, kind: CommandType, payload: Mapping[str, Any], path: str) -> None:
        if kind is CommandType.RUN_EPISODE:
            payload, path = payload.get("rollout") or {}, f"{path}.rollout"
        for number, branch in enumerate(payload.get("branches") or ()):
            for index, command in enumerate(branch.get("commands") or ()):
                for inner in CommandType:
                    if inner.value in command:
                        self._require_type(inner)
                        place = f"{path}.branches[{number}].commands[{index}].{inner.value}"
                        self._look_into(inner, command[inner.value], place)

    def _require_world(self, ref: str, path: str) -> None:
        world_id = as_id(ref)
        if world_id is None:
            self._actor.require_name(ref, field=path)
            return
        name = self._name_of(world_id)
        if name is not None:
            self._actor.require_found(ref, name)
