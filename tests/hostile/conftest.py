"""The server of `tests/server`, for strangers too."""

from tests.server.conftest import served

__all__ = ["served"]
