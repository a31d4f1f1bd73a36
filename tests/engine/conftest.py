"""Real engines on real directories, opened and opened again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.engine.parts import setup
from tickwire_engine import AsyncWorld, Engine, EngineSetup, WorldConfig

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tickwire_engine.storage.store import StoreOptions


class Opener:
    """Opens the engine of one directory, anew if it was open."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.engine: Engine | None = None

    async def open(
        self, application: EngineSetup | None = None, *, options: StoreOptions | None = None
    ) -> Engine:
        """Open the engine; the old one is closed first, as a restart does."""
        await self.close()
        self.engine = await Engine.open(self.path, application or setup(), options=options)
        return self.engine

    def world(self, ref: str) -> AsyncWorld:
        """Return a world of the open engine."""
        assert self.engine is not None
        return self.engine.world(ref)

    async def close(self) -> None:
        """Close the engine, if one is open."""
        if self.engine is not None:
            engine, self.engine = self.engine, None
            await engine.close()


@pytest.fixture
async def opener(tmp_path: Path) -> AsyncIterator[Opener]:
    made = Opener(tmp_path / "data")
    yield made
    await made.close()


@pytest.fixture
async def engine(opener: Opener) -> Engine:
    return await opener.open()


@pytest.fixture
async def world(engine: Engine) -> AsyncWorld:
    return await engine.create_world(WorldConfig(name="w", seed=7))


@pytest.fixture(scope="session")
async def shared_engine(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Engine]:
    """One engine for tests that make many worlds."""
    engine = await Engine.open(tmp_path_factory.mktemp("shared") / "data", setup())
    yield engine
    await engine.close()
