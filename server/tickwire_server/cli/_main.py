"""The commands put together, and the entry point."""

from __future__ import annotations

import os
from typing import Annotated

import typer
from typer.core import TyperCommand, TyperGroup

from tickwire import __version__
from tickwire_server.cli import (
    backup,
    bench,
    catalog,
    commands,
    demo,
    doctor,
    entities,
    history,
    query,
    serve,
    simulation,
    sql,
    submit,
    tokens,
    verify,
    watch,
    worlds,
)

_RUNNING, _WORLDS, _ENTITIES = "Servers", "Worlds", "Entities"
# Not "Commands": that is what Typer calls the panel of whatever has none.
_COMMANDS = "Commands and outcomes"
_TIME, _READING, _DATA = "Time", "Reading", "Data directories"
_PANELS = (_RUNNING, _WORLDS, _ENTITIES, _COMMANDS, _TIME, _READING, _DATA)


class _Panelled(TyperGroup):
    """Lists the panels in the order in which a newcomer needs them."""

    # Typer hands out its own Context to commands, and declares the one beneath it here.
    def list_commands(self, ctx: typer.Context) -> list[str]:  # type: ignore[override]
        """Sort by panel; inside of one the order is that of their registration."""
        return sorted(self.commands, key=lambda name: _PANELS.index(self._panel(name)))

    def _panel(self, name: str) -> str:
        command = self.commands[name]
        assert isinstance(command, TyperCommand | TyperGroup)
        return str(command.rich_help_panel)


app = typer.Typer(
    name="tickwire",
    cls=_Panelled,
    help="Tickwire: durable worlds that tick, over gRPC.",
    no_args_is_help=True,
    # A traceback is for us, not for those who use the command.
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"tickwire {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    pass


app.command("serve", rich_help_panel=_RUNNING)(serve.serve)
app.command("demo", rich_help_panel=_RUNNING)(demo.demo)
app.command("bench", rich_help_panel=_RUNNING)(bench.bench)
app.add_typer(tokens.app, name="tokens", rich_help_panel=_RUNNING)
app.add_typer(worlds.app, name="worlds", rich_help_panel=_WORLDS)
app.add_typer(catalog.components, name="components", rich_help_panel=_WORLDS)
app.add_typer(catalog.processors, name="processors", rich_help_panel=_WORLDS)
app.command("spawn", rich_help_panel=_ENTITIES)(entities.spawn)
app.command("update", rich_help_panel=_ENTITIES)(entities.update)
app.command("despawn", rich_help_panel=_ENTITIES)(entities.despawn)
app.command("submit", rich_help_panel=_COMMANDS)(submit.submit)
app.add_typer(commands.app, name="commands", rich_help_panel=_COMMANDS)
app.command("step", rich_help_panel=_TIME)(simulation.step)
app.command("run", rich_help_panel=_TIME)(simulation.run)
app.command("play", rich_help_panel=_TIME)(simulation.play)
app.command("pause", rich_help_panel=_TIME)(simulation.pause)
app.command("watch", rich_help_panel=_READING)(watch.watch)
app.command("query", rich_help_panel=_READING)(query.query)
app.command("sql", rich_help_panel=_READING)(sql.sql)
app.command("history", rich_help_panel=_READING)(history.history)

app.command("verify", rich_help_panel=_DATA)(verify.verify)
app.command("doctor", rich_help_panel=_DATA)(doctor.doctor)
app.command("backup", rich_help_panel=_DATA)(backup.backup)
app.command("restore", rich_help_panel=_DATA)(backup.restore)


def main() -> None:
    """Run the command line of this process; ends it with the exit code."""
    # gRPC's C core writes its own lines about refused connections; ours say more.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    app(prog_name="tickwire")
