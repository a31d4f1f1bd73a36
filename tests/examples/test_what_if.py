"""The counterfactual: two futures from one tick, and a picture."""

from pathlib import Path

import numpy as np

from examples import what_if


async def test_a_doubled_jupiter_moves_everything_a_little(tmp_path: Path):
    ends = await what_if.futures(20, asteroids=20)
    assert set(ends) == set(what_if.NAMES)
    there, other = (ends[name] for name in what_if.NAMES)
    assert there["body__name"] == other["body__name"]
    names = there["body__name"].to_pylist()
    heavier = [
        other["body__gm"][i].as_py() / there["body__gm"][i].as_py()
        for i, n in enumerate(names)
        if n == "Jupiter"
    ]
    assert heavier == [2.0]
    moved = np.abs(other["position__x"].to_numpy() - there["position__x"].to_numpy())
    assert (moved > 0.0).all()
    assert moved.max() < 1e-3
    what_if.draw(tmp_path / "out" / "picture.png", ends, 0.1)
    assert (tmp_path / "out" / "picture.png").read_bytes().startswith(b"\x89PNG")
