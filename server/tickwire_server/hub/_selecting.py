"""From a tick's frames to the rows of a view: archetypes, columns and rows chosen, changes found.

A selector belongs to one reader of consecutive ticks and remembers the rows of the last two records of each stream, so
that what did not change is not decoded again. Calls block for as long as the rows take; any thread, one at a time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa

from tickwire_engine.archetype import ENTITY_ID, IS_ACTIVE
from tickwire_engine.encoding import decode, read_schema, schema_message
from tickwire_engine.state import entity_ids
from tickwire_engine.storage.rows import Frame, Stream
from tickwire_engine.tick.columns import active_mask
from tickwire_server.hub._changes import Changes, changes_between
from tickwire_server.hub._frames import fits, frame_of
from tickwire_server.hub.ticks import ShownTick
from tickwire_server.hub.view import ENVELOPE_BYTES, Compression, TickMode

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tickwire_server.hub.ticks import FullTick
    from tickwire_server.hub.view import Condition, Selected, View


class Selector:
    """Shows ticks as one selection of rows and columns."""

    def __init__(self, selected: Selected, condition: Condition | None) -> None:
        self.selected = selected
        self._condition = condition
        self._streams: dict[int, Stream | None] = {}
        self._rows: dict[int, tuple[tuple[Frame, pa.RecordBatch], ...]] = {}

    def fresh(self) -> Selector:
        """Return a selector of the same, for another reader."""
        return Selector(self.selected, self._condition)

    def stream(self, stream: Stream) -> Stream | None:
        """Return a stream as the selection shows it, with the same number; None if it does not."""
        if self.selected.is_everything:
            return stream
        if stream.number not in self._streams:
            self._streams[stream.number] = self._projected(stream)
        return self._streams[stream.number]

    def is_free(self, view: View, tick: FullTick) -> bool:
        """Whether the log's own bytes show the tick, so that `show` costs nothing."""
        return (
            self.selected.is_everything
            and view.compression is Compression.NONE
            and all(
                fits(frame, _room(stream, view.max_bytes)) and frame.rows
                for stream, frame in tick.frames.values()
            )
        )

    def show(self, view: View, tick: FullTick, base: Mapping[int, tuple[Stream, Frame]] | None) -> ShownTick:
        """Show a tick.

        Args:
            base: In CHANGES: the frames of the tick that the subscriber has; None: it has none.
        """
        if view.mode is TickMode.CHANGES and base is not None:
            shown = self._changes(view, tick, base)
        else:
            shown = self._whole(view, tick)
        for number in [*self._rows]:
            if number not in tick.frames:
                self._rows.pop(number, None)
        return shown

    def empty(self, stream: Stream) -> Frame:
        """Return a frame without rows: it says that a stream has emptied."""
        shown = self.stream(stream)
        assert shown is not None
        none = pa.RecordBatch.from_pylist([], schema=read_schema(shown.schema))
        return frame_of(none, stream=stream.number, max_bytes=0)

    def _whole(self, view: View, tick: FullTick) -> ShownTick:
        frames: list[tuple[Stream, Frame]] = []
        nbytes = 0
        as_logged = self.selected.is_everything and view.compression is Compression.NONE
        for stream, frame in tick.frames.values():
            shown = self.stream(stream)
            if shown is None:
                continue
            if as_logged and fits(frame, _room(stream, view.max_bytes)):
                frames.append((stream, frame))
                continue
            rows = self._select(stream, frame)
            if rows.num_rows:
                made = _encoded(shown, rows, view)
                nbytes += made.nbytes
                frames.append((shown, made))
        snapshot = view.mode is TickMode.CHANGES
        despawned: tuple[int, ...] = ()
        if snapshot and tick.despawned:
            despawned = self._ended(tick)
        return ShownTick(tuple(frames), _numbers(frames), despawned, snapshot, nbytes)

    def _changes(self, view: View, tick: FullTick, base: Mapping[int, tuple[Stream, Frame]]) -> ShownTick:
        departures: list[tuple[Stream, Frame]] = []
        arrivals: list[tuple[Stream, Frame]] = []
        gone: set[int] = set()
        for number in sorted({*base, *tick.frames}):
            changes = self._stream_changes(number, tick, base)
            if changes is None:
                continue
            stream = (tick.frames.get(number) or base[number])[0]
            shown = self.stream(stream)
            assert shown is not None
            if changes.departed.num_rows:
                departures.append((shown, _encoded(shown, changes.departed, view)))
                gone.update(entity_ids(changes.departed).tolist())
            gone.update(changes.ended.tolist())
            if changes.arrived.num_rows:
                arrivals.append((shown, _encoded(shown, changes.arrived, view)))
        frames = (*departures, *arrivals)
        return ShownTick(
            frames,
            _numbers(frames),
            tuple(entity for entity in tick.despawned if entity in gone) if gone else (),
            nbytes=sum(frame.nbytes for _, frame in frames),
        )

    def _stream_changes(
        self, number: int, tick: FullTick, base: Mapping[int, tuple[Stream, Frame]]
    ) -> Changes | None:
        before, after = base.get(number), tick.frames.get(number)
        stream = (after or before or base[number])[0]
        if self.stream(stream) is None:
            return None
        if before is not None and after is not None and _is_same(before[1], after[1]):
            return None
        old = None if before is None else self._select(stream, before[1])
        new = None if after is None else self._select(stream, after[1])
        if old is None:
            assert new is not None
            old = new.slice(0, 0)
        if new is None:
            new = old.slice(0, 0)
        return changes_between(old, new)

    def _select(self, stream: Stream, frame: Frame) -> pa.RecordBatch:
        """Return a frame's rows as the selection shows them, those despawned included."""
        remembered = self._rows.get(stream.number, ())
        for known, rows in remembered:
            if known is frame:
                return rows
        whole = decode(stream.schema, frame.messages)
        if self._condition is not None:
            whole = whole.filter(pa.array(self._condition.mask(whole)))
        shown = self.stream(stream)
        assert shown is not None
        schema = read_schema(shown.schema)
        rows = whole.select(schema.names) if self.selected.components else whole
        rows = rows.replace_schema_metadata(schema.metadata)
        self._rows[stream.number] = ((frame, rows), *remembered[:1])
        return rows

    def _ended(self, tick: FullTick) -> tuple[int, ...]:
        ended: set[int] = set()
        for stream, frame in tick.frames.values():
            if self.stream(stream) is not None:
                rows = self._select(stream, frame)
                ended.update(entity_ids(rows)[~active_mask(rows)].tolist())
        return tuple(entity for entity in tick.despawned if entity in ended)

    def _projected(self, stream: Stream) -> Stream | None:
        components = self.selected.components
        if not set(components) <= set(stream.components):
            return None
        schema = read_schema(stream.schema)
        if self._condition is not None and not self._condition.fits(schema.names):
            return None
        if components:
            schema = pa.schema(
                [
                    field
                    for field in schema
                    if field.name in (ENTITY_ID, IS_ACTIVE)
                    or (field.metadata or {}).get(b"tickwire.component", b"").decode() in components
                ],
            ).with_metadata(schema.metadata)
        return Stream(stream.number, stream.archetype, stream.components, schema_message(schema))


def _is_same(before: Frame, after: Frame) -> bool:
    # Rows that ended were shown with the first of two equal records; the second cannot have any.
    return before is after or (bool(before.hash) and before.hash == after.hash)


def _numbers(frames: Iterable[tuple[Stream, Frame]]) -> frozenset[int]:
    return frozenset(stream.number for stream, _ in frames)


def _room(stream: Stream, max_bytes: int) -> int:
    return max_bytes - ENVELOPE_BYTES - len(stream.schema) - len(stream.archetype)


def _encoded(stream: Stream, rows: pa.RecordBatch, view: View) -> Frame:
    room = _room(stream, view.max_bytes)
    return frame_of(rows, stream=stream.number, max_bytes=room, compression=view.compression)
