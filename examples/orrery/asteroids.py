"""A main belt of massless asteroids, drawn from a seeded distribution.

The belt is a likeness, not a catalogue: semi-major axes spread evenly over the main belt's zones, with the
Kirkwood gaps (where Jupiter's resonances have emptied it) left empty; eccentricities and inclinations follow
Rayleigh distributions, as relaxed populations do; the angles are uniform.
"""

import numpy as np

from .bodies import Bodies, Floats, ecliptic_to_equatorial

ZONES_AU = ((2.10, 2.48), (2.52, 2.81), (2.84, 2.94), (2.98, 3.25))
"""Semi-major axes that are populated; between them lie the 3:1, 5:2 and 7:3 resonances, beyond them 2:1."""

ECCENTRICITY_SCALE = 0.10
INCLINATION_SCALE_RAD = float(np.deg2rad(6.0))
INCLINATION_MAX_RAD = float(np.deg2rad(30.0))
PERIHELION_MIN_AU = 1.70
"""Outside Mars's aphelion of 1.67 au: no asteroid starts on an orbit that meets a planet's."""

_NEWTON_STEPS = 8  # the Kepler equation with e < 0.5 is solved to the last bit after five or six


def main_belt(count: int, seed: int, sun: Bodies) -> Bodies:
    """Return `count` asteroids on heliocentric two-body orbits.

    The same arguments give the same asteroids, and a larger `count` is another belt, not a longer one.

    Args:
        count: How many.
        seed: Seeds the PCG64 generator they are drawn from.
        sun: Bodies whose first is the Sun, with its state at the epoch (and its GM, which the orbits need).
    """
    uniform = np.random.Generator(np.random.PCG64(seed)).random((6, count))
    a = _spread(uniform[0])
    e = _truncated_rayleigh(uniform[1], ECCENTRICITY_SCALE, 1.0 - PERIHELION_MIN_AU / a)
    i = _truncated_rayleigh(uniform[2], INCLINATION_SCALE_RAD, np.full(count, INCLINATION_MAX_RAD))
    node, argument, mean_anomaly = 2.0 * np.pi * uniform[3:]
    position, velocity = heliocentric_state(a, e, i, node, argument, mean_anomaly, gm=float(sun.gm[0]))
    return Bodies(
        names=[f"asteroid-{k:05d}" for k in range(1, count + 1)],
        kinds=["asteroid"] * count,
        gm=np.zeros(count),
        position=position + sun.position[:, :1],
        velocity=velocity + sun.velocity[:, :1],
    )


def heliocentric_state(
    a: Floats, e: Floats, i: Floats, node: Floats, argument: Floats, mean_anomaly: Floats, *, gm: float
) -> tuple[Floats, Floats]:
    """Return the ICRS positions (au) and velocities (au/d) of two-body orbits, each of shape (3, n).

    Args:
        a: Semi-major axes in au.
        e: Eccentricities, below 1.
        i: Inclinations to the ecliptic of J2000, like all angles in radians.
        node: Longitudes of the ascending node.
        argument: Arguments of perihelion.
        mean_anomaly: Mean anomalies at the epoch.
        gm: The attracting body's gravitational parameter in au^3/d^2.
    """
    anomaly = eccentric_anomaly(mean_anomaly, e)
    cos_e, sin_e = np.cos(anomaly), np.sin(anomaly)
    b = a * np.sqrt(1.0 - e * e)
    speed = np.sqrt(gm / a) / (1.0 - e * cos_e)  # a * dE/dt
    in_plane = np.stack([a * (cos_e - e), b * sin_e]), np.stack([-speed * sin_e, speed * (b / a) * cos_e])
    cos_n, sin_n, cos_w, sin_w = np.cos(node), np.sin(node), np.cos(argument), np.sin(argument)
    cos_i, sin_i = np.cos(i), np.sin(i)
    to_perihelion = np.stack(
        [cos_n * cos_w - sin_n * sin_w * cos_i, sin_n * cos_w + cos_n * sin_w * cos_i, sin_w * sin_i]
    )
    ahead = np.stack(
        [-cos_n * sin_w - sin_n * cos_w * cos_i, -sin_n * sin_w + cos_n * cos_w * cos_i, cos_w * sin_i]
    )
    position, velocity = (ecliptic_to_equatorial(u * to_perihelion + w * ahead) for u, w in in_plane)
    return position, velocity


def eccentric_anomaly(mean_anomaly: Floats, e: Floats) -> Floats:
    """Solves Kepler's equation E - e sin E = M by Newton's method, for e below about 0.5."""
    anomaly = mean_anomaly + e * np.sin(mean_anomaly)
    for _ in range(_NEWTON_STEPS):
        anomaly = anomaly - (anomaly - e * np.sin(anomaly) - mean_anomaly) / (1.0 - e * np.cos(anomaly))
    return anomaly


def _spread(uniform: Floats) -> Floats:
    """Maps [0, 1) evenly onto the populated zones."""
    inner, outer = np.array(ZONES_AU).T
    filled = np.concatenate([[0.0], np.cumsum(outer - inner)])
    along = uniform * filled[-1]
    zone = np.searchsorted(filled, along, side="right") - 1
    return np.asarray(inner[zone] + (along - filled[zone]))


def _truncated_rayleigh(uniform: Floats, scale: float, maximum: Floats) -> Floats:
    """Maps [0, 1) onto Rayleigh distributions that end at `maximum`, by the inverse of their distribution."""
    mass = -np.expm1(-0.5 * (maximum / scale) ** 2)
    return np.asarray(scale * np.sqrt(-2.0 * np.log1p(-uniform * mass)))
