"""SEED row "ServiceContainer": the services that a program in process works with, and what survives a restart."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from tests.engine.parts import COMPONENTS, PROCESSORS, Drift, Place, Scale, Speed
from tickwire_engine import (
    ActorCtx,
    AsyncWorld,
    Command,
    CommandType,
    ForkConfig,
    RunConfig,
    StorageConfig,
    WorldConfig,
)
from tickwire_engine.errors import (
    FeatureOffError,
    InvalidRequestError,
    ProcessorNotFoundError,
    StorageError,
    WorldDestroyedError,
    WorldExistsError,
    WorldNotFoundError,
)
from tickwire_engine.ids import uuid7
from tickwire_server import App
from tickwire_server.container import ServiceContainer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

ACTOR = ActorCtx(id=uuid7(), roles=("admin",))


def application() -> App:
    app = App("seed")
    for model in COMPONENTS:
        app.component(model)
    for kind in PROCESSORS:
        app.processor(kind)
    return app


def container_at(path: Path | None) -> ServiceContainer:
    return ServiceContainer(path, app=application())


@pytest.fixture
async def container(tmp_path: Path) -> AsyncIterator[ServiceContainer]:
    async with container_at(tmp_path / "data") as made:
        yield made


def is_there(path: Path) -> bool:
    return path.exists()


def spawn(x: float, **given: Any) -> Command:
    return Command(type=CommandType.SPAWN, payload={"components": {"Place": {"x": x}, "Speed": {}}}, **given)


# world_service


async def test_create_world_is_idempotent_by_world_id_over_a_restart_too(tmp_path: Path) -> None:
    asked = WorldConfig(world_id=uuid7(), name="w")
    async with container_at(tmp_path) as container:
        world = await container.world_service.create_world(asked)
        assert isinstance(world, AsyncWorld)
        assert await container.world_service.create_world(asked) is world
    async with container_at(tmp_path) as container:
        again = await container.world_service.create_world(asked, StorageConfig(uri=str(tmp_path / "other")))
        assert again.world_id == world.world_id
        assert not (tmp_path / "other").exists()
        with pytest.raises(WorldExistsError):
            await container.world_service.create_world(asked.model_copy(update={"name": "v"}))


async def test_worlds_are_got_by_id_and_name_and_listed(container: ServiceContainer) -> None:
    service = container.world_service
    assert service.list_worlds() == []
    worlds = [await service.create_world(WorldConfig(name=name)) for name in ("b", "a")]
    assert service.list_worlds() == worlds
    assert service.get_world(worlds[0].world_id) is worlds[0]
    assert service.get_world(str(worlds[0].world_id)) is worlds[0]
    assert service.get_world_by_name("a") is worlds[1]
    for missing in (uuid7(), "c"):
        with pytest.raises(WorldNotFoundError):
            service.get_world(missing)


async def test_a_world_lies_where_its_storage_config_says_and_is_found_there_again(tmp_path: Path) -> None:
    elsewhere = StorageConfig(uri=tmp_path / "disk", namespace="ns")
    async with container_at(tmp_path / "home") as container:
        home = await container.world_service.create_world(WorldConfig(name="home"))
        away = await container.world_service.create_world(WorldConfig(name="away"), elsewhere)
        assert (tmp_path / "disk" / "ns" / "journal.db").exists()
        with pytest.raises(WorldExistsError):
            await container.world_service.create_world(WorldConfig(name="home"), elsewhere)
        await container.command_service.submit(away.world_id, spawn(1.0), ACTOR)
        await container.simulation_service.step(away.world_id)
        assert await container.world_service.create_world(WorldConfig(name="third"), elsewhere)
    async with container_at(tmp_path / "home") as container:
        names = [world.name for world in container.world_service.list_worlds()]
        assert names == [home.name, away.name, "third"]
        assert container.world_service.get_world_by_name("away").state.entities == 1


async def test_a_registry_whose_storage_is_gone_says_which(tmp_path: Path) -> None:
    async with container_at(tmp_path / "home") as container:
        await container.world_service.create_world(WorldConfig(), StorageConfig(uri=tmp_path / "disk"))
    (tmp_path / "disk").rename(tmp_path / "moved")
    with pytest.raises(StorageError, match="disk"):
        container_at(tmp_path / "home").world_service.list_worlds()


async def test_storage_in_the_cloud_is_refused_rather_than_put_elsewhere(container: ServiceContainer) -> None:
    with pytest.raises(FeatureOffError):
        await container.world_service.create_world(WorldConfig(), StorageConfig(uri="s3://bucket/x"))
    assert not container.world_service.list_worlds()


async def test_a_world_is_forked_where_it_lies_and_the_fork_survives_a_restart(tmp_path: Path) -> None:
    config = ForkConfig(world_id=uuid7(), name="fork", at_tick=0)
    async with container_at(tmp_path / "home") as container:
        far = StorageConfig(uri=str(tmp_path / "far"))
        world = await container.world_service.create_world(WorldConfig(name="w"), far)
        await world.create_entity([Place(x=1.0), Speed()])
        await container.simulation_service.run(world.world_id, RunConfig(num_steps=3))
        fork = await container.world_service.fork_world(world.world_id, config)
        assert await container.world_service.fork_world(world.world_id, config) is fork
        drawn = await container.world_service.fork_world("w")
        assert (fork.tick, drawn.tick, drawn.parent_id) == (1, 3, world.world_id)
        with pytest.raises(WorldExistsError):
            await container.world_service.fork_world("w", ForkConfig(name="fork"))
    async with container_at(tmp_path / "home") as container:
        fork = container.world_service.get_world_by_name("fork")
        assert (fork.tick, fork.world_id) == (1, config.world_id)
        assert fork.entity(1)["Place"]["x"] == 1.0


async def test_a_removed_world_is_gone_and_its_name_free_over_a_restart_too(tmp_path: Path) -> None:
    async with container_at(tmp_path) as container:
        world = await container.world_service.create_world(WorldConfig(name="w"))
        await container.simulation_service.step(world.world_id)
        await container.command_service.submit(world.world_id, spawn(1.0), ACTOR)
        await container.world_service.remove_world(world.world_id)
        assert world.destroyed
        assert container.world_service.list_worlds() == []
        with pytest.raises(WorldDestroyedError):
            await world.create_entity([Place()])
        with pytest.raises(WorldDestroyedError):
            await world.step()
        with pytest.raises(WorldNotFoundError):
            await container.world_service.remove_world(world.world_id)
        again = await container.world_service.create_world(WorldConfig(name="w"))
        assert (again.world_id != world.world_id, again.tick) == (True, 0)
    async with container_at(tmp_path) as container:
        assert [w.world_id for w in container.world_service.list_worlds()] == [again.world_id]


# simulation_service


async def test_step_computes_one_tick_and_run_as_many_as_the_run_config_says(
    container: ServiceContainer,
) -> None:
    world = await container.world_service.create_world(WorldConfig(name="w"))
    stepped = await container.simulation_service.step(world.world_id, RunConfig(num_steps=5))
    assert (stepped.first_tick, stepped.last_tick, world.tick) == (0, 0, 1)
    config = RunConfig(num_steps=5)
    ran = await container.simulation_service.run(world.world_id, config)
    assert (ran.first_tick, ran.last_tick, ran.run_id) == (1, 5, config.run_id)
    assert world.run_id == config.run_id
    nothing = await container.simulation_service.run(world.world_id, RunConfig(num_steps=0))
    assert (nothing.first_tick, nothing.last_tick, world.tick) == (6, 5, 6)


async def test_run_all_runs_every_world(container: ServiceContainer) -> None:
    worlds = [await container.world_service.create_world(WorldConfig(name=name)) for name in "abc"]
    await container.simulation_service.step(worlds[1].world_id)
    results = await container.simulation_service.run_all(RunConfig(num_steps=3))
    assert [result.last_tick for result in results] == [2, 3, 2]
    assert [world.tick for world in worlds] == [3, 4, 3]


async def test_processors_are_added_listed_and_removed(container: ServiceContainer) -> None:
    world = await container.world_service.create_world(WorldConfig(name="w"))
    service = container.simulation_service
    await service.add_processor(world.world_id, Drift())
    await service.add_processor(world.world_id, Scale(3.0), name="triple")
    await service.step(world.world_id)
    assert [entry.name for entry in service.list_processors(world.world_id)] == ["Drift", "triple"]
    await service.remove_processor(world.world_id, Drift)
    await service.step(world.world_id)
    assert [entry.name for entry in service.list_processors(world.world_id)] == ["triple"]
    with pytest.raises(ProcessorNotFoundError):
        await service.remove_processor(world.world_id, Drift)


# command_service, broker


async def test_submit_takes_a_command_model_and_its_actor(container: ServiceContainer) -> None:
    world = await container.world_service.create_world(WorldConfig(name="w"))
    command = spawn(1.0)
    assert await container.command_service.submit(str(world.world_id), command, ACTOR) == command.id
    assert await container.command_service.submit(world.world_id, command, ACTOR) == command.id
    ids = await container.command_service.submit_batch(world.world_id, [spawn(2.0), spawn(3.0)], ACTOR)
    assert len(set(ids)) == 2
    assert world.acceptance.pending == 3
    stepped = await container.simulation_service.step(world.world_id)
    assert stepped.commands_applied == 3
    assert world.read([Place]).column("place__x").to_pylist() == [1.0, 2.0, 3.0]


async def test_submit_batch_takes_all_or_nothing(container: ServiceContainer) -> None:
    world = await container.world_service.create_world(WorldConfig(name="w"))
    wrong = Command(type=CommandType.SPAWN, payload={"components": {"Nothing": {}}})
    with pytest.raises(InvalidRequestError, match="Nothing"):
        await container.command_service.submit_batch(world.world_id, [spawn(1.0), wrong], ACTOR)
    assert world.acceptance.pending == 0


async def test_query_service_reads_any_tick(container: ServiceContainer) -> None:
    world = await container.world_service.create_world(WorldConfig(name="w"))
    await container.simulation_service.add_processor(world.world_id, Drift())
    await container.command_service.submit(world.world_id, spawn(0.0), ACTOR)
    await container.simulation_service.run(world.world_id, RunConfig(num_steps=4))
    for tick in range(4):
        found = await container.query_service.query(world, at_tick=tick, components=["Place"])
        assert found.column("place__x").to_pylist() == [tick + 1.0]
    history = await container.query_service.query(world, ticks=(0, 3), where="place__x > 2", entity_ids=[1])
    assert history.column("tick").to_pylist() == [2, 3]
    summed = await container.query_service.sql("SELECT sum(place__x) AS total FROM w.place WHERE tick >= 2")
    assert summed.to_pylist() == [{"total": 7.0}]


# registry_path, shutdown


async def test_with_a_registry_path_worlds_are_rehydrated_at_start_up(tmp_path: Path) -> None:
    async with container_at(tmp_path) as container:
        world = await container.world_service.create_world(WorldConfig(name="w"))
        await container.simulation_service.add_processor(world.world_id, Scale(3.0))
        await container.command_service.submit(world.world_id, spawn(1.0), ACTOR)
        await container.simulation_service.run(world.world_id, RunConfig(num_steps=2))
        await container.command_service.submit(world.world_id, spawn(5.0, tick=4), ACTOR)
    container = container_at(tmp_path)
    (again,) = container.world_service.list_worlds()
    assert (again.world_id, again.name, again.tick, again.state.entities) == (world.world_id, "w", 2, 1)
    assert [entry.params for entry in again.processors] == [{"factor": 3.0}]
    assert again.acceptance.pending == 1
    await container.simulation_service.run(again.world_id, RunConfig(num_steps=3))
    assert again.read([Place, Speed]).column("place__x").to_pylist() == [243.0, 15.0]
    await container.shutdown()


async def test_without_a_registry_path_nothing_is_left_behind() -> None:
    container = ServiceContainer()
    await container.world_service.create_world(WorldConfig(name="w"))
    home = container.engine.store.path
    assert is_there(home)
    await container.shutdown()
    assert not is_there(home)
    with pytest.raises(InvalidRequestError, match="shut down"):
        container.world_service.list_worlds()
    await ServiceContainer().shutdown()


async def test_shutdown_waits_for_the_tick_in_hand(tmp_path: Path) -> None:
    container = container_at(tmp_path)
    world = await container.world_service.create_world(WorldConfig(name="w"))
    step = asyncio.ensure_future(container.simulation_service.step(world.world_id))
    await asyncio.sleep(0)
    await container.shutdown()
    stepped = await step
    assert stepped.last_tick == 0
    async with container_at(tmp_path) as again:
        assert again.world_service.get_world_by_name("w").tick == 1


async def test_without_an_app_every_class_that_is_defined_is_known(tmp_path: Path) -> None:
    class OnlyHere(Drift):
        """A processor class that no app registers."""

    async with ServiceContainer(tmp_path) as container:
        world = await container.world_service.create_world(WorldConfig(name="w"))
        await world.add_processor(OnlyHere())
        await world.create_entity([Place(), Speed()])
        await container.simulation_service.step(world.world_id)
    async with ServiceContainer(tmp_path) as container:
        world = container.world_service.get_world_by_name("w")
        await container.simulation_service.step(world.world_id)
        assert world.read([Place]).column("place__x").to_pylist() == [2.0]
