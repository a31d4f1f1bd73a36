"""One command, sent and told of."""

from __future__ import annotations

import typer

from tickwire import Command, CommandOptions, CommandState, Receipt, new_id
from tickwire_server.cli._client import connected, fail
from tickwire_server.cli._options import WaitName
from tickwire_server.cli._output import counted, plain, print_json


def command_options(command_id: str, tick: int | None, priority: int) -> CommandOptions:
    """Return what every command takes, its id made here."""
    return {"command_id": command_id or new_id(), "tick": tick, "priority": priority}


def submit_one(
    world: str, command: Command, wait: WaitName, max_wait_s: float, server: str, *, as_json: bool
) -> None:
    """Submit a command and tell what came of it; one that was rejected ends with exit code 1."""
    with connected(server, as_json=as_json) as client:
        handle = client.world(world)
        (receipt,) = handle.submit([command], wait=wait.value, max_wait_s=max_wait_s)
    if as_json:
        print_json(receipt)
        if receipt.outcome is not None and receipt.outcome.state is CommandState.REJECTED:
            raise typer.Exit(1)
        return
    typer.echo(_sentence(receipt))
    if wait is not WaitName.ACCEPTED and receipt.outcome is None:
        typer.echo(
            f"Not {wait.value} within {max_wait_s:g} s; it stays queued, and is decided once {world} ticks.",
            err=True,
        )
    if receipt.outcome is not None and receipt.outcome.error is not None:
        fail(receipt.outcome.error, server, as_json=False)


def _sentence(receipt: Receipt) -> str:
    outcome = receipt.outcome
    if outcome is not None and outcome.state is not CommandState.PENDING:
        entities = counted(outcome.entity_count, "entity", "entities")
        what = f"{plain(outcome.state)} in tick {outcome.tick}, {entities}"
    else:
        what = f"{'known already' if receipt.duplicate else 'queued'} for tick {receipt.due_tick}"
    ids = receipt.entity_ids
    if ids:
        what += f"; entity {ids[0]}" if len(ids) == 1 else f"; entities {ids[0]} to {ids[-1]}"
    return f"{what} (command {receipt.command_id})"
