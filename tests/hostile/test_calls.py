"""Calls of strangers to a real server: every RPC with anything at all, as several actors; drawn from the descriptors."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from tests.hostile.messages import Known, messages
from tests.hostile.stranger import METHODS, Answer, Stranger, check_status, memory_kb
from tests.server.secured import first_token
from tests.system.torture import SECONDS, seeds
from tickwire.v1 import (
    command_pb2,
    command_service_pb2,
    simulation_service_pb2,
    tick_service_pb2,
    world_pb2,
    world_service_pb2,
)
from tickwire_server.cli.server_process import ServerProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from google.protobuf.message import Message

pytestmark = pytest.mark.system

ROOT = Path(__file__).parents[2]
GROWTH_KB = 400 << 10
WORLDS = ("victim", "other")
SETTINGS = {
    "TICKWIRE_AUTH": "true",
    "TICKWIRE_COMMANDS_PER_TICK": "0",
    "TICKWIRE_COST_UNITS_PER_DAY": "0",
    "TICKWIRE_WORLDS": "1000",
}
WAITING = frozenset(("CommandService.Submit", "CommandService.SubmitStream", "SimulationService.Step"))


class Victim:
    """A server, and what it looks like from outside."""

    def __init__(self, process: ServerProcess, channel: grpc.Channel, admin: str) -> None:
        self.process = process
        self.channel = channel
        self.pid = process.pid
        self.admin = Stranger(channel, admin)
        self.numbers = itertools.count()
        self.actors = {
            "admin": self.admin,
            "nobody": Stranger(channel),
            "liar": Stranger(channel, "tw_" + "x" * 43),
        }

    def world(self, name: str) -> world_pb2.World:
        """Return a world, made anew where it is gone or a stranger left it faulted."""
        found = self._get(name)
        if found is not None and found.state in (
            world_pb2.WORLD_STATE_FAULTED,
            world_pb2.WORLD_STATE_DESTROYED,
        ):
            self.admin.call(
                "WorldService.DestroyWorld", world_service_pb2.DestroyWorldRequest(world=found.id)
            )
            found = self._get(name)
        if found is not None:
            return found
        request = world_service_pb2.CreateWorldRequest(name=name, template="crowd", seed=7)
        answer = self.admin.call("WorldService.CreateWorld", request)
        assert answer.messages, answer.status
        world: world_pb2.World = answer.messages[0].world
        return world

    def looks(self) -> list[tuple[Any, ...]]:
        """Return every world as far as a refused request must not change it."""
        request = world_service_pb2.ListWorldsRequest(page_size=1000)
        listed = self.admin.call("WorldService.ListWorlds", request).messages[0]
        return [
            (w.id, w.name, w.tick, w.entities, w.pending_commands, w.etag, w.state) for w in listed.worlds
        ]

    def rest(self) -> None:
        """Let no world play on."""
        for world_id, *_, state in self.looks():
            if state == world_pb2.WORLD_STATE_PLAYING:
                self.admin.call(
                    "SimulationService.Pause", simulation_service_pb2.PauseRequest(world=world_id)
                )

    def _get(self, name: str) -> world_pb2.World | None:
        answer = self.admin.call("WorldService.GetWorld", world_service_pb2.GetWorldRequest(world=name))
        return answer.messages[0].world if answer.messages else None


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Victim]:
    data = tmp_path_factory.mktemp("hostile") / "data"
    admin = asyncio.run(first_token(data))
    process = ServerProcess(data, app="tests.system.app:app", root=ROOT, variables=SETTINGS)
    with process, grpc.insecure_channel(process.address) as channel:
        made = Victim(process, channel, admin)
        for role, globs in (("operator", ["vict*"]), ("player", ["*"]), ("viewer", ["*"])):
            made.actors[role] = Stranger(channel, _token(made.admin, role, globs))
        before_kb = memory_kb(made.pid)
        yield made
        assert process.is_running
        assert process.pid == made.pid
        assert memory_kb(made.pid) - before_kb < GROWTH_KB
        assert "internal error" not in process.log.read_text()


def _token(admin: Stranger, role: str, globs: list[str]) -> str:
    from tickwire.v1 import auth_service_pb2

    request = auth_service_pb2.CreateTokenRequest(name=role, roles=[role], worlds=globs)
    return str(admin.call("AuthService.CreateToken", request).messages[0].secret)


def fuzz(
    check: Callable[[Any], None], strategy: st.SearchStrategy[Any], *, examples: int, share: float
) -> None:
    """Run `check` on examples: the same ones in every run, or new ones for a share of the time that is given."""
    health = list(HealthCheck)
    for number in seeds(1, share=share):
        plan = settings(max_examples=examples, deadline=None, database=None, suppress_health_check=health)
        test = seed(number)(plan(given(strategy)(check)))
        test()


def tamed(request: Message) -> Message:
    """Return a request that does not keep the test waiting: how long is not what is tested here."""
    if getattr(request, "wait", 0) in (2, 3):
        request.max_wait.CopyFrom(Duration(nanos=10_000_000))  # type: ignore[attr-defined]
    if isinstance(request, simulation_service_pb2.StepRequest) and 5 < request.ticks <= 10_000:
        request.ticks = 5
    return request


@pytest.mark.parametrize("rpc", METHODS)
def test_every_rpc_answers_anything_in_the_contracts_words_and_keeps_nothing_of_what_it_refuses(
    victim: Victim, rpc: str
) -> None:
    method = METHODS[rpc]
    worlds = {name: victim.world(name).id for name in WORLDS}
    known = Known((*WORLDS, *worlds.values()))
    actors = st.sampled_from(["admin", "admin", "admin", *victim.actors])
    streaming = method.server_streaming

    def check(drawn: tuple[str, Message]) -> None:
        actor, request = drawn
        request = tamed(request)
        before = victim.looks()
        answer = victim.actors[actor].call(rpc, request, wait_s=0.25 if streaming else 10.0)
        if answer.status is not None:
            assert victim.looks() == before
        for error in errors_inside(answer):
            check_status(error, method.input_type)
        if rpc.startswith("SimulationService"):
            victim.rest()

    strategy = st.tuples(actors, messages(method.input_type, known))
    fuzz(check, strategy, examples=12 if streaming else 20, share=0.004)
    assert victim.process.is_running


def errors_inside(answer: Answer) -> Iterator[Any]:
    """Yield the errors of requests and commands in an answer that refuses not all of it."""
    for message in answer.messages:
        if isinstance(message, command_service_pb2.SubmitStreamResponse) and message.HasField("error"):
            yield message.error
        for receipt in getattr(message, "receipts", ()):
            if receipt.HasField("error"):
                yield receipt.error


@pytest.mark.parametrize("rpc", METHODS)
def test_bytes_that_are_no_message_or_nearly_one_are_answered(victim: Victim, rpc: str) -> None:
    method = METHODS[rpc]
    known = Known(WORLDS)
    streaming = method.server_streaming

    def check(drawn: tuple[Message, int]) -> None:
        request, number = drawn
        rng = random.Random(number)
        data = bytearray(tamed(request).SerializeToString() or b"\x0a\x00")
        for _ in range(rng.choice((1, 2, 5))):
            data[rng.randrange(len(data))] = rng.randrange(256)
        if rng.random() < 0.3:
            del data[rng.randrange(len(data)) :]
        victim.actors["operator"].call(rpc, bytes(data), wait_s=0.25 if streaming else 10.0)
        if rpc.startswith("SimulationService"):
            victim.rest()

    fuzz(
        check, st.tuples(messages(method.input_type, known), st.integers(0, 1 << 32)), examples=8, share=0.002
    )
    assert victim.process.is_running


def test_a_world_that_got_only_what_was_accepted_is_the_same_bit_for_bit(victim: Victim) -> None:
    """One world gets everything, a twin only what was accepted of it: what was refused took no seq, no id, no effect."""

    def check(drawn: list[tuple[list[Any], bool]]) -> None:
        pair = [_fresh(victim, name) for name in ("all", "accepted")]
        for commands, partial in drawn:
            request = command_service_pb2.SubmitRequest(
                world=pair[0], commands=commands, allow_partial=partial
            )
            answer = victim.admin.call("CommandService.Submit", request)
            receipts = answer.messages[0].receipts if answer.messages else []
            taken = [(c, r) for c, r in zip(commands, receipts, strict=False) if not r.HasField("error")]
            again = command_service_pb2.SubmitRequest(
                world=pair[1], commands=[command for command, _ in taken]
            )
            told = victim.admin.call("CommandService.Submit", again)
            assert told.messages, told.status
            for (_, one), other in zip(taken, told.messages[0].receipts, strict=True):
                assert (one.seq, one.due_tick, one.first_entity_id, one.entity_count) == (
                    *(other.seq, other.due_tick, other.first_entity_id, other.entity_count),
                )
        assert _hash_of_next_tick(victim, pair[0]) == _hash_of_next_tick(victim, pair[1])

    command = messages(command_pb2.Command.DESCRIPTOR, Known(WORLDS)).filter(_stays_in_its_world)
    requests = st.tuples(st.lists(command, min_size=1, max_size=3), st.booleans())
    fuzz(check, st.lists(requests, min_size=8, max_size=12), examples=12, share=0.1)


def _stays_in_its_world(command: Any) -> bool:
    return command.WhichOneof("payload") not in (
        *("create_world", "destroy_world", "fork_world", "run_rollout", "run_episode"),
    )


def _fresh(victim: Victim, name: str) -> str:
    victim.admin.call("WorldService.DestroyWorld", world_service_pb2.DestroyWorldRequest(world=name))
    return str(victim.world(f"{name}-{next(victim.numbers)}").id)


def _hash_of_next_tick(victim: Victim, world: str) -> tuple[str, bytes]:
    stepped = victim.admin.call("SimulationService.Step", simulation_service_pb2.StepRequest(world=world))
    listed = victim.admin.call(
        "TickService.ListTicks", tick_service_pb2.ListTicksRequest(world=world)
    ).messages[0]
    hashes = b"".join(tick.state_hash for tick in listed.ticks)
    victim.admin.call("WorldService.DestroyWorld", world_service_pb2.DestroyWorldRequest(world=world))
    return stepped.reason, hashes


def test_this_run_draws_what_it_says() -> None:
    assert (SECONDS in os.environ) or [*seeds(3)] == [0, 1, 2]
