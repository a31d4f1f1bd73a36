"""What a world's ticks run with: its processors in order, the shapes of the components they name, its resources.

Immutable and interned: its id is the hash of its canonical JSON, and a tick commit names the id only. It covers what the
world uses and nothing else of the application: the shapes of archetypes are covered by their tables' own hashes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import xxhash

from tickwire_engine.errors import WorldFaultedError
from tickwire_engine.processor import BaseProcessor
from tickwire_engine.storage.rows import Configuration

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pydantic import BaseModel

    from tickwire_engine.component import ComponentCatalog


@dataclass(frozen=True, slots=True)
class ProcessorEntry:
    """One processor in force.

    Attributes:
        name: Unique in the world.
        type: The registered name of its class.
        params: What its constructor was called with, as plain values.
    """

    name: str
    type: str
    priority: int
    components: tuple[str, ...]
    params: dict[str, Any]
    instance: BaseProcessor = field(compare=False, repr=False)

    def body(self) -> dict[str, Any]:
        """Return what the configuration id covers."""
        return {
            "name": self.name,
            "type": self.type,
            "priority": self.priority,
            "components": list(self.components),
            "params": self.params,
        }


class MissingProcessor(BaseProcessor):
    """Stands where a processor of the journal could not be built again: the world waits for it."""

    def __init__(self, why: str) -> None:
        self.why = why


@dataclass(frozen=True, slots=True)
class ResourceEntry:
    """One resource that a command set, or removed.

    Attributes:
        name: The registered name of its class.
        value: All its fields as plain values; None: removed, so that the app's own is hidden.
        kind: The class; None where it could not be found again.
        instance: What processors get.
        why: Why it could not be built again.
    """

    name: str
    value: dict[str, Any] | None
    kind: type | None = field(default=None, compare=False, repr=False)
    instance: BaseModel | None = field(default=None, compare=False, repr=False)
    why: str = field(default="", compare=False)

    def body(self) -> dict[str, Any]:
        """Return what the configuration id covers."""
        return {"name": self.name, "value": self.value}


@dataclass(frozen=True, slots=True)
class WorldConfiguration:
    """The configuration in force, and its interned form."""

    processors: tuple[ProcessorEntry, ...]
    """In the order they run: lower priority first, then name."""
    interned: Configuration
    resources: tuple[ResourceEntry, ...] = ()
    """What commands set, by name."""

    @classmethod
    def of(
        cls,
        processors: Iterable[ProcessorEntry] = (),
        resources: Iterable[ResourceEntry] = (),
        catalog: ComponentCatalog | None = None,
    ) -> WorldConfiguration:
        """Put processors and resources in order and intern the whole."""
        ordered = tuple(sorted(processors, key=lambda entry: (entry.priority, entry.name)))
        named = tuple(sorted(resources, key=lambda entry: entry.name))
        used = sorted({name for entry in ordered for name in entry.components})
        body = json.dumps(
            {
                "processors": [entry.body() for entry in ordered],
                "components": [
                    catalog.require(name).fingerprint()
                    for name in used
                    if catalog is not None and name in catalog
                ],
                "resources": [entry.body() for entry in named],
            },
            sort_keys=True,
            separators=(",", ":"),
            default=str,
        ).encode()
        return cls(ordered, Configuration(xxhash.xxh3_128_digest(body), body), named)

    @property
    def resources_by_type(self) -> Mapping[type, object]:
        """What processors get under each type; None: hidden."""
        if not self.resources:
            return MappingProxyType({})
        return {entry.kind: entry.instance for entry in self.resources if entry.kind is not None}

    def problems(self) -> list[str]:
        """Say what of the journal could not be built again, by name."""
        said = [
            f"processor {entry.name}: {entry.instance.why}"
            for entry in self.processors
            if isinstance(entry.instance, MissingProcessor)
        ]
        return said + [f"resource {entry.name}: {entry.why}" for entry in self.resources if entry.why]

    def require_whole(self) -> None:
        """Refuse to compute a tick with a part of the configuration missing.

        Raises:
            WorldFaultedError: Something could not be built again.
        """
        problems = self.problems()
        if problems:
            raise WorldFaultedError(
                f"what this world runs with could not be built again: {'; '.join(problems)[:1000]}. "
                "Bring it back and start again, or take it out by a command"
            )
