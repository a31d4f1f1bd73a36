"""Parameters from JSON into what a constructor's annotations ask for.

JSON knows one kind of number, and the wire's `Struct` makes every one a float: an ``int`` parameter takes 3.0 as 3,
and refuses 3.5. A parameter without an annotation that pydantic understands takes what it is given.
"""

from __future__ import annotations

import functools
import inspect
import typing
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from pydantic import PydanticSchemaGenerationError, PydanticUserError, TypeAdapter, ValidationError

from tickwire_engine.errors import InvalidCommandError

if TYPE_CHECKING:
    from collections.abc import Mapping


def fit_params(kind: type, params: Mapping[str, Any]) -> dict[str, Any]:
    """Return `params` as the constructor of `kind` takes them.

    Raises:
        InvalidCommandError: It has no such parameter, lacks one, or refuses a value; `field` says which.
    """
    constructor = _constructor(kind)
    try:
        constructor.bind(**params)
    except TypeError as error:
        unknown = [name for name in params if name not in constructor.parameters]
        field = f"params.{unknown[0]}" if unknown and not _takes_any(constructor) else "params"
        raise InvalidCommandError(
            f"processor type {kind.__name__!r} does not take these params: {error}", field=field
        ) from None
    fitted = {}
    for name, value in params.items():
        adapter = _adapter(kind, name)
        fitted[name] = value if adapter is None else _fit(adapter, value, kind, name)
    return fitted


def first_problem(error: ValidationError) -> tuple[str, str]:
    """Return (the path, the text) of the first thing that pydantic found wrong."""
    first = error.errors(include_url=False, include_context=False)[0]
    path = ""
    for part in first["loc"]:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else part
    return path, first["msg"]


def _fit(adapter: TypeAdapter[Any], value: Any, kind: type, name: str) -> Any:
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        where, why = first_problem(error)
        path = f"{name}{where}" if where.startswith("[") else ".".join(filter(None, (name, where)))
        raise InvalidCommandError(
            f"processor type {kind.__name__!r} does not take {path}={str(value)[:80]!r}: {why}",
            field=f"params.{path}",
        ) from None


def _adapter(kind: type, name: str) -> TypeAdapter[Any] | None:
    function = kind.__init__  # type: ignore[misc]
    annotation = getattr(function, "__annotations__", {}).get(name)
    if annotation is None:
        return None
    holder = SimpleNamespace(__annotations__={name: annotation})
    try:
        # One by one: a name that only type checkers see must not hide the others.
        hint = typing.get_type_hints(holder, getattr(function, "__globals__", {}))[name]
        return TypeAdapter(hint)
    except (NameError, TypeError, PydanticSchemaGenerationError, PydanticUserError):
        return None


def _constructor(kind: type) -> inspect.Signature:
    function = kind.__init__  # type: ignore[misc]
    if function is object.__init__:
        return inspect.Signature()
    return inspect.signature(functools.partial(function, None))


def _takes_any(constructor: inspect.Signature) -> bool:
    return any(parameter.kind is parameter.VAR_KEYWORD for parameter in constructor.parameters.values())
