"""The Tickwire server: the engine's worlds, served over gRPC."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tickwire_engine.errors import CustomRefusedError
    from tickwire_server.app import App

__all__ = ["App", "CustomRefusedError"]


def __getattr__(name: str) -> object:
    """Import what is asked for: the command line must not pay for the engine to list worlds."""
    if name == "App":
        from tickwire_server.app import App

        return App
    if name == "CustomRefusedError":
        from tickwire_engine.errors import CustomRefusedError

        return CustomRefusedError
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
