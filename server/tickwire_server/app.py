"""An application: what a server serves besides itself - components, processors, resources and world templates."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, TypeVar

from tickwire_engine import Component, ComponentCatalog, EngineSetup, ProcessorRegistry, ResourceRegistry
from tickwire_engine.commands import Vocabulary
from tickwire_engine.errors import InvalidRequestError
from tickwire_engine.handlers import HandlerRegistry
from tickwire_engine.limits import DEFAULTS, Limits
from tickwire_engine.processor import BaseProcessor

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tickwire_engine import AsyncWorld

C = TypeVar("C", bound=type[Component])
P = TypeVar("P", bound=type[BaseProcessor])
R = TypeVar("R", bound=type)
T = TypeVar("T")
F = TypeVar("F", bound="Callable[[AsyncWorld], Awaitable[None]]")
H = TypeVar("H", bound="Callable[..., Any]")


class App:
    """A named collection of definitions, filled by decorators at import and handed to ``tickwire serve --app``.

    Example:
        ::

            app = App("demo")


            @app.component
            class Position(Component):
                x: float = 0.0


            @app.processor
            class Move(AsyncProcessor):
                components = (Position,)

                async def process(self, df, **kwargs):
                    return df.with_column("position__x", df["position__x"] + 1.0)


            @app.world("line")
            async def line(world):
                await world.add_processor(Move())
                await world.create_entity([Position()])
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.components = ComponentCatalog()
        self.processors = ProcessorRegistry()
        self.resources = ResourceRegistry()
        self.commands = HandlerRegistry()
        self.templates: dict[str, Callable[[AsyncWorld], Awaitable[None]]] = {}

    @classmethod
    def of_defined_classes(cls) -> App:
        """Return an app of every component and processor class that is defined by now.

        A class name that several processors share is left out: name the one that is meant by registering it.
        """
        app = cls("unnamed")
        for model in _concrete(Component):
            app.components.register(model)
        kinds: dict[str, list[type[BaseProcessor]]] = {}
        for kind in _concrete(BaseProcessor):
            kinds.setdefault(kind.__name__, []).append(kind)
        for same in kinds.values():
            if len(same) == 1:
                app.processors.register(same[0])
        return app

    def component(self, model: C) -> C:
        """Register a component class."""
        self.components.register(model)
        return model

    def processor(self, kind: P) -> P:
        """Register a processor class, and the components it names."""
        self.processors.register(kind)
        for model in kind.components:
            self.components.register(model)
        return kind

    def resource(self, kind: R) -> R:
        """Register a resource class: every world starts with ``kind()``, if that needs no arguments.

        Commands can set and remove those that are pydantic models.
        """
        return self.resources.register(kind)

    def command(self, name: str) -> Callable[[H], H]:
        """Register a handler of custom commands: a plain or async function, typed by a pydantic model.

        It is called inside the tick that applies the command, before the processors. By its annotations it takes
        the body (the model), the sender (`ActorCtx`), the world as of the tick before (`AsyncWorld`), the
        `CommandBroker` to send commands with, due in the next tick, and `Resources`. What it returns goes into the
        command's outcome; `CustomRefusedError` tells the sender why not; whatever else it raises rejects the command
        alone. It must be deterministic: replay calls it again.

        Example:
            ::

                class Teleport(BaseModel):
                    entity_id: int
                    x: float


                @app.command("teleport")
                async def teleport(body: Teleport, ctx: ActorCtx, world: AsyncWorld) -> Teleport:
                    if "pilot" not in ctx.roles:
                        raise CustomRefusedError("only pilots teleport")
                    await world.update_entity(body.entity_id, [Position(x=body.x)])
                    return body
        """

        def register(fn: H) -> H:
            return self.commands.register(name, fn)

        return register

    def world(self, template: str) -> Callable[[F], F]:
        """Register a world template: an async function that fills a new world."""

        def register(fn: F) -> F:
            if template in self.templates:
                raise InvalidRequestError(f"app {self.name} has a world template {template!r} already")
            self.templates[template] = fn
            return fn

        return register

    def setup(self, limits: Limits = DEFAULTS) -> EngineSetup:
        """Return what the engine needs of this app; `limits` bound what is sent to it."""
        vocabulary = Vocabulary(self.components, self.processors, self.resources, self.commands, limits)
        return EngineSetup(vocabulary, self.templates, self._bootstrap)

    def _bootstrap(self, world: AsyncWorld) -> None:
        for resource in self.resources.defaults():
            world.resources.insert(resource)


def _concrete(root: type[T]) -> list[type[T]]:
    found = []
    for child in root.__subclasses__():
        found += [child] if not inspect.isabstract(child) else []
        found += _concrete(child)
    return found
