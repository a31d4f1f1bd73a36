"""Commands: their order, their ids, their batches."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.engine.parts import Place, stream
from tickwire_engine import AsyncProcessor, CommandType, Submission, WorldConfig
from tickwire_engine.errors import (
    CommandIdReusedError,
    EntityNotFoundError,
    InvalidCommandError,
    SchemaMismatchError,
    TickInThePastError,
    TickwireError,
    WorldFullError,
)
from tickwire_engine.ids import uuid7

if TYPE_CHECKING:
    import daft

    from tests.engine.conftest import Opener
    from tickwire_engine import AsyncWorld, Engine, Receipt

FEW = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def spawn(x: float = 0.0, **given_: Any) -> Submission:
    return Submission(CommandType.SPAWN, {"components": {"Place": {"x": x}}}, **given_)


def update(entity_id: int, x: float, **given_: Any) -> Submission:
    return Submission(
        CommandType.UPDATE,
        {"entity_ids": [entity_id], "components": {"Place": {"x": x}}},
        **given_,
    )


def despawn(*ids: int, **given_: Any) -> Submission:
    return Submission(CommandType.DESPAWN, {"entity_ids": list(ids)}, **given_)


def first_id(receipt: Receipt) -> int:
    assert receipt.command is not None
    return receipt.command.first_entity_id


@given(
    asked=st.lists(
        st.tuples(st.one_of(st.none(), st.integers(0, 4)), st.integers(-3, 3)), min_size=1, max_size=25
    )
)
@FEW
async def test_commands_apply_in_tick_priority_seq_order(
    shared_engine: Engine, asked: list[tuple[int | None, int]]
) -> None:
    world = await shared_engine.create_world(WorldConfig())
    receipts = await world.submit(
        [spawn(float(i), tick=tick, priority=priority) for i, (tick, priority) in enumerate(asked)]
    )
    seqs = [r.command.seq for r in receipts if r.command is not None]
    assert seqs == sorted(seqs)
    model = sorted((tick or 0, priority, seq) for (tick, priority), seq in zip(asked, seqs, strict=True))
    applied: list[tuple[int, int, int]] = []
    for tick in range(5):
        committed = await world.step()
        assert [row.seq for row in committed.commands] == [o.seq for o in committed.computed.outcomes]
        assert all(row.tick <= tick for row in committed.commands)
        applied += [(row.tick, row.priority, row.seq) for row in committed.commands]
    assert applied == model


async def test_the_last_writer_in_order_wins(world: AsyncWorld) -> None:
    entity = await world.create_entity([Place()])
    await world.step()
    await world.submit(
        [update(entity, 3.0, priority=5), update(entity, 1.0, priority=-1), update(entity, 2.0)]
    )
    await world.step()
    assert world.entity(entity)["Place"]["x"] == 3.0


class Gate:
    """What a processor waits for, and what it tells that it has begun."""

    def __init__(self) -> None:
        self.entered = asyncio.Event()
        self.release = asyncio.Event()


class Wait(AsyncProcessor):
    """Holds its tick until the test lets it go."""

    components = (Place,)

    async def process(self, df: daft.DataFrame, **input_kwargs: Any) -> daft.DataFrame:
        gate = input_kwargs["resources"].require(Gate)
        gate.entered.set()
        await gate.release.wait()
        return df


async def test_a_command_sent_while_a_tick_computes_is_applied_in_the_next(world: AsyncWorld) -> None:
    gate = Gate()
    world.resources.insert(gate)
    await world.create_entity([Place()])
    await world.add_processor(Wait())
    step = asyncio.ensure_future(world.step())
    await gate.entered.wait()
    (receipt,) = await world.submit([spawn(9.0, priority=-100)])
    assert receipt.command is not None
    assert receipt.command.tick == 1
    gate.release.set()
    first = await step
    assert receipt.command.seq not in [o.seq for o in first.computed.outcomes]
    second = await world.step()
    assert [o.seq for o in second.computed.outcomes] == [receipt.command.seq]


async def test_a_command_issued_in_a_pre_tick_hook_is_applied_in_that_tick(world: AsyncWorld) -> None:
    made: list[int] = []

    async def issue(world: AsyncWorld, tick: int) -> None:
        made.append(await world.create_entity([Place(x=float(tick))]))

    world.add_hook("pre_tick", issue)
    committed = await world.step()
    assert committed.summary.commands_applied == 1
    assert world.entity(made[0])["Place"]["x"] == 0.0


async def test_a_command_for_a_later_tick_waits_over_a_restart(opener: Opener) -> None:
    engine = await opener.open()
    world = await engine.create_world(WorldConfig(name="w"))
    (receipt,) = await world.submit([spawn(5.0, tick=2)])
    await world.step()
    assert world.acceptance.pending == 1
    engine = await opener.open()
    world = engine.world("w")
    assert world.acceptance.pending == 1
    assert (await world.step()).summary.commands_applied == 0
    assert (await world.step()).summary.commands_applied == 1
    assert world.entity(first_id(receipt))["Place"]["x"] == 5.0
    assert world.acceptance.pending == 0


async def test_a_retried_id_is_answered_with_the_same_seq_and_entity_ids(opener: Opener) -> None:
    world = await (await opener.open()).create_world(WorldConfig(name="w"))
    command_id = uuid7()
    (first,) = await world.submit([spawn(1.0, id=command_id.bytes)])
    (again,) = await world.submit([spawn(1.0, id=command_id.bytes)])
    await world.step()
    (settled,) = await world.submit([spawn(1.0, id=command_id.bytes)])
    world = (await opener.open()).world("w")
    (restarted,) = await world.submit([spawn(1.0, id=command_id.bytes)])
    for receipt in (again, settled, restarted):
        assert receipt.duplicate
        assert receipt.command is not None
        assert first.command is not None
        assert receipt.command.seq == first.command.seq
        assert first_id(receipt) == first_id(first)
        assert receipt.command.entity_count == 1
    assert restarted.command is not None
    assert restarted.command.settled is not None
    assert restarted.command.settled.tick == 0
    await world.step()
    assert world.state.entities == 1


async def test_a_retry_is_known_however_long_ago_its_command_was_applied(
    opener: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tickwire_engine.known_commands.KEPT_SETTLED", 2)
    engine = await opener.open()
    world = await engine.create_world(WorldConfig(name="w"))
    # Not in the order of their ids: the one that memory keeps longest is the oldest.
    commands = [spawn(float(n), id=uuid7().bytes) for n in (3, 1, 4, 0, 2)][::-1]
    for command in commands:
        await world.submit([command])
        await world.step()
    forgotten = await world.submit(commands)
    await engine.store.archiver.archive_now(world.row.key)
    archived = await world.submit(commands)
    restarted = await (await opener.open()).world("w").submit(commands)
    for receipts in (forgotten, archived, restarted):
        assert all(receipt.duplicate for receipt in receipts)
        assert [r.command.settled.tick for r in receipts if r.command and r.command.settled] == [*range(5)]


@pytest.mark.parametrize("restarted", [False, True])
async def test_an_id_with_other_content_is_refused(opener: Opener, restarted: bool) -> None:
    world = await (await opener.open()).create_world(WorldConfig(name="w"))
    command_id = uuid7()
    await world.submit([spawn(1.0, id=command_id.bytes, actor="a")])
    if restarted:
        world = (await opener.open()).world("w")
    for other in (
        spawn(2.0, id=command_id.bytes, actor="a"),
        spawn(1.0, id=command_id.bytes, actor="b"),
        spawn(1.0, id=command_id.bytes, actor="a", priority=1),
        spawn(1.0, id=command_id.bytes, actor="a", tick=0),
        despawn(1, id=command_id.bytes, actor="a"),
    ):
        with pytest.raises(CommandIdReusedError) as raised:
            await world.submit([spawn(), other])
        assert raised.value.field == "commands[1].id"
    assert world.acceptance.pending == 1


async def test_one_id_twice_in_a_batch_is_one_command(world: AsyncWorld) -> None:
    command_id = uuid7()
    first, second = await world.submit([spawn(1.0, id=command_id.bytes), spawn(1.0, id=command_id.bytes)])
    assert (first.duplicate, second.duplicate) == (False, True)
    assert first.command is second.command
    assert (await world.step()).summary.spawned == 1


async def test_concurrent_retries_are_one_command(world: AsyncWorld) -> None:
    command_id = uuid7()
    answers = await asyncio.gather(*(world.submit([spawn(1.0, id=command_id.bytes)]) for _ in range(20)))
    assert sum(not receipt.duplicate for (receipt,) in answers) == 1
    assert len({receipt.command.seq for (receipt,) in answers if receipt.command}) == 1
    assert (await world.step()).summary.spawned == 1


async def test_a_bad_command_refuses_its_batch_whole_and_leaves_nothing(opener: Opener) -> None:
    world = await (await opener.open()).create_world(WorldConfig(name="w"))
    good = uuid7()
    bad = Submission(CommandType.SPAWN, {"components": {"Place": {"x": "far"}}})
    with pytest.raises(SchemaMismatchError) as raised:
        await world.submit([spawn(1.0, id=good.bytes), bad])
    assert raised.value.field == "commands[1].spawn.components.Place.x"
    assert world.acceptance.pending == 0
    (receipt,) = await world.submit([spawn(1.0, id=good.bytes)])
    assert not receipt.duplicate
    assert receipt.command is not None
    assert (receipt.command.seq, first_id(receipt)) == (1, 1)
    world = (await opener.open()).world("w")
    assert world.acceptance.pending == 1


async def test_a_partial_batch_accepts_the_rest(world: AsyncWorld) -> None:
    bad = Submission(CommandType.SPAWN, {"components": {"Nothing": {}}})
    receipts = await world.submit([spawn(1.0), bad, despawn(), spawn(2.0)], partial=True)
    assert [r.error is None for r in receipts] == [True, False, False, True]
    assert receipts[1].error is not None
    assert receipts[1].error.field == "commands[1].spawn.components.Nothing"
    assert receipts[1].error.reason == "UNKNOWN_COMPONENT"
    assert receipts[2].error is not None
    assert receipts[2].error.reason == "INVALID_COMMAND"
    assert (await world.step()).summary.spawned == 2
    assert [first_id(r) for r in receipts if r.command] == [1, 2]


@pytest.mark.parametrize(
    ("asked", "error", "field"),
    [
        (spawn(tick=-1), InvalidCommandError, "commands[0].tick"),
        (spawn(tick=1 << 53), InvalidCommandError, "commands[0].tick"),
        (spawn(tick=0), TickInThePastError, "commands[0].tick"),
        (spawn(priority=1 << 15), InvalidCommandError, "commands[0].priority"),
        (spawn(version=2), InvalidCommandError, "commands[0].version"),
        (spawn(id=UUID(int=4 << 76).bytes), InvalidCommandError, "commands[0].id"),
        (spawn(id=uuid7(uuid7().int >> 80 | 1 << 45).bytes), InvalidCommandError, "commands[0].id"),
    ],
)
async def test_an_unusable_command_is_refused_by_field(
    world: AsyncWorld, asked: Submission, error: type[TickwireError], field: str
) -> None:
    await world.step()
    with pytest.raises(error) as raised:
        await world.submit([asked])
    assert raised.value.field == field


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        (CommandType.SPAWN, {}),
        (CommandType.SPAWN, {"components": {}}),
        (CommandType.SPAWN, {"components": {"Place": {}}, "table": b"x"}),
        (CommandType.SPAWN, {"components": {"Place": {}}, "extra": 1}),
        (CommandType.DESPAWN, {}),
        (CommandType.DESPAWN, {"entity_ids": [0]}),
        (CommandType.DESPAWN, {"entity_ids": [1], "table": b"x"}),
        (CommandType.UPDATE, {"components": {"Place": {"x": 1}}}),
        (CommandType.UPDATE, {"entity_ids": [1]}),
        (CommandType.UPDATE, {"entity_ids": [1], "components": {"Place": {}}, "table": b"x"}),
        (CommandType.ADD_PROCESSOR, {}),
        (CommandType.REMOVE_PROCESSOR, {}),
    ],
)
async def test_a_command_that_selects_nothing_or_too_much_is_refused(
    world: AsyncWorld, kind: CommandType, payload: dict[str, Any]
) -> None:
    with pytest.raises(InvalidCommandError) as raised:
        await world.submit([Submission(kind, payload)])
    assert raised.value.field.startswith(f"commands[0].{kind.value}")
    assert world.acceptance.pending == 0


async def test_only_as_many_entities_as_allowed_are_taken_over_restarts_too(opener: Opener) -> None:
    world = await (await opener.open()).create_world(WorldConfig(name="w", max_entities=3))
    await world.submit([spawn(), spawn(tick=1)])
    with pytest.raises(WorldFullError):
        await world.submit([spawn(), spawn()])
    world = (await opener.open()).world("w")
    with pytest.raises(WorldFullError):
        await world.submit([spawn(), spawn()])
    await world.step()
    await world.submit([spawn()])
    await world.step()
    assert world.state.entities == 3
    with pytest.raises(WorldFullError):
        await world.submit([spawn()])
    await world.submit([despawn(1)])
    await world.step()
    await world.submit([spawn()])


async def test_a_large_table_does_not_count_as_many_commands(shared_engine: Engine) -> None:
    world = await shared_engine.create_world(WorldConfig())
    rows = 1_000_001
    table = stream({"place__x": [0.0] * rows})
    receipts = await world.submit([Submission(CommandType.SPAWN, {"table": table}), spawn()])
    assert [r.command.entity_count for r in receipts if r.command] == [rows, 1]


async def test_a_rejected_command_leaves_the_others_alone(world: AsyncWorld) -> None:
    receipts = await world.submit([spawn(1.0), update(77, 1.0), despawn(78), spawn(2.0)])
    committed = await world.step()
    assert [(o.applied, o.reason) for o in committed.computed.outcomes] == [
        (True, ""),
        (False, "ENTITY_NOT_FOUND"),
        (False, "ENTITY_NOT_FOUND"),
        (True, ""),
    ]
    assert "77" in committed.computed.outcomes[1].message
    assert committed.summary.commands_rejected == 2
    rejected = receipts[1].command
    assert rejected is not None
    assert not (await rejected.wait_settled()).outcome.applied
    with pytest.raises(EntityNotFoundError):
        world.entity(77)


async def test_a_waiter_is_told_once_the_tick_is_durable(world: AsyncWorld) -> None:
    (receipt,) = await world.submit([spawn()])
    assert receipt.command is not None
    waiting = asyncio.ensure_future(receipt.command.wait_settled())
    await world.step()
    settled = await waiting
    assert (settled.tick, settled.outcome.applied, settled.outcome_seq) == (0, True, 1)


async def test_seqs_outcomes_and_entity_ids_go_on_after_a_restart(opener: Opener) -> None:
    world = await (await opener.open()).create_world(WorldConfig(name="w"))
    await world.submit([spawn(), spawn(tick=3)])
    await world.step()
    world = (await opener.open()).world("w")
    (receipt,) = await world.submit([spawn()])
    assert receipt.command is not None
    assert (receipt.command.seq, first_id(receipt)) == (3, 3)
    await world.step()
    assert (await receipt.command.wait_settled()).outcome_seq == 2
