"""The orrery's processors on the tables that the engine hands them."""

import daft
import numpy as np
import pyarrow as pa
import pytest

from examples.orrery import accuracy, asteroids, ephemeris
from examples.orrery.bodies import Floats, equatorial_to_ecliptic
from examples.orrery.components import Body, Observed, Position, Velocity
from examples.orrery.processors import Gravity, Observe


@pytest.fixture
def batch() -> pa.RecordBatch:
    """The archetype's rows before the first tick: the massive bodies, then a hundred asteroids."""
    planets = ephemeris.massive_bodies()
    table = pa.concat_tables([planets.to_table(), asteroids.main_belt(100, 2026, planets).to_table()])
    ids = {"entity_id": pa.array(range(1, len(table) + 1)), "is_active": pa.array([True] * len(table))}
    columns = [c.get_prefixed_schema() for c in (Body, Observed, Position, Velocity)]
    schema = pa.schema([field for column in columns for field in column])
    rows = table.select(schema.names).cast(schema).combine_chunks().to_batches()[0]
    return pa.record_batch([*ids.values(), *rows.columns], names=[*ids, *schema.names])


def vectors(batch: pa.RecordBatch, component: str) -> Floats:
    return np.stack([batch.column(f"{component}__{axis}").to_numpy() for axis in "xyz"])


def test_thirty_ticks_of_gravity_keep_the_planets_within_their_bounds(batch: pa.RecordBatch):
    gravity = Gravity()
    days = np.arange(1.0, 31.0)
    track = []
    for tick in range(30):
        batch = gravity.process_batch(batch, tick=tick)
        track.append(vectors(batch, "position")[:, :10])
    assert all(body.within for body in accuracy.assess(accuracy.errors_au(np.array(track), days), days))


def test_gravity_changes_positions_and_velocities_only(batch: pa.RecordBatch):
    after = Gravity().process_batch(batch, tick=0)
    assert after.schema.equals(batch.schema)
    moved = {name for name in batch.schema.names if not after.column(name).equals(batch.column(name))}
    assert moved == {f"{component}__{axis}" for component in ("position", "velocity") for axis in "xyz"}


def test_gravity_gives_the_same_bits_every_time_and_on_a_slice_of_a_larger_batch(batch: pa.RecordBatch):
    padded = pa.Table.from_batches([batch.slice(0, 5), batch]).combine_chunks().to_batches()[0]
    first = Gravity().process_batch(batch, tick=0)
    again = Gravity().process_batch(padded.slice(5), tick=0)
    assert first.equals(again)


def test_four_ticks_of_six_hours_are_one_tick_of_a_day(batch: pa.RecordBatch):
    day = Gravity(days_per_tick=1.0).process_batch(batch, tick=0)
    hours = batch
    for tick in range(4):
        hours = Gravity(days_per_tick=0.25).process_batch(hours, tick=tick)
    assert hours.equals(day)


@pytest.mark.parametrize(
    "params", [{"days_per_tick": 0.0}, {"days_per_tick": float("nan")}, {"step_days": -1.0}]
)
def test_gravity_refuses_a_step_that_goes_nowhere(params: dict[str, float]):
    with pytest.raises(ValueError, match="must be positive"):
        Gravity(**params)


async def test_observed_agrees_with_numpy(batch: pa.RecordBatch):
    seen = (await Observe().process(daft.from_arrow(pa.Table.from_batches([batch])))).to_pydict()
    position = vectors(batch, "position")
    x, y, z = equatorial_to_ecliptic(position)
    distance = np.linalg.norm(position, axis=0)
    assert np.allclose(seen["observed__distance"], distance, rtol=1e-14)
    assert np.allclose(
        seen["observed__longitude"], np.degrees(np.arctan2(y, x)) % 360.0, rtol=0.0, atol=1e-11
    )
    assert np.allclose(seen["observed__latitude"], np.degrees(np.arcsin(z / distance)), rtol=0.0, atol=1e-11)
