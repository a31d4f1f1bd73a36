"""`tickwire tokens`: who may call a server that asks."""

from __future__ import annotations

import asyncio
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer

from tickwire import TokenInfo
from tickwire_server.cli._client import connected
from tickwire_server.cli._offline import errors_told
from tickwire_server.cli._options import DEFAULT_SERVER, AsJson, Server
from tickwire_server.cli._output import console, listing, plain, print_error, print_json

if TYPE_CHECKING:
    from tickwire_engine import CommandType

app = typer.Typer(help="Make API tokens, list them, revoke them.", no_args_is_help=True)

_TTL = re.compile(r"(\d+)([smhd])")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


@app.command("create")
def create(
    name: Annotated[str, typer.Argument(help="What people know it by.")],
    role: Annotated[
        list[str] | None,
        typer.Option(
            "--role", "-r", help="viewer, player, operator, admin, or the policy's own. Repeat for several."
        ),
    ] = None,
    world: Annotated[
        list[str] | None,
        typer.Option(
            "--world", "-w", metavar="GLOB", help="Worlds that it is good for, by name; default: all."
        ),
    ] = None,
    command: Annotated[
        list[str] | None,
        typer.Option(
            "--command", metavar="TYPE", help="Only commands of this type, as spawn. Repeat for several."
        ),
    ] = None,
    ttl: Annotated[
        str,
        typer.Option(
            metavar="TIME", help="How long it is good for, as 90s, 30m, 12h or 30d; default: the server's."
        ),
    ] = "",
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            file_okay=False,
            help="Write it into a data directory that no server serves: so the first one is made.",
        ),
    ] = None,
    server: Server = DEFAULT_SERVER,
    as_json: AsJson = False,
) -> None:
    """Make a token; its secret is shown here, and never again."""
    if not role:
        raise typer.BadParameter("give its roles, as --role player")
    ttl_s = _seconds(ttl)
    if data is not None:
        with errors_told(f"write to {data}", as_json=as_json):
            made = _first(data, name, role, world or ["*"], command or [], ttl_s)
    else:
        with connected(server, as_json=as_json) as client:
            try:
                made = client.create_token(
                    name, roles=role, worlds=world or ["*"], allowed_commands=command or [], ttl_s=ttl_s
                )
            except ValueError as error:
                raise typer.BadParameter(str(error)) from None
    if as_json:
        print_json(plain(made))
        return
    typer.echo(
        f"token {made.name} ({made.id}), roles {', '.join(made.roles)}, worlds {', '.join(made.worlds)}",
        err=True,
    )
    typer.echo(
        "Its secret is shown this once; send it as `authorization: Bearer`, or set TICKWIRE_TOKEN.", err=True
    )
    typer.echo(made.secret)


@app.command("ls")
def ls(server: Server = DEFAULT_SERVER, as_json: AsJson = False) -> None:
    """List the tokens, without their secrets."""
    with connected(server, as_json=as_json) as client:
        found = list(client.tokens())
    if as_json:
        print_json({"tokens": [_document(token) for token in found]})
        return
    rows = (
        (
            token.name,
            _state(token),
            ", ".join(token.roles),
            ", ".join(token.worlds),
            ", ".join(token.allowed_commands),
            token.expires_at.isoformat(timespec="seconds") if token.expires_at else None,
            token.id,
        )
        for token in found
    )
    columns = ("token", "state", "roles", "worlds", "commands", "expires", "id")
    console().print(listing(columns, rows))


@app.command("revoke")
def revoke(
    token: Annotated[
        str, typer.Argument(metavar="ID_OR_NAME", help="The token; a name must be that of one.")
    ],
    server: Server = DEFAULT_SERVER,
    as_json: AsJson = False,
) -> None:
    """Revoke a token, at once and for good."""
    with connected(server, as_json=as_json) as client:
        named = [each for each in client.tokens() if each.name == token and each.revoked_at is None]
        if len(named) > 1:
            print_error(
                f"{len(named)} tokens are called {token!r}",
                hint="Give the id: `tickwire tokens ls` shows them.",
            )
            raise typer.Exit(1)
        if not named and not _is_id(token):
            print_error(
                f"no token that is good is called {token!r}",
                hint="`tickwire tokens ls` shows those that there are.",
            )
            raise typer.Exit(1)
        revoked = client.revoke_token(named[0].id if named else token)
    if as_json:
        print_json(_document(revoked))
    else:
        typer.echo(f"token {revoked.name} ({revoked.id}) is revoked")


def _is_id(text: str) -> bool:
    try:
        return str(UUID(text)) == text
    except ValueError:
        return False


def _seconds(text: str) -> float | None:
    if not text:
        return None
    found = _TTL.fullmatch(text)
    if found is None or not int(found[1]):
        raise typer.BadParameter(f"ttl {text!r} should look like 90s, 30m, 12h or 30d")
    return float(int(found[1]) * _UNITS[found[2]])


def _first(
    data: Path, name: str, roles: list[str], worlds: list[str], allowed: list[str], ttl_s: float | None
) -> TokenInfo:
    """Write a token into a directory that nobody serves."""
    # The engine is heavy, and every other command does without it.
    from tickwire_engine.storage.store import Store
    from tickwire_server.auth.globs import check_globs
    from tickwire_server.auth.tokens import new_token

    expires_at_us = 0 if ttl_s is None else int((time.time() + ttl_s) * 1e6)
    check_globs(worlds, field="world")
    row, secret = new_token(
        name,
        roles=roles,
        worlds=worlds,
        allowed_commands=_types(allowed),
        expires_at_us=expires_at_us,
        created_by="",
    )
    store = Store.open(data)
    try:
        asyncio.run(_put(store, row))
    finally:
        store.close()
    return TokenInfo(
        id=str(UUID(bytes=row.id)),
        name=row.name,
        roles=row.roles,
        worlds=row.worlds,
        allowed_commands=row.allowed_commands,
        created_at=None,
        expires_at=None,
        revoked_at=None,
        created_by="",
        secret=secret,
    )


async def _put(store: Any, row: Any) -> None:
    await store.identity.put_token(row)


def _types(names: list[str]) -> list[CommandType]:
    from tickwire_engine import CommandType

    known = {kind.value: kind for kind in CommandType}
    for name in names:
        if name not in known:
            raise typer.BadParameter(f"{name!r} is no type of command; there are {', '.join(known)}")
    return [known[name] for name in names]


def _state(token: TokenInfo) -> str:
    if token.revoked_at is not None:
        return "revoked"
    expired = token.expires_at is not None and token.expires_at.timestamp() <= time.time()
    return "expired" if expired else "good"


def _document(token: TokenInfo) -> dict[str, Any]:
    document = dict(plain(token))
    del document["secret"]
    return {**document, "state": _state(token)}
