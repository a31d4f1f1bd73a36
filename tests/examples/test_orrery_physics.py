"""The orrery's physics, without any engine: gravity, the ephemeris, the belt, the bounds and the picture."""

import itertools
import socket
from pathlib import Path

import numpy as np
import pytest

from examples.orrery import accuracy, asteroids, ephemeris, gravity, plot
from examples.orrery.bodies import Bodies, Floats, ecliptic_to_equatorial, equatorial_to_ecliptic

SEED = 2026
DAYS = np.arange(61.0)


@pytest.fixture(scope="module")
def planets() -> Bodies:
    return ephemeris.massive_bodies()


@pytest.fixture(scope="module")
def track(planets: Bodies) -> Floats:
    return run(planets, planets.gm)


def run(bodies: Bodies, gm: Floats) -> Floats:
    """Integrates over `DAYS`; returns the positions of each day, shape (t, 3, n)."""
    position, velocity = bodies.position, bodies.velocity
    days = [position]
    for _ in DAYS[1:]:
        position, velocity = gravity.advance(position, velocity, gm, days=1.0, steps=4)
        days.append(position)
    return np.array(days)


def orbit(mean_anomaly: float, *, a: float, e: float, gm: float) -> tuple[Floats, Floats]:
    angles = [np.array([value]) for value in (0.3, 1.1, 2.0, mean_anomaly)]
    return asteroids.heliocentric_state(np.array([a]), np.array([e]), *angles, gm=gm)


def test_a_test_particle_follows_the_two_body_solution_for_ten_revolutions():
    gm = float(ephemeris.gm_au3_d2()[0])
    a, e = 1.0, 0.2
    n = np.sqrt(gm / a**3)
    position, velocity = orbit(0.7, a=a, e=e, gm=gm)
    days = 3652.0
    expected, expected_velocity = orbit(0.7 + n * days, a=a, e=e, gm=gm)

    at, moving = gravity.advance(
        np.hstack([np.zeros((3, 1)), position]),
        np.hstack([np.zeros((3, 1)), velocity]),
        np.array([gm, 0.0]),
        days=days,
        steps=3652 * 4,
    )

    assert np.abs(at[:, 1:] - expected).max() < 2e-8
    assert np.abs(moving[:, 1:] - expected_velocity).max() < 4e-10
    assert not at[:, 0].any()


def test_the_integrator_is_of_fourth_order(planets: Bodies):
    def after_a_month(steps: int) -> Floats:
        return gravity.advance(planets.position, planets.velocity, planets.gm, days=32.0, steps=steps)[0]

    exact = after_a_month(32 * 16)
    moon = ephemeris.NAMES.index("Moon")
    coarse, fine = (np.linalg.norm((after_a_month(32 * k) - exact)[:, moon]) for k in (1, 2))
    assert 12.0 < coarse / fine < 20.0


def test_energy_is_kept_to_a_part_in_1e11_and_momentum_to_rounding(planets: Bodies):
    position, velocity = gravity.advance(planets.position, planets.velocity, planets.gm, days=60.0, steps=240)
    before = gravity.energy(planets.position, planets.velocity, planets.gm)
    after = gravity.energy(position, velocity, planets.gm)
    assert abs(after / before - 1.0) < 1e-11
    momentum = np.sum(planets.gm * (velocity - planets.velocity), axis=1)
    assert np.abs(momentum).max() < 1e-19


def test_a_run_and_its_reversal_return_to_the_start(planets: Bodies):
    there = gravity.advance(planets.position, planets.velocity, planets.gm, days=30.0, steps=120)
    back, _ = gravity.advance(*there, planets.gm, days=-30.0, steps=120)
    assert np.abs(back - planets.position).max() < 1e-12


def test_every_body_stays_within_its_bound_for_sixty_days(track: Floats):
    for body in accuracy.assess(accuracy.errors_au(track, DAYS), DAYS):
        assert body.within, body
        assert 0.0 < body.error_au < body.bound_au


@pytest.mark.parametrize("missing", ["Venus", "Moon", "Jupiter"])
def test_the_bounds_find_a_missing_perturber(planets: Bodies, missing: str):
    gm = planets.gm.copy()
    gm[ephemeris.NAMES.index(missing)] = 0.0
    report = accuracy.assess(accuracy.errors_au(run(planets, gm), DAYS), DAYS)
    assert not all(body.within for body in report)


def test_bounds_never_fall_with_time_and_start_at_the_ephemeris_s_own_error():
    for name, bound in accuracy.bounds_au(np.arange(0.0, 366.0)).items():
        assert np.all(np.diff(bound) >= 0.0), name
        stated = accuracy.STATED[name].position_km / ephemeris.AU_KM
        assert stated < bound[0] < 10.0 * stated, name


