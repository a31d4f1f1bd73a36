"""Processors: the functions that move a world from one tick to the next.

A processor is called once for each archetype that has all its `components`. `AsyncProcessor` works on a
`daft.DataFrame`, `ArrowProcessor` on a `pyarrow.RecordBatch` for numpy, numba, polars or torch.
What it returns holds the same entities and columns: to despawn, set ``is_active``; to spawn, send a command.
It must be deterministic: no wall clock, no unseeded randomness, no state kept between ticks on `self`.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from enum import Enum
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import BaseModel

from tickwire_engine.errors import InvalidCommandError, UnknownProcessorTypeError
from tickwire_engine.params import fit_params
from tickwire_engine.values import to_json

if TYPE_CHECKING:
    import daft
    import pyarrow as pa

    from tickwire_engine.component import Component, ComponentCatalog


class BaseProcessor(ABC):
    """What all kinds of processors share: the components they need, their place in the order, their parameters."""

    components: ClassVar[tuple[type[Component], ...]] = ()
    priority: int = 10
    """Lower runs first; equal ones run in the order of their names."""

    _params: dict[str, Any]

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Remember the constructor's arguments: the journal keeps them to build the processor again."""
        self = super().__new__(cls)
        if cls.__init__ is object.__init__:
            self._params = {}
        else:
            signature = inspect.signature(cls.__init__)
            bound = signature.bind(self, *args, **kwargs)
            self._params = dict(list(bound.arguments.items())[1:])
            for parameter in signature.parameters.values():
                if parameter.kind is parameter.VAR_KEYWORD:
                    self._params |= self._params.pop(parameter.name, {})
        return self

    @property
    def params(self) -> dict[str, Any]:
        """What the constructor was called with, by name."""
        return self._params

    @property
    def plain_params(self) -> dict[str, Any]:
        """The same as values that JSON holds."""
        return {name: _plain(value) for name, value in self._params.items()}

    @property
    def component_names(self) -> tuple[str, ...]:
        """The components whose archetypes it runs on."""
        return tuple(component.__name__ for component in self.components)

    def bind(self, catalog: ComponentCatalog) -> None:
        """Make its components known; called before it runs in a world."""
        for component in self.components:
            catalog.register(component)


class AsyncProcessor(BaseProcessor):
    """A processor on Daft data frames: override `process`.

    Simple column expressions are recorded and evaluated without Daft's query planner; anything else (joins,
    group-bys, collect, ...) runs as the Daft plan it is, with equal results.
    """

    @abstractmethod
    async def process(self, df: daft.DataFrame, **input_kwargs: Any) -> daft.DataFrame:
        """Return the archetype's rows after this processor.

        Args:
            df: All active rows of the archetype, after this tick's commands and earlier processors.
            **input_kwargs: ``tick`` (int), ``world``, ``resources``, ``run_config``, ``inputs`` (dict), and each
                input under its own name.
        """


class ArrowProcessor(BaseProcessor):
    """A processor on Arrow record batches: override `process_batch`. Runs on a worker thread when there is much to do."""

    path: ClassVar[str] = "ARROW"
    """What ListProcessors tells of it."""

    @abstractmethod
    def process_batch(self, batch: pa.RecordBatch, **input_kwargs: Any) -> pa.RecordBatch:
        """Return the archetype's rows after this processor; keywords as for `AsyncProcessor.process`."""


def _plain(value: Any) -> Any:
    """Numbers stay what they are: the journal's JSON holds all of Python's, unlike a column's JSON form."""
    if isinstance(value, Enum):
        return _plain(value.value)
    if isinstance(value, int | float):
        return value
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return to_json(value)


class ProcessorRegistry:
    """The processor classes that an engine can build by name."""

    def __init__(self) -> None:
        self._types: dict[str, type[BaseProcessor]] = {}

    def register(self, kind: type[BaseProcessor]) -> None:
        """Make a class known under its class name."""
        self._types[kind.__name__] = kind

    def build(self, name: str, params: dict[str, Any]) -> BaseProcessor:
        """Make a processor of the class called `name`.

        Raises:
            UnknownProcessorTypeError: There is no such class.
            InvalidCommandError: It does not take `params`; `field` says which.
        """
        kind = self._types.get(name)
        if kind is None:
            known = ", ".join(sorted(self._types)) or "none"
            raise UnknownProcessorTypeError(
                f"processor type {name!r} is not registered (known: {known}); decorate it with @app.processor",
                field="type",
                type=name,
            )
        fitted = fit_params(kind, params)
        try:
            return kind(**fitted)
        except Exception as error:
            raise InvalidCommandError(
                f"processor type {name!r} does not take these params: {type(error).__name__}: {str(error)[:500]}",
                field="params",
            ) from error

    def __iter__(self) -> Any:
        return iter(sorted(self._types))
