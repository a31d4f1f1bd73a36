"""A TCP proxy before a server that cuts connections: after so many bytes of requests, or of answers."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType

_CHUNK = 65_536


class CuttingProxy:
    """Forwards connections on the test's loop; `async with` opens and closes it.

    Attributes:
        address: host:port that clients connect to.
        cuts: How often a connection was cut.
    """

    def __init__(self, server: str) -> None:
        host, _, port = server.rpartition(":")
        self._server = (host, int(port))
        self._listener: asyncio.Server | None = None
        self._links: set[asyncio.Task[None]] = set()
        self._fuse: _Fuse | None = None
        self.address = ""
        self.cuts = 0

    async def __aenter__(self) -> Self:
        self._listener = await asyncio.start_server(self._link, "127.0.0.1", 0)
        port = self._listener.sockets[0].getsockname()[1]
        self.address = f"127.0.0.1:{port}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._listener is not None
        self._listener.close()
        for link in self._links:
            link.cancel()
        await asyncio.gather(*self._links, return_exceptions=True)

    def cut_after(self, *, sent: int | None = None, answered: int | None = None) -> None:
        """Cut every connection, once, after so many more bytes from the client, or to it, over all of them."""
        self._fuse = _Fuse(sent, answered)

    @property
    def is_armed(self) -> bool:
        """Whether the cut is still to come."""
        return self._fuse is not None

    async def _link(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._links.add(task)
        try:
            upstream_reader, upstream_writer = await asyncio.open_connection(*self._server)
        except OSError:
            writer.transport.abort()
            self._links.discard(task)
            return
        ways = [
            asyncio.create_task(self._forward(reader, upstream_writer, sent=True)),
            asyncio.create_task(self._forward(upstream_reader, writer, sent=False)),
        ]
        # Cancelled by a cut: asyncio logs handlers that end so as errors.
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for way in ways:
            way.cancel()
        # Not closed in order: reset, as by a cable that was pulled.
        writer.transport.abort()
        upstream_writer.transport.abort()
        self._links.discard(task)

    async def _forward(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, sent: bool
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(_CHUNK):
                fuse = self._fuse
                passed = len(data) if fuse is None else fuse.burn(len(data), sent=sent)
                writer.write(data[:passed])
                await writer.drain()
                if passed < len(data):
                    self._fuse = None
                    self.cuts += 1
                    for link in self._links:
                        link.cancel()
                    return


class _Fuse:
    def __init__(self, sent: int | None, answered: int | None) -> None:
        self._left = {True: sent, False: answered}

    def burn(self, nbytes: int, *, sent: bool) -> int:
        """Return how many of so many bytes may pass."""
        left = self._left[sent]
        if left is None:
            return nbytes
        self._left[sent] = max(left - nbytes, 0)
        return min(left, nbytes)
