"""What an application's own code raises where nothing of it may be told: logged in full, answered by a number."""

from __future__ import annotations

import secrets

import structlog

from tickwire_engine.errors import TickwireError

_log = structlog.get_logger(__name__)


def internal(what: str, error: BaseException, *, field: str = "") -> TickwireError:
    """Log `error` with its traceback, and return what its cause may be told instead: INTERNAL, with ``error_id``."""
    error_id = secrets.token_hex(8)
    _log.error(what, error_id=error_id, exc_info=error)
    return TickwireError(
        f"{what}; the server's log has the reason, as error {error_id}", field=field, error_id=error_id
    )
