"""Handlers of custom commands: functions of the application that a command calls by name, inside the tick that applies it.

A handler says by its annotations what it takes: a pydantic model (or anything else that pydantic validates) is the
command's body; `ActorCtx` is who sent it, set by the server; `AsyncWorld`, `CommandBroker` and `Resources` are the world's,
as processors get them. What is not annotated is told by its name: world, ctx, broker, resources, tick, inputs, run_config.
It reads the world as it was after the tick before, sends commands that are applied in the next, and returns a model,
a JSON value or nothing. It must be deterministic, as processors must: replay calls it again.
"""

from __future__ import annotations

import inspect
import typing
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, PydanticSchemaGenerationError, PydanticUserError, TypeAdapter, ValidationError

from tickwire_engine.command import NO_ACTOR, ActorCtx, canonical_json
from tickwire_engine.errors import (
    InvalidRequestError,
    ResultTooLargeError,
    SchemaMismatchError,
    UnknownCustomCommandError,
)
from tickwire_engine.params import first_problem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    Handler = Callable[..., Any]

F = TypeVar("F", bound="Handler")

MAX_VALUE_BYTES = 64 << 10
"""Of what a handler returns, as JSON: it is part of the outcome, in the tick's own row."""

_BY_ANNOTATION = {
    "ActorCtx": "ctx",
    "AsyncWorld": "world",
    "CommandBroker": "broker",
    "Resources": "resources",
}
_BY_NAME = {"actor": "ctx", "context": "ctx"} | {
    name: name for name in ("ctx", "world", "broker", "resources", "tick", "inputs", "run_config")
}
_BODY = "body"


@dataclass(frozen=True, slots=True)
class CommandHandler:
    """A registered handler.

    Attributes:
        name: What commands call it by.
        takes: What each of its parameters is given, by the parameter's name.
        model: Validates the body; None: it takes none.
        takes_rest: It has ``**kwargs``, for everything that its parameters do not take.
    """

    name: str
    function: Handler
    takes: Mapping[str, str]
    model: TypeAdapter[Any] | None
    takes_rest: bool

    def body(self, values: Mapping[str, Any]) -> Any:
        """Return the body as the handler takes it.

        Raises:
            SchemaMismatchError: The values do not fit; `field` is ``body`` and the path inside it.
        """
        if self.model is None:
            if values:
                raise SchemaMismatchError(
                    f"custom command {self.name!r} takes no body, and got {', '.join(values)}", field=_BODY
                )
            return None
        try:
            return self.model.validate_python(values)
        except ValidationError as error:
            where, why = first_problem(error)
            raise SchemaMismatchError(
                f"custom command {self.name!r} does not take {where or 'this body'}: {why}",
                field=f"{_BODY}.{where}" if where else _BODY,
            ) from None

    async def call(self, body: Any, given: Mapping[str, Any]) -> Any:
        """Call the function with what it asks for among `given`."""
        everything = {**given, _BODY: body}
        keywords = {parameter: everything[source] for parameter, source in self.takes.items()}
        if self.takes_rest:
            taken = {*self.takes.values(), *keywords}
            keywords |= {name: value for name, value in everything.items() if name not in taken}
        result = self.function(**keywords)
        return await result if inspect.isawaitable(result) else result


class HandlerRegistry:
    """The custom commands that an engine knows by name."""

    def __init__(self) -> None:
        self._handlers: dict[str, CommandHandler] = {}

    def register(self, name: str, function: F) -> F:
        """Let commands call `function` by `name`.

        Raises:
            InvalidRequestError: The name is empty or taken, or the function's parameters cannot be told apart.
        """
        if not name or not isinstance(name, str):
            raise InvalidRequestError('a custom command needs a name: @app.command("name")')
        if name in self._handlers:
            raise InvalidRequestError(f"a custom command {name!r} is registered already")
        self._handlers[name] = _inspected(name, function)
        return function

    def __iter__(self) -> Iterator[CommandHandler]:
        return iter(handler for _, handler in sorted(self._handlers.items()))

    def require(self, name: str) -> CommandHandler:
        """Return the handler called `name`.

        Raises:
            UnknownCustomCommandError: There is none.
        """
        found = self._handlers.get(name)
        if found is None:
            known = ", ".join(sorted(self._handlers)) or "none"
            raise UnknownCustomCommandError(
                f"no custom command is called {name!r} (known: {known}); decorate a function with @app.command",
                field="name",
                name=name,
            )
        return found


def value_of(name: str, result: object) -> bytes:
    """Return what a handler returned as the canonical JSON of an object; what is none becomes ``{"value": ...}``.

    Raises:
        ResultTooLargeError: It is larger than an outcome may be.
        TypeError: It is no model and no JSON value.
    """
    if result is None:
        return b""
    if isinstance(result, BaseModel):
        result = result.model_dump(mode="json")
    if not isinstance(result, dict):
        result = {"value": result}
    text = canonical_json(result).encode()
    if len(text) > MAX_VALUE_BYTES:
        raise ResultTooLargeError(
            f"custom command {name!r} returned {len(text)} bytes, and an outcome holds {MAX_VALUE_BYTES}: "
            "return less, and keep the rest in components",
            limit=MAX_VALUE_BYTES,
        )
    return text


def _inspected(name: str, function: Handler) -> CommandHandler:
    takes: dict[str, str] = {}
    model: TypeAdapter[Any] | None = None
    takes_rest = False
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is parameter.VAR_KEYWORD:
            takes_rest = True
            continue
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.POSITIONAL_ONLY):
            raise InvalidRequestError(
                f"custom command {name!r}: parameter {parameter.name} must be one that a keyword can name"
            )
        source = _source(parameter)
        if source in takes.values():
            raise InvalidRequestError(
                f"custom command {name!r}: {parameter.name} is a second parameter for the {source}: annotate one, "
                "as `world: AsyncWorld` or `ctx: ActorCtx`"
            )
        takes[parameter.name] = source
        if source == _BODY:
            model = _adapter(name, parameter, function)
    return CommandHandler(name, function, takes, model, takes_rest)


def _source(parameter: inspect.Parameter) -> str:
    annotation = parameter.annotation
    if annotation is parameter.empty:
        return _BY_NAME.get(parameter.name, _BODY)
    # A name that only type checkers see cannot be looked up, and need not be.
    text = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", "")
    known = _BY_ANNOTATION.get(text.strip("\"'").rpartition(".")[2])
    if known is not None:
        return known
    if parameter.name in ("tick", "inputs", "run_config"):
        return parameter.name
    return _BODY


def _adapter(name: str, parameter: inspect.Parameter, function: Handler) -> TypeAdapter[Any]:
    if parameter.annotation is parameter.empty:
        return TypeAdapter(dict[str, Any])
    holder = SimpleNamespace(__annotations__={"body": parameter.annotation})
    try:
        hint = typing.get_type_hints(holder, getattr(inspect.unwrap(function), "__globals__", {}))["body"]
        return TypeAdapter(hint)
    except (NameError, TypeError, PydanticSchemaGenerationError, PydanticUserError) as error:
        raise InvalidRequestError(
            f"custom command {name!r}: {parameter.name}: {parameter.annotation} is no type that pydantic validates "
            f"({error}); define the model at the module's top, where annotations are looked up"
        ) from None


def sender_of(text: str, actor: str) -> ActorCtx:
    """Return who sent a command: as the server wrote it down, or by no more than a name."""
    if text:
        return ActorCtx.model_validate_json(text)
    return ActorCtx(id=NO_ACTOR, subject=actor, worlds=())
