"""The yardstick: a grpc.aio server that does nothing, in a process of its own. Prints its address, and ends with its stdin.

`Echo` returns its request. `Beat` sends, 60 times a second, as many bytes as its request says, the wall clock in front.
"""

from __future__ import annotations

import asyncio
import json
import struct
import sys
import time
from typing import TYPE_CHECKING

import grpc.aio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

ECHO, BEAT = "/bench.Bare/Echo", "/bench.Bare/Beat"
HEAD = struct.Struct("<q")
HZ = 60.0


async def _echo(request: bytes, context: object) -> bytes:
    return request


async def _beat(request: bytes, context: object) -> AsyncIterator[bytes]:
    body = bytes(HEAD.unpack(request)[0])
    loop = asyncio.get_running_loop()
    due = loop.time()
    while True:
        due += 1 / HZ
        await asyncio.sleep(due - loop.time())
        yield HEAD.pack(time.time_ns()) + body


async def _main() -> None:
    server = grpc.aio.server()
    handlers = {
        "Echo": grpc.unary_unary_rpc_method_handler(_echo),
        "Beat": grpc.unary_stream_rpc_method_handler(_beat),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bench.Bare", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(json.dumps({"address": f"127.0.0.1:{port}"}), flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await server.stop(None)


if __name__ == "__main__":
    asyncio.run(_main())
