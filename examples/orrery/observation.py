"""What a subscriber sees of the orrery in a tick: the massive bodies, in the order of `ephemeris.NAMES`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.compute as pc

from .ephemeris import AU_KM, DAY_S, EPOCH_JD, NAMES

if TYPE_CHECKING:
    import pyarrow as pa

    from tickwire import Tick

    from .bodies import Floats

_UNIX_EPOCH_JD = 2440587.5


@dataclass(frozen=True, slots=True, eq=False)
class Observation:
    """The massive bodies after a tick.

    Attributes:
        day: Days of TDB after the epoch.
        position: Barycentric ICRS, au, shape (3, 10).
        speed_km_s: Barycentric, shape (10,).
        distance_au: From the barycentre, shape (10,).
        longitude_deg: Ecliptic, shape (10,).
    """

    day: float
    position: Floats
    speed_km_s: Floats
    distance_au: Floats
    longitude_deg: Floats

    @property
    def date(self) -> str:
        """The day as a date, yyyy-mm-dd."""
        return str(np.datetime64(round(EPOCH_JD - _UNIX_EPOCH_JD + self.day), "D"))

    @classmethod
    def of(cls, tick: Tick) -> Observation:
        """Read a tick; bodies are found by name."""
        rows = tick.table("Body", "Position", "Velocity", "Observed")
        rows = rows.filter(pc.field("body__gm") > 0.0)
        at = {name: row for row, name in enumerate(rows["body__name"].to_pylist())}
        rows = rows.take([at[name] for name in NAMES])
        velocity = _vectors(rows, "velocity")
        return cls(
            # What is spawned for tick 0 falls in tick 0 already.
            day=float(tick.tick + 1),
            position=_vectors(rows, "position"),
            speed_km_s=np.sqrt(np.sum(velocity * velocity, axis=0)) * (AU_KM / DAY_S),
            distance_au=rows["observed__distance"].to_numpy(),
            longitude_deg=rows["observed__longitude"].to_numpy(),
        )


def belt(tick: Tick) -> Floats:
    """Return where the asteroids are: barycentric ICRS, au, shape (3, n)."""
    rows = tick.table("Body", "Position")
    return _vectors(rows.filter(pc.field("body__gm") == 0.0), "position")


def _vectors(rows: pa.Table, component: str) -> Floats:
    return np.stack([rows[f"{component}__{axis}"].to_numpy() for axis in "xyz"])
