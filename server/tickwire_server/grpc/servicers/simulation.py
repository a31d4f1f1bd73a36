"""SimulationService over gRPC."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from tickwire.v1 import simulation_service_pb2 as pb
from tickwire_engine.errors import InvalidRequestError, ShuttingDownError
from tickwire_server.grpc.convert import branch_facts, payload_of, seconds, world_proto
from tickwire_server.grpc.errors import answers, streams
from tickwire_server.grpc.structs import struct_to_dict

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tickwire_engine import AsyncWorld
    from tickwire_server.container import ServiceContainer

MAX_STEP_TICKS = 10_000
_RESERVED = frozenset(("tick", "world", "resources", "run_config", "inputs"))


class SimulationServicer:
    """Step, Run, Play and Pause; rollouts and episodes."""

    def __init__(self, container: ServiceContainer) -> None:
        self._container = container

    @answers
    async def Step(self, request: pb.StepRequest, context: Any) -> pb.StepResponse:
        """Compute some ticks and wait until they are durable."""
        world = self._world(request.world)
        if not 0 <= request.ticks <= MAX_STEP_TICKS:
            raise InvalidRequestError(f"ticks must lie in [0, {MAX_STEP_TICKS}]; 0 means 1", field="ticks")
        result = await self._container.mover(world).step(
            request.ticks or 1,
            self._inputs(request),
            expected_tick=request.expected_tick if request.HasField("expected_tick") else None,
            max_wait_s=seconds(request.max_wait, field="max_wait") if request.HasField("max_wait") else None,
        )
        return pb.StepResponse(
            first_tick=result.first_tick,
            last_tick=result.last_tick,
            run_id=str(result.run_id),
            commands_applied=result.commands_applied,
            commands_rejected=result.commands_rejected,
        )

    @streams
    async def Run(self, request: pb.RunRequest, context: Any) -> AsyncIterator[pb.RunResponse]:
        """Compute many ticks, telling how far it is; cancelled, it stops after the tick in hand."""
        world = self._world(request.world)
        if request.ticks <= 0:
            raise InvalidRequestError("ticks must be positive", field="ticks")
        progress = self._container.mover(world).run(
            request.ticks,
            self._inputs(request),
            expected_tick=request.expected_tick if request.HasField("expected_tick") else None,
        )
        async with aclosing(progress):  # type: ignore[type-var]
            async for step in progress:
                yield pb.RunResponse(
                    tick=step.tick,
                    ticks_done=step.ticks_done,
                    ticks_total=step.ticks_total,
                    ticks_per_second=step.ticks_per_second,
                )

    @answers
    async def Play(self, request: pb.PlayRequest, context: Any) -> pb.PlayResponse:
        """Begin to play, or change the rate."""
        world = self._world(request.world)
        if request.max_ticks < 0:
            raise InvalidRequestError("max_ticks must not be negative; 0 means no end", field="max_ticks")
        await self._container.mover(world).play(
            request.hz,
            request.max_ticks,
            self._inputs(request),
            expected_tick=request.expected_tick if request.HasField("expected_tick") else None,
        )
        return pb.PlayResponse(world=world_proto(self._container.world_service.view(world)))

    @answers
    async def Pause(self, request: pb.PauseRequest, context: Any) -> pb.PauseResponse:
        """Stop after the tick in hand."""
        world = self._container.world_service.find(request.world)
        await self._container.mover(world).pause()
        return pb.PauseResponse(world=world_proto(self._container.world_service.view(world)))

    @streams
    async def RunRollout(
        self, request: pb.RunRolloutRequest, context: Any
    ) -> AsyncIterator[pb.RunRolloutResponse]:
        """Try futures of a world; cancelled, all branches stop."""
        world = self._world(request.world)
        payload = payload_of(request.rollout, "rollout", self._container.limits)
        async with aclosing(self._container.rollout_service.rollout(world, payload)) as results:
            async for result in results:
                yield pb.RunRolloutResponse(**branch_facts(result))

    @streams
    async def RunEpisode(
        self, request: pb.RunEpisodeRequest, context: Any
    ) -> AsyncIterator[pb.RunEpisodeResponse]:
        """Try futures of a world from beginnings that are drawn, until they are over."""
        world = self._world(request.world)
        payload = payload_of(request.episode, "episode", self._container.limits)
        async with aclosing(self._container.rollout_service.episode(world, payload)) as results:
            async for result in results:
                yield pb.RunEpisodeResponse(**branch_facts(result))

    def _world(self, ref: str) -> AsyncWorld:
        if self._container.stopping.is_set():
            raise ShuttingDownError("the server is stopping: no tick begins any more")
        return self._container.world_service.find(ref)

    def _inputs(self, request: pb.StepRequest | pb.RunRequest | pb.PlayRequest) -> dict[str, Any]:
        inputs = struct_to_dict(request.inputs, path="inputs", limits=self._container.limits)
        for name in _RESERVED.intersection(inputs):
            raise InvalidRequestError(
                f"input {name!r} is a name that processors are passed already", field=f"inputs.{name}"
            )
        return inputs
