"""FORK_WORLD: a world that another makes of itself, or of a third, in one transaction with the tick that says so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from tickwire_engine.commands.effect import Decision, Effect, EffectScope
from tickwire_engine.commands.operation import Applied, Operation, Vocabulary, refuse_unknown
from tickwire_engine.commands.values import natural, new_world_id
from tickwire_engine.config import ForkConfig
from tickwire_engine.errors import InvalidCommandError
from tickwire_engine.params import first_problem

if TYPE_CHECKING:
    from collections.abc import Mapping
    from uuid import UUID

    from tickwire_engine.storage.rows import CommandRow

_KNOWN = ("world", "name", "at_tick", "world_id", "seed", "with_pending", "labels")


@dataclass(frozen=True, slots=True)
class ForkWorld(Effect):
    """A fork to be made; its id comes from the command, unless it is given."""

    world: str
    config: ForkConfig
    has_id: bool

    async def decide(self, row: CommandRow, scope: EffectScope) -> Decision:
        """Make the fork, pin what it shares, and store it with the tick."""
        engine = scope.engine
        parent: str | UUID = self.world or scope.state.world_id
        given = {} if self.has_id else {"world_id": scope.derived_world_id(row)}
        config = self.config.model_copy(update=given)
        if engine.world(parent) is scope.world:
            # What it shares by default is the tick before, which may still be on its way to the disk.
            await scope.world.settled_tick(scope.state.tick - 1)
        world, forking = await engine.making.prepare_fork(parent, config)
        applied = Applied(world_id=str(world.world_id))
        if forking is None:
            return Decision(applied)
        try:
            # Pinned at once: the tick's transaction must not find that retention was faster.
            await engine.store.hold(forking)
        except BaseException:
            engine.making.give_up(world)
            raise

        def dropped() -> None:
            engine.making.give_up(world)
            engine.store.let_go(forking)

        return Decision(
            applied,
            (forking,),
            carried_out=lambda: engine.making.adopt(world, forking.stored),
            dropped=dropped,
        )


def parse(payload: Mapping[str, Any], table: bytes, vocabulary: Vocabulary) -> Operation:
    """Validate what can be told without looking at the worlds that there are: those are looked at in its tick."""
    refuse_unknown(payload, table, type_name="fork_world", known=_KNOWN)
    given: dict[str, Any] = {name: payload[name] for name in ("name", "labels") if payload.get(name)}
    given["with_pending"] = bool(payload.get("with_pending"))
    for name in ("at_tick", "seed"):
        if payload.get(name) is not None:
            given[name] = natural(payload[name], path=f"fork_world.{name}")
    if payload.get("world_id"):
        given["world_id"] = new_world_id(payload["world_id"], path="fork_world.world_id")
    world = payload.get("world") or ""
    try:
        config = ForkConfig(**given)
    except ValidationError as error:
        where, why = first_problem(error)
        raise InvalidCommandError(f"fork_world.{where}: {why}", field=f"fork_world.{where}") from None
    return ForkWorld(str(world), config, "world_id" in given)
