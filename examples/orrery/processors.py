"""What happens to the solar system in a tick: everything falls, then it is observed."""

from typing import Any

import daft
import numpy as np
import pyarrow as pa
from daft import col, lit
from daft.functions import arctan2

from tickwire_engine import ArrowProcessor, AsyncProcessor

from . import gravity
from .bodies import MEAN_OBLIQUITY_J2000_RAD, Floats
from .components import Body, Observed, Position, Velocity


class Gravity(ArrowProcessor):
    """Moves every body by a tick under the gravity of those with gm > 0.

    A spawned body falls within the tick that spawns it: what is spawned in tick 0 with its state at the epoch
    stands, in tick N, at the epoch plus (N + 1) ticks.

    Args:
        days_per_tick: How far a tick goes, in days of TDB.
        step_days: The integrator's longest step in days; a tick is divided into equal steps.
    """

    components = (Body, Position, Velocity)
    priority = 10

    def __init__(self, days_per_tick: float = 1.0, step_days: float = gravity.STEP_DAYS) -> None:
        if not days_per_tick > 0.0 or not step_days > 0.0:
            raise ValueError(f"days_per_tick ({days_per_tick}) and step_days ({step_days}) must be positive")
        self.days_per_tick = days_per_tick
        self.steps = max(1, int(np.ceil(days_per_tick / step_days)))

    def process_batch(self, batch: pa.RecordBatch, **_kwargs: Any) -> pa.RecordBatch:
        """Return the bodies a tick later; nothing but positions and velocities changes."""
        position, velocity = gravity.advance(
            _vectors(batch, "position"),
            _vectors(batch, "velocity"),
            batch.column("body__gm").to_numpy(),
            days=self.days_per_tick,
            steps=self.steps,
        )
        return _with_vectors(_with_vectors(batch, "position", position), "velocity", velocity)


class Observe(AsyncProcessor):
    """Fills `Observed` from the position: row by row, as Daft expressions."""

    components = (Position, Observed)
    priority = 20

    async def process(self, df: daft.DataFrame, **_kwargs: Any) -> daft.DataFrame:
        """Return the bodies with distance, longitude and latitude as seen from the barycentre."""
        x, y, z = col("position__x"), col("position__y"), col("position__z")
        cos_obliquity = float(np.cos(MEAN_OBLIQUITY_J2000_RAD))
        sin_obliquity = float(np.sin(MEAN_OBLIQUITY_J2000_RAD))
        along = y * cos_obliquity + z * sin_obliquity
        north = z * cos_obliquity - y * sin_obliquity
        longitude = arctan2(along, x).degrees()
        return df.with_columns(
            {
                "observed__distance": (x * x + y * y + z * z).sqrt(),
                "observed__longitude": (longitude + 360.0) % lit(360.0),
                "observed__latitude": arctan2(north, (x * x + along * along).sqrt()).degrees(),
            }
        )


def _vectors(batch: pa.RecordBatch, component: str) -> Floats:
    """A component's x, y and z as one array of shape (3, n)."""
    return np.stack([batch.column(f"{component}__{axis}").to_numpy() for axis in "xyz"])


def _with_vectors(batch: pa.RecordBatch, component: str, vectors: Floats) -> pa.RecordBatch:
    for axis, values in zip("xyz", vectors, strict=True):
        index = batch.schema.get_field_index(f"{component}__{axis}")
        batch = batch.set_column(index, batch.schema.field(index), pa.array(values))
    return batch
