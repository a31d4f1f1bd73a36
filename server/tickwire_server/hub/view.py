"""What a subscriber asked to see of each tick: a value, so that those who asked for the same share one encoding."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

ENVELOPE_BYTES = 512
"""More than the tags, lengths, numbers and the summary around one batch take."""


class TickMode(Enum):
    """What of each tick is sent."""

    FULL = "full"
    """Every row of the view."""
    CHANGES = "changes"
    """Rows that changed, entered or left since the tick sent before."""


class Compression(Enum):
    """How record batches are compressed; the value is Arrow's name of the codec."""

    NONE = None
    LZ4 = "lz4"
    ZSTD = "zstd"


class LagPolicy(Enum):
    """What becomes of a subscriber that reads more slowly than ticks come."""

    CATCH_UP = "catch_up"
    """It gets every tick, later."""
    SKIP_TO_LATEST = "skip_to_latest"
    """It gets the newest one."""
    DISCONNECT = "disconnect"
    """It is sent away."""


class Condition(Protocol):
    """A compiled `where`."""

    def fits(self, names: list[str]) -> bool:
        """Whether an archetype with these columns has all that the condition reads."""
        ...

    def mask(self, batch: pa.RecordBatch) -> np.ndarray:
        """Return for each row whether the condition is true; NULL is not."""
        ...


@dataclass(frozen=True, slots=True)
class Selected:
    """Which archetypes, columns and rows are seen.

    Attributes:
        components: Archetypes that have all of these, and of them only these columns; empty: everything.
        where: The text of the condition on rows; empty: all.
    """

    components: tuple[str, ...] = ()
    where: str = ""

    @property
    def is_everything(self) -> bool:
        """Whether the log's own bytes show it."""
        return not self.components and not self.where


@dataclass(frozen=True, slots=True)
class View:
    """A distinct view: its subscribers share what is made for one of them.

    Attributes:
        max_bytes: Messages stay below it, unless a row alone is larger.
    """

    selected: Selected = Selected()
    mode: TickMode = TickMode.FULL
    compression: Compression = Compression.NONE
    max_bytes: int = 1 << 20
