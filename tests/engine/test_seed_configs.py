"""SEED row "WorldConfig, StorageConfig, RunConfig": every option does what it says."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from pydantic import Field, ValidationError
from structlog.testing import capture_logs

from tests.engine.parts import Drift, Place, Raise, Speed, setup
from tickwire_engine import (
    ArrowProcessor,
    AsyncProcessor,
    Component,
    EngineSetup,
    RunConfig,
    StorageConfig,
    WorldConfig,
)
from tickwire_engine.errors import ProcessorFailedError

if TYPE_CHECKING:
    from pathlib import Path

    import daft

    from tests.engine.conftest import Opener
    from tickwire_engine import AsyncWorld


class Share(Component):
    """A component with a rule that Arrow does not know."""

    part: float = Field(default=0.5, ge=0.0, le=1.0)


class Double(AsyncProcessor):
    """Doubles the share, past its rule in time."""

    components = (Share,)

    async def process(self, df: daft.DataFrame, **input_kwargs: Any) -> daft.DataFrame:
        return df.with_column("share__part", df["share__part"] * 2.0)


class Center(AsyncProcessor):
    """What only Daft's planner can do: a column less its mean over all rows."""

    components = (Place,)

    async def process(self, df: daft.DataFrame, **input_kwargs: Any) -> daft.DataFrame:
        mean = df.agg(df["place__x"].mean().alias("mean"))
        joined = df.join(mean, how="cross")
        return joined.with_column("place__x", joined["place__x"] - joined["mean"]).exclude("mean")


def application() -> EngineSetup:
    made = setup()
    for kind in (Double, Center):
        made.vocabulary.processors.register(kind)
    return made


async def drifting(opener: Opener) -> AsyncWorld:
    world = await (await opener.open(application())).create_world(WorldConfig(name="w", seed=1))
    await world.add_processor(Drift())
    await world.add_processor(Raise(0.5))
    await world.create_entities([[Place(), Speed(vx=float(i))] for i in range(8)])
    return world


# WorldConfig, StorageConfig


def test_a_world_config_makes_an_id_unless_it_is_given_one() -> None:
    made = WorldConfig(name="w").world_id
    assert (made.version, WorldConfig(world_id=made).world_id) == (7, made)
    assert isinstance(WorldConfig(world_id=None).world_id, UUID)


def test_a_storage_config_takes_uri_namespace_and_io_config(tmp_path: Path) -> None:
    given = StorageConfig(uri=tmp_path, namespace="ns", io_config=None)
    assert (given.uri, given.namespace, given.io_config) == (str(tmp_path), "ns", None)


# RunConfig


def test_run_config_options_have_the_names_of_the_seed() -> None:
    config = RunConfig(
        num_steps=2,
        debug=True,
        validate=True,
        explain=True,
        show_rows=1,
        prefer_live_reads=False,
        suite="s",
        trial=3,
        metadata={"k": "v"},
    )
    assert config.enable_validation
    assert RunConfig(enable_validation=True).enable_validation
    assert config.run_id.version == 7
    with pytest.raises(ValidationError):
        RunConfig(steps=2)


async def test_debug_logs_structured_events(opener: Opener) -> None:
    world = await drifting(opener)
    config = RunConfig(debug=True, suite="s", trial=2, metadata={"k": 1})
    with capture_logs() as logs:
        await world.step(config)
    about = {"tick": 0, "run_id": str(config.run_id), "suite": "s", "trial": 2, "metadata": {"k": 1}}
    assert all(about.items() <= entry.items() for entry in logs)
    assert [(e["event"], e.get("processor"), e.get("path")) for e in logs] == [
        ("processor ran", "Drift", "FAST"),
        ("processor ran", "Raise", "ARROW"),
        ("tick committed", None, None),
    ]
    committed = logs[-1]
    assert (committed["entities"], committed["commands_applied"], committed["spawned"]) == (8, 10, 8)
    with capture_logs() as logs:
        await world.step(RunConfig())
    assert logs == []


async def test_debug_logs_an_aborted_tick(opener: Opener) -> None:
    world = await drifting(opener)
    await world.add_processor(Double())
    await world.create_entity([Share(part=0.75)])
    with capture_logs() as logs, pytest.raises(ProcessorFailedError):
        await world.step(RunConfig.validate())
    assert [(entry["event"], entry["reason"]) for entry in logs] == [("tick aborted", "PROCESSOR_FAILED")]


async def test_show_rows_prints_that_many_rows_of_every_archetype(
    opener: Opener, capsys: pytest.CaptureFixture[str]
) -> None:
    world = await drifting(opener)
    await world.create_entity([Place(x=7.0)])
    capsys.readouterr()
    await world.step(RunConfig(show_rows=3))
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("tick")] == [
        "tick 0  Place  1 of 1 rows",
        "tick 0  Place+Speed  3 of 8 rows",
    ]
    # Two headings, two lines of names, four rows.
    assert len(lines) == 8
    assert lines[1].split() == ["entity_id", "is_active", "place__x", "place__y"]
    assert lines[2].split() == ["9", "True", "7.5", "0.0"]
    await world.step(RunConfig())
    assert capsys.readouterr().out == ""


