"""Components and processors that the engine's tests share: real ones, kept small."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from tickwire_engine import ArrowProcessor, AsyncProcessor, Component, EngineSetup
from tickwire_engine.world import ipc_stream

if TYPE_CHECKING:
    import daft


class Place(Component):
    """Where something is."""

    x: float = 0.0
    y: float = 0.0


class Speed(Component):
    """How it moves."""

    vx: float = 1.0
    vy: float = 0.0


class Tag(Component):
    """What it is called: text, an integer, and a field that may be null."""

    text: str = ""
    count: int = 0
    note: str | None = None


class Score(Component):
    """A component whose field has no default."""

    points: int


class Drift(AsyncProcessor):
    """Moves places by their speeds: recorded expressions."""

    components = (Place, Speed)

    async def process(self, df: daft.DataFrame, **input_kwargs: Any) -> daft.DataFrame:
        return df.with_columns(
            {
                "place__x": df["place__x"] + df["speed__vx"],
                "place__y": df["place__y"] + df["speed__vy"],
            }
        )


class Scale(AsyncProcessor):
    """Multiplies x: takes params, and works on every archetype with a place."""

    components = (Place,)

    def __init__(self, factor: float = 2.0, *, offset: float = 0.0) -> None:
        self.factor = factor
        self.offset = offset

    async def process(self, df: daft.DataFrame, **input_kwargs: Any) -> daft.DataFrame:
        return df.with_column("place__x", df["place__x"] * self.factor + self.offset)


class Raise(ArrowProcessor):
    """Adds a constant to x, on Arrow."""

    components = (Place,)

    def __init__(self, by: float = 1.0) -> None:
        self.by = by

    def process_batch(self, batch: pa.RecordBatch, **input_kwargs: Any) -> pa.RecordBatch:
        index = batch.schema.get_field_index("place__x")
        return batch.set_column(index, batch.schema.field(index), pc.add(batch.column(index), self.by))


COMPONENTS = (Place, Speed, Tag, Score)
PROCESSORS = (Drift, Scale, Raise)


def setup() -> EngineSetup:
    """Return an application of these parts."""
    made = EngineSetup()
    for component in COMPONENTS:
        made.vocabulary.components.register(component)
    for processor in PROCESSORS:
        made.vocabulary.processors.register(processor)
    return made


def stream(columns: dict[str, Any]) -> bytes:
    """Return columns as an Arrow IPC stream."""
    return ipc_stream(pa.table(columns))
