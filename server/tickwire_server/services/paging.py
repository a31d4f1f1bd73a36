"""Page sizes and page tokens: opaque to clients, bound to the conditions of the list that they continue."""

from __future__ import annotations

import base64
import binascii
import json

import xxhash

from tickwire_engine.errors import InvalidPageTokenError, InvalidRequestError

DEFAULT_PAGE = 100
MAX_PAGE = 1_000


def page_size_of(asked: int) -> int:
    """Return how many to answer.

    Raises:
        InvalidRequestError: It is negative.
    """
    if asked < 0:
        raise InvalidRequestError("page_size must not be negative", field="page_size")
    return min(asked or DEFAULT_PAGE, MAX_PAGE)


def page_token(position: int, conditions: object) -> str:
    """Return the token that goes on at `position` of the list with these conditions (whatever `repr` tells apart)."""
    body = json.dumps([position, _digest(conditions)]).encode()
    return base64.urlsafe_b64encode(body).decode()


def page_position(token: str, conditions: object) -> int:
    """Return where a token goes on; 0 without one.

    Raises:
        InvalidPageTokenError: It was not made for these conditions.
    """
    if not token:
        return 0
    try:
        position, bound = json.loads(base64.urlsafe_b64decode(token.encode()))
        if bound == _digest(conditions) and isinstance(position, int) and 0 < position < 1 << 62:
            return position
    except (ValueError, TypeError, binascii.Error, RecursionError):
        pass
    raise InvalidPageTokenError(
        "this page_token was not made for this request: start over without one", field="page_token"
    )


def _digest(conditions: object) -> str:
    return xxhash.xxh3_128_hexdigest(repr(conditions).encode(errors="replace"))
