"""The asyncio client. It lives on the event loop of its first call; make it after forking."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Self, Unpack

import grpc

from tickwire import _calls as calls
from tickwire import commands as builders
from tickwire._aio_live_state import AsyncLiveState
from tickwire._aio_outcome_stream import AsyncOutcomeStream
from tickwire._aio_tick_stream import AsyncTickStream
from tickwire._aio_transport import AsyncTransport
from tickwire._arrow import BatchReader
from tickwire._channel import DEFAULT_TARGET, DEFAULT_TIMEOUT_S, ConnectionConfig
from tickwire._outcome_watch import OutcomeWatch
from tickwire._retry import RetryPolicy
from tickwire._submit_stream import SubmitStream
from tickwire._subscription import ChangesOptions, Subscription, View, ViewOptions

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping
    from datetime import datetime
    from types import TracebackType

    import grpc.aio
    import pyarrow as pa

    from tickwire._calls import CompressionName, StateName, Wait
    from tickwire._command_record import CommandRecord
    from tickwire._definitions import ComponentInfo, ProcessorInfo, TokenInfo
    from tickwire._models import (
        CommandState,
        Outcome,
        Receipt,
        RunProgress,
        ServerInfo,
        StepResult,
        WorldInfo,
    )
    from tickwire._rollouts import BranchResult, EpisodeOptions, RolloutOptions
    from tickwire._rows import Rows
    from tickwire._values import Json
    from tickwire.commands import Command, CommandOptions, Components, EntityIds


class AsyncClient:
    """A connection to a tickwire server.

    async with AsyncClient() as client:
        world = await client.create_world("orbit", template="solar_system")
        await world.spawn({"Position": {"x": 1.0}})
        await world.play(hz=20)
        async for tick in world.ticks():
            print(tick.tick, tick.table("Position"))
    """

    def __init__(
        self,
        target: str = DEFAULT_TARGET,
        *,
        token: str | None = None,
        credentials: grpc.ChannelCredentials | None = None,
        channel: grpc.aio.Channel | None = None,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        retry: RetryPolicy | None = None,
    ) -> None:
        """Prepares a connection; the first call opens it.

        Args:
            target: host:port, or any gRPC target.
            token: an API token or JWT, sent as `authorization: Bearer`.
            credentials: TLS, `grpc.ssl_channel_credentials()`; None: plaintext.
            channel: use this one instead; it stays open when the client is closed.
            timeout_s: the time limit of each try of a call. Steps, runs, queries and streams have none of
                their own.
            retry: how long calls that are safe to retry are retried; None: for 30 s.
        """
        config = ConnectionConfig(
            target=target,
            token=token,
            credentials=credentials,
            timeout_s=timeout_s,
            retry=retry or RetryPolicy(),
        )
        self._transport = AsyncTransport(config, channel)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Closes the connection, and ends what is under way over it."""
        await self._transport.close()

    async def server_info(self) -> ServerInfo:
        """Answers what the server is and what its limits are."""
        return await self._transport.unary(calls.server_info())

    async def create_world(
        self,
        name: str,
        *,
        template: str = "",
        seed: int | None = None,
        labels: Mapping[str, str] | None = None,
        world_id: str | None = None,
        keep_ticks: int | None = None,
        keep_every: int | None = None,
        keep_bytes: int | None = None,
    ) -> AsyncWorld:
        """Creates a world, durably.

        Args:
            name: unique among the living worlds; empty: the server makes one.
            template: a set-up of the server's app, run before tick 0; empty: the app's default, if it has
                one.
            seed: the root of all randomness in the world; None: drawn by the server.
            labels: key-value pairs, which `worlds` selects by.
            world_id: a UUIDv7; None: made here. The same id with the same request answers the existing world.
            keep_ticks: how many of the newest ticks to keep without gaps; 0: all, and so where another of the three is
                given without it. None of them given: the newest 100,000, in 8 GiB.
            keep_every: of older ticks keep each so-many-th; 0: none.
            keep_bytes: about how many bytes of archived history to keep, the oldest go first; 0: no bound. Not given:
                8 GiB.

        Raises:
            WorldExistsError: a living world has that name.
        """
        call = calls.create_world(
            name,
            template=template,
            seed=seed,
            labels=labels,
            world_id=world_id,
            keep={"keep_ticks": keep_ticks, "keep_every": keep_every, "keep_bytes": keep_bytes},
        )
        return AsyncWorld(self._transport, await self._transport.unary(call))

    async def world(self, id_or_name: str) -> AsyncWorld:
        """Finds a world.

        Raises:
            WorldNotFoundError: there is none of that id or name.
        """
        return AsyncWorld(self._transport, await self._transport.unary(calls.get_world(id_or_name)))

    async def worlds(self, *, labels: Mapping[str, str] | None = None) -> AsyncIterator[WorldInfo]:
        """Yields the living worlds by ascending name, page by page: those that have all the labels."""
        page_token = ""
        while True:
            page = await self._transport.unary(calls.list_worlds(labels, page_token))
            for info in page.items:
                yield info
            page_token = page.next_page_token
            if not page_token:
                return

    async def components(self) -> list[ComponentInfo]:
        """Answers the component types that commands may name, by name."""
        return await self._transport.unary(calls.list_components())

    async def register_component(
        self,
        name: str,
        fields: Mapping[str, str] | pa.Schema,
        *,
        defaults: Mapping[str, Any] | None = None,
    ) -> ComponentInfo:
        """Defines a component type for all worlds, durably; the same again changes nothing.

        Args:
            name: as a class name, unique ignoring case.
            fields: an Arrow schema, or types in text by field name: "float64", "list<int32>"; "string?" may be null.
                With new fields that may be null, or have a default, a type grows: they appear in the worlds' next
                ticks.
            defaults: the values of fields that a spawn leaves out.

        Raises:
            ComponentExistsError: there is one of that name with another shape.
        """
        return await self._transport.unary(calls.register_component(name, fields, defaults))

    async def create_token(
        self,
        name: str,
        *,
        roles: Iterable[str] = (),
        worlds: Iterable[str] = ("*",),
        allowed_commands: Iterable[str] = (),
        ttl_s: float | None = None,
    ) -> TokenInfo:
        """Makes an API token; only this answer has its secret.

        Args:
            name: what people know it by.
            roles: as "player"; no more than the caller has.
            worlds: globs of the worlds' names that it is good for.
            allowed_commands: types of commands, as "spawn", to which it is restricted; none: no restriction.
            ttl_s: seconds that it is good for; None: the server's default.
        """
        call = calls.create_token(
            name, roles=roles, worlds=worlds, allowed_commands=allowed_commands, ttl_s=ttl_s
        )
        return await self._transport.unary(call)

    async def tokens(self) -> AsyncIterator[TokenInfo]:
        """Yields the API tokens, newest first, page by page; without their secrets."""
        page_token = ""
        while True:
            page = await self._transport.unary(calls.list_tokens(page_token))
            for token in page.items:
                yield token
            page_token = page.next_page_token
            if not page_token:
                return

    async def revoke_token(self, token_id: str) -> TokenInfo:
        """Revokes an API token, at once and for good.

        Raises:
            TokenNotFoundError: there is none of that id.
        """
        return await self._transport.unary(calls.revoke_token(token_id))

    async def sql(self, text: str, *, at_tick: int | None = None) -> Rows:
        """Reads by SQL over the worlds the caller may see; tables are `world.component` and `world.entities`.

        Args:
            text: one SELECT statement.
            at_tick: the state at one tick; None: all kept ticks, told apart by the column `tick`.

        Raises:
            InvalidSqlError: it is no such statement.
            ResultTooLargeError: it takes more time, rows or memory than the server allows.
        """
        return calls.rows_of(await self._transport.collect(calls.sql(text, at_tick)))

    async def sql_batches(
        self, text: str, *, at_tick: int | None = None
    ) -> AsyncGenerator[pa.RecordBatch, None]:
        """Reads by SQL as `sql` does, and yields the rows as they come; they need not fit the memory."""
        reader = BatchReader()
        async with aclosing(self._transport.stream(calls.sql(text, at_tick))) as pieces:
            async for piece in pieces:
                for batch in reader.feed(piece):
                    yield batch


