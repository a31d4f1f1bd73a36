"""The picture of a run: where everything went, and how far that was from the ephemeris.

Draws with matplotlib's file back end only; no display is needed, and pyplot's global state is not touched.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import LogLocator, NullFormatter

from .accuracy import bounds_au
from .bodies import Floats, equatorial_to_ecliptic
from .ephemeris import NAMES, gm_au3_d2

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PAPER = "#0d1117"
INK = "#c9d1d9"
FAINT = "#30363d"
COLOURS = {
    "Sun": "#ffd75e",
    "Mercury": "#a8a29a",
    "Venus": "#ff9ecb",
    "Earth": "#4aa3ff",
    "Moon": "#d8dee9",
    "Mars": "#ff5f52",
    "Jupiter": "#e0a06c",
    "Saturn": "#b9e07f",
    "Uranus": "#7ee0d6",
    "Neptune": "#7a86ff",
}
INNER = ("Sun", "Mercury", "Venus", "Earth", "Mars")
OUTER = ("Sun", "Jupiter", "Saturn", "Uranus", "Neptune")


def draw(
    path: Path,
    *,
    days: Floats,
    track: Floats,
    asteroids: Floats,
    errors: Floats,
    title: str,
    names: Sequence[str] = NAMES,
) -> None:
    """Write the picture as a PNG of 2100 by 1725 pixels.

    Args:
        path: Where to.
        days: Days after the epoch, ascending, shape (t,).
        track: Barycentric ICRS positions of the massive bodies in au, shape (t, 3, n).
        asteroids: Positions of the asteroids at the end, likewise, shape (3, m).
        errors: Distances from the ephemeris in au, shape (t, n).
        title: One line: what was run.
        names: The massive bodies, in the order of the last axis.
    """
    layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.1, wspace=0.03, hspace=0.03)
    figure = Figure(figsize=(14, 11.5), dpi=150, facecolor=PAPER, layout=layout)
    FigureCanvasAgg(figure)
    inner, outer, below = figure.subplot_mosaic(
        [["inner", "outer"], ["errors", "errors"]], height_ratios=[1.65, 1.0]
    ).values()
    figure.suptitle(title, color=INK, fontsize=15)
    ecliptic = {name: equatorial_to_ecliptic(track[:, :, i].T) for i, name in enumerate(names)}
    belt = equatorial_to_ecliptic(asteroids)
    _orbits(inner, days, {name: ecliptic[name] for name in INNER if name in ecliptic}, belt, reach=3.6)
    _orbits(outer, days, {name: ecliptic[name] for name in OUTER if name in ecliptic}, belt, reach=39.0)
    inner.set_title("Inner planets and the main belt", color=INK, fontsize=12)
    outer.set_title("Outer planets", color=INK, fontsize=12)
    _errors(below, days, {name: errors[:, i] for i, name in enumerate(names)})
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, facecolor=PAPER)


def _orbits(axes: "Axes", days: Floats, tracks: dict[str, Floats], belt: Floats, *, reach: float) -> None:
    """Draws paths seen from ecliptic north, on the faint ellipses they are part of; dots are their ends."""
    _style(axes)
    size = 1.6 if reach < 10.0 else 0.25
    axes.scatter(belt[0], belt[1], s=size, c="#8b949e", alpha=0.35, linewidths=0, zorder=1, rasterized=True)
    for name, track in tracks.items():
        colour = COLOURS.get(name, INK)
        if name != "Sun" and "Sun" in tracks:
            ellipse = _osculating_ellipse(track - tracks["Sun"], days) + tracks["Sun"][:, -1:]
            axes.plot(ellipse[0], ellipse[1], color=colour, linewidth=0.7, alpha=0.35, zorder=2)
            axes.plot(track[0], track[1], color=colour, linewidth=1.8, alpha=0.95, zorder=2)
        axes.scatter(track[0, -1], track[1, -1], s=95 if name == "Sun" else 42, color=colour, zorder=3)
        axes.annotate(
            name,
            (track[0, -1], track[1, -1]),
            xytext=(8, 7),
            textcoords="offset points",
            color=colour,
            fontsize=10.5,
            zorder=4,
            bbox={"boxstyle": "round,pad=0.15", "facecolor": PAPER, "edgecolor": "none", "alpha": 0.75},
        )
    axes.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
    axes.set_xlabel("x, J2000 ecliptic, barycentric (au)", color=INK)
    axes.set_ylabel("y (au)", color=INK)


def _osculating_ellipse(track: Floats, days: Floats) -> Floats:
    """The two-body orbit about the Sun that a heliocentric path ends on, shape (3, 361)."""
    position = 0.5 * (track[:, -1] + track[:, -2])
    velocity = (track[:, -1] - track[:, -2]) / (days[-1] - days[-2])
    gm = gm_au3_d2()[NAMES.index("Sun")]
    momentum = np.cross(position, velocity)
    eccentricity = np.cross(velocity, momentum) / gm - position / np.linalg.norm(position)
    e = np.linalg.norm(eccentricity)
    along = eccentricity / e
    ahead = np.cross(momentum / np.linalg.norm(momentum), along)
    cos, sin = np.cos(np.linspace(0.0, 2.0 * np.pi, 361)), np.sin(np.linspace(0.0, 2.0 * np.pi, 361))
    distance = np.dot(momentum, momentum) / gm / (1.0 + e * cos)
    return np.asarray(distance * (cos * along[:, None] + sin * ahead[:, None]))


def _errors(axes: "Axes", days: Floats, errors: dict[str, Floats]) -> None:
    """Draws each body's error as a line and its bound dotted, and names them at the right, where they end."""
    _style(axes)
    shown = days > 0.0
    bounds = bounds_au(days)
    lowest, highest = np.inf, 0.0
    ends = {}
    for name, error in errors.items():
        values = np.maximum(error[shown], 1e-12)
        axes.plot(days[shown], values, color=COLOURS.get(name, INK), linewidth=1.5)
        axes.plot(
            days[shown], bounds[name][shown], color=COLOURS.get(name, INK), linewidth=1.0, linestyle=":"
        )
        lowest, highest = min(lowest, values.min()), max(highest, bounds[name][-1])
        ends[name] = float(values[-1])
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(numticks=12))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set(xlim=(0.0, float(days[-1])), ylim=(max(lowest, 1e-10) / 2.0, highest * 2.0))
    axes.set_xlabel("days since the epoch (TDB)", color=INK)
    axes.set_ylabel("distance from astropy's position (au)", color=INK)
    axes.set_title("Errors (lines) and their bounds (dotted)", color=INK, fontsize=12)
    _name_ends(axes, ends)