async def test_explain_prints_the_recorded_expressions_or_the_plan_and_the_path(
    opener: Opener, capsys: pytest.CaptureFixture[str]
) -> None:
    world = await drifting(opener)
    await world.add_processor(Center())
    await world.step(RunConfig(explain=True))
    text = capsys.readouterr().out
    heads = [line for line in text.splitlines() if line.startswith("tick")]
    assert heads == [
        "tick 0  processor Center on Place+Speed: DAFT",
        "tick 0  processor Drift on Place+Speed: FAST",
        "tick 0  processor Raise on Place+Speed: ARROW",
    ]
    assert "col(place__x) + col(speed__vx)" in text
    assert "Join" in text
    await world.step(RunConfig())
    assert capsys.readouterr().out == ""


async def test_validation_checks_every_result_against_the_component_classes(opener: Opener) -> None:
    world = await (await opener.open(application())).create_world(WorldConfig(name="w"))
    await world.add_processor(Double(), name="doubling")
    await world.create_entities([[Share(part=0.1)], [Share(part=0.4)]])
    checked = RunConfig(validate=True)
    await world.step(checked)
    with pytest.raises(
        ProcessorFailedError, match=r"doubling.*entity 2.*Share.part.*less than or equal"
    ) as raised:
        await world.step(checked)
    assert raised.value.metadata["processor"] == "doubling"
    assert world.read([Share]).column("share__part").to_pylist() == [0.2, 0.8]
    # Without validation only the schema is checked, and the tick goes through.
    await world.step()
    assert world.read([Share]).column("share__part").to_pylist() == [0.4, 1.6]


async def test_prefer_live_reads_false_computes_from_what_the_store_has(opener: Opener) -> None:
    seen: list[float] = []

    class Look(ArrowProcessor):
        components = (Place,)
        priority = 0

        def process_batch(self, batch: pa.RecordBatch, **input_kwargs: Any) -> pa.RecordBatch:
            before = input_kwargs["world"].read([Place]).column("place__x")
            seen.append(pc.sum(before).as_py() or 0.0)
            return batch

    made = application()
    made.vocabulary.processors.register(Look)
    world = await (await opener.open(made)).create_world(WorldConfig(name="w"))
    await world.add_processor(Drift())
    await world.add_processor(Look())
    await world.create_entity([Place(), Speed()])
    live = world.state
    await world.run(RunConfig(num_steps=3))
    live = world.state
    await world.run(RunConfig.benchmark(steps=3))
    assert seen == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    # The rows of the tick before were not those in memory.
    assert opener.engine is not None
    history = opener.engine.store.history.state_at(world.row.key, 2)
    assert [batch for _, batch in history.values()] == [table.batch for table in live.tables.values()]


async def test_from_store_and_from_memory_make_the_same_world(
    opener: Opener, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = type(opener)(tmp_path_factory.mktemp("other"))
    try:
        one, two = await drifting(opener), await drifting(other)
        for tick in range(6):
            if tick == 3:
                for world in (one, two):
                    await world.remove_entity(4)
                    await world.update_entity(5, [Speed(vx=-1.0)])
            live = await one.step(RunConfig())
            stored = await two.step(RunConfig(prefer_live_reads=False))
            assert live.summary.state_hash == stored.summary.state_hash
    finally:
        await other.close()


def test_run_config_constructors_have_the_defaults_of_the_reference() -> None:
    def defaults(method: Any) -> dict[str, Any]:
        return {
            name: "required" if p.default is p.empty else p.default
            for name, p in inspect.signature(method).parameters.items()
        }

    assert defaults(RunConfig.dev) == {
        "steps": 1,
        "prefer_live_reads": True,
        "debug": True,
        "explain": False,
        "show_rows": 5,
        "metadata": None,
    }
    assert defaults(RunConfig.benchmark) == {
        "steps": "required",
        "explain": False,
        "debug": False,
        "prefer_live_reads": False,
        "show_rows": 0,
        "suite": "benchmark",
        "trial": None,
        "metadata": None,
    }
    assert defaults(RunConfig.validate) == {
        "steps": 1,
        "enable_validation": True,
        "debug": True,
        "prefer_live_reads": False,
        "metadata": None,
    }


def test_run_config_constructors_set_what_they_say() -> None:
    assert RunConfig().run_id.version == 7
    assert RunConfig(validate=True).enable_validation
    assert RunConfig(enable_validation=True).enable_validation
    dev = RunConfig.dev(steps=3, metadata={"a": 1})
    assert (dev.num_steps, dev.debug, dev.show_rows, dev.metadata) == (3, True, 5, {"a": 1})
    measured = RunConfig.benchmark(steps=2, trial=4)
    assert (measured.num_steps, measured.suite, measured.trial, measured.prefer_live_reads) == (
        2,
        "benchmark",
        4,
        False,
    )
    checked = RunConfig.validate()
    assert (checked.enable_validation, checked.debug, checked.num_steps) == (True, True, 1)


def test_world_and_storage_configs_fill_in_what_is_left_out(tmp_path: Path) -> None:
    assert WorldConfig().world_id.version == 7
    assert WorldConfig(world_id=None).world_id.version == 7  # type: ignore[arg-type]
    assert WorldConfig(world_id=UUID(int=1)).world_id == UUID(int=1)
    storage = StorageConfig(uri=tmp_path, namespace="n")  # type: ignore[arg-type]
    assert (storage.uri, storage.namespace, storage.io_config) == (str(tmp_path), "n", None)
    with pytest.raises(ValidationError):
        WorldConfig(colour="red")  # type: ignore[call-arg]