class AsyncWorld:
    """A handle on a world, by its id: it means the same world though names be reused."""

    def __init__(self, transport: AsyncTransport, info: WorldInfo) -> None:
        self._transport = transport
        self.id = info.id
        self.name = info.name

    def __repr__(self) -> str:
        return f"<AsyncWorld {self.name} {self.id}>"

    async def info(self) -> WorldInfo:
        """Answers the world as of its last durable tick."""
        return await self._transport.unary(calls.get_world(self.id))

    async def fork(
        self,
        name: str = "",
        *,
        at_tick: int | None = None,
        seed: int | None = None,
        with_pending: bool = False,
        labels: Mapping[str, str] | None = None,
        world_id: str | None = None,
    ) -> AsyncWorld:
        """Makes a world whose history up to a tick is this one's; no rows are copied.

        Args:
            name: unique among the living worlds; empty: the server makes one.
            at_tick: the last tick to share, any kept one; None: the last committed one.
            seed: the root of all randomness in the fork; None: one of its own. With this world's seed
                (`WorldInfo.seed`) the fork repeats what this world did, until commands tell them apart.
            with_pending: commands that wait here, due after `at_tick`, wait in the fork too.
            labels: key-value pairs of the fork.
            world_id: a UUIDv7; None: made here. The same id with the same request answers the existing fork.

        Raises:
            TickNotKeptError: `at_tick` is no longer kept.
            TickInTheFutureError: `at_tick` is not committed yet.
            WorldExistsError: a living world has that name.
        """
        call = calls.fork_world(
            self.id,
            name,
            at_tick=at_tick,
            seed=seed,
            with_pending=with_pending,
            labels=labels,
            world_id=world_id,
        )
        return AsyncWorld(self._transport, await self._transport.unary(call))

    async def processors(self) -> list[ProcessorInfo]:
        """Answers the processors in force at the last durable tick, in the order they run."""
        return await self._transport.unary(calls.list_processors(self.id))

    async def change(
        self,
        *,
        name: str | None = None,
        labels: Mapping[str, str] | None = None,
        keep_ticks: int | None = None,
        keep_every: int | None = None,
        keep_bytes: int | None = None,
        etag: str = "",
    ) -> WorldInfo:
        """Changes what is given, all of it or nothing, and answers the world after it.

        Args:
            name: a new name, unique among the living worlds.
            labels: all labels: those that are left out go.
            keep_ticks: how many of the newest ticks to keep without gaps; 0: all, and so where another of the three is
                given without it.
            keep_every: of older ticks keep each so-many-th; 0: none, and so likewise.
            keep_bytes: about how many bytes of archived history to keep, the oldest go first; 0: no bound. Not given: as
                it was.
            etag: `WorldInfo.etag` as last seen; empty: no check, and no retry after a lost answer.

        Raises:
            EtagMismatchError: the world was changed since.
            WorldExistsError: a living world has that name.
        """
        call = calls.update_world(
            self.id,
            name=name,
            labels=labels,
            keep={"keep_ticks": keep_ticks, "keep_every": keep_every, "keep_bytes": keep_bytes},
            etag=etag,
        )
        return await self._transport.unary(call)

    async def destroy(self) -> WorldInfo:
        """Destroys the world at its next tick boundary; what is pending is cancelled."""
        return await self._transport.unary(calls.destroy_world(self.id))

    async def submit(
        self,
        commands: Iterable[Command],
        *,
        allow_partial: bool = False,
        wait: Wait = "accepted",
        max_wait_s: float | None = None,
    ) -> list[Receipt]:
        """Queues commands, all or none; an acknowledged one is never lost and never applied twice.

        Ids are made before the first try and kept over retries, so a lost answer does no harm.

        Args:
            commands: from `tickwire.commands`, applied in this order where tick and priority are equal.
            allow_partial: queue the acceptable ones even if others are refused; their receipts have an
                `error`.
            wait: "accepted" (on disk), "applied" (the deciding tick is durable) or "archived" (also in
                LanceDB).
            max_wait_s: the bound of that wait; None: the client's `timeout_s`. After it receipts have no
                outcome, and the commands stay queued.

        Returns:
            A receipt per command, in order.
        """
        bound_s = self._transport.config.timeout_s if max_wait_s is None else max_wait_s
        call = calls.submit(self.id, commands, allow_partial=allow_partial, wait=wait, max_wait_s=bound_s)
        return await self._transport.unary(call)

    def submit_stream(self, *, window: int = 64) -> SubmitStream:
        """Opens a pipeline of submits that outlives its connections; see `SubmitStream`.

        Args:
            window: how many requests may be unanswered before `send` waits.
        """
        return SubmitStream(self._transport, self.id, window=window)

    async def spawn(
        self,
        components: Components | None = None,
        *,
        table: Any = None,
        wait: Wait = "accepted",
        max_wait_s: float | None = None,
        **options: Unpack[CommandOptions],
    ) -> Receipt:
        """Creates entities; see `commands.spawn` and `submit`. `Receipt.entity_ids` are usable at once."""
        command = builders.spawn(components, table=table, **options)
        return (await self.submit([command], wait=wait, max_wait_s=max_wait_s))[0]

    async def update(
        self,
        entity_ids: EntityIds | None = None,
        components: Components | None = None,
        *,
        where: str = "",
        table: Any = None,
        skip_missing: bool = False,
        wait: Wait = "accepted",
        max_wait_s: float | None = None,
        **options: Unpack[CommandOptions],
    ) -> Receipt:
        """Changes fields of entities; see `commands.update` and `submit`."""
        command = builders.update(
            entity_ids, components, where=where, table=table, skip_missing=skip_missing, **options
        )
        return (await self.submit([command], wait=wait, max_wait_s=max_wait_s))[0]

    async def despawn(
        self,
        entity_ids: EntityIds | None = None,
        *,
        where: str = "",
        skip_missing: bool = False,
        wait: Wait = "accepted",
        max_wait_s: float | None = None,
        **options: Unpack[CommandOptions],
    ) -> Receipt:
        """Removes entities; see `commands.despawn` and `submit`."""
        command = builders.despawn(entity_ids, where=where, skip_missing=skip_missing, **options)
        return (await self.submit([command], wait=wait, max_wait_s=max_wait_s))[0]

    async def command(self, command_id: str) -> CommandRecord:
        """Looks a command up: what was asked, by whom, and what became of it.

        Raises:
            CommandNotFoundError: none of that id is known, or none that the caller may see.
        """
        return await self._transport.unary(calls.get_command(self.id, command_id))

    async def commands(
        self,
        *,
        states: Iterable[CommandState | StateName] = (),
        types: Iterable[str] = (),
        actor_id: str = "",
        from_time: datetime | None = None,
        tables: bool = False,
        page_size: int = 0,
    ) -> AsyncIterator[CommandRecord]:
        """Yields the world's commands, the newest first, page by page: those for which all conditions hold.

        Args:
            states: "pending", "applied", "rejected", "cancelled"; empty: any.
            types: what they do, as "spawn"; empty: any.
            actor_id: who sent them; empty: all that the caller may see.
            from_time: accepted then or later; with a time zone.
            tables: with the Arrow tables that they were sent with.
            page_size: commands to fetch at once; 0: the server's default.
        """
        page_token = ""
        states, types = list(states), list(types)
        while True:
            page = await self._transport.unary(
                calls.list_commands(
                    self.id,
                    states=states,
                    types=types,
                    actor_id=actor_id,
                    from_time=from_time,
                    tables=tables,
                    page_size=page_size,
                    page_token=page_token,
                )
            )
            for record in page.items:
                yield record
            page_token = page.next_page_token
            if not page_token:
                return

    async def outcome(self, command_id: str) -> Outcome:
        """Answers what became of a command, pending ones included."""
        return (await self.command(command_id)).outcome

    def outcomes(self, *, after: int | None = None, actor_id: str = "") -> AsyncOutcomeStream:
        """Streams outcomes in the order they become durable, each once. It resumes by itself after any disconnect.

        Args:
            after: the outcome_seq of the last outcome already known; 0: from the first kept; None: from now on.
            actor_id: only of this actor's commands; empty: all that the caller may see.

        Raises (while iterating):
            TickNotKeptError: the outcome to go on with is no longer kept.
            WorldDestroyedError: after the last outcome of a destroyed world.
            UnavailableError: the server could not be reached for as long as the client retries.
        """
        watch = OutcomeWatch(self.id, after=after, actor_id=actor_id, policy=self._transport.config.retry)
        return AsyncOutcomeStream(self._transport, watch)

    async def read_result(self, command_id: str) -> pa.Table:
        """Reads the table that a command answered, however large; waits while the command is pending.

        Returns:
            The rows; a table without columns if the command answered none.
        """
        return calls.rows_of(await self._transport.collect(calls.read_result(self.id, command_id))).table

    async def cancel(self, command_id: str) -> Outcome:
        """Withdraws a pending command.

        Raises:
            CommandNotPendingError: a tick has decided it.
        """
        return await self._transport.unary(calls.cancel_command(self.id, command_id))

    async def step(
        self,
        ticks: int = 1,
        *,
        inputs: Mapping[str, Any] | None = None,
        expected_tick: int | None = None,
        max_wait_s: float | None = None,
    ) -> StepResult:
        """Computes ticks; answers once the last one is durable.

        Args:
            ticks: how many.
            inputs: passed to the processors in every one of them, and journaled.
            expected_tick: the tick the world must be at (`WorldInfo.tick`). With it the call is retried when
                the server cannot be reached, and TickMismatchError may mean that the first try was carried
                out.
            max_wait_s: begin no further tick after this time; the result tells how far it came.

        Raises:
            ProcessorFailedError: a processor failed; its tick was undone whole.
        """
        call = calls.step(self.id, ticks, inputs=inputs, expected_tick=expected_tick, max_wait_s=max_wait_s)
        return await self._transport.unary(call)

    def run(
        self,
        ticks: int,
        *,
        inputs: Mapping[str, Any] | None = None,
        expected_tick: int | None = None,
    ) -> AsyncGenerator[RunProgress, None]:
        """Computes ticks and yields progress, the last once all is durable; closing it stops the run."""
        return self._transport.stream(calls.run(self.id, ticks, inputs=inputs, expected_tick=expected_tick))

    def rollout(self, ticks: int, **options: Unpack[RolloutOptions]) -> AsyncGenerator[BranchResult, None]:
        """Tries futures of the world on branches and yields each one's result as it ends; the world stays as it is.

        Closing it stops all branches. The same request with the same `at_tick` and `seed` gives the same rows.

        Args:
            ticks: how many each branch computes.
            **options: see RolloutOptions.
        """
        return self._transport.stream(calls.rollout(self.id, ticks, options))

    def episode(
        self, max_ticks: int, **options: Unpack[EpisodeOptions]
    ) -> AsyncGenerator[BranchResult, None]:
        """Tries futures from beginnings that are drawn, until each is over or has had `max_ticks`; as `rollout`.

        Args:
            max_ticks: ends a branch that did not stop.
            **options: see EpisodeOptions.
        """
        return self._transport.stream(calls.episode(self.id, max_ticks, options))

    async def play(
        self,
        hz: float = 0.0,
        max_ticks: int = 0,
        *,
        inputs: Mapping[str, Any] | None = None,
        expected_tick: int | None = None,
    ) -> WorldInfo:
        """Lets ticks follow each other until `pause`, `max_ticks` or a fault; answers at once.

        Args:
            hz: ticks per second; 0: as fast as possible. On a playing world, the new rate.
            max_ticks: pause after so many; 0: never.
            inputs: passed to the processors in every tick, and journaled.
            expected_tick: as in `step`.
        """
        call = calls.play(self.id, hz=hz, max_ticks=max_ticks, inputs=inputs, expected_tick=expected_tick)
        return await self._transport.unary(call)

    async def pause(self) -> WorldInfo:
        """Ends a play or run; answers once the last tick is durable."""
        return await self._transport.unary(calls.pause(self.id))

    async def query(
        self,
        *,
        at_tick: int | None = None,
        ticks: tuple[int, int] | None = None,
        components: Iterable[str] = (),
        where: str = "",
        entity_ids: EntityIds | None = None,
        limit: int = 0,
        compression: CompressionName = "none",
    ) -> Rows:
        """Reads active rows: of the last committed tick, of one, or of a range.

        Args:
            at_tick: one tick.
            ticks: (first, last), both included.
            components: entities that have all of these, with their fields; empty: all entities, all fields.
            where: a SQL condition over `component__field` and `entity_id`.
            entity_ids: only these.
            limit: at most so many rows; 0: all.
            compression: of what goes over the wire.

        Returns:
            `tick`, `entity_id`, `is_active`, then the fields, in the order of (tick, entity_id).
        """
        call = calls.query(
            self.id,
            at_tick=at_tick,
            ticks=ticks,
            components=components,
            where=where,
            entity_ids=entity_ids,
            limit=limit,
            compression=compression,
        )
        return calls.rows_of(await self._transport.collect(call))

    async def query_batches(
        self,
        *,
        at_tick: int | None = None,
        ticks: tuple[int, int] | None = None,
        components: Iterable[str] = (),
        where: str = "",
        entity_ids: EntityIds | None = None,
        limit: int = 0,
        compression: CompressionName = "none",
    ) -> AsyncGenerator[pa.RecordBatch, None]:
        """Reads active rows as `query` does, and yields them as they come; they need not fit the memory."""
        call = calls.query(
            self.id,
            at_tick=at_tick,
            ticks=ticks,
            components=components,
            where=where,
            entity_ids=entity_ids,
            limit=limit,
            compression=compression,
        )
        reader = BatchReader()
        async with aclosing(self._transport.stream(call)) as pieces:
            async for piece in pieces:
                for batch in reader.feed(piece):
                    yield batch

    async def history(
        self,
        entity_id: int,
        *,
        ticks: tuple[int, int] | None = None,
        components: Iterable[str] = (),
        where: str = "",
    ) -> Rows:
        """Reads an entity's values at every tick.

        Args:
            entity_id: the entity.
            ticks: (first, last), both included; None: all that is kept without gaps.
            components: only ticks at which it has all of these, with their fields; empty: all of it.
            where: a SQL condition over `component__field`.

        Returns:
            As `query`: a row for each tick at which it is alive.
        """
        kept = calls.kept_ticks(await self.info(), ticks)
        return await self.query(ticks=kept, entity_ids=[entity_id], components=components, where=where)

    async def entity(self, entity_id: int, *, at_tick: int | None = None) -> dict[str, Json]:
        """Answers the components of an entity, {"Position": {"x": 1}}.

        Raises:
            EntityNotFoundError: it is not alive at that tick.
        """
        return await self._transport.unary(calls.get_entity(self.id, entity_id, at_tick))

    def ticks(self, **view: Unpack[ViewOptions]) -> AsyncTickStream:
        """Streams ticks: each whole, in order, once, without gaps. It resumes by itself after any disconnect.

        Args:
            **view: what to stream, see `ViewOptions`; by default everything, from the next tick on.

        Raises (while iterating):
            TickNotKeptError: the tick to begin or resume with is no longer kept.
            WorldDestroyedError: after the last tick of a destroyed world.
            UnavailableError: the server could not be reached for as long as the client retries.
        """
        subscription = Subscription(self.id, View(**view), self._transport.config.retry)
        return AsyncTickStream(self._transport, subscription)

    def changes(self, **view: Unpack[ChangesOptions]) -> AsyncTickStream:
        """Streams what changes from tick to tick: the first tick, and the first after any break, is a snapshot.

        Args:
            **view: what to stream, see `ChangesOptions`; by default of everything, from the next tick on.

        Raises (while iterating): as `ticks`.
        """
        subscription = Subscription(self.id, View(**view, mode="changes"), self._transport.config.retry)
        return AsyncTickStream(self._transport, subscription)

    def state(self, **view: Unpack[ChangesOptions]) -> AsyncLiveState:
        """Keeps a copy of the world's state, tick by tick; only changes travel.

        Args:
            **view: what of it, see `ChangesOptions`; by default everything, from the last committed tick on.

        Raises (while iterating): as `ticks`.
        """
        if view.get("from_tick") is None:
            view.setdefault("at", "snapshot")
        return AsyncLiveState(self.changes(**view))
