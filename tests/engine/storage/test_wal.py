"""The write-ahead log: what a crash tears off is nothing, what was synced and has changed since is damage."""

from __future__ import annotations

import os
import random
import shutil
import struct
from typing import TYPE_CHECKING

import apsw
import pytest

from tickwire_engine.errors import CorruptRecordError
from tickwire_engine.storage._connections import open_writer
from tickwire_engine.storage._headroom import Headroom
from tickwire_engine.storage._wal import check_wal
from tickwire_engine.storage._writes import RegisterComponent
from tickwire_engine.storage.store import Store

if TYPE_CHECKING:
    from pathlib import Path

    from tests.engine.storage.conftest import Directory

TRANSACTIONS = 12
FRAME = 24 + 4096


@pytest.fixture
def wal(tmp_path: Path) -> Path:
    """A log that a killed process left: several transactions of several frames, behind those of an older round."""
    connection = open_writer(tmp_path / "a.db")
    connection.execute("CREATE TABLE t(a INTEGER PRIMARY KEY, b BLOB)")
    for _ in range(40):
        connection.execute("INSERT INTO t(b) VALUES (?)", (os.urandom(3000),))
    connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_RESTART)
    for _ in range(TRANSACTIONS):
        connection.execute("INSERT INTO t(b) VALUES (?)", (os.urandom(9000),))
    path = tmp_path / "left.db-wal"
    shutil.copy(tmp_path / "a.db-wal", path)
    connection.close()
    return path


def commits(path: Path) -> list[int]:
    """Return the indices of the log's commit frames."""
    data = path.read_bytes()
    salts = data[16:24]
    found = []
    for index in range((len(data) - 32) // FRAME):
        head = data[32 + index * FRAME :][:24]
        if head[8:16] == salts and struct.unpack_from(">I", head, 4)[0]:
            found.append(index)
    return found


def test_a_log_that_was_left_whole_is_whole(wal: Path) -> None:
    assert len(commits(wal)) == TRANSACTIONS
    check_wal(wal)


def test_what_is_torn_off_the_last_transaction_is_no_damage(wal: Path) -> None:
    whole = wal.read_bytes()
    *_, before, last = commits(wal)
    start, end = 32 + (before + 1) * FRAME, 32 + (last + 1) * FRAME
    for cut in random.Random(1).sample(range(start, end), 20):
        wal.write_bytes(whole[:cut])
        check_wal(wal)
        wal.write_bytes(whole[:cut] + bytes(end - cut))
        check_wal(wal)


def test_a_flipped_bit_before_the_last_transaction_is_damage(wal: Path) -> None:
    whole = wal.read_bytes()
    end = 32 + (commits(wal)[-2] + 1) * FRAME
    rng = random.Random(2)
    heads = [*range(56), *range(end - FRAME + 8, end - FRAME + 24)]
    for position in [*heads, *rng.sample(range(56, end), 100)]:
        changed = bytearray(whole)
        changed[position] ^= 1 << rng.randrange(8)
        wal.write_bytes(changed)
        with pytest.raises(CorruptRecordError, match="damaged"):
            check_wal(wal)


@pytest.mark.parametrize("sector", [512, 4096])
@pytest.mark.parametrize("old", [100, 9_000, 200_000])
def test_whatever_sectors_of_the_last_transaction_are_lost_is_no_damage(
    tmp_path: Path, sector: int, old: int
) -> None:
    """What is lost shows the older round's frames, with commits of its own: where they are small, in each frame."""
    connection = open_writer(tmp_path / "a.db")
    path = tmp_path / "a.db-wal"
    connection.execute("CREATE TABLE t(a INTEGER PRIMARY KEY, b BLOB)")
    while path.stat().st_size < 250 * FRAME:
        connection.execute("INSERT OR REPLACE INTO t VALUES (1, ?)", (os.urandom(old),))
    connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_RESTART)
    # The last transaction begins before frame 169, whose first 8 bytes are in one page and the others in the next.
    for size in [9000] * 30 + [200_000]:
        before = path.read_bytes()
        connection.execute("INSERT INTO t(b) VALUES (?)", (os.urandom(size),))
    after = path.read_bytes()
    connection.close()
    changed = [
        at for at in range(0, len(after), sector) if before[at : at + sector] != after[at : at + sector]
    ]
    assert changed[0] < 32 + 169 * FRAME < changed[-1]
    rng = random.Random(old)
    cut = tmp_path / "cut.db-wal"
    for lost in [
        *([at] for at in changed),
        *(rng.sample(changed, rng.randint(2, len(changed))) for _ in range(50)),
    ]:
        torn = bytearray(after)
        for at in lost:
            torn[at : at + sector] = before[at : at + sector]
        cut.write_bytes(torn)
        check_wal(cut)


