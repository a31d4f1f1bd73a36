"""SET_RESOURCE and REMOVE_RESOURCE: what processors read, in force from the tick that applies it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from tickwire_engine.commands.operation import Applied, Operation, TickDraft, Vocabulary, refuse_unknown
from tickwire_engine.configuration import ResourceEntry
from tickwire_engine.errors import InvalidCommandError, ResourceNotFoundError, TickwireError
from tickwire_engine.params import first_problem

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import BaseModel

    from tickwire_engine.resources import ResourceRegistry
    from tickwire_engine.storage.rows import CommandRow


@dataclass(frozen=True, slots=True)
class SetResource(Operation):
    """A resource that is ready to be read."""

    entry: ResourceEntry

    def apply(self, draft: TickDraft, row: CommandRow) -> Applied:
        """Put it in force."""
        draft.resources[self.entry.name] = self.entry
        return Applied()


@dataclass(frozen=True, slots=True)
class RemoveResource(Operation):
    """The name of a resource to go; `hidden` stands in for one that every world starts with."""

    name: str
    hidden: ResourceEntry | None

    def apply(self, draft: TickDraft, row: CommandRow) -> Applied:
        """Take it out of force."""
        known = draft.resources.get(self.name)
        if (known is None and self.hidden is None) or (known is not None and known.value is None):
            raise ResourceNotFoundError(
                f"this world has no resource called {self.name!r}",
                field="remove_resource.name",
                resource=self.name,
            )
        draft.resources.pop(self.name, None)
        if self.hidden is not None:
            draft.resources[self.name] = self.hidden
        return Applied()


def parse_set(payload: Mapping[str, Any], table: bytes, vocabulary: Vocabulary) -> Operation:
    """Validate: the name of a registered pydantic model, and a value that it takes."""
    refuse_unknown(payload, table, type_name="set_resource", known=("name", "value"))
    name = payload.get("name")
    if not name:
        raise InvalidCommandError("set_resource needs a name", field="set_resource.name")
    try:
        return SetResource(resource_entry(name, payload.get("value") or {}, vocabulary.resources))
    except TickwireError as error:
        error.at("set_resource")
        raise


def parse_remove(payload: Mapping[str, Any], table: bytes, vocabulary: Vocabulary) -> Operation:
    """Validate: the name; whether there is such a resource is known when it is applied."""
    refuse_unknown(payload, table, type_name="remove_resource", known=("name",))
    name = payload.get("name")
    if not name:
        raise InvalidCommandError("remove_resource needs a name", field="remove_resource.name")
    hidden = None
    if vocabulary.resources.has_default(name):
        hidden = ResourceEntry(name, None, vocabulary.resources.kind(name))
    return RemoveResource(name, hidden)


def resource_entry(name: str, value: Any, registry: ResourceRegistry) -> ResourceEntry:
    """Build a resource from plain values.

    Raises:
        ResourceNotFoundError: No class of that name is registered.
        InvalidCommandError: The class does not take the value.
    """
    model = registry.model(name)
    try:
        instance = model.model_validate(value)
    except ValidationError as error:
        where, why = first_problem(error)
        raise InvalidCommandError(
            f"resource {name} does not take {where or 'this value'}: {why}",
            field=f"value.{where}" if where else "value",
        ) from None
    plain = instance.model_dump(mode="json")
    if not _comes_back(model, plain, instance):
        raise InvalidCommandError(
            f"resource {name} does not come back from JSON as it was: secrets, for one, are not kept in a journal",
            field="value",
        )
    return ResourceEntry(name, plain, model, instance)


def _comes_back(model: type[BaseModel], plain: dict[str, Any], instance: BaseModel) -> bool:
    try:
        again = model.model_validate(plain)
    except ValidationError:
        return False
    return again == instance or _has_nan(plain)


def _has_nan(value: Any) -> bool:
    if isinstance(value, dict):
        return any(_has_nan(item) for item in value.values())
    if isinstance(value, list):
        return any(_has_nan(item) for item in value)
    return isinstance(value, float) and math.isnan(value)
