"""A server with the orrery on it, for as long as a program runs: on a given data directory, or on a temporary one."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tickwire import AsyncClient, AsyncWorld, TickwireError, WorldNotFoundError
from tickwire_server.cli.server_process import ServerProcess, ServerProcessError

from .app import ASTEROIDS_LABEL, TEMPLATE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

ROOT = Path(__file__).parents[2]
"""The source tree, from which the server imports this package."""
APP = "examples.orrery.app:app"
_PATIENCE_S = "20"


class OtherWorldError(Exception):
    """The data directory has the world, but made otherwise than asked for now."""


@asynccontextmanager
async def orrery_server(data: Path | None, listen: str = "127.0.0.1:0") -> AsyncIterator[ServerProcess]:
    """Yield a running server; it is ended in order, and temporary data with it.

    Args:
        data: The data directory; None: a temporary one.
        listen: host:port; port 0 takes a free one.

    Raises:
        ServerProcessError: It did not start.
    """
    with ExitStack() as temporary:
        if data is None:
            folder = temporary.enter_context(tempfile.TemporaryDirectory(prefix="tickwire-orrery-"))
        server = ServerProcess(
            data or Path(folder) / "data",
            app=APP,
            listen=listen,
            root=ROOT,
            # The server of a run that was killed may still be writing its last tick.
            arguments=("--wait-for-data", _PATIENCE_S),
        )
        try:
            # Why it did not start stands in that error itself; later ones need the log.
            await asyncio.to_thread(server.start)
            try:
                yield server
            except (TickwireError, ServerProcessError) as error:
                error.add_note(f"The server's log: {_kept(server.log, data)}")
                raise
        finally:
            await asyncio.to_thread(server.terminate)


def _kept(log: Path, data: Path | None) -> Path:
    """Save the log of temporary data from going with it, where somebody will want to read it."""
    if data is not None:
        return log
    file, name = tempfile.mkstemp(prefix="tickwire-orrery-", suffix=".log")
    os.close(file)
    return Path(shutil.copy(log, name))


async def open_world(client: AsyncClient, name: str, *, asteroids: int, seed: int) -> AsyncWorld:
    """Find the world that an earlier run left, or make it.

    Raises:
        OtherWorldError: There is one of that name with other asteroids.
    """
    wanted = {ASTEROIDS_LABEL: str(asteroids)}
    try:
        world = await client.world(name)
    except WorldNotFoundError:
        return await client.create_world(name, template=TEMPLATE, seed=seed, labels=wanted)
    info = await world.info()
    has = info.labels.get(ASTEROIDS_LABEL)
    if (has, info.seed) != (str(asteroids), seed):
        raise OtherWorldError(f"world {name} there was made with --asteroids {has} --seed {info.seed}")
    return world
