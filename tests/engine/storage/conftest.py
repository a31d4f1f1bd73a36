"""A real store in a temporary directory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tickwire_engine.storage.archiver import ArchiveOptions
from tickwire_engine.storage.store import Store, StoreOptions

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

QUIET = StoreOptions(archive=ArchiveOptions(idle_s=3600.0))
"""Archives on demand only, so that a test says what lies where."""


class Directory:
    """A data directory that tests open, close and open again."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.store: Store | None = None

    def open(self, options: StoreOptions = QUIET) -> Store:
        """Open the directory's store, anew if it was open."""
        self.close()
        self.store = Store.open(self.path, options=options)
        return self.store

    def close(self) -> None:
        """Close the store, if one is open."""
        if self.store is not None:
            self.store.close()
            self.store = None


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Directory]:
    made = Directory(tmp_path / "data")
    yield made
    made.close()


@pytest.fixture
def store(directory: Directory) -> Store:
    return directory.open()
