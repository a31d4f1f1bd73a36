"""`tickwire backup` and `tickwire restore`: consistent copies of a data directory, while it is served too."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tickwire_server.cli._offline import errors_told
from tickwire_server.cli._options import AsJson
from tickwire_server.cli._output import counted, print_json

if TYPE_CHECKING:
    from tickwire_engine.storage.backup import Copied


def backup(
    data: Annotated[Path, typer.Argument(metavar="DIR", file_okay=False, help="The data directory.")],
    out: Annotated[
        Path, typer.Argument(metavar="OUT", help="Where the copy goes; nothing may be there yet.")
    ],
    as_json: AsJson = False,
) -> None:
    """Copy a data directory, as of one moment; a server may be serving it meanwhile.

    The copy is a data directory itself: verify it, or serve it.
    """
    _report("backed up", out, _copy(data, out, as_json=as_json), as_json=as_json)


def restore(
    out: Annotated[Path, typer.Argument(metavar="BACKUP", file_okay=False, help="What `backup` made.")],
    data: Annotated[
        Path, typer.Argument(metavar="DIR", help="The new data directory; nothing may be there yet.")
    ],
    as_json: AsJson = False,
) -> None:
    """Make a data directory of a backup.

    What was acknowledged after the backup is not in it: clients that saw later ticks must begin anew.
    """
    _report("restored", data, _copy(out, data, as_json=as_json), as_json=as_json)


def _copy(source: Path, target: Path, *, as_json: bool) -> Copied:
    from tickwire_engine.storage.backup import copy_data

    with errors_told(f"copy {source} to {target}", as_json=as_json):
        return copy_data(source, target)


def _report(done: str, target: Path, copied: Copied, *, as_json: bool) -> None:
    if as_json:
        print_json({"path": str(target.resolve()), "copied": copied})
    else:
        typer.echo(
            f"{done} {counted(copied.worlds, 'world')} to {target}: {copied.nbytes / 1e6:,.1f} MB in the journal, "
            f"{counted(copied.segments, 'segment')} and {counted(copied.datasets, 'dataset')}"
        )
