"""A command's rejection, read back from the journal as the error that it was."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tickwire_engine.errors import TickwireError

if TYPE_CHECKING:
    from tickwire_engine.storage.rows import Outcome


def rejection_of(outcome: Outcome) -> TickwireError:
    """Return the error that an outcome tells: its reason, message, field and facts."""
    error = TickwireError(outcome.message, field=outcome.field, **dict(outcome.metadata))
    error.reason = outcome.reason  # type: ignore[misc]  # a class has one reason, this one has that of any
    return error