def test_an_empty_log_is_nothing(wal: Path) -> None:
    for content in (b"", bytes(10), bytes(4096)):
        wal.write_bytes(content)
        check_wal(wal)


def test_a_flipped_bit_in_the_journals_pages_is_noticed_whatever_it_hits(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    connection = open_writer(path)
    connection.execute("CREATE TABLE t(a INTEGER PRIMARY KEY, b INTEGER) STRICT")
    with connection:
        connection.executemany("INSERT INTO t(b) VALUES (?)", [(n * n,) for n in range(20_000)])
    connection.close()
    whole = path.read_bytes()
    rng = random.Random(3)
    for _ in range(40):
        changed = bytearray(whole)
        # Past the header's own fields: SQLite ignores some of them.
        changed[rng.randrange(4096, len(whole))] ^= 1 << rng.randrange(8)
        path.write_bytes(changed)
        connection = open_writer(path)
        with pytest.raises((apsw.IOError, apsw.CorruptError)):
            connection.execute("SELECT sum(b), count(*) FROM t").fetchall()
        connection.close(True)


def test_zeros_lie_behind_the_log_and_are_no_part_of_it(directory: Directory) -> None:
    store = directory.open()
    wal = directory.path / "journal.db-wal"
    for number in range(600):
        store._journal.call(RegisterComponent(f"C{number}", os.urandom(3000), b"{}", "APP"))
        if number % 20 == 0:
            assert wal.stat().st_size - _frames(wal) * FRAME >= 200 << 10
    # It was checkpointed meanwhile: the log is written over, and gets no longer.
    assert wal.stat().st_size < 12 << 20
    left = directory.path.with_name("left")
    shutil.copytree(directory.path, left, ignore=shutil.ignore_patterns("LOCK", "*-shm"))
    check_wal(left / "journal.db-wal")
    directory.close()
    assert not wal.exists()
    again = Store.open(left)
    try:
        assert len(again.components()) == 600
    finally:
        again.close()


def test_that_a_log_was_cut_off_is_synced_before_zeros_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    fsync, pwrite = os.fsync, os.pwrite
    monkeypatch.setattr(os, "fsync", lambda file: (calls.append("sync"), fsync(file))[1])
    monkeypatch.setattr(os, "pwrite", lambda *given: (calls.append("write"), pwrite(*given))[1])
    wal = tmp_path / "a.db-wal"
    wal.write_bytes(os.urandom(10_000))
    headroom = Headroom(wal)
    headroom.keep(2)
    assert calls == ["write"], "behind what is there nothing of it can be lost"
    os.truncate(wal, 0)
    headroom.keep(0)
    assert calls == ["write", "sync", "write"]
    headroom.close()


def test_a_log_of_nothing_but_zeros_is_empty(directory: Directory) -> None:
    directory.open()
    left = directory.path.with_name("left")
    shutil.copytree(directory.path, left, ignore=shutil.ignore_patterns("LOCK", "*-shm"))
    (left / "journal.db-wal").write_bytes(bytes(1 << 20))
    again = Store.open(left)
    try:
        assert again.components() == []
    finally:
        again.close()


def _frames(wal: Path) -> int:
    """Return how many frames of the log's last round there are."""
    data = wal.read_bytes()
    salts = [data[at : at + 8] for at in range(32 + 8, len(data), FRAME)]
    return next((count for count, salt in enumerate(salts) if salt != data[16:24]), len(salts))
