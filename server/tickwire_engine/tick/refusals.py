"""Why a command cannot be applied to entities: each as an error that says which, and what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tickwire_engine.errors import ComponentNotFoundError, EntityNotFoundError, InvalidCommandError

if TYPE_CHECKING:
    from tickwire_engine.archetype import Signature


def nothing_left(entity_id: int) -> InvalidCommandError:
    """An entity would have no component left."""
    return InvalidCommandError(
        f"entity {entity_id} would have no component left: despawn it",
        field="remove_component.components",
        entity_id=entity_id,
    )


def no_such_component(entity_id: int, name: str, sig: Signature) -> ComponentNotFoundError:
    """An entity does not have a component that is to be written."""
    return ComponentNotFoundError(
        f"entity {entity_id} has no component {name} (it has {', '.join(sig)}); add_component gives it one",
        component=name,
        entity_id=entity_id,
    )


def no_such_entity(missing: list[int]) -> EntityNotFoundError:
    """Entities do not exist."""
    shown = ", ".join(map(str, missing[:10])) + (", ..." if len(missing) > 10 else "")
    error = EntityNotFoundError(
        f"no such entity: {shown}; skip_missing leaves missing ones out",
        field="entity_ids",
        entity_id=missing[0],
        missing=len(missing),
    )
    error.missing_entity_ids = missing
    return error
