"""The Sun, the eight planets and the Moon, from astropy's built-in ephemeris; no file, no download.

The built-in ephemeris is ERFA's: `epv00` (a simplified VSOP2000) for the Earth and the Sun, `plan94` (Simon
et al. 1994) for the other planets, `moon98` (Meeus 1998) for the Moon. How good it is stands in `accuracy`.
"""

import numpy as np
from astropy.coordinates import get_body_barycentric, get_body_barycentric_posvel
from astropy.time import Time
from astropy.utils import iers

from .bodies import Bodies, Floats

EPOCH_JD = 2461041.5
"""2026-01-01 00:00 TDB, where the orrery starts, as a Julian date."""

AU_KM = 149_597_870.7
"""The astronomical unit in km (IAU 2012 resolution B2, exact)."""

DAY_S = 86_400.0

GM_KM3_S2 = {
    "Sun": 1.3271244004127942e11,
    "Mercury": 2.2031868551400003e4,
    "Venus": 3.2485859200000000e5,
    "Earth": 3.9860043550702266e5,
    "Moon": 4.9028001184575496e3,
    "Mars": 4.2828375815756102e4,
    "Jupiter": 1.2671276409999998e8,
    "Saturn": 3.7940584841799997e7,
    "Uranus": 5.7945563999999985e6,
    "Neptune": 6.8365271005803989e6,
}
"""Gravitational parameters in km^3/s^2, of a planet's whole system from Mars outwards.

Source: JPL DE440 (Park, Folkner, Williams & Boggs 2021, AJ 161, 105), as in NAIF's kernel `gm_de440.tpc`.
"""

NAMES = tuple(GM_KM3_S2)
"""The massive bodies, from the Sun outwards: the order of every array of them."""

KINDS = {"Sun": "star", "Moon": "moon"}


def gm_au3_d2() -> Floats:
    """Return the gravitational parameters of `NAMES` in au^3/d^2, shape (10,)."""
    return np.array([GM_KM3_S2[name] for name in NAMES]) * (DAY_S**2 / AU_KM**3)


def massive_bodies(epoch_jd: float = EPOCH_JD) -> Bodies:
    """Return the ten massive bodies with their state vectors at an epoch.

    Args:
        epoch_jd: Julian date, TDB.
    """
    position, velocity = np.empty((2, 3, len(NAMES)))
    with iers.conf.set_temp("auto_download", False):
        time = Time(epoch_jd, format="jd", scale="tdb")
        for i, name in enumerate(NAMES):
            at, moving = get_body_barycentric_posvel(name.lower(), time, ephemeris="builtin")
            position[:, i] = at.xyz.to_value("au")
            velocity[:, i] = moving.xyz.to_value("au/d")
    kinds = [KINDS.get(name, "planet") for name in NAMES]
    return Bodies(NAMES, kinds, gm_au3_d2(), position, velocity)


def positions_au(days: Floats, epoch_jd: float = EPOCH_JD) -> Floats:
    """Return where the ephemeris has the massive bodies at later dates: what the orrery is measured against.

    Args:
        days: Days after the epoch, shape (t,).
        epoch_jd: Julian date, TDB.

    Returns:
        Barycentric ICRS positions in au, shape (t, 3, 10), bodies in the order of `NAMES`.
    """
    positions = np.empty((len(days), 3, len(NAMES)))
    with iers.conf.set_temp("auto_download", False):
        times = Time(epoch_jd, days, format="jd", scale="tdb")
        for i, name in enumerate(NAMES):
            at = get_body_barycentric(name.lower(), times, ephemeris="builtin")
            positions[:, :, i] = at.xyz.to_value("au").T
    return positions
