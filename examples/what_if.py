"""What if Jupiter's mass doubled? Two futures of the solar system, tried on branches: `python -m examples.what_if`.

Each branch starts from the same tick of the same world, on a core of its own; the world itself stays as it is. Writes
out/what_if.png: where the asteroids are after a turn of Jupiter, and how far everything is from where it would have been.
"""

import asyncio
import itertools
from pathlib import Path

import numpy as np
import pyarrow as pa
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from examples.orrery.app import ASTEROIDS_LABEL, TEMPLATE
from examples.orrery.bodies import Floats, equatorial_to_ecliptic
from examples.orrery.plot import COLOURS, FAINT, INK, PAPER
from examples.orrery.session import orrery_server
from tickwire import AsyncClient, Branch, commands

YEARS = 12
NAMES = ("as it is", "Jupiter doubled")


async def futures(days: int, asteroids: int) -> dict[str, pa.Table]:
    """Try both futures, and return every body of each after so many days."""
    async with orrery_server(None) as server, AsyncClient(server.address) as client:
        world = await client.create_world(
            "sun", template=TEMPLATE, seed=1, labels={ASTEROIDS_LABEL: str(asteroids)}
        )
        await world.step()
        (jupiter,) = (await world.query(components=["Body"], where="body__name = 'Jupiter'")).to_pylist()
        doubled = commands.update([jupiter["entity_id"]], {"Body": {"gm": 2 * jupiter["body__gm"]}})
        branches = [Branch(name=NAMES[0]), Branch(name=NAMES[1], commands=[doubled])]
        ends = world.rollout(days, branches=branches, components=["Body", "Position"])
        return {end.name: end.table async for end in ends if end.table is not None}


def draw(path: Path, ends: dict[str, pa.Table], years: float) -> None:
    """Write the picture."""
    there, other = (_ecliptic(ends[name]) for name in NAMES)
    names = ends[NAMES[0]]["body__name"].to_pylist()
    moved = np.linalg.norm(other - there, axis=0)
    away = np.linalg.norm(there, axis=0)
    is_asteroid = np.array([name not in COLOURS for name in names])
    figure = Figure(figsize=(14, 7), dpi=120, facecolor=PAPER, layout="constrained")
    FigureCanvasAgg(figure)
    belt, shift = figure.subplots(1, 2)
    belt.plot(*np.stack([there, other], axis=1)[:2, :, is_asteroid], color=FAINT, linewidth=0.8, zorder=0)
    for place, colour, label in zip((there, other), (INK, COLOURS["Mars"]), NAMES, strict=True):
        belt.scatter(*place[:2, is_asteroid], s=5, color=colour, alpha=0.9, label=label, linewidths=0)
    belt.set(xlim=(-4, 4), ylim=(-4, 4), aspect="equal", xlabel="au", title=f"After {years:.0f} years")
    belt.legend(facecolor=PAPER, labelcolor=INK, edgecolor=FAINT, markerscale=4)
    shift.scatter(away[is_asteroid], moved[is_asteroid], s=4, color=INK, alpha=0.4, linewidths=0)
    # Neighbours' names are fanned out.
    heights = itertools.cycle((30, -30, 60, -60))
    for index in sorted(np.flatnonzero(~is_asteroid), key=lambda index: away[index]):
        colour = COLOURS[names[index]]
        shift.scatter(away[index], moved[index], s=60, color=colour)
        shift.annotate(
            names[index],
            (away[index], moved[index]),
            (0, next(heights)),
            textcoords="offset points",
            ha="center",
            va="center",
            color=colour,
            arrowprops={"arrowstyle": "-", "color": colour, "alpha": 0.6},
        )
    shift.set(xscale="log", yscale="log", xlim=(1e-3, 2e2), xlabel="distance from the barycentre, au")
    shift.set(ylabel="au from where it would have been", title="What a second Jupiter's worth of mass moves")
    for axes in (belt, shift):
        axes.set_facecolor(PAPER)
        axes.tick_params(colors=INK, which="both")
        for text in (axes.title, axes.xaxis.label, axes.yaxis.label):
            text.set_color(INK)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, facecolor=PAPER)


def _ecliptic(table: pa.Table) -> Floats:
    return equatorial_to_ecliptic(np.stack([table[f"position__{axis}"].to_numpy() for axis in "xyz"]))


if __name__ == "__main__":
    draw(Path("out/what_if.png"), asyncio.run(futures(int(YEARS * 365.25), asteroids=600)), YEARS)
    print("wrote out/what_if.png")
