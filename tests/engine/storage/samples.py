"""A small deterministic world, and what the store must know of it after each tick."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from tickwire_engine.encoding import encode, schema_message
from tickwire_engine.ids import uuid7
from tickwire_engine.storage.rows import (
    CommandRow,
    Configuration,
    Frame,
    Outcome,
    Stream,
    TickCommit,
    TickSummary,
    WorldRow,
)

if TYPE_CHECKING:
    from tickwire_engine.storage.retention import Retention
    from tickwire_engine.storage.store import Store

MOVING, STATIC, FLICKERING = 1, 2, 3
CONFIGURATION = Configuration(b"c" * 16, b'{"processors":[]}')
SCHEMAS = {
    MOVING: pa.schema(
        [
            ("entity_id", pa.int64()),
            ("is_active", pa.bool_()),
            ("position__x", pa.float64()),
            pa.field("position__name", pa.string()),
        ]
    ),
    STATIC: pa.schema(
        [
            ("entity_id", pa.int64()),
            ("is_active", pa.bool_()),
            pa.field("tags__all", pa.list_(pa.string())),
            pa.field("box__size", pa.struct([("w", pa.float32()), ("h", pa.list_(pa.int16(), 2))])),
        ]
    ),
    FLICKERING: pa.schema([("entity_id", pa.int64()), ("is_active", pa.bool_()), ("light__on", pa.bool_())]),
}


def rows_at(stream: int, tick: int, count: int) -> pa.RecordBatch:
    """The rows of a stream at a tick: a function of both, so that no other tick's can pass for them."""
    entities = np.arange(1, count + 1, dtype=np.int64) + 1_000_000 * stream
    active = pa.array(np.ones(count, bool))
    if stream == MOVING:
        names = [None if (e + tick) % 7 == 0 else f"n{e}-{tick}" for e in range(count)]
        columns = [entities, active, np.sin(entities * (tick + 1)), pa.array(names, pa.string())]
    elif stream == STATIC:
        tags = [None if e % 3 == 0 else [f"t{tick}", None][: e % 3] for e in range(count)]
        sizes = [None if e % 5 == 0 else {"w": e / 2, "h": [e, tick % 100]} for e in range(count)]
        columns = [entities, active, tags, sizes]
    else:
        columns = [entities, active, pa.array((entities + tick) % 2 == 0)]
    schema = SCHEMAS[stream]
    arrays = [pa.array(column, kind.type) for column, kind in zip(columns, schema, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


@dataclass
class SampleWorld:
    """Makes tick commits, and keeps what each of them must leave in history."""

    key: int
    rows: int = 20
    tick: int = 0
    seq: int = 1
    outcome_seq: int = 1
    next_entity_id: int = 1
    pending: list[CommandRow] = field(default_factory=list)
    applied: dict[bytes, tuple[CommandRow, int, Outcome]] = field(default_factory=dict)
    commits: list[TickCommit] = field(default_factory=list)
    live: list[dict[int, tuple[int, Frame]]] = field(default_factory=list)

    def commands(self, count: int, *, table_bytes: int = 0, spawns: int = 0) -> list[CommandRow]:
        """Make new commands, which are pending from then on."""
        made = []
        for _ in range(count):
            row = CommandRow(
                seq=self.seq,
                id=uuid7().bytes,
                tick=self.tick,
                priority=-3,
                type="spawn",
                actor="0192d3c4-0000-7000-8000-000000000001",
                payload=f'{{"spawn":{self.seq}}}'.encode(),
                table=self.seq.to_bytes(8, "little") * (table_bytes // 8),
                accepted_at_us=1_700_000_000_000_000 + self.seq,
                content_hash=self.seq.to_bytes(16, "little"),
                first_entity_id=self.next_entity_id if spawns else 0,
                entity_count=spawns,
            )
            self.seq += 1
            self.next_entity_id += spawns
            made.append(row)
        self.pending += made
        return made

    def next_commit(self, *, issued: tuple[CommandRow, ...] = ()) -> TickCommit:
        """Make the next tick: it applies every second pending command and rejects the others."""
        tick = self.tick
        frames = [encode(rows_at(MOVING, tick, self.rows), stream=MOVING)]
        if tick == 0:
            frames.append(encode(rows_at(STATIC, 0, self.rows), stream=STATIC))
        if tick % 4 == 1:
            # Rows for two ticks, then one record of an emptied archetype, then nothing.
            frames.append(encode(rows_at(FLICKERING, tick, 3), stream=FLICKERING))
        elif tick % 4 == 3:
            frames.append(encode(rows_at(FLICKERING, tick, 0), stream=FLICKERING))
        outcomes = tuple(
            Outcome(
                row.seq,
                True,
                first_entity_id=row.first_entity_id,
                entity_count=row.entity_count,
                outcome_seq=number,
            )
            if row.seq % 2
            else Outcome(
                row.seq,
                False,
                "ENTITY_NOT_FOUND",
                f"no entity ünder {row.seq}",
                "spawn",
                outcome_seq=number,
                metadata=(("entity_id", str(row.seq)),),
                missing=(row.seq,),
            )
            for number, row in enumerate(self.pending, self.outcome_seq)
        )
        for row, outcome in zip(self.pending, outcomes, strict=True):
            self.applied[row.id] = (row, tick, outcome)
        self.pending = list(issued)
        commit = TickCommit(
            world=self.key,
            summary=TickSummary(
                tick=tick,
                run_id=b"r" * 16,
                entities=2 * self.rows,
                rows=sum(frame.rows for frame in frames),
                spawned=1,
                despawned=2,
                commands_applied=sum(o.applied for o in outcomes),
                commands_rejected=sum(not o.applied for o in outcomes),
                state_hash=tick.to_bytes(16, "little"),
                committed_at_us=1_700_000_000_000_000 + tick,
                compute_us=50 + tick,
                hz=60.0,
            ),
            tick_time_us=tick * 16_667,
            inputs=f'{{"wind":{tick}}}'.encode(),
            frames=tuple(frames),
            despawned=(tick, 2**40 + tick),
            outcomes=outcomes,
            next_entity_id=self.next_entity_id,
            next_issued_id=(1 << 52) + tick,
            configuration_id=CONFIGURATION.id,
            new_streams=tuple(_streams()) if tick == 0 else (),
            new_configuration=CONFIGURATION if tick == 0 else None,
            snapshots={"dice": b"d%d" % tick} if tick % 3 == 0 else {},
            issued=issued,
        )
        self.outcome_seq += len(outcomes)
        self.seq = max([self.seq, *(row.seq + 1 for row in issued)])
        live = dict(self.live[-1]) if self.live else {}
        for frame in frames:
            live[frame.stream] = (tick, frame)
        self.live.append(live)
        self.commits.append(commit)
        self.tick += 1
        return commit

    def state_at(self, tick: int) -> dict[int, tuple[int, Frame]]:
        """What history must answer."""
        return {stream: pair for stream, pair in self.live[tick].items() if pair[1].rows}


def _streams() -> list[Stream]:
    return [
        Stream(number, f"archetype-{number}", (f"Part{number}",), schema_message(schema))
        for number, schema in SCHEMAS.items()
    ]


def world_row(name: str) -> WorldRow:
    return WorldRow(
        key=0,
        id=os.urandom(16),
        name=name,
        seed=42,
        created_at_us=1_700_000_000_000_000,
        template="arena",
        labels={"team": "röd"},
        retention={"keep_ticks": 0},
        max_entities=1000,
        request_hash=os.urandom(16),
    )


async def new_world(store: Store, name: str = "world", *, rows: int = 20) -> SampleWorld:
    return SampleWorld((await store.create_world(world_row(name))).key, rows)


async def retain(store: Store, world: int, retention: Retention) -> None:
    """Tell a world what to keep from now on."""
    row = next(found.row for found in store.recover() if found.row.key == world)
    await store.update_world(replace(row, retention=retention.stored))


async def run(store: Store, world: SampleWorld, ticks: int, *, commands: int = 0) -> None:
    for _ in range(ticks):
        if commands:
            await store.accept(world.key, world.commands(commands, spawns=2))
        await store.commit_tick(world.next_commit())


def assert_history_is_whole(store: Store, world: SampleWorld) -> None:
    """Every way of reading gives what was committed, wherever it lies by now."""
    history = store.history
    last = world.tick - 1
    ticks = list(history.ticks(world.key, 0, last + 5))
    assert [tick.summary for tick in ticks] == [commit.summary for commit in world.commits]
    for tick, commit in zip(ticks, world.commits, strict=True):
        assert tick.changed == commit.frames
        assert tick.despawned == commit.despawned
        assert tick.outcomes == commit.outcomes
        assert (tick.tick_time_us, tick.inputs) == (commit.tick_time_us, commit.inputs)
        assert tick.configuration_id == commit.configuration_id
    assert list(history.summaries(world.key, 0, last)) == [commit.summary for commit in world.commits]
    for at in sorted({*range(0, world.tick, world.tick // 20 + 1), last} - {-1}):
        expected = world.state_at(at)
        assert history.frames_at(world.key, at) == {s: frame for s, (_, frame) in expected.items()}
        state = history.state_at(world.key, at)
        assert {s: tick for s, (tick, _) in state.items()} == {s: t for s, (t, _) in expected.items()}
        for stream, (tick, batch) in state.items():
            assert batch.equals(rows_at(stream, tick, batch.num_rows))
    for command_id, (row, tick, outcome) in world.applied.items():
        stored = store.command_history.find(world.key, command_id)
        assert stored is not None
        assert (stored.command, stored.tick, stored.outcome) == (row, tick, outcome)
    for row in world.pending:
        stored = store.command_history.find(world.key, row.id)
        assert stored is not None
        assert (stored.command, stored.tick, stored.outcome) == (row, -1, None)
