"""Many bodies as columns: the form in which the physics computes, and the table that spawns them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Floats = npt.NDArray[np.float64]

MEAN_OBLIQUITY_J2000_RAD = float(np.deg2rad(84381.406 / 3600.0))
"""Angle between the ecliptic and the equator of J2000 (IAU 2006 precession, Capitaine et al. 2003)."""


@dataclass(frozen=True, slots=True, eq=False)
class Bodies:
    """The state of n bodies at one instant.

    Attributes:
        names: One name a body.
        kinds: ``star``, ``planet``, ``moon`` or ``asteroid``, one a body.
        gm: Gravitational parameters in au^3/d^2, shape (n,).
        position: Barycentric ICRS positions in au, shape (3, n).
        velocity: Barycentric ICRS velocities in au/d, shape (3, n).
    """

    names: Sequence[str]
    kinds: Sequence[str]
    gm: Floats
    position: Floats
    velocity: Floats

    def __len__(self) -> int:
        return len(self.names)

    def to_table(self) -> pa.Table:
        """Return the bodies as the table of a spawn command: one row a body, columns ``component__field``."""
        zeros = np.zeros(len(self))
        return pa.table(
            {
                "body__name": pa.array(self.names, pa.string()),
                "body__gm": self.gm,
                "body__kind": pa.array(self.kinds, pa.string()),
                **{f"position__{axis}": self.position[i] for i, axis in enumerate("xyz")},
                **{f"velocity__{axis}": self.velocity[i] for i, axis in enumerate("xyz")},
                **{f"observed__{field}": zeros for field in ("distance", "longitude", "latitude")},
            }
        )


def ecliptic_to_equatorial(vectors: Floats) -> Floats:
    """Turn vectors of shape (3, n) from the ecliptic of J2000 to the equator of J2000, taken as ICRS.

    The two equators differ by 23 mas, far below what the orrery resolves.
    """
    c, s = np.cos(MEAN_OBLIQUITY_J2000_RAD), np.sin(MEAN_OBLIQUITY_J2000_RAD)
    x, y, z = vectors
    return np.stack([x, c * y - s * z, s * y + c * z])


def equatorial_to_ecliptic(vectors: Floats) -> Floats:
    """Turn vectors of shape (3, n) from ICRS to the ecliptic of J2000; undoes `ecliptic_to_equatorial`."""
    c, s = np.cos(MEAN_OBLIQUITY_J2000_RAD), np.sin(MEAN_OBLIQUITY_J2000_RAD)
    x, y, z = vectors
    return np.stack([x, c * y + s * z, c * z - s * y])