def test_the_ephemeris_needs_no_network(monkeypatch: pytest.MonkeyPatch):
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError(f"the network was asked for {args}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    bodies = ephemeris.massive_bodies(ephemeris.EPOCH_JD + 20_000.0)
    assert np.array_equal(bodies.position, ephemeris.positions_au(np.array([20_000.0]))[0])


def test_the_earth_s_speed_and_the_moon_s_distance_are_what_they_should_be(planets: Bodies):
    sun, earth, moon = (ephemeris.NAMES.index(name) for name in ("Sun", "Earth", "Moon"))
    km_s = ephemeris.AU_KM / ephemeris.DAY_S
    speed = np.linalg.norm(planets.velocity[:, earth] - planets.velocity[:, sun]) * km_s
    distance = np.linalg.norm(planets.position[:, moon] - planets.position[:, earth]) * ephemeris.AU_KM
    assert 30.2 < speed < 30.4  # two days before perihelion
    assert 356_000.0 < distance < 407_000.0


def test_the_same_seed_gives_the_same_belt_bit_for_bit_and_another_gives_another(planets: Bodies):
    first, again, other = (asteroids.main_belt(1000, seed, planets) for seed in (SEED, SEED, SEED + 1))
    assert first.position.tobytes() == again.position.tobytes()
    assert first.velocity.tobytes() == again.velocity.tobytes()
    assert first.position.tobytes() != other.position.tobytes()


def test_the_belt_lies_in_its_zones_outside_mars_and_orbits_forwards(planets: Bodies):
    belt = asteroids.main_belt(10_000, SEED, planets)
    position = belt.position - planets.position[:, :1]
    velocity = belt.velocity - planets.velocity[:, :1]
    gm = planets.gm[0]
    radius = np.linalg.norm(position, axis=0)
    a = 1.0 / (2.0 / radius - np.sum(velocity**2, axis=0) / gm)
    momentum = np.cross(position.T, velocity.T).T
    e = np.sqrt(np.maximum(0.0, 1.0 - np.sum(momentum**2, axis=0) / (gm * a)))
    inclination = np.arccos(equatorial_to_ecliptic(momentum)[2] / np.linalg.norm(momentum, axis=0))

    zones = np.array(asteroids.ZONES_AU)
    inside = (a[:, None] > zones[:, 0] - 1e-9) & (a[:, None] < zones[:, 1] + 1e-9)
    assert inside.any(axis=1).all()
    assert inside.any(axis=0).all()
    assert (a * (1.0 - e)).min() > asteroids.PERIHELION_MIN_AU - 1e-9
    assert inclination.max() < asteroids.INCLINATION_MAX_RAD + 1e-9
    assert 0.08 < np.median(e) < 0.13
    assert not belt.gm.any()


def test_asteroids_change_no_bit_of_the_planets(planets: Bodies):
    belt = asteroids.main_belt(500, SEED, planets)
    alone, _ = gravity.advance(planets.position, planets.velocity, planets.gm, days=5.0, steps=20)
    crowd, _ = gravity.advance(
        np.hstack([planets.position, belt.position]),
        np.hstack([planets.velocity, belt.velocity]),
        np.concatenate([planets.gm, belt.gm]),
        days=5.0,
        steps=20,
    )
    assert crowd[:, : len(planets)].tobytes() == alone.tobytes()


def test_no_bit_depends_on_the_chunk_size(planets: Bodies, monkeypatch: pytest.MonkeyPatch):
    belt = asteroids.main_belt(1000, SEED, planets)
    results = set()
    for rows in (16_384, 1000, 333, 7):
        monkeypatch.setattr(gravity, "CHUNK_ROWS", rows)
        results.add(gravity.accelerations(belt.position, planets.position, planets.gm).tobytes())
    assert len(results) == 1


def test_two_bodies_at_one_place_exert_no_force_on_each_other():
    pair = np.ones((3, 2))
    position, velocity = gravity.advance(pair, np.zeros((3, 2)), np.array([1e-4, 1e-4]), days=1.0, steps=4)
    assert np.array_equal(position, pair)
    assert not velocity.any()


def test_ecliptic_and_equatorial_are_each_other_s_inverse(planets: Bodies):
    there = equatorial_to_ecliptic(planets.position)
    assert np.allclose(ecliptic_to_equatorial(there), planets.position, rtol=0.0, atol=1e-14)
    earth, sun = (ephemeris.NAMES.index(name) for name in ("Earth", "Sun"))
    assert abs((there[:, earth] - there[:, sun])[2]) < 1e-4


def test_the_spawn_table_has_a_row_a_body_and_the_columns_of_its_components(planets: Bodies):
    table = planets.to_table()
    assert table.num_rows == 10
    prefixes = {
        name: list(group) for name, group in itertools.groupby(table.column_names, lambda c: c.split("__")[0])
    }
    assert list(prefixes) == ["body", "position", "velocity", "observed"]
    assert table.column("body__name").to_pylist() == list(ephemeris.NAMES)
    assert table.column("position__z").to_pylist() == planets.position[2].tolist()


def test_the_picture_is_a_png_of_the_stated_size(planets: Bodies, track: Floats, tmp_path: Path):
    path = tmp_path / "out" / "orrery.png"
    plot.draw(
        path,
        days=DAYS,
        track=track,
        asteroids=asteroids.main_belt(100, SEED, planets).position,
        errors=accuracy.errors_au(track, DAYS),
        title="sixty days",
    )
    head = path.read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n"
    assert (int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")) == (2100, 1725)
