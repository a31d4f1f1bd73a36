"""Every type of command, by Submit over a socket and in process: applied, with an outcome, looked up, replayed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from uuid import UUID

from google.protobuf.json_format import ParseDict

from tests.server.application import application
from tickwire.v1 import command_pb2, command_service_pb2
from tickwire_engine import Command, CommandType, Engine
from tickwire_engine.commands import COMMANDS
from tickwire_engine.replay import replay
from tickwire_engine.storage.reader import StoreReader
from tickwire_server.auth import LOCAL_ADMIN

if TYPE_CHECKING:
    from tests.server.conftest import Served

ROLLOUT = {"ticks": 2, "components": ["Spot"], "branches": [{"name": "a"}, {"name": "b"}]}


def _payloads(world: str) -> dict[CommandType, dict[str, Any]]:
    """Return a payload of each type for a world of five spots; in the order in which they are sent."""
    return {
        CommandType.SPAWN: {"components": {"Spot": {"x": 7.0}}},
        CommandType.UPDATE: {"where": "spot__x > 6", "components": {"Spot": {"y": 1.0}}},
        CommandType.ADD_COMPONENT: {"entity_ids": [1, 2], "components": {"Mark": {"name": "m"}}},
        CommandType.REMOVE_COMPONENT: {"entity_ids": [1], "components": ["Mark"]},
        CommandType.DESPAWN: {"entity_ids": [5]},
        CommandType.ADD_PROCESSOR: {
            "name": "lift",
            "sql": {"components": ["Spot"], "assignments": {"spot__y": "spot__y + 1"}},
        },
        CommandType.REMOVE_PROCESSOR: {"name": "lift"},
        CommandType.SET_RESOURCE: {"name": "Wind", "value": {"speed": 3}},
        CommandType.REMOVE_RESOURCE: {"name": "Wind"},
        CommandType.MESSAGE: {"receiver_id": 1, "channel": "c", "content": {"a": [1, None]}},
        CommandType.CUSTOM: {"name": "nudge", "body": {"entity_id": 1, "by": 2.0}},
        CommandType.QUERY_WORLD: {"sql": "SELECT count(*) AS spots FROM spot"},
        CommandType.CREATE_WORLD: {"name": f"{world}-child", "template": "line", "labels": {"of": world}},
        CommandType.DESTROY_WORLD: {"world": f"{world}-child"},
        CommandType.FORK_WORLD: {"name": f"{world}-fork"},
        CommandType.RUN_ROLLOUT: ROLLOUT,
        CommandType.RUN_EPISODE: {"rollout": {"ticks": 2}, "max_ticks": 2},
    }


TABLES = {CommandType.QUERY_WORLD, CommandType.RUN_ROLLOUT, CommandType.RUN_EPISODE}
WORLDS = {CommandType.CREATE_WORLD, CommandType.FORK_WORLD}


async def test_every_type_works_by_submit_and_in_process_and_replays(served: Served) -> None:
    container = served.server.container
    assert set(_payloads("w")) == set(COMMANDS) == set(CommandType)
    for world in ("w", "p"):
        await served.create(world)
        await served.step(world=world)
        for kind, payload in _payloads(world).items():
            command_id = await _sent(served, world, kind, payload)
            await served.step(world=world)
            request = command_service_pb2.GetCommandRequest(world=world, command_id=command_id)
            found = await served.commands.GetCommand(request)
            assert found.command.WhichOneof("payload") == kind.value
            outcome = found.outcome
            assert outcome.state == command_pb2.COMMAND_STATE_APPLIED, (world, kind, outcome)
            assert outcome.tick == container.engine.world(world).tick - 1
            assert (outcome.table_bytes > 0) == (kind in TABLES)
            assert bool(outcome.world_id) == (kind in WORLDS)
            if kind in WORLDS:
                assert container.engine.world(UUID(outcome.world_id)).name == payload["name"]
        await served.step(2, world=world)
    last = container.engine.world("w").tick - 1
    assert container.engine.world("w").state.entities == container.engine.world("p").state.entities == 5
    await served.stop()
    store = StoreReader(served.path)
    try:
        engine = Engine.over(store, application().setup())  # type: ignore[arg-type]
        for row in store.worlds():
            if row.name in ("w", "p"):
                replayed = await replay(engine, row)
                assert (replayed.last_tick, replayed.difference) == (last, None)
        assert engine.worlds == [], "replay makes no world"
    finally:
        store.close()


async def _sent(served: Served, world: str, kind: CommandType, payload: dict[str, Any]) -> str:
    if world == "p":
        command = Command(type=kind, payload=payload)
        sent = await served.server.container.command_service.submit(world, command, LOCAL_ADMIN)
        return str(sent)
    message = ParseDict(json.loads(json.dumps({kind.value: payload})), command_pb2.Command())
    (receipt,) = (await served.submit(message, world=world)).receipts
    return receipt.command_id
