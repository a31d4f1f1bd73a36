"""Custom commands: functions of the application, called inside the tick in their command's place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from pydantic import BaseModel, Field

from tests.engine.parts import Drift, Place, Speed, Tag, setup
from tests.engine.test_resources import Counter
from tickwire_engine import (
    ActorCtx,
    AsyncWorld,
    Command,
    CommandBroker,
    CommandType,
    Engine,
    EngineSetup,
    Resources,
    Submission,
    WorldConfig,
)
from tickwire_engine.archetype import FIRST_ISSUED_ENTITY_ID
from tickwire_engine.errors import (
    CustomRefusedError,
    InvalidRequestError,
    ProcessorFailedError,
    SchemaMismatchError,
    UnknownCustomCommandError,
    WorldFaultedError,
)
from tickwire_engine.handlers import MAX_VALUE_BYTES, HandlerRegistry
from tickwire_engine.replay import Replayed, replay
from tickwire_engine.storage.reader import StoreReader
from tickwire_engine.submission import submission_of

if TYPE_CHECKING:
    from pathlib import Path

    from tests.engine.conftest import Opener
    from tickwire_engine.storage.rows import Outcome
    from tickwire_engine.submission import Accepted

ALICE = ActorCtx(id=UUID("0190a0a0-0000-7000-8000-00000000000a"), subject="alice", roles=("player",))


class Step(BaseModel):
    """Nested in `Move`."""

    x: float = Field(ge=0.0)


class Move(BaseModel):
    """A body."""

    entity_id: int
    steps: list[Step] = []


class Seen(BaseModel):
    """A result."""

    tick: int
    xs: list[float]


async def move(body: Move, ctx: ActorCtx, world: AsyncWorld) -> Seen:
    """Send a command the awaiting way, and tell what is to be seen now."""
    if ctx.subject == "mallory":
        raise CustomRefusedError(f"{ctx.subject} may not move anything")
    xs = world.read([Place]).column("place__x").to_pylist()
    await world.update_entity(body.entity_id, [Place(x=xs[0] + sum(step.x for step in body.steps))])
    return Seen(tick=world.tick, xs=xs)


def bud(body: dict[str, Any], broker: CommandBroker, world: AsyncWorld) -> dict[str, Any]:
    """Send commands the plain way."""
    for text in body["texts"]:
        broker.issue(CommandType.SPAWN, {"components": {"Tag": {"text": text}}})
    return {"sent": len(body["texts"])}


async def found(world: AsyncWorld) -> list[int]:
    """Tell the ids of what is spawned."""
    return [await world.create_entity([Tag(text="one")]), await world.create_entity([Tag(text="two")])]


async def fail(world: AsyncWorld, resources: Resources) -> None:
    """Change what can be changed, and fail."""
    await world.create_entity([Tag(text="never")])
    resources.require(Counter).count += 100
    raise ValueError("/a/secret/path")


def whoever(ctx, tick, **rest):  # type: ignore[no-untyped-def]
    """Take what is told by name."""
    return f"{ctx.subject} in {tick} with {sorted(rest)}"


def large(body: dict[str, int]) -> str:
    """Return as much as is asked for."""
    return "x" * body["size"]


def _setup(*left_out: str) -> EngineSetup:
    def bootstrap(world: AsyncWorld) -> None:
        world.resources.insert(Counter())

    made = setup()
    handlers = {"move": move, "bud": bud, "found": found, "fail": fail, "whoever": whoever, "large": large}
    for name, function in handlers.items():
        if name not in left_out:
            made.vocabulary.handlers.register(name, function)
    return EngineSetup(made.vocabulary, made.templates, bootstrap)


@pytest.fixture
async def world(opener: Opener) -> AsyncWorld:
    engine = await opener.open(_setup())
    made = await engine.create_world(WorldConfig(name="w", seed=7))
    await made.create_entity([Place(x=1.0)])
    await made.step()
    return made


async def _call(
    world: AsyncWorld, name: str, body: dict[str, Any] | None = None, *, ctx: ActorCtx | None = ALICE
) -> Accepted:
    command = Command(type=CommandType.CUSTOM, payload={"name": name, "body": body or {}})
    (receipt,) = await world.submit([submission_of(command, ctx)])
    assert receipt.command is not None
    return receipt.command


def _outcome(command: Accepted) -> Outcome:
    assert command.settled is not None
    return command.settled.outcome


async def _replayed(path: Path) -> Replayed:
    store = StoreReader(path)
    try:
        (row,) = store.worlds()
        return await replay(Engine.over(store, _setup()), row)  # type: ignore[arg-type]
    finally:
        store.close()


async def test_a_handler_sees_the_tick_before_and_what_it_sends_is_applied_in_the_next(
    world: AsyncWorld,
) -> None:
    await world.submit(
        [Submission(CommandType.UPDATE, {"entity_ids": [1], "components": {"Place": {"x": 5.0}}})]
    )
    sent = await _call(world, "move", {"entity_id": 1, "steps": [{"x": 2.0}, {"x": 0.5}]})
    await world.step()
    assert _outcome(sent).value == b'{"tick":1,"xs":[1.0]}'
    assert world.entity(1)["Place"]["x"] == 5.0
    committed = await world.step()
    assert [row.actor for row in committed.commands] == ["command:move"]
    assert world.entity(1)["Place"]["x"] == 3.5


async def test_a_handler_knows_the_ids_of_what_it_spawns(world: AsyncWorld) -> None:
    first = await _call(world, "bud", {"texts": ["a", "b"]})
    second = await _call(world, "found")
    await world.step()
    assert _outcome(first).value == b'{"sent":2}'
    told = [FIRST_ISSUED_ENTITY_ID + 2, FIRST_ISSUED_ENTITY_ID + 3]
    assert _outcome(second).value == f'{{"value":[{told[0]},{told[1]}]}}'.encode()
    await world.step()
    assert [world.entity(i)["Tag"]["text"] for i in told] == ["one", "two"]


async def test_what_a_function_does_not_annotate_is_told_by_its_name(world: AsyncWorld) -> None:
    sent = await _call(world, "whoever")
    await world.step()
    text = "alice in 1 with ['body', 'broker', 'inputs', 'resources', 'run_config', 'world']"
    assert _outcome(sent).value.decode() == f'{{"value":"{text}"}}'


async def test_a_handler_refuses_and_says_why(world: AsyncWorld) -> None:
    mallory = ALICE.model_copy(update={"subject": "mallory"})
    refused = await _call(world, "move", {"entity_id": 1}, ctx=mallory)
    taken = await _call(world, "move", {"entity_id": 1})
    await world.step()
    outcome = _outcome(refused)
    assert (outcome.reason, outcome.message) == ("CUSTOM_REFUSED", "mallory may not move anything")
    assert dict(outcome.metadata) == {"name": "move"}
    assert _outcome(taken).applied
    assert world.acceptance.pending == 1


async def test_a_handler_that_fails_rejects_its_command_alone_and_leaves_nothing(world: AsyncWorld) -> None:
    counted = world.resources.require(Counter).count
    failed = await _call(world, "fail")
    after = await _call(world, "found")
    await world.step()
    outcome = _outcome(failed)
    assert outcome.reason == "INTERNAL"
    assert "secret" not in outcome.message + str(outcome.metadata)
    assert world.resources.require(Counter).count == counted
    # The ids that the failed one was told are given to others: nothing of it was kept.
    assert _outcome(after).value.startswith(f'{{"value":[{FIRST_ISSUED_ENTITY_ID},'.encode())
    await world.step()
    assert sorted(row["tag__text"] for row in world.read([Tag]).to_pylist()) == ["one", "two"]


async def test_an_outcome_holds_no_more_than_its_limit(world: AsyncWorld) -> None:
    fits = await _call(world, "large", {"size": MAX_VALUE_BYTES - len('{"value":""}')})
    exceeds = await _call(world, "large", {"size": MAX_VALUE_BYTES})
    await world.step()
    assert len(_outcome(fits).value) == MAX_VALUE_BYTES
    assert _outcome(exceeds).reason == "RESULT_TOO_LARGE"


@pytest.mark.parametrize(
    ("name", "body", "error", "field"),
    [
        ("nothing", {}, UnknownCustomCommandError, "custom.name"),
        ("move", {}, SchemaMismatchError, "custom.body.entity_id"),
        ("move", {"entity_id": 1.5}, SchemaMismatchError, "custom.body.entity_id"),
        ("move", {"entity_id": 1, "steps": [{"x": -1}]}, SchemaMismatchError, "custom.body.steps[0].x"),
        ("found", {"x": 1}, SchemaMismatchError, "custom.body"),
    ],
)
async def test_what_no_handler_takes_is_refused_at_the_door(
    world: AsyncWorld, name: str, body: dict[str, Any], error: type[Exception], field: str
) -> None:
    with pytest.raises(error) as refused:
        await _call(world, name, body)
    assert refused.value.field == f"commands[0].{field}"  # type: ignore[attr-defined]
    assert world.acceptance.pending == 0


async def test_numbers_of_the_wire_are_whole_numbers_where_a_model_wants_them(world: AsyncWorld) -> None:
    sent = await _call(world, "move", {"entity_id": 1.0, "steps": [{"x": 1.0}]})
    await world.step()
    assert _outcome(sent).applied


async def test_replay_calls_the_handlers_again_and_comes_to_the_same(
    opener: Opener, world: AsyncWorld
) -> None:
    await world.add_processor(Drift())
    await world.create_entity([Place(), Speed()])
    for name, body in (
        ("move", {"entity_id": 1, "steps": [{"x": 2.0}]}),
        ("fail", {}),
        ("bud", {"texts": ["a"]}),
        ("found", {}),
    ):
        await _call(world, name, body)
        await world.step()
    last = (await world.step()).summary.tick
    await opener.close()
    assert await _replayed(opener.path) == Replayed(0, last)


async def test_a_command_that_waited_through_a_restart_is_told_its_sender(
    opener: Opener, world: AsyncWorld
) -> None:
    await _call(world, "whoever")
    await opener.open(_setup())
    again = opener.world("w")
    committed = await again.step()
    assert committed.computed.outcomes[0].value.startswith(b'{"value":"alice in 1 ')


async def test_a_world_waits_for_a_handler_that_is_gone(opener: Opener, world: AsyncWorld) -> None:
    await _call(world, "found")
    await opener.open(_setup("found"))
    again = opener.world("w")
    assert again.fault is not None
    assert "found" in again.fault.message
    with pytest.raises(WorldFaultedError):
        await again.step()
    await opener.open(_setup())
    assert (await opener.world("w").step()).summary.commands_applied == 1


async def test_processors_are_told_that_they_cannot_know_ids(opener: Opener, world: AsyncWorld) -> None:
    await world.add_processor(Naming())
    with pytest.raises(ProcessorFailedError, match="CommandBroker"):
        await world.step()


class Naming(Drift):
    """Asks for an id that no processor can be told."""

    components = (Place,)

    async def process(self, df: Any, **kwargs: Any) -> Any:
        await kwargs["world"].create_entity([Tag()])
        return df


def _positional(body: Move, /) -> None:
    pass


def _two_bodies(one: Move, other: Seen) -> None:
    pass


def _unknown(body: Nonsense) -> None:  # type: ignore[name-defined]  # noqa: F821
    pass


@pytest.mark.parametrize("function", [_positional, _two_bodies, _unknown])
def test_a_function_that_cannot_be_called_is_refused_when_it_is_registered(function: Any) -> None:
    with pytest.raises(InvalidRequestError, match="custom command 'x'"):
        HandlerRegistry().register("x", function)


def test_a_name_is_registered_once() -> None:
    registry = HandlerRegistry()
    registry.register("x", move)
    with pytest.raises(InvalidRequestError, match="already"):
        registry.register("x", bud)
    with pytest.raises(InvalidRequestError, match="needs a name"):
        registry.register("", bud)
