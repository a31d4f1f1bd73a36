"""CHANGES against FULL: whoever applies changes holds exactly the full state, at each tick, whatever the types."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.parts import stream
from tests.engine.test_encoding import FIELDS
from tests.server.answers import Replica, chunks_of, despawn, ticks_of, update
from tickwire.v1 import command_pb2, tick_service_pb2
from tickwire_engine.encoding import encode, schema_message
from tickwire_engine.storage.rows import Stream, TickSummary
from tickwire_server.grpc.wire import WireEncoder
from tickwire_server.hub import Compression, Selected, TickMessage, TickMode, View
from tickwire_server.hub._comparing import rows_differ
from tickwire_server.hub._selecting import Selector
from tickwire_server.hub.ticks import FullTick

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.server.conftest import Served
    from tickwire_engine.storage.rows import Frame

CHANGES = tick_service_pb2.TICK_MODE_CHANGES
KEYS = [pa.field("entity_id", pa.int64(), nullable=False), pa.field("is_active", pa.bool_(), nullable=False)]


def _fields(component: str, chosen: slice) -> list[pa.Field[Any]]:
    return [
        pa.field(f"{component.lower()}__f{i}", kind, metadata={"tickwire.component": component})
        for i, (kind, _) in enumerate(FIELDS[chosen])
    ]


ALPHA, BETA = _fields("Alpha", slice(0, 10)), _fields("Beta", slice(10, None))
VALUES = {field.name: values for field, (_, values) in zip([*ALPHA, *BETA], FIELDS, strict=True)}
STREAMS = {
    number: Stream(number, "+".join(parts), parts, schema_message(pa.schema([*KEYS, *fields])))
    for number, (parts, fields) in enumerate(
        [(("Alpha",), ALPHA), (("Alpha", "Beta"), [*ALPHA, *BETA]), (("Beta",), BETA)], 1
    )
}

Entities = dict[int, tuple[int, bool, dict[str, Any]]]
"""By id: the stream, whether it is active, the values."""


def _value(draw: st.DrawFn, name: str) -> Any:
    return draw(st.none() | VALUES[name])


@st.composite
def histories(draw: st.DrawFn) -> list[Entities]:
    """Draw a few ticks of entities that come, change, move between archetypes and end."""
    ticks: list[Entities] = []
    alive: dict[int, tuple[int, dict[str, Any]]] = {}
    next_id = 1
    for _ in range(draw(st.integers(2, 5))):
        state: Entities = {}
        for entity, (number, values) in [*alive.items()]:
            fate = draw(st.sampled_from(["stay", "stay", "change", "move", "end"]))
            if fate in ("change", "move"):
                if fate == "move":
                    number = draw(st.sampled_from([*STREAMS]))
                name = draw(st.sampled_from([*VALUES]))
                values = values | {name: _value(draw, name)}
            state[entity] = (number, fate != "end", values)
            alive[entity] = (number, values)
            if fate == "end":
                del alive[entity]
        for _ in range(draw(st.integers(0, 3))):
            number = draw(st.sampled_from([*STREAMS]))
            values = {name: _value(draw, name) for name in VALUES}
            ends_at_once = draw(st.integers(0, 9)) == 0
            state[next_id] = (number, not ends_at_once, values)
            if not ends_at_once:
                alive[next_id] = (number, values)
            next_id += 1
        ticks.append(state)
    return ticks


def _full(tick: int, entities: Entities, before: Mapping[int, tuple[Stream, Frame]]) -> FullTick:
    frames = {}
    for number, made in STREAMS.items():
        schema = pa.ipc.read_schema(pa.py_buffer(made.schema))
        rows = [
            {"entity_id": entity, "is_active": active} | values
            for entity, (where, active, values) in sorted(entities.items())
            if where == number
        ]
        if not rows:
            continue
        columns = [pa.array([row[field.name] for row in rows], field.type) for field in schema]
        frame = encode(pa.RecordBatch.from_arrays(columns, schema=schema), stream=number)
        if number in before and before[number][1].hash == frame.hash:
            frame = before[number][1]
        frames[number] = (made, frame)
    ended = tuple(sorted(entity for entity, (_, active, _) in entities.items() if not active))
    return FullTick(TickSummary(tick, b"", 0, 0, 0, 0, 0, 0, b"", 0, 0), frames, ended)


class _AboveTwo:
    """A condition: every entity but the first two."""

    def fits(self, names: list[str]) -> bool:
        return True

    def mask(self, batch: pa.RecordBatch) -> Any:
        return batch.column("entity_id").to_numpy() > 2


@given(
    histories(),
    st.sampled_from([(), ("Alpha",), ("Beta",), ("Alpha", "Beta")]),
    st.booleans(),
    st.sampled_from(Compression),
    st.integers(1, 2),
)
@settings(max_examples=50, deadline=None)
def test_applied_changes_are_the_full_state_at_each_tick(
    history: list[Entities], components: tuple[str, ...], filtered: bool, compression: Compression, every: int
) -> None:
    selected = Selected(components, "entity_id > 2" if filtered else "")
    condition = _AboveTwo() if filtered else None
    changing, whole = Selector(selected, condition), Selector(selected, condition)
    replica, known = Replica(), frozenset[int]()
    base: FullTick | None = None
    full: FullTick | None = None
    left_out: list[FullTick] = []
    for tick, entities in enumerate(history):
        full = _full(tick, entities, {} if full is None else full.frames)
        if tick % every:
            left_out.append(full)
            continue
        held = set(replica.rows)
        full = full.after(left_out if base is not None else [])
        view = View(selected, TickMode.CHANGES, compression)
        shown = changing.show(view, full, None if base is None else base.frames)
        message = TickMessage(
            full.summary,
            shown.frames,
            unknown=shown.streams - known,
            despawned=shown.despawned,
            snapshot=shown.snapshot,
        )
        known |= shown.streams
        for chunk in chunks_of(WireEncoder().encode(message, max_bytes=1 << 20)):
            replica.apply(chunk)
        expected = Replica()
        all_of_it = whole.show(View(selected), full, None)
        message = TickMessage(full.summary, all_of_it.frames, unknown=all_of_it.streams)
        for chunk in chunks_of(WireEncoder().encode(message, max_bytes=1 << 20)):
            expected.apply(chunk)
        assert replica.rows == expected.rows
        # What was sent and did not arrive anew was no change: departures of what was held, changes of what differed.
        assert replica.needless == 0
        assert set(shown.despawned) == set(full.despawned) & (held | expected.ended)
        base, left_out = full, []


@given(st.data())
@settings(max_examples=50, deadline=None)
def test_rows_differ_where_their_values_or_nulls_do(data: st.DataObject) -> None:
    kind, values = data.draw(st.sampled_from(FIELDS))
    rows = data.draw(st.lists(st.tuples(st.none() | values, st.none() | values, st.booleans()), max_size=12))
    one = [a for a, _, _ in rows]
    other = [a if same else b for a, b, same in rows]
    before, after = pa.array([None, *one], kind).slice(1), pa.array([*other, None], kind).slice(0, len(other))
    expected = [bits(a) != bits(b) for a, b in zip(before.to_pylist(), after.to_pylist(), strict=True)]
    assert rows_differ(before, after).tolist() == expected


def bits(value: Any) -> str:
    """Spell a value so that 0.0 and -0.0 differ."""
    return repr(value)


def test_a_nan_equals_itself_and_zero_has_a_sign() -> None:
    one = pa.array([float("nan"), 0.0, 1.0])
    other = pa.array([float("nan"), -0.0, 1.0])
    assert rows_differ(one, other).tolist() == [False, True, False]


def command(**given: Any) -> command_pb2.Command:
    """Return a command whose payload is one of add_component, remove_component, spawn."""
    made = command_pb2.Command()
    for name, (ids, components) in given.items():
        payload = getattr(made, name)
        if ids:
            payload.entity_ids.extend(ids)
        if isinstance(components, list):
            payload.components.extend(components)
        else:
            payload.components.update(components)
    return made


async def lively(served: Served, ticks: int = 16) -> None:
    """Make a world whose entities come, go, move between archetypes and rest."""
    await served.create()
    table = command_pb2.Command(spawn=command_pb2.Spawn(table=stream({"mark__name": ["a", "b", "c"]})))
    steps: dict[int, list[command_pb2.Command]] = {
        1: [table, update(1, 100)],
        3: [command(add_component=([1, 2], {"Mark": {"name": "both"}}))],
        4: [despawn(2)],
        6: [command(remove_component=([1], ["Mark"]))],
        7: [despawn(6, 7)],
        9: [command(add_component=([8], {"Spot": {"x": 3}})), despawn(1)],
        11: [despawn(3, 4, 5)],
    }
    for tick in range(ticks):
        if tick in steps:
            await served.submit(*steps[tick])
        await served.step()


@pytest.mark.parametrize("components", [[], ["Spot"], ["Mark"], ["Mark", "Spot"]], ids="+".join)
@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("where_from", ["ring", "history", "both"])
async def test_changes_over_the_wire_build_the_full_state(
    served: Served, components: list[str], every: int, where_from: str
) -> None:
    await lively(served)
    ring = served.server.container.hub(served.mover().world).ring
    if where_from != "ring":
        ring.max_bytes = 1 if where_from == "history" else ring.held // 2
        ring.shrink()
        assert ring.first_tick
    asked: dict[str, Any] = {
        "from_tick": 1,
        "until_tick": 15,
        "components": components,
        "every": every,
        "max_message_bytes": 1,
    }
    full = [tick async for tick in ticks_of(served.subscribe(**asked), every=every)]
    replica = Replica()
    summaries = {}
    named: set[int] = set()
    async for message in served.subscribe(mode=CHANGES, **asked):
        for chunk in message.chunks:
            replica.apply(chunk)
            if chunk.last:
                expected = next(tick for tick in full if tick.tick == chunk.tick)
                assert replica.rows == expected.active, chunk.tick
                summaries[chunk.tick] = chunk.summary
                replica.snapshots.setdefault(chunk.tick, chunk.snapshot)
            if not chunk.snapshot:
                named.update(chunk.despawned)
    assert summaries == {tick.tick: tick.summary for tick in full}
    assert [tick for tick, snapshot in replica.snapshots.items() if snapshot] == [full[0].tick]
    if not components:
        # Those that were there to see: tick 4 takes 2, 7 takes 6 and 7, 9 takes 1, 11 takes 3, 4 and 5.
        assert named == {1, 2, 3, 4, 5, 6, 7}


async def test_departures_come_before_arrivals_and_despawned_names_the_true_ones(served: Served) -> None:
    await served.create(template="")
    await served.submit(command(spawn=([], {"Mark": {}})), command(spawn=([], {"Mark": {}})))
    await served.step()
    await served.submit(command(add_component=([1], {"Spot": {}})), despawn(2))
    await served.step()
    call = served.subscribe(from_tick=0, until_tick=1, mode=CHANGES)
    first, second = [chunk async for message in call for chunk in message.chunks]
    assert (first.snapshot, second.snapshot) == (True, False)
    assert [(batch.stream, batch.rows) for batch in second.batches] == [(1, 2), (2, 1)]
    assert list(second.despawned) == [2]
    replica = Replica()
    replica.apply(first)
    replica.apply(second)
    assert sorted(replica.rows) == [1]
    assert replica.rows[1]["spot__x"] == 0.0


async def test_a_projection_that_does_not_see_a_change_sends_none(served: Served) -> None:
    await lively(served, 4)
    call = served.subscribe(from_tick=2, until_tick=3, mode=CHANGES, components=["Mark"])
    first, second = [chunk async for message in call for chunk in message.chunks]
    # Spots move in every tick; marks only come and go.
    assert [batch.rows for batch in first.batches] == [3]
    assert [batch.rows for batch in second.batches] == [2]
    assert list(second.despawned) == []


async def test_a_tick_in_which_nothing_changed_is_sent_without_rows(served: Served) -> None:
    await served.create(template="")
    await served.submit(command(spawn=([], {"Mark": {}})))
    await served.step(3)
    call = served.subscribe(from_tick=0, until_tick=2, mode=CHANGES)
    chunks = [chunk async for message in call for chunk in message.chunks]
    assert [(chunk.tick, len(chunk.batches), chunk.summary.rows) for chunk in chunks] == [
        (0, 1, 1),
        (1, 0, 1),
        (2, 0, 1),
    ]
