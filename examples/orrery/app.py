"""The orrery's application: `tickwire serve --app examples.orrery.app:app`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa

from tickwire_server import App

from . import asteroids, ephemeris
from .components import Body, Observed, Position, Velocity
from .processors import Gravity, Observe

if TYPE_CHECKING:
    from tickwire_engine import AsyncWorld

TEMPLATE = "solar-system"
ASTEROIDS_LABEL = "asteroids"
"""The label of a new world that says how many asteroids it gets; they are drawn from the world's seed."""
DEFAULT_ASTEROIDS = 10_000

app = App("orrery")
for model in (Body, Position, Velocity, Observed):
    app.component(model)
for processor in (Gravity, Observe):
    app.processor(processor)


@app.world(TEMPLATE)
async def solar_system(world: AsyncWorld) -> None:
    """Fill a world with the solar system of 2026-01-01, a tick a day: tick N is its state N + 1 days later."""
    massive = ephemeris.massive_bodies()
    count = int(world.row.labels.get(ASTEROIDS_LABEL, DEFAULT_ASTEROIDS))
    belt = asteroids.main_belt(count, world.row.seed, massive)
    await world.create_entities_from_arrow(pa.concat_tables([massive.to_table(), belt.to_table()]))
    await world.add_processor(Gravity(days_per_tick=1.0, step_days=0.25))
    await world.add_processor(Observe())
