"""One actor that sends as much as it can: `python -m bench.flood ADDRESS TOKEN COMMANDS CALLS`, until its input ends.

Keeps CALLS Submits of COMMANDS updates each in flight, whatever they are answered. A process of its own, so that it takes
nothing from who measures but what the server gives it.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys

import grpc.aio

from bench.serving import OPTIONS, WORLD, update
from tickwire.v1 import command_service_pb2


async def _flood(address: str, token: str, commands: int, calls: int) -> None:
    request = command_service_pb2.SubmitRequest(world=WORLD)
    request.commands.extend(update(entity) for entity in range(1, commands + 1))
    data = request.SerializeToString()
    metadata = (("authorization", f"Bearer {token}"),)
    async with grpc.aio.insecure_channel(address, options=OPTIONS) as channel:
        submit = channel.unary_unary("/tickwire.v1.CommandService/Submit")

        async def worker() -> None:
            while True:
                try:
                    await submit(data, metadata=metadata)
                except grpc.aio.AioRpcError as error:
                    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED, error  # noqa: PT017

        workers = [asyncio.create_task(worker()) for _ in range(calls)]
        await submit(data, metadata=metadata)
        print(json.dumps({"flooding": address}), flush=True)
        await asyncio.to_thread(_end_of_input)
        for task in workers:
            task.cancel()


def _end_of_input() -> None:
    while os.read(sys.stdin.fileno(), 65536):
        pass


if __name__ == "__main__":
    asyncio.run(_flood(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
