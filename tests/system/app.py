"""The app that the system tests serve: agents that age each tick, on the recorded path and in Arrow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
from daft import col

from tickwire_engine import ArrowProcessor, AsyncProcessor, Component, Mailbox
from tickwire_server import App

if TYPE_CHECKING:
    import daft

    from tickwire_engine import AsyncWorld

app = App("system-tests")


@app.component
class Agent(Component):
    """Somebody with a name and a number."""

    name: str = ""
    number: int = 0
    age: int = 0


@app.component
class Energy(Component):
    """Something that decays."""

    level: float = 1.0


@app.component
class Tally(Component):
    """What came of one client's messages, in their order: how many, and a fold that every order changes."""

    count: int = 0
    fold: int = 0


FOLD = 1_000_003


def folded(fold: int, number: int) -> int:
    """Take one more number into a fold."""
    return (fold * 31 + number) % FOLD


@app.processor
class Count(ArrowProcessor):
    """Takes every message into its receiver's tally."""

    components = (Tally,)

    def process_batch(self, batch: pa.RecordBatch, **kwargs: Any) -> pa.RecordBatch:
        messages = kwargs["resources"].require(Mailbox).messages(channel="count")
        if not messages:
            return batch
        rows = {entity: row for row, entity in enumerate(batch["entity_id"].to_pylist())}
        counts, folds = batch["tally__count"].to_pylist(), batch["tally__fold"].to_pylist()
        for message in messages:
            row = rows[message.receiver_id]
            counts[row] += 1
            folds[row] = folded(folds[row], int(message.content["number"]))
        for name, values in (("tally__count", counts), ("tally__fold", folds)):
            index = batch.schema.get_field_index(name)
            batch = batch.set_column(index, batch.schema.field(index), pa.array(values, pa.int64()))
        return batch


@app.processor
class Ageing(AsyncProcessor):
    """A tick makes everybody older."""

    components = (Agent,)

    async def process(self, df: daft.DataFrame, **kwargs: Any) -> daft.DataFrame:
        return df.with_column("agent__age", col("agent__age") + 1)


@app.processor
class Decay(ArrowProcessor):
    """A tick takes a share of the energy."""

    components = (Energy,)

    def __init__(self, share: float = 0.01) -> None:
        self.share = share

    def process_batch(self, batch: pa.RecordBatch, **kwargs: Any) -> pa.RecordBatch:
        index = batch.schema.get_field_index("energy__level")
        return batch.set_column(
            index, batch.schema.field(index), pc.multiply(batch.column(index), 1.0 - self.share)
        )


@app.world("crowd")
async def crowd(world: AsyncWorld) -> None:
    """A hundred agents, half of them with energy."""
    await world.add_processor(Ageing())
    await world.add_processor(Decay(share=0.05))
    await world.create_entities(
        [
            [Agent(name=f"a{n}", number=n), Energy(level=float(n))]
            if n % 2
            else [Agent(name=f"a{n}", number=n)]
            for n in range(100)
        ]
    )


@app.world("ledger")
async def ledger(world: AsyncWorld) -> None:
    """Nobody yet: clients bring the entity that counts their messages."""
    await world.add_processor(Count())


@app.world("bulk")
async def bulk(world: AsyncWorld) -> None:
    """As many as its label `entities` says, all changing in every tick: frames that are too large for the journal."""
    await world.add_processor(Decay(share=0.001))
    count = int(world.row.labels.get("entities", "6000"))
    await world.create_entities_from_arrow(pa.table({"energy__level": pa.array(range(count), pa.float64())}))
