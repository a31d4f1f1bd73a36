"""CommandService over gRPC."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from tickwire.v1 import command_pb2
from tickwire.v1 import command_service_pb2 as pb
from tickwire_engine import CommandType
from tickwire_engine.errors import InvalidRequestError, ShuttingDownError, TickwireError, together
from tickwire_engine.preparing import in_parts
from tickwire_engine.storage.command_history import CommandFilter
from tickwire_server.auth import caller, guard_for
from tickwire_server.grpc.convert import (
    actor_key,
    command_proto,
    command_types,
    micros,
    parse_uuid,
    receipt_proto,
    seconds,
    stored_outcome_proto,
    submission,
)
from tickwire_server.grpc.errors import answers, require_readable, status_of, streams
from tickwire_server.grpc.outcomes import outcome_proto
from tickwire_server.grpc.wire import timestamp
from tickwire_server.services.commands import SubmitRequest, WaitLevel, visible_actor
from tickwire_server.services.turns import Turn, Turns

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator, Sequence

    import grpc

    from tickwire_engine import Submission
    from tickwire_engine.limits import Limits
    from tickwire_server.auth import Actor
    from tickwire_server.container import ServiceContainer
    from tickwire_server.services.commands import SubmitAnswer

IN_FLIGHT = 64
"""Requests of one SubmitStream that are worked on at once; flow control holds back the rest."""


AFTER_OUTCOME_SEQ = "tickwire-after-outcome-seq"
"""In the initial metadata of WatchOutcomes: the outcome that the first to come follows."""
_STATES: dict[int, str] = {
    command_pb2.COMMAND_STATE_PENDING: "PENDING",
    command_pb2.COMMAND_STATE_APPLIED: "APPLIED",
    command_pb2.COMMAND_STATE_REJECTED: "REJECTED",
    command_pb2.COMMAND_STATE_CANCELLED: "CANCELLED",
}

_WAITS = {0: WaitLevel.ACCEPTED} | {level.value: level for level in WaitLevel}


class CommandServicer:
    """Commands in, and what became of them out."""

    def __init__(self, container: ServiceContainer) -> None:
        self._container = container
        self._turns = Turns()

    @answers
    async def Submit(self, request: pb.SubmitRequest, context: Any) -> pb.SubmitResponse:
        """Accept commands, and wait as far as asked."""
        return pb.SubmitResponse(receipts=_receipts(await self._submit(request, request.world)))

    @streams
    async def SubmitStream(
        self,
        requests: AsyncIterator[pb.SubmitStreamRequest],
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> AsyncIterator[pb.SubmitStreamResponse]:
        """Accept requests as they come, several at once, answered in order."""
        answers_due: asyncio.Queue[asyncio.Task[pb.SubmitStreamResponse] | None] = asyncio.Queue(IN_FLIGHT)
        reader = asyncio.create_task(self._read(requests, answers_due))
        watcher = asyncio.create_task(self._stop_reading(reader))
        try:
            while (task := await answers_due.get()) is not None:
                yield await task
            if self._container.stopping.is_set():
                raise ShuttingDownError("the server is stopping: go on with a new stream")
            await reader
        finally:
            watcher.cancel()
            reader.cancel()
            while not answers_due.empty():
                left = answers_due.get_nowait()
                if left is not None:
                    left.cancel()

    @answers
    async def GetCommand(self, request: pb.GetCommandRequest, context: Any) -> pb.GetCommandResponse:
        """Look a command up."""
        world = self._container.world_service.find(request.world)
        command_id = parse_uuid(request.command_id, field="command_id")
        stored, table = await self._container.command_service.find(world, command_id)
        return pb.GetCommandResponse(
            command=command_proto(stored.command),
            outcome=stored_outcome_proto(stored, table=table),
            accepted_at=timestamp(stored.command.accepted_at_us),
        )

    @answers
    async def ListCommands(self, request: pb.ListCommandsRequest, context: Any) -> pb.ListCommandsResponse:
        """List commands, a page at a time."""
        world = self._container.world_service.find(request.world)
        if request.view not in pb.CommandView.values():
            raise InvalidRequestError(f"view {request.view} is no CommandView", field="view")
        wanted = CommandFilter(
            states=frozenset(_states(request.states)),
            types=frozenset(kind.value for kind in command_types(request.types, field="types")),
            actor=visible_actor(actor_key(request.actor_id)),
            from_us=max(micros(request.from_time, field="from_time"), 0),
        )
        found, token = await self._container.command_service.page(
            world, wanted, size=request.page_size, token=request.page_token
        )
        with_table = request.view == pb.COMMAND_VIEW_FULL
        records = [
            pb.CommandRecord(
                command=command_proto(stored.command, with_table=with_table),
                outcome=stored_outcome_proto(stored),
                accepted_at=timestamp(stored.command.accepted_at_us),
            )
            for stored in found
        ]
        return pb.ListCommandsResponse(commands=records, next_page_token=token)

    @answers
    async def CancelCommand(self, request: pb.CancelCommandRequest, context: Any) -> pb.CancelCommandResponse:
        """Withdraw a pending command."""
        world = self._container.world_service.find(request.world)
        command_id = parse_uuid(request.command_id, field="command_id")
        cancelled = await self._container.command_service.cancel(world, command_id)
        return pb.CancelCommandResponse(outcome=outcome_proto(cancelled))

    @streams
    async def ReadResult(
        self, request: pb.ReadResultRequest, context: Any
    ) -> AsyncIterator[pb.ReadResultResponse]:
        """Send the table that a command answered."""
        world = self._container.world_service.find(request.world)
        command_id = parse_uuid(request.command_id, field="command_id")
        async with aclosing(self._container.command_service.result(world, command_id)) as pieces:
            async for piece in pieces:
                yield pb.ReadResultResponse(ipc=piece.ipc, rows=piece.rows)

    @streams
    async def WatchOutcomes(
        self, request: pb.WatchOutcomesRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[pb.WatchOutcomesResponse]:
        """Follow outcomes; says at once, in its initial metadata, after which it begins."""
        watch = self._container.command_service.watch(
            self._container.world_service.find(request.world),
            after=request.after_outcome_seq if request.HasField("after_outcome_seq") else None,
            actor=actor_key(request.actor_id),
        )
        await context.send_initial_metadata(((AFTER_OUTCOME_SEQ, str(watch.after)),))
        async with aclosing(watch.outcomes) as outcomes:
            async for decided in outcomes:
                yield pb.WatchOutcomesResponse(outcome=outcome_proto(decided))

    async def _read(
        self,
        requests: AsyncIterator[pb.SubmitStreamRequest],
        answers_due: asyncio.Queue[asyncio.Task[pb.SubmitStreamResponse] | None],
    ) -> None:
        world = ""
        try:
            async for request in requests:
                require_readable(request)
                world = request.world or world
                await answers_due.put(asyncio.create_task(self._answer(request, world)))
        finally:
            await answers_due.put(None)

    async def _stop_reading(self, reader: asyncio.Task[None]) -> None:
        # A sender may be idle for ever: what was read is answered, and no more is read.
        await self._container.stopping.wait()
        reader.cancel()

    async def _answer(self, request: pb.SubmitStreamRequest, world: str) -> pb.SubmitStreamResponse:
        try:
            answer = await self._submit(request, world)
        except TickwireError as error:
            return pb.SubmitStreamResponse(error=status_of(error))
        return pb.SubmitStreamResponse(receipts=_receipts(answer))

    async def _submit(self, request: pb.SubmitRequest | pb.SubmitStreamRequest, ref: str) -> SubmitAnswer:
        world = self._container.world_service.find(ref)
        wait = _WAITS.get(request.wait)
        if wait is None:
            raise InvalidRequestError(f"wait {request.wait} is no WaitLevel", field="wait")
        actor = caller()
        limits = self._container.limits
        commands, partial = request.commands, request.allow_partial
        if len(commands) > limits.batch_commands:
            raise InvalidRequestError(
                f"{len(commands)} commands in one request; at most {limits.batch_commands} (batch_commands)",
                field="commands",
                limit=limits.batch_commands,
            )
        turn = await self._turns.take(actor.key, len(commands))
        try:
            plain = SubmitRequest(
                submissions=await self._read_commands(commands, actor, turn, partial=partial),
                partial=partial,
                wait=wait,
                max_wait_s=_max_wait_s(request),
                guard=guard_for(actor, world, self._container.world_service.name_of),
                pause=turn.pause,
                journaled=turn.end,
            )
            return await self._container.command_service.accept(world, plain)
        finally:
            turn.end()

    async def _read_commands(
        self, commands: Sequence[command_pb2.Command], actor: Actor, turn: Turn, *, partial: bool
    ) -> list[Submission | TickwireError]:
        limits = self._container.limits
        try:
            return await in_parts(
                commands, lambda index, c: _readable(c, index, actor, limits, partial=partial), turn.pause
            )
        except InvalidRequestError:
            # What is wrong with the others is told at once.
            read = [_readable(c, index, actor, limits, partial=True) for index, c in enumerate(commands)]
            raise together([error for error in read if isinstance(error, TickwireError)]) from None


def _receipts(answer: SubmitAnswer) -> Iterator[pb.CommandReceipt]:
    if not answer.tables and not answer.unreached:
        return map(receipt_proto, answer.receipts)
    return (
        receipt_proto(receipt)
        if receipt.command is None
        else receipt_proto(
            receipt,
            table=answer.tables.get(receipt.command.seq, b""),
            reached=receipt.command.seq not in answer.unreached,
        )
        for receipt in answer.receipts
    )


def _max_wait_s(request: pb.SubmitRequest | pb.SubmitStreamRequest) -> float | None:
    return seconds(request.max_wait, field="max_wait") if request.HasField("max_wait") else None


def _states(values: Iterable[int]) -> Iterator[str]:
    for index, value in enumerate(values):
        name = _STATES.get(value)
        if name is None:
            raise InvalidRequestError(f"{value} is no CommandState", field=f"states[{index}]")
        yield name


def _readable(
    command: command_pb2.Command, index: int, actor: Actor, limits: Limits, *, partial: bool
) -> Submission | TickwireError:
    try:
        made = submission(command, index=index, actor=actor.key, limits=limits)
        if made.type is CommandType.CUSTOM:
            # Its handler is told who sent it.
            return made._replace(sender=actor.ctx.model_dump_json())
        return made
    except TickwireError as error:
        if not partial:
            raise
        return error
