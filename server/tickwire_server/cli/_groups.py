"""Groups of commands of which one may be left out: ``tickwire components`` is ``tickwire components ls``."""

from __future__ import annotations

import typer
from typer.core import TyperGroup

DEFAULT = "ls"
_HELP = ("-h", "--help")


class ListingGroup(TyperGroup):
    """A group whose `ls` is meant where no other of its commands is named."""

    # Typer hands out its own Context to commands, and declares the one beneath it here.
    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        """Put `ls` before arguments that name no command."""
        if not args or (args[0] not in self.commands and args[0] not in _HELP):
            args = [DEFAULT, *args]
        return super().parse_args(ctx, args)
