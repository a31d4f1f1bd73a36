"""Resources: one object per type, shared by everything that runs in a world.

A resource is configuration: put in at bootstrap, or set by command from the exact tick that applies it, and read by
processors. State that changes inside ticks belongs into components, or into a resource that declares `Snapshot`,
whose bytes go into the tick commit.
"""

from __future__ import annotations

from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast, runtime_checkable

from pydantic import BaseModel

from tickwire_engine.errors import InvalidRequestError, ResourceNotFoundError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

T = TypeVar("T")
R = TypeVar("R", bound=type)


@runtime_checkable
class Snapshot(Protocol):
    """A resource whose state is part of the world: rolled back, restored and forked with it."""

    def snapshot(self) -> bytes:
        """Return the whole state; equal states give equal bytes."""
        ...

    def restore(self, state: bytes) -> None:
        """Become what `snapshot` described."""
        ...


@lru_cache(maxsize=1024)
def _declares_snapshot(kind: type) -> bool:
    # Every tick asks, and looking through a protocol takes longer than many a tick's processor.
    return issubclass(kind, Snapshot)


class Resources:
    """A type-keyed container: ``resources.insert(Clock())``, ``resources.require(Clock)``.

    Lives as long as its world; use it on the world's event loop, or from a processor inside a tick. A resource that was
    set by command stands above one of the same type that was inserted.
    """

    def __init__(self) -> None:
        self._by_type: dict[type, object] = {}
        self._configured: Mapping[type, object] = {}
        self._kept: Mapping[str, bytes] = {}

    def insert(self, resource: object) -> None:
        """Put `resource` under its own type, in place of one of the same type.

        One that declares `Snapshot` becomes what the world last knew of its type.
        """
        self._by_type[type(resource)] = resource
        kept = self._kept.get(type(resource).__name__)
        if kept is not None and isinstance(resource, Snapshot):
            resource.restore(kept)

    def get(self, kind: type[T]) -> T | None:
        """Return the resource of exactly the type `kind`, or None."""
        if kind in self._configured:
            return cast("T | None", self._configured[kind])
        return cast("T | None", self._by_type.get(kind))

    def require(self, kind: type[T]) -> T:
        """Return the resource of exactly the type `kind`.

        Raises:
            KeyError: There is none; the error names the type.
        """
        found = self.get(kind)
        if found is None:
            raise KeyError(f"no resource of type {kind.__name__}: insert one before the world steps")
        return found

    def remove(self, kind: type[T]) -> T | None:
        """Take an inserted resource of type `kind` out and return it, or None."""
        return cast("T | None", self._by_type.pop(kind, None))

    def contains(self, kind: type) -> bool:
        """Tell whether there is a resource of exactly the type `kind`."""
        return self.get(kind) is not None

    def __contains__(self, kind: type) -> bool:
        return self.contains(kind)

    def __iter__(self) -> Iterator[object]:
        kinds = self._by_type.keys() | self._configured.keys() if self._configured else self._by_type
        return iter([found for kind in kinds if (found := self.get(kind)) is not None])

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def inserted(self, kind: type[T]) -> T | None:
        """Return what was inserted under the type `kind`, whatever a command set above it."""
        return cast("T | None", self._by_type.get(kind))

    # What the world's ticks do with them

    def configure(self, configured: Mapping[type, object]) -> None:
        """Put resources set by command in force, all at once; None hides one that was inserted."""
        self._configured = configured

    def keep(self, snapshots: Mapping[str, bytes]) -> None:
        """Remember the world's snapshots: what a resource that is inserted later becomes."""
        self._kept = snapshots

    def snapshots(self, *, kept: Mapping[str, bytes] = MappingProxyType({})) -> Mapping[str, bytes]:
        """Return the state of every resource that declares one, by type name; from `kept` where it is known."""
        taken: dict[str, bytes] = {}
        for kind, resource in self._by_type.items():
            if _declares_snapshot(kind):
                name = kind.__name__
                taken[name] = kept[name] if name in kept else bytes(cast("Snapshot", resource).snapshot())
        return taken

    def restore(self, snapshots: Mapping[str, bytes]) -> None:
        """Bring resources back to their snapshots; those without one stay as they are."""
        for kind, resource in self._by_type.items():
            if kind.__name__ in snapshots and isinstance(resource, Snapshot):
                resource.restore(snapshots[kind.__name__])

    def lacking(self, snapshots: Mapping[str, bytes]) -> list[str]:
        """Return the names of snapshots that no resource is there for."""
        names = {kind.__name__ for kind, found in self._by_type.items() if isinstance(found, Snapshot)}
        return sorted(snapshots.keys() - names)


class ResourceRegistry:
    """The resource classes that an engine knows by name: those that commands may set are pydantic models."""

    def __init__(self) -> None:
        self._types: dict[str, type] = {}

    def register(self, kind: R) -> R:
        """Make a class known under its class name."""
        known = self._types.setdefault(kind.__name__, kind)
        if known is not kind and known.__qualname__ != kind.__qualname__:
            raise InvalidRequestError(
                f"resource {kind.__name__} is defined in {known.__module__} and in {kind.__module__}: rename one"
            )
        self._types[kind.__name__] = kind
        return kind

    def __iter__(self) -> Iterator[tuple[str, type]]:
        return iter(sorted(self._types.items()))

    def __contains__(self, name: str) -> bool:
        return name in self._types

    def kind(self, name: str) -> type | None:
        """Return the class called `name`, or None."""
        return self._types.get(name)

    def model(self, name: str) -> type[BaseModel]:
        """Return the pydantic model of a resource that commands may set.

        Raises:
            ResourceNotFoundError: No class of that name is registered.
            InvalidRequestError: It is no pydantic model.
        """
        kind = self._types.get(name)
        if kind is None:
            known = ", ".join(sorted(self._types)) or "none"
            raise ResourceNotFoundError(
                f"no resource type is called {name!r} (known: {known}); decorate it with @app.resource",
                field="name",
                resource=name,
            )
        if not issubclass(kind, BaseModel):
            raise InvalidRequestError(
                f"resource {name} is no pydantic model: it is the app's own, and no command sets it",
                field="name",
            )
        return kind

    def has_default(self, name: str) -> bool:
        """Tell whether worlds start with a resource of that name."""
        kind = self._types.get(name)
        if kind is None:
            return False
        return not issubclass(kind, BaseModel) or not any(
            info.is_required() for info in kind.model_fields.values()
        )

    def defaults(self) -> Iterator[Any]:
        """Make the resources that a world starts with."""
        for name, kind in self:
            if self.has_default(name):
                yield kind()
