"""The worlds that are measured: Position and Velocity, one Daft-expression processor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from daft import col

from tickwire_engine import AsyncProcessor, Component
from tickwire_server import App

if TYPE_CHECKING:
    import daft

    from tickwire_engine import AsyncWorld

app = App("bench")


@app.component
class Position(Component):
    """Where an entity is."""

    x: float = 0.0
    y: float = 0.0


@app.component
class Velocity(Component):
    """How fast it moves."""

    vx: float = 1.0
    vy: float = 0.5


@app.component
class Label(Component):
    """Something that no processor touches."""

    text: str = ""
    weight: float = 0.0


@app.processor
class Move(AsyncProcessor):
    """Euler's step."""

    components = (Position, Velocity)

    async def process(self, df: daft.DataFrame, **kwargs: Any) -> daft.DataFrame:
        """Add velocity to position."""
        return df.with_columns(
            {
                "position__x": col("position__x") + col("velocity__vx") * 0.1,
                "position__y": col("position__y") + col("velocity__vy") * 0.1,
            }
        )


@app.world("moving")
async def moving(world: AsyncWorld) -> None:
    """A world that moves, without entities yet."""
    await world.add_processor(Move())


def movers(count: int) -> pa.Table:
    """Return the spawn table of `count` moving entities."""
    rng = np.random.Generator(np.random.PCG64(1))
    return pa.table(
        {
            "position__x": rng.normal(size=count),
            "position__y": rng.normal(size=count),
            "velocity__vx": rng.normal(size=count),
            "velocity__vy": rng.normal(size=count),
        }
    )


def labels(count: int) -> pa.Table:
    """Return the spawn table of `count` static entities."""
    return pa.table({"label__text": ["static"] * count, "label__weight": np.zeros(count)})
