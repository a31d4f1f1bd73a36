"""Parameters that come as JSON, fitted to what a constructor's annotations ask for."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any

import pytest

from tests.engine.parts import Place, setup
from tickwire_engine import ArrowProcessor, CommandType, Submission
from tickwire_engine.errors import InvalidCommandError

if TYPE_CHECKING:
    import pyarrow as pa

    from tests.engine.conftest import Opener
    from tickwire_engine import AsyncWorld


class Color(Enum):
    """One of two."""

    RED = "red"
    BLUE = "blue"


class Paint(ArrowProcessor):
    """Takes parameters of many types."""

    components = (Place,)

    def __init__(
        self,
        count: int,
        ratio: float = 1.0,
        color: Color = Color.RED,
        sizes: list[int] | None = None,
        frame: pa.Schema | None = None,
        free: Any = None,
    ) -> None:
        self.taken = (count, ratio, color, sizes, frame, free)

    def process_batch(self, batch: pa.RecordBatch, **input_kwargs: Any) -> pa.RecordBatch:
        return batch


async def _world(opener: Opener) -> AsyncWorld:
    from tickwire_engine import WorldConfig

    application = setup()
    application.vocabulary.processors.register(Paint)
    return await (await opener.open(application)).create_world(WorldConfig(name="w"))


def _add(**params: Any) -> Submission:
    return Submission(CommandType.ADD_PROCESSOR, {"name": "Paint", "params": params})


async def test_integral_floats_of_the_wire_become_the_integers_that_are_asked_for(opener: Opener) -> None:
    world = await _world(opener)
    await world.submit([_add(count=3.0, ratio=2, color="blue", sizes=[1.0, 2.0], frame=7.0, free=1.0)])
    await world.step()
    (entry,) = world.processors
    assert isinstance(entry.instance, Paint)
    taken = entry.instance.taken
    assert taken == (3, 2.0, Color.BLUE, [1, 2], 7.0, 1.0)
    assert [type(value) for value in (taken[0], taken[1], *taken[3])] == [int, float, int, int]
    assert entry.params == {
        "count": 3,
        "ratio": 2.0,
        "color": "blue",
        "sizes": [1, 2],
        "frame": 7.0,
        "free": 1.0,
    }


@pytest.mark.parametrize(
    ("params", "field"),
    [
        ({"count": 3.5}, "count"),
        ({"count": "many"}, "count"),
        ({"count": 1, "ratio": "wide"}, "ratio"),
        ({"count": 1, "color": "green"}, "color"),
        ({"count": 1, "sizes": [1.0, 2.5]}, "sizes[1]"),
        ({"count": 1, "weight": 1}, "weight"),
    ],
)
async def test_a_param_that_does_not_fit_is_refused_with_its_path(
    opener: Opener, params: dict[str, Any], field: str
) -> None:
    world = await _world(opener)
    with pytest.raises(InvalidCommandError) as raised:
        await world.submit([_add(**params)])
    # A union's branch may stand behind the path.
    assert raised.value.field.startswith("commands[0].add_processor.params." + field.split("[")[0])
    assert raised.value.reason == "INVALID_COMMAND"
    assert world.acceptance.pending == 0


async def test_a_missing_param_is_named(opener: Opener) -> None:
    world = await _world(opener)
    with pytest.raises(InvalidCommandError, match="count"):
        await world.submit([_add()])


async def test_an_instance_gives_the_params_that_build_it_again(opener: Opener) -> None:
    world = await _world(opener)
    await world.add_processor(Paint(2, color=Color.BLUE, sizes=[1]))
    await world.step()
    (entry,) = world.processors
    assert isinstance(entry.instance, Paint)
    assert entry.instance.taken == (2, 1.0, Color.BLUE, [1], None, None)
