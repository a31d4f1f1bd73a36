"""Tables that are read when somebody first looks at them: a fork is made without a row being read.

How many entities there are is known before. Reading blocks, on whatever thread looks first; `AsyncWorld.load` does it on a
worker thread. Read once, kept as long as the state that holds them.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tickwire_engine.archetype import Signature
    from tickwire_engine.state import Table


class DeferredTables(Mapping["Signature", "Table"]):
    """A state's tables by signature.

    Attributes:
        entities: Active entities in them.
    """

    def __init__(
        self,
        read: Callable[[], Mapping[Signature, Table]],
        count: Callable[[], Mapping[Signature, int]],
        *,
        entities: int,
    ) -> None:
        """Say how to read them.

        Args:
            read: Reads the tables.
            count: Counts the active entities of each without reading rows.
            entities: Their sum.
        """
        self.entities = entities
        self._read = read
        self._count = count
        self._tables: Mapping[Signature, Table] | None = None
        self._counts: Mapping[Signature, int] | None = None
        self._lock = threading.Lock()

    @property
    def loaded(self) -> bool:
        """Whether they were read."""
        return self._tables is not None

    def load(self) -> Mapping[Signature, Table]:
        """Read them, unless they were. Blocks; any thread.

        Raises:
            CorruptRecordError: Stored bytes are not what was committed.
        """
        with self._lock:
            if self._tables is None:
                self._tables = self._read()
            return self._tables

    def counts(self) -> Mapping[Signature, int]:
        """Return the active entities of each archetype; milliseconds at most."""
        if self._tables is not None:
            return {sig: table.active for sig, table in self._tables.items()}
        if self._counts is None:
            self._counts = self._count()
        return self._counts

    def __getitem__(self, sig: Signature) -> Table:
        """Return one table."""
        return self.load()[sig]

    def __iter__(self) -> Iterator[Signature]:
        """Iterate over the signatures."""
        return iter(self.load())

    def __len__(self) -> int:
        """Count the archetypes that have rows."""
        return len(self.load())
