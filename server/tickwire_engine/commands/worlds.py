"""CREATE_WORLD and DESTROY_WORLD: worlds that other worlds make and end, in one transaction with the tick that says so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

from pydantic import ValidationError

from tickwire_engine.commands.effect import Decision, Effect, EffectScope
from tickwire_engine.commands.operation import Applied, Operation, Vocabulary, refuse_unknown
from tickwire_engine.config import WorldConfig
from tickwire_engine.errors import InvalidCommandError
from tickwire_engine.params import first_problem

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tickwire_engine.storage.rows import CommandRow


@dataclass(frozen=True, slots=True)
class CreateWorld(Effect):
    """A world to be made; its id and seed come from the command, unless they are given."""

    config: WorldConfig
    has_id: bool

    async def decide(self, row: CommandRow, scope: EffectScope) -> Decision:
        """Make the world, whole with what its template gives it, and store it with the tick."""
        derived = scope.derived_world_id(row)
        given = {} if self.has_id else {"world_id": derived}
        config = self.config.model_copy(update=given)
        engine = scope.engine
        world = await engine.making.prepare(config, seed=derived.int % (1 << 52))
        applied = Applied(world_id=str(world.world_id))
        if world.row.key:
            return Decision(applied)
        creation = engine.store.creation(world.row, world.acceptance.journal.staged)
        return Decision(
            applied,
            (creation,),
            carried_out=lambda: engine.making.adopt(world, creation.stored),
            dropped=lambda: engine.making.give_up(world),
        )


@dataclass(frozen=True, slots=True)
class DestroyWorld(Effect):
    """A world to end, by id or name; a world may end itself."""

    world: str

    async def decide(self, row: CommandRow, scope: EffectScope) -> Decision:
        """Find the world; the tick's transaction marks it."""
        target = scope.engine.world(self.world)
        destruction = scope.engine.store.destruction(target.row.key, scope.engine.store.now_us())
        return Decision(Applied(), (destruction,), carried_out=lambda: scope.engine.making.forget(target))


def parse_create(payload: Mapping[str, Any], table: bytes, vocabulary: Vocabulary) -> Operation:
    """Validate what can be told without looking at the worlds that there are: those are looked at in its tick."""
    known = ("name", "world_id", "seed", "labels", "retention", "template")
    refuse_unknown(payload, table, type_name="create_world", known=known)
    given = {name: payload[name] for name in ("name", "labels", "template") if payload.get(name)}
    retention = payload.get("retention") or {}
    if not isinstance(retention, dict):
        raise InvalidCommandError(
            "create_world.retention: expected an object", field="create_world.retention"
        )
    for name, value in retention.items():
        if name not in ("keep_ticks", "keep_every", "keep_bytes") or _natural(value) is None:
            path = f"create_world.retention.{name}"
            raise InvalidCommandError(f"{path}: {value!r} is no count of ticks or bytes", field=path)
        given[name] = _natural(value)
    if payload.get("seed") is not None:
        given["seed"] = _natural(payload["seed"])
        if given["seed"] is None:
            raise InvalidCommandError(
                "create_world.seed must be an integer in [0, 2^53)", field="create_world.seed"
            )
    if payload.get("world_id"):
        given["world_id"] = _world_id(payload["world_id"])
    try:
        config = WorldConfig(**given)
    except ValidationError as error:
        where, why = first_problem(error)
        raise InvalidCommandError(f"create_world.{where}: {why}", field=f"create_world.{where}") from None
    return CreateWorld(config, "world_id" in given)


def parse_destroy(payload: Mapping[str, Any], table: bytes, vocabulary: Vocabulary) -> Operation:
    """Validate: the world must be named, so that none ends by an empty field."""
    refuse_unknown(payload, table, type_name="destroy_world", known=("world",))
    world = payload.get("world")
    if not world or not isinstance(world, str | UUID):
        raise InvalidCommandError(
            "destroy_world needs the id or name of a world", field="destroy_world.world"
        )
    return DestroyWorld(str(world))


def _natural(value: Any) -> int | None:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 53:
        return None
    return value


def _world_id(value: Any) -> UUID:
    try:
        parsed = UUID(str(value))
    except ValueError:
        parsed = UUID(int=0)
    if parsed.version != 7:
        raise InvalidCommandError(
            f"create_world.world_id: {str(value)[:80]!r} is no UUIDv7", field="create_world.world_id"
        )
    return parsed
