"""How far the orrery may be, and is, from astropy's own positions.

The orrery starts from state vectors of the built-in ephemeris and from then on knows Newton's law only; what
it is measured against is the same ephemeris at later dates. Both have errors that ERFA states, and the bound
on their difference is what these stated errors make of it; no number here was chosen by looking at a result.

**Stated errors** (`STATED`): RMS of the position, P, and of the velocity, V, in three dimensions, from ERFA's
notes: `plan94` note 5 against DE200, `epv00` note 4 against DE405, `moon98` note 3 against ELP/MPP02.

**From there to a bound.** For a body on a near-circular orbit of mean motion n, the difference between two
orbits that start P and V apart obeys Hill's equations, whose solution (Clohessy & Wiltshire 1960) is known.
Along the track it grows as 6 n P t + 3 V t, while across it only oscillates: a wrong velocity is a wrong
period. With errors equally likely in each direction, and P independent of V and of P at the later date,

    sigma(t)^2 = P^2/3 |F_rr(t)|^2 + V^2/3 |F_rv(t)|^2 + P^2

where F_rr and F_rv are the position's rows of that solution, and |.| is the Frobenius norm. It is multiplied
by (1 + e) / (1 - e): at perihelion a wrong velocity makes up to sqrt((1 + e) / (1 - e)) times the error in
the period that it makes on a circle, and the body moves by as much faster. The bound is

    bound(t) = 3 max(sigma(0..t))                               the safety factor: three sigma
             + 6 n t G M_sun / c^2                               relativity, which the orrery leaves out
             + sum over j of 2 GM_j bound_j(t) <1/d^3> t^2 / 2    the others being themselves misplaced

<1/d^3> is the mean over all configurations of the two orbits, and bound_j stands without this last line. It
takes the gradient of a pull at its largest, always along the track, as large on the first day as on the last,
and adds where independent errors would go in quadrature: that outweighs an orbit's up to threefold answer to
a push along its track. The Sun has no orbit here: sigma = P + V t. The Moon is bounded relative to the Earth
(plus the Earth's oblateness, 1.5 J2 (R/r)^2 of the attraction, likewise left out) and inherits the Earth's
bound; of the Moon's relative error the Earth gets the 1/82nd part, for momentum is kept. The integrator's own
error (see `gravity`), at most 4.9e-8 au, needs no place in it.

**Measured** over the 365 days from 2026-01-01, largest error and bound in au:

              error    bound                     error    bound
    Sun       9.7e-08  3.6e-06         Mars      1.4e-03  4.0e-03
    Mercury   6.3e-05  1.1e-03         Jupiter   1.0e-03  5.9e-03
    Venus     2.3e-04  1.3e-03         Saturn    2.4e-03  1.5e-02
    Earth     8.9e-07  6.4e-06         Uranus    5.2e-03  2.1e-02
    Moon      9.1e-06  7.0e-05         Neptune   1.7e-03  1.0e-02

Over 26 runs of a year between 1950 and 2051 no error came above 0.6 of its bound, and every body's but the
Sun's came above 0.25 of it. The bounds are sharp enough to find faults: leave out the pull of Jupiter, Venus,
Saturn or the Moon, or make every GM larger by 1e-5, and the Earth exceeds its bound 10 to 2000 times.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .bodies import Floats
from .ephemeris import AU_KM, DAY_S, EPOCH_JD, NAMES, gm_au3_d2, positions_au

SAFETY_FACTOR = 3.0
"""How many standard deviations of the stated errors a bound allows."""

SPEED_OF_LIGHT_AU_D = 299_792.458 * DAY_S / AU_KM

EARTH_J2 = 1.0826e-3
EARTH_RADIUS_AU = 6378.137 / AU_KM


@dataclass(frozen=True, slots=True)
class Stated:
    """A body's orbit, roughly, and the errors that its ephemeris states for itself.

    Attributes:
        a_au: Semi-major axis in au, about the Sun; the Moon's about the Earth; 0 for the Sun.
        e: Eccentricity.
        position_km: RMS error of the position in km.
        velocity_m_s: RMS error of the velocity in m/s.
    """

    a_au: float
    e: float
    position_km: float
    velocity_m_s: float


STATED: Mapping[str, Stated] = {
    # The Sun is epv00's barycentric minus its heliocentric Earth: their errors in quadrature.
    "Sun": Stated(0.0, 0.0, 5.9, 0.0020),
    "Mercury": Stated(0.387, 0.206, 334.0, 0.437),
    "Venus": Stated(0.723, 0.007, 1060.0, 0.855),
    "Earth": Stated(1.000, 0.017, 4.6, 0.0014),
    "Moon": Stated(0.00257, 0.055, 6.1, 0.036),
    "Mars": Stated(1.524, 0.093, 7690.0, 1.98),
    "Jupiter": Stated(5.203, 0.048, 71700.0, 7.70),
    "Saturn": Stated(9.555, 0.056, 199000.0, 19.4),
    "Uranus": Stated(19.22, 0.046, 564000.0, 16.4),
    "Neptune": Stated(30.11, 0.009, 158000.0, 14.4),
}


@dataclass(frozen=True, slots=True)
class Accuracy:
    """One body's largest error over a run, beside its bound.

    Attributes:
        name: The body.
        error_au: The largest distance from the ephemeris's position, in au.
        day: When that was, in days after the epoch.
        bound_au: The bound at the end of the run, in au.
        within: Whether the error stayed below the bound of its day on every day.
    """

    name: str
    error_au: float
    day: float
    bound_au: float
    within: bool


def errors_au(positions: Floats, days: Floats, epoch_jd: float = EPOCH_JD) -> Floats:
    """Return each massive body's distance from the ephemeris's position, in au, shape (t, 10).

    Args:
        positions: Where the world has them: barycentric ICRS, au, shape (t, 3, 10), in the order of `NAMES`.
        days: Days after the epoch, shape (t,).
        epoch_jd: Julian date, TDB.
    """
    offset = positions - positions_au(days, epoch_jd)
    return np.asarray(np.sqrt(np.sum(offset * offset, axis=1)))


def assess(errors: Floats, days: Floats, names: Sequence[str] = NAMES) -> list[Accuracy]:
    """Return each body's largest error and whether it kept within its bound.

    Args:
        errors: As `errors_au` gives them, shape (t, n).
        days: Days after the epoch, ascending, shape (t,).
        names: The bodies, one a column.
    """
    bounds = bounds_au(days)
    worst = np.argmax(errors, axis=0)
    return [
        Accuracy(
            name=name,
            error_au=float(errors[worst[i], i]),
            day=float(days[worst[i]]),
            bound_au=float(bounds[name][-1]),
            within=bool(np.all(errors[:, i] <= bounds[name])),
        )
        for i, name in enumerate(names)
    ]


def bounds_au(days: Floats) -> dict[str, Floats]:
    """Return the bound on each massive body's error, in au, derived in the module's docstring.

    Args:
        days: Days after the epoch, shape (t,), not negative.
    """
    gm = dict(zip(NAMES, gm_au3_d2(), strict=True))
    free = {name: _bound_alone(name, days, gm) for name in NAMES}
    bounds = {}
    for name in NAMES:
        pulled = np.zeros_like(days)
        if name != "Moon":
            for other in NAMES:
                if other not in (name, "Sun", "Moon"):
                    pulled += gm[other] * free[other] * _mean_inverse_cube(name, other) * days**2
        bounds[name] = free[name] + pulled
    bounds["Earth"] += free["Moon"] * (gm["Moon"] / (gm["Earth"] + gm["Moon"]))
    bounds["Moon"] += bounds["Earth"]
    return bounds


def _bound_alone(name: str, days: Floats, gm: Mapping[str, float]) -> Floats:
    """Three sigma of the stated errors, and the physics left out, with every perturber in its place."""
    stated = STATED[name]
    p = stated.position_km / AU_KM
    v = stated.velocity_m_s / 1000.0 * DAY_S / AU_KM
    if name == "Sun":
        return np.asarray(SAFETY_FACTOR * (p + v * days))
    centre = "Earth" if name == "Moon" else "Sun"
    n = np.sqrt((gm[centre] + gm[name]) / stated.a_au**3)
    grid = np.linspace(0.0, max(1.0, float(np.max(days))), 2000)
    sigma = np.sqrt(p**2 / 3.0 * _hill_rr(n, grid) + v**2 / 3.0 * _hill_rv(n, grid) + p**2)
    sigma *= (1.0 + stated.e) / (1.0 - stated.e)
    left_out = 6.0 * n * days * gm["Sun"] / SPEED_OF_LIGHT_AU_D**2
    if name == "Moon":
        left_out += 2.0 * n * days * 1.5 * EARTH_J2 * EARTH_RADIUS_AU**2 / stated.a_au
    envelope = np.interp(days, grid, np.maximum.accumulate(sigma))
    return np.asarray(SAFETY_FACTOR * envelope + left_out)


def _hill_rr(n: float, t: Floats) -> Floats:
    """Squared Frobenius norm of d position(t) / d position(0) on a circular orbit of mean motion n."""
    c, s = np.cos(n * t), np.sin(n * t)
    return np.asarray((4.0 - 3.0 * c) ** 2 + (6.0 * (s - n * t)) ** 2 + 1.0 + c**2)


def _hill_rv(n: float, t: Floats) -> Floats:
    """Squared Frobenius norm of d position(t) / d velocity(0) on such an orbit, in d^2."""
    c, s = np.cos(n * t), np.sin(n * t)
    return np.asarray((2.0 * s**2 + 8.0 * (1.0 - c) ** 2 + (4.0 * s - 3.0 * n * t) ** 2) / n**2)


def _mean_inverse_cube(name: str, other: str) -> float:
    """Mean of 1/d^3 in au^-3 over the angles between two circular orbits."""
    a, b = STATED[name].a_au, STATED[other].a_au
    angles = np.linspace(0.0, 2.0 * np.pi, 720, endpoint=False)
    return float(np.mean((a * a + b * b - 2.0 * a * b * np.cos(angles)) ** -1.5))
