"""The application that the server's tests serve."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from tickwire_engine import AsyncProcessor, Component
from tickwire_server import App, CustomRefusedError

if TYPE_CHECKING:
    import daft

    from tickwire_engine import ActorCtx, AsyncWorld


class Spot(Component):
    """Where something is."""

    x: float = 0.0
    y: float = 0.0


class Mark(Component):
    """A second archetype's component."""

    name: str = ""
    seen: int | None = None


class Gate:
    """Open, unless a test closes it; says when a processor has come to it."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.open.set()
        self.entered = asyncio.Event()
        self.broken = False


class Wind(BaseModel):
    """A resource that commands set."""

    speed: int = 1
    name: str = ""


class Nudge(BaseModel):
    """The body of the custom command `nudge`."""

    entity_id: int
    by: float = 1.0


class Nudged(BaseModel):
    """What `nudge` returns."""

    by: float
    subject: str
    roles: tuple[str, ...]


class Push(AsyncProcessor):
    """Moves every spot by one."""

    components = (Spot,)

    async def process(self, df: daft.DataFrame, **input_kwargs: Any) -> daft.DataFrame:
        return df.with_column("spot__x", df["spot__x"] + 1.0)


class Hold(AsyncProcessor):
    """Waits at the gate; raises while it is broken."""

    components = (Spot,)

    async def process(self, df: daft.DataFrame, **input_kwargs: Any) -> daft.DataFrame:
        gate = input_kwargs["resources"].require(Gate)
        gate.entered.set()
        await gate.open.wait()
        if gate.broken:
            raise RuntimeError("the gate is broken")
        return df


def application() -> App:
    """Return the app: two templates, `line` of five moving spots and `held`, one spot behind a gate."""
    app = App("tests")
    app.component(Spot)
    app.component(Mark)
    app.processor(Push)
    app.processor(Hold)
    app.resource(Gate)
    app.resource(Wind)

    @app.command("nudge")
    async def nudge(body: Nudge, ctx: ActorCtx, world: AsyncWorld) -> Nudged:
        if body.by > 100.0:
            raise CustomRefusedError("that is too far")
        await world.update_entity(body.entity_id, [Spot(y=body.by)])
        return Nudged(by=body.by, subject=ctx.subject, roles=ctx.roles)

    @app.world("line")
    async def line(world: AsyncWorld) -> None:
        await world.add_processor(Push())
        await world.create_entities([[Spot(x=float(i))] for i in range(5)])

    @app.world("held")
    async def held(world: AsyncWorld) -> None:
        await world.add_processor(Hold())
        await world.create_entity([Spot()])

    @app.world("failing")
    async def failing(world: AsyncWorld) -> None:
        raise RuntimeError(f"{__file__}: not to be told")

    return app
