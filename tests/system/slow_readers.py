"""Subscribers in a process of their own: some read, some read nothing. Prints what those who read have heard.

Usage: slow_readers.py ADDRESS WORLD READERS STALLED UNTIL_TICK; it reads a line from stdin before it ends.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import grpc

from tickwire.v1 import tick_service_pb2, tick_service_pb2_grpc

POLICIES = (
    tick_service_pb2.LAG_POLICY_CATCH_UP,
    tick_service_pb2.LAG_POLICY_SKIP_TO_LATEST,
    tick_service_pb2.LAG_POLICY_DISCONNECT,
)


async def read(stub: Any, request: tick_service_pb2.SubscribeRequest) -> int:
    """Follow to the end and return how many ticks came, each once and in order."""
    wanted = 0
    async for message in stub.Subscribe(request):
        for chunk in message.chunks:
            if chunk.last:
                assert chunk.tick == wanted, (chunk.tick, wanted)
                wanted += 1
    return wanted


async def main(address: str, world: str, readers: int, stalled: int, until: int) -> None:
    """Connect the stalled ones, then the readers."""
    options = [("grpc.max_receive_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
    # Flow control is by stream and by connection: those who read nothing have connections of their own.
    channels = [grpc.aio.insecure_channel(address, options=options) for _ in range(stalled + 4)]
    stubs: list[Any] = [tick_service_pb2_grpc.TickServiceStub(channel) for channel in channels]  # type: ignore[no-untyped-call]
    idle = []
    for index in range(stalled):
        request = tick_service_pb2.SubscribeRequest(
            world=world, from_tick=0, lag=POLICIES[index % len(POLICIES)]
        )
        call = stubs[index].Subscribe(request)
        await call.read()
        idle.append(call)
    request = tick_service_pb2.SubscribeRequest(
        world=world, from_tick=0, until_tick=until, where="entity_id <= 50"
    )
    print("connected", flush=True)
    heard = await asyncio.gather(*(read(stubs[stalled + n % 4], request) for n in range(readers)))
    print("heard", *sorted(set(heard)), flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    codes = []
    for index, call in enumerate(idle):
        if POLICIES[index % len(POLICIES)] == tick_service_pb2.LAG_POLICY_DISCONNECT:
            try:
                while await call.read() is not grpc.aio.EOF:
                    pass
            except grpc.aio.AioRpcError as error:
                codes.append(error.code().name)
    print("ended", *codes, flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])))