def _name_ends(axes: "Axes", ends: dict[str, float]) -> None:
    """Writes names beside the lines' ends, pushed apart where they would overlap."""
    low, high = np.log10(axes.get_ylim())
    ends = dict(sorted(ends.items(), key=lambda item: item[1]))
    wanted = np.array([(np.log10(max(end, 10.0**low)) - low) / (high - low) for end in ends.values()])
    for name, at, height in zip(ends, wanted, _spread_out(wanted, gap=0.058), strict=True):
        axes.annotate(
            name,
            (1.0, at),
            xytext=(1.022, height),
            xycoords="axes fraction",
            color=COLOURS.get(name, INK),
            fontsize=10.5,
            va="center",
            arrowprops={"arrowstyle": "-", "color": COLOURS.get(name, INK), "linewidth": 0.7, "shrinkA": 0},
        )


def _spread_out(heights: Floats, *, gap: float) -> Floats:
    """Moves ascending heights apart, symmetrically, until neighbours are about a gap away."""
    heights = heights.copy()
    for _ in range(200):
        for i in range(len(heights) - 1):
            overlap = gap - (heights[i + 1] - heights[i])
            if overlap > 0.0:
                heights[i] -= overlap / 2.0
                heights[i + 1] += overlap / 2.0
    return heights


def _style(axes: "Axes") -> None:
    axes.set_facecolor(PAPER)
    axes.grid(color=FAINT, linewidth=0.5)
    axes.tick_params(colors=INK, which="both")
    for spine in axes.spines.values():
        spine.set_color(FAINT)
