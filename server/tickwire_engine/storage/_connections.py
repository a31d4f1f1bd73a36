"""The journal's SQLite connections, and the settings that durability rests on."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import apsw
import apsw.sqlite_extra

from tickwire_engine.errors import CorruptRecordError, StorageError
from tickwire_engine.storage._room import was_full

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PAGE_BYTES = 4096
_CHECKSUM_BYTES = 8
_VFS = "cksmvfs"


def _open(path: Path, flags: int) -> apsw.Connection:
    """Open the file with a checksum on each page, which SQLite by itself does not have."""
    if _VFS not in apsw.vfs_names():
        with contextlib.closing(apsw.Connection(":memory:")) as loader:
            try:
                apsw.sqlite_extra.load(loader, "cksumvfs")
            except apsw.sqlite_extra.NotAvailable:
                raise StorageError(
                    "this build of apsw has no page checksums (cksumvfs): install its wheel from PyPI"
                ) from None
    return apsw.Connection(str(path), flags=flags, vfs=_VFS)


def open_writer(path: Path) -> apsw.Connection:
    """Open the one connection that writes: a commit is durable when it returns.

    Raises:
        StorageError: SQLite did not take a setting that durability rests on.
    """
    connection = _open(path, apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE)
    # Of a new file; it says in every page's last bytes what the others must be.
    connection.reserve_bytes("main", _CHECKSUM_BYTES)
    connection.pragma("page_size", PAGE_BYTES)
    connection.pragma("journal_mode", "wal")
    connection.pragma("synchronous", "full")
    connection.pragma("wal_autocheckpoint", 0)
    connection.pragma("mmap_size", 0)
    connection.pragma("cell_size_check", "on")
    connection.pragma("trusted_schema", "off")
    connection.pragma("cache_size", -16 << 10)
    # Only checkpoints can meet a reader's lock, and they are tried again later.
    connection.set_busy_timeout(50)
    connection.create_scalar_function("id_ms", _id_ms, 1, deterministic=True)
    settings = {"journal_mode": "wal", "synchronous": 2, "wal_autocheckpoint": 0, "mmap_size": 0}
    for name, wanted in settings.items():
        actual = connection.pragma(name)
        if actual != wanted:
            raise StorageError(
                f"SQLite did not take {name}={wanted}, it says {actual}: use another file system"
            )
    return connection


def _id_ms(*values: apsw.SQLiteValue) -> int:
    """Tell SQL the time in a UUIDv7, in milliseconds since the Unix epoch."""
    (uuid,) = values
    assert isinstance(uuid, bytes)
    return int.from_bytes(uuid[:6], "big")


def open_copy(path: Path) -> apsw.Connection:
    """Open a new file for SQLite to copy another into."""
    return _open(path, apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE)


def open_reader(path: Path) -> apsw.Connection:
    """Open a connection that cannot write."""
    connection = _open(path, apsw.SQLITE_OPEN_READONLY)
    connection.pragma("mmap_size", 0)
    connection.pragma("cell_size_check", "on")
    connection.set_busy_timeout(5000)
    return connection


@contextlib.contextmanager
def read_transaction(connection: apsw.Connection, path: Path) -> Iterator[None]:
    """Read one consistent state; may be nested.

    Raises:
        CorruptRecordError: A page is not what was written.
    """
    if connection.in_transaction:
        yield
        return
    with telling_damage(path):
        connection.execute("BEGIN")
        try:
            yield
        finally:
            # An error of the file has ended it already.
            if connection.in_transaction:
                connection.execute("COMMIT")


@contextlib.contextmanager
def telling_damage(path: Path) -> Iterator[None]:
    """Name the file that SQLite cannot read.

    Raises:
        CorruptRecordError: A page is not what was written.
    """
    try:
        yield
    except (apsw.IOError, apsw.CorruptError, apsw.NotADBError) as error:
        if was_full(error):
            raise
        raise CorruptRecordError(
            f"{path.name} is damaged ({error}); restore the data directory from a backup", file=path.name
        ) from error
