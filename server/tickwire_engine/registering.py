"""Registering components at run time: durable, for all worlds, between two of their ticks.

Lives as long as its engine, on its event loop. What may grow into what is in `evolution`.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from tickwire_engine.encoding import schema_message
from tickwire_engine.errors import ComponentExistsError
from tickwire_engine.evolution import fields_text, hindrance, stored_component, stored_defaults

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from tickwire_engine.component import ComponentCatalog, ComponentType
    from tickwire_engine.storage.rows import StoredComponent
    from tickwire_engine.storage.store import Store
    from tickwire_engine.world import AsyncWorld


class ComponentRegistration:
    """Defines the components of one store."""

    def __init__(
        self, store: Store, catalog: ComponentCatalog, worlds: Callable[[], Iterable[AsyncWorld]]
    ) -> None:
        """Takes what it works on.

        Args:
            worlds: Returns the living worlds: their next ticks wait while a component grows.
        """
        self._store = store
        self._catalog = catalog
        self._worlds = worlds
        self._registering = asyncio.Lock()

    async def register(self, entry: ComponentType, *, with_defaults: bool) -> ComponentType:
        """Define a component or let it grow: see `Engine.register_component`."""
        catalog = self._catalog
        async with self._registering:
            known = catalog.find(entry.name)
            if known is not None and not with_defaults and known.schema.equals(entry.schema):
                return known
            if known is not None:
                if known == entry or (known.origin == "APP" and _same(known, entry)):
                    return known
                _require_grown(known, entry)
            schema, defaults = schema_message(entry.schema), stored_defaults(entry)
            await self._store.register_component(entry.name, schema, defaults, entry.origin)
            if known is None:
                catalog.add(entry)
                return entry
            async with contextlib.AsyncExitStack() as between_ticks:
                for world in self._worlds():
                    await between_ticks.enter_async_context(world.between_ticks())
                catalog.grow(entry)
                for world in self._worlds():
                    world.acceptance.queue.read_again()
            return entry

    def take_back(self, registered: Iterable[StoredComponent]) -> None:
        """Take back the components that clients registered; those of the application may have grown from them.

        Raises:
            ComponentExistsError: One of the application is not what a client registered, nor grown from it.
        """
        catalog = self._catalog
        for stored in registered:
            entry = stored_component(stored)
            known = catalog.find(entry.name)
            if known is None:
                catalog.add(entry)
                continue
            why = (
                hindrance(entry.schema, known)
                if known.name == entry.name
                else "names are unique ignoring case"
            )
            if why:
                raise ComponentExistsError(
                    f"component {known.name} is defined as {fields_text(known.schema)}, and was registered by a client "
                    f"as {entry.name}{fields_text(entry.schema)}: {why}",
                    component=known.name,
                )


def _same(known: ComponentType, entry: ComponentType) -> bool:
    return (
        known.name == entry.name
        and known.schema.equals(entry.schema)
        and stored_defaults(known) == stored_defaults(entry)
    )


def _require_grown(known: ComponentType, entry: ComponentType) -> None:
    if known.name != entry.name:
        why = "names are unique ignoring case"
    elif known.origin == "APP":
        why = "it is the application's own: change its class, and start again"
    elif known.schema.equals(entry.schema):
        why = "it has other defaults"
    else:
        why = hindrance(known.schema, entry)
        if not why:
            return
    error = ComponentExistsError(
        f"component {known.name} exists as {fields_text(known.schema)}, and is to be {fields_text(entry.schema)}: {why}. "
        "New fields may be added that have a default, or may be null",
        field="name",
        component=known.name,
    )
    differing = [
        f.name for f in known.schema if f.name not in entry.schema.names or entry.schema.field(f.name) != f
    ]
    error.metadata["field"] = next(iter(differing), "")
    raise error
