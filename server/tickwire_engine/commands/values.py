"""Values that several commands take, checked."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from tickwire_engine.errors import InvalidCommandError


def natural(value: Any, *, path: str) -> int:
    """Return an integer of [0, 2^53).

    Raises:
        InvalidCommandError: It is none.
    """
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 53:
        raise InvalidCommandError(f"{path} must be an integer in [0, 2^53)", field=path)
    return value


def new_world_id(value: Any, *, path: str) -> UUID:
    """Return the id that a sender gives to a world.

    Raises:
        InvalidCommandError: It is no UUIDv7.
    """
    try:
        parsed = UUID(str(value))
    except ValueError:
        parsed = UUID(int=0)
    if parsed.version != 7:
        raise InvalidCommandError(f"{path}: {str(value)[:80]!r} is no UUIDv7", field=path)
    return parsed
