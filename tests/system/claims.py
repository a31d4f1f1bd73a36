"""What must hold of a data directory, whatever happened to it, given what its server told the world before."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import UUID

from tests.engine.parts import setup
from tests.system.powercut.workload import OPTIONS
from tickwire_engine import Engine
from tickwire_engine.command import CommandType
from tickwire_engine.errors import CommandIdReusedError, CommandIdTooOldError, TickNotKeptError
from tickwire_engine.ids import uuid7
from tickwire_engine.replay import replay
from tickwire_engine.storage._forgetting import id_ms
from tickwire_engine.submission import Submission

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from tickwire_engine import AsyncWorld
    from tickwire_engine.state import Table
    from tickwire_engine.storage.history import History, StoredTick


class LostError(AssertionError):
    """Something that the world was told is not so any more."""


@dataclass(slots=True)
class Told:
    """What was told of one world, by the notes of `powercut.workload`."""

    id: str = ""
    ticks: dict[int, dict[str, Any]] = field(default_factory=dict)
    accepted: list[dict[str, Any]] = field(default_factory=list)
    archived: int = -1
    end: str = ""
    """"destroying" once its end was asked for, "destroyed" once it was told."""


def told(notes: Iterable[dict[str, Any]]) -> dict[str, Told]:
    """Sort notes by world."""
    worlds: dict[str, Told] = {}
    for note in notes:
        if note["kind"] == "closed":
            continue
        world = worlds.setdefault(note["world"], Told())
        match note["kind"]:
            case "world":
                world.id = note["id"]
            case "accepted":
                world.accepted.append(note)
            case "tick":
                world.ticks[note["tick"]] = note
            case "archived":
                world.archived = note["tick"]
            case "destroying" | "destroyed":
                world.end = note["kind"]
    return worlds


async def check(data: Path, notes: Iterable[dict[str, Any]]) -> None:
    """Open a data directory and hold it to what was told; then let its worlds go on, and hold them to it again.

    Raises:
        LostError: Something is not as it was told.
    """
    worlds = told(notes)
    engine = await Engine.open(data, setup(), options=OPTIONS)
    try:
        by_id = {world.world_id: world for world in engine.worlds}
        for name, expected in list(worlds.items()):
            world = by_id.get(UUID(hex=expected.id))
            _require(world is None or expected.end != "destroyed", f"world {name} is back")
            if world is None and expected.end:
                del worlds[name]
                continue
            _require(world is not None, f"world {name} is gone")
            assert world is not None
            check_history(engine, world, expected)
        for name, expected in worlds.items():
            await _go_on(engine, engine.world(name), expected)
            check_history(engine, engine.world(name), expected)
            again = await replay(engine, engine.world(name).row)
            _require(again.difference is None, f"{name}: {again.difference}")
    finally:
        await engine.close()


def check_history(engine: Engine, world: AsyncWorld, expected: Told) -> None:
    """Compare a world's history with what was told of it."""
    history, key = engine.store.history, world.row.key
    floor = history.earliest_tick(key)
    try:
        _check_from(engine, world, expected, floor)
    except (LostError, TickNotKeptError):
        if history.earliest_tick(key) == floor:
            raise
        # The archiver is at work: the floor has moved meanwhile.
        check_history(engine, world, expected)


def _check_from(engine: Engine, world: AsyncWorld, expected: Told, floor: int) -> None:
    history, key = engine.store.history, world.row.key
    keep_ticks = world.row.retention["keep_ticks"]
    _require(
        floor <= max(0, world.tick - keep_ticks), f"{world.name}: of {world.tick} ticks {floor} are gone"
    )
    kept = list(history.ticks(key, floor, world.tick))
    _require(
        [t.summary.tick for t in kept] == list(range(floor, world.tick)), f"{world.name}: its ticks have gaps"
    )
    _require(
        [s.state_hash for s in history.summaries(key, 0, world.tick)] == [t.summary.state_hash for t in kept],
        f"{world.name}: summaries and ticks differ",
    )
    last = max(expected.ticks, default=-1)
    _require(world.tick > last, f"{world.name}: tick {last} was published, and the world is at {world.tick}")
    _require(
        history.archived_tick(key) >= expected.archived,
        f"{world.name}: tick {expected.archived} was archived",
    )
    for tick, note in expected.ticks.items():
        if tick >= floor:
            _same_tick(world.name, kept[tick - floor], note)
    _check_spared(history, world, expected, floor)
    applied: dict[int, int] = {}
    for stored in kept:
        for outcome in stored.outcomes:
            _require(outcome.seq not in applied, f"{world.name}: seq {outcome.seq} was applied twice")
            applied[outcome.seq] = stored.summary.tick
    found = engine.store.find_commands(key, [bytes.fromhex(note["id"]) for note in expected.accepted])
    for note in expected.accepted:
        command = found.get(bytes.fromhex(note["id"]))
        if command is None and _is_forgotten(engine, world, note):
            continue
        _require(command is not None, f"{world.name}: acknowledged command {note} is gone")
        assert command is not None
        row = command.row
        _require(
            (row.seq, row.first_entity_id, row.entity_count) == (note["seq"], note["entity"], note["count"]),
            f"{world.name}: command {note} is now {row}",
        )
        _require(
            command.tick == applied.get(row.seq, -1) or 0 <= command.tick < floor,
            f"{world.name}: command {note} was not applied where told",
        )


