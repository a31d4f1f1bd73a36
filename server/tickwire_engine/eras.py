"""The shapes that components had: what a world's ticks were computed with before one of them grew.

A world's streams tell: from the tick on that finds a component grown, its archetypes are recorded in new streams, numbered
in the order in which they appear. Replay computes every tick with the shapes of its own time.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from tickwire_engine.encoding import read_schema
from tickwire_engine.evolution import components_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow as pa

    from tickwire_engine.commands import Vocabulary
    from tickwire_engine.storage.history import StoredTick
    from tickwire_engine.storage.rows import Stream


class Eras:
    """The vocabulary of each tick of one world; asked tick by tick, in order."""

    def __init__(self, vocabulary: Vocabulary, streams: Sequence[Stream], seen: int) -> None:
        """Takes what is known now.

        Args:
            vocabulary: What the application has now.
            streams: Every stream that the world ever had, by number.
            seen: The greatest number of those that had rows before the first tick that is asked for; 0: none had.
        """
        self._vocabulary = vocabulary
        self._seen = seen
        catalog = vocabulary.components
        self._grown: list[tuple[int, str, pa.Schema]] = []
        """Shapes of components that had another one than now, at some time; by the stream that shows it."""
        shapes = [
            (stream.number, name, schema)
            for stream in streams
            for name, schema in components_of(read_schema(stream.schema))
            if name in catalog
        ]
        grown = {name for _, name, schema in shapes if not schema.equals(catalog.require(name).schema)}
        self._grown = [shape for shape in shapes if shape[1] in grown]
        self._current = self._made()

    def at(self, stored: StoredTick) -> Vocabulary:
        """Return what a tick was computed with; the same object as the tick before where nothing grew."""
        appeared = max((frame.stream for frame in stored.changed), default=0)
        if appeared > self._seen:
            self._seen = appeared
            if self._grown:
                self._current = self._made()
        return self._current

    def _made(self) -> Vocabulary:
        then = {name: schema for number, name, schema in self._grown if number <= self._seen}
        catalog = self._vocabulary.components
        if all(schema.equals(catalog.require(name).schema) for name, schema in then.items()):
            return self._vocabulary
        return replace(self._vocabulary, components=catalog.reshaped(then))
