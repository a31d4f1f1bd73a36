"""What a restart builds again from names and plain values, and what it says where it cannot."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from pydantic import BaseModel

from tests.engine.parts import COMPONENTS, Drift, Place, Raise, Scale, Speed, Tag, setup
from tickwire_engine import CommandType, EngineSetup, Submission, WorldConfig
from tickwire_engine.commands import Vocabulary
from tickwire_engine.component import ComponentCatalog
from tickwire_engine.errors import WorldFaultedError
from tickwire_engine.processor import ProcessorRegistry

if TYPE_CHECKING:
    from tests.engine.conftest import Opener
    from tickwire_engine import AsyncWorld, BaseProcessor


class Gravity(BaseModel):
    """A resource with a value."""

    g: float = 9.81
    names: list[str] = []


def lost(*kept: type[BaseProcessor]) -> EngineSetup:
    """Return an application that lost processors and resources."""
    made = EngineSetup(Vocabulary(ComponentCatalog(), ProcessorRegistry()))
    for component in COMPONENTS:
        made.vocabulary.components.register(component)
    for kind in kept:
        made.vocabulary.processors.register(kind)
    return made


async def two_worlds(opener: Opener) -> None:
    engine = await opener.open()
    for name, processor in (("scaled", Scale(2.0)), ("drifting", Drift())):
        world = await engine.create_world(WorldConfig(name=name))
        await world.create_entity([Place(x=1.0), Speed()])
        await world.add_processor(processor)
        await world.step()


async def test_only_the_world_whose_processor_type_is_gone_waits_and_says_so(opener: Opener) -> None:
    await two_worlds(opener)
    engine = await opener.open(lost(Drift))
    waiting, well = engine.world("scaled"), engine.world("drifting")
    assert isinstance(waiting.fault, WorldFaultedError)
    assert "processor Scale" in waiting.fault.message
    assert well.fault is None
    assert (await well.step()).summary.tick == 1
    # Reads and submits go on; what was submitted stays pending until the world can step.
    assert waiting.entity(1)["Place"]["x"] == 2.0
    await waiting.create_entity([Place(x=5.0)])
    with pytest.raises(WorldFaultedError, match="Scale"):
        await waiting.step()
    assert (waiting.tick, waiting.acceptance.pending) == (1, 1)
    await opener.open()
    back = opener.world("scaled")
    assert back.fault is None
    await back.step()
    assert back.read([Place]).column("place__x").to_pylist() == [4.0, 10.0]


async def test_a_missing_processor_is_taken_out_by_command_and_the_world_goes_on(opener: Opener) -> None:
    await two_worlds(opener)
    world = (await opener.open(lost(Drift))).world("scaled")
    await world.submit([Submission(CommandType.REMOVE_PROCESSOR, {"name": "Scale"})])
    await world.add_processor(Raise(1.0))
    await world.step()
    assert world.fault is None
    assert world.entity(1)["Place"]["x"] == 3.0
    world = (await opener.open(lost(Raise))).world("scaled")
    assert world.fault is None
    assert [entry.name for entry in world.processors] == ["Raise"]


async def test_a_constructor_that_refuses_its_old_params_is_named_with_its_reason(opener: Opener) -> None:
    await two_worlds(opener)
    application = lost(Drift)

    class Strict(Scale):
        def __init__(self, factor: float = 2.0) -> None:
            if factor == 2.0:
                raise ValueError("two is out of fashion")
            super().__init__(factor)

    Strict.__name__ = "Scale"
    application.vocabulary.processors.register(Strict)
    fault = (await opener.open(application)).world("scaled").fault
    assert fault is not None
    assert "two is out of fashion" in fault.message


async def test_a_missing_resource_type_is_named_and_taken_out_by_command(opener: Opener) -> None:
    world = await (await opener.open()).create_world(WorldConfig(name="w"))
    await world.set_resource(Gravity(g=1.0))
    await world.step()
    world = (await opener.open()).world("w")
    assert world.fault is not None
    assert "resource Gravity" in world.fault.message
    with pytest.raises(WorldFaultedError, match="Gravity"):
        await world.step()
    await world.submit([Submission(CommandType.REMOVE_RESOURCE, {"name": "Gravity"})])
    await world.step()
    assert (await opener.open()).world("w").fault is None


async def test_pending_commands_that_name_what_is_gone_wait_and_are_applied_when_it_is_back(
    opener: Opener,
) -> None:
    world = await (await opener.open()).create_world(WorldConfig(name="w"))
    await world.create_entity([Tag(text="kept")])
    await world.add_processor(Scale())
    without = EngineSetup()
    without.vocabulary.components.register(Place)
    engine = await opener.open(without)
    world = engine.world("w")
    assert world.fault is not None
    assert "Tag" in world.fault.message
    assert "Scale" in world.fault.message
    for _ in range(2):
        with pytest.raises(WorldFaultedError, match="Tag"):
            await world.step()
    assert world.acceptance.pending == 2
    # Its component is registered while the world waits: the command is read when its tick comes.
    engine.register(Tag)
    with pytest.raises(WorldFaultedError, match="Scale"):
        await world.step()
    world = (await opener.open()).world("w")
    assert (await world.step()).summary.commands_applied == 2
    assert world.entity(1)["Tag"]["text"] == "kept"


async def test_a_rehydrated_configuration_keeps_its_id(opener: Opener) -> None:
    world = await (await opener.open()).create_world(WorldConfig(name="w"))
    await world.add_processor(Scale(2.0))
    await world.step()
    before = world.state
    after = (await opener.open()).world("w").state
    assert after.configuration == before.configuration
    assert after.state_hash() == before.state_hash()


async def hashes(world: AsyncWorld) -> list[bytes]:
    await world.add_processor(Drift())
    await world.create_entity([Place(), Speed()])
    return [(await world.step()).summary.state_hash for _ in range(3)]


async def test_state_hashes_do_not_change_when_the_app_adds_what_the_world_does_not_use(
    opener: Opener, tmp_path_factory: pytest.TempPathFactory
) -> None:
    small = EngineSetup()
    small.vocabulary.components.register(Place)
    small.vocabulary.components.register(Speed)
    small.vocabulary.processors.register(Drift)
    few = await hashes(await (await opener.open(small)).create_world(WorldConfig(name="w", seed=1)))
    other = type(opener)(tmp_path_factory.mktemp("other"))
    try:
        many = await hashes(await (await other.open(setup())).create_world(WorldConfig(name="w", seed=1)))
    finally:
        await other.close()
    assert few == many