def _check_spared(history: History, world: AsyncWorld, expected: Told, floor: int) -> None:
    """Compare the ticks that thinning has spared with what was told of them."""
    key, every = world.row.key, world.row.retention["keep_every"]
    spared = [tick for tick in range(floor) if every and tick % every == 0]
    _require(history.kept_ticks(key, 0, floor - 1) == spared, f"{world.name}: {spared} were to be kept")
    for tick in spared[:: len(spared) // 4 + 1]:
        stored, frames = history.tick(key, tick), history.frames_at(key, tick)
        note = expected.ticks.get(tick)
        if note is not None:
            now = {str(stream): frame.hash.hex() for stream, frame in frames.items()}
            then = {stream: digest for stream, digest in note["frames"].items() if stream in now}
            _require(
                (stored.summary.state_hash.hex(), {**now, **then}) == (note["hash"], now),
                f"{world.name}: tick {tick} was {note}, and is {now}",
            )


def _is_forgotten(engine: Engine, world: AsyncWorld, note: dict[str, Any]) -> bool:
    """Whether a command's id is refused by now: then it need not be known."""
    return id_ms(bytes.fromhex(note["id"])) < engine.store.id_floor_ms(world.row.key)


def _same_tick(world: str, stored: StoredTick, note: dict[str, Any]) -> None:
    now = {
        "hash": stored.summary.state_hash.hex(),
        "frames": {str(frame.stream): frame.hash.hex() for frame in stored.changed},
        "seqs": [outcome.seq for outcome in stored.outcomes],
    }
    before = {name: note[name] for name in now}
    _require(now == before, f"{world}: tick {stored.summary.tick} was {before}, and is {now}")


async def _go_on(engine: Engine, world: AsyncWorld, expected: Told) -> None:
    ids = {note["entity"] + n for note in expected.accepted for n in (0, note["count"] - 1) if note["count"]}
    command_id = uuid7(engine.store.now_us() // 1000).bytes
    spawn = Submission(CommandType.SPAWN, {"components": {"Place": {}, "Speed": {}}}, id=command_id)
    (receipt,) = await world.submit([spawn])
    assert receipt.command is not None
    _require(
        receipt.command.first_entity_id > max(ids, default=0), f"{world.name}: an entity id is used again"
    )
    seqs = [note["seq"] for note in expected.accepted]
    _require(receipt.command.seq > max(seqs, default=0), f"{world.name}: a seq is used again")
    for _ in range(2):
        await world.step()
    found = engine.store.find_commands(
        world.row.key, [bytes.fromhex(note["id"]) for note in expected.accepted]
    )
    for note in expected.accepted:
        command = found.get(bytes.fromhex(note["id"]))
        if command is None and _is_forgotten(engine, world, note):
            await _is_refused(world, note)
            continue
        _require(
            command is not None and command.outcome is not None,
            f"{world.name}: acknowledged command {note} is never applied",
        )
    lacking = ids - {id_ for batch in world.state.tables.values() for id_ in _entities(batch)}
    _require(not lacking, f"{world.name}: entities {sorted(lacking)} were spawned, and are not there")
    await engine.store.archiver.archive_now(world.row.key)


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise LostError(otherwise)


async def _is_refused(world: AsyncWorld, note: dict[str, Any]) -> None:
    """Send a forgotten command once more: it must not be applied again."""
    try:
        await world.submit([Submission(CommandType.SPAWN, {"components": {}}, id=bytes.fromhex(note["id"]))])
    except (CommandIdTooOldError, CommandIdReusedError):
        # The second: forgotten by the journal, and still in memory.
        return
    raise LostError(f"{world.name}: command {note} was forgotten, and is taken again")


def _entities(table: Table) -> list[int]:
    found: list[int] = table.batch.column("entity_id").to_pylist()
    return found
