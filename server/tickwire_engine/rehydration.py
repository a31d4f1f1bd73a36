"""Rehydration: what a world runs with, built again at start-up from names and plain values in the journal.

What cannot be built (its class is gone, its constructor refuses) is stood in for: the world is there, can be read and
takes commands, and waits FAULTED until the class is back or a command takes the part out.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tickwire_engine.commands import parse_row
from tickwire_engine.commands.operation import Applied, Operation, TickDraft
from tickwire_engine.commands.processors import build_processor, entry_for
from tickwire_engine.commands.resources import resource_entry
from tickwire_engine.configuration import MissingProcessor, ProcessorEntry, ResourceEntry, WorldConfiguration
from tickwire_engine.errors import TickwireError, WorldFaultedError

if TYPE_CHECKING:
    from tickwire_engine.commands import Vocabulary
    from tickwire_engine.storage.rows import CommandRow, Configuration


def rehydrate(saved: Configuration, vocabulary: Vocabulary) -> WorldConfiguration:
    """Build a configuration again; what cannot be built is in it as missing."""
    body = json.loads(saved.body)
    processors = tuple(_processor(entry, vocabulary) for entry in body["processors"])
    resources = tuple(_resource(entry, vocabulary) for entry in body["resources"])
    # The journal's own bytes, not new ones: the same configuration keeps its id.
    return WorldConfiguration(processors, saved, resources)


def _processor(saved: dict[str, Any], vocabulary: Vocabulary) -> ProcessorEntry:
    try:
        instance = build_processor(saved["type"], saved["params"], vocabulary)
    except TickwireError as error:
        return ProcessorEntry(
            name=saved["name"],
            type=saved["type"],
            priority=saved["priority"],
            components=tuple(saved["components"]),
            params=saved["params"],
            instance=MissingProcessor(error.message),
        )
    return entry_for(
        instance,
        name=saved["name"],
        type_name=saved["type"],
        priority=saved["priority"],
        params=saved["params"],
    )


def _resource(saved: dict[str, Any], vocabulary: Vocabulary) -> ResourceEntry:
    name, value = saved["name"], saved["value"]
    if value is None:
        return ResourceEntry(name, None, vocabulary.resources.kind(name))
    try:
        built = resource_entry(name, value, vocabulary.resources)
    except TickwireError as error:
        return ResourceEntry(name, value, why=error.message)
    # The journal's own value: equal to what the id covers, whatever defaults the class has by now.
    return ResourceEntry(name, value, built.kind, built.instance)


class UnreadableCommand(Operation):
    """A pending command of the journal that this application cannot read: it is neither lost nor rejected for that.

    It is read again when its tick comes: by then the component that it names may have been registered.
    """

    __slots__ = ("_row", "_vocabulary", "why")

    def __init__(self, row: CommandRow, vocabulary: Vocabulary, error: TickwireError) -> None:
        self._row = row
        self._vocabulary = vocabulary
        self.why = f"{row.type} (seq {row.seq}): {error.message}"

    @property
    def entity_count(self) -> int:
        """As many ids as it reserved when it was accepted."""
        return self._row.entity_count

    def apply(self, draft: TickDraft, row: CommandRow) -> Applied:
        """Apply it if it can be read now.

        Raises:
            WorldFaultedError: It cannot: the tick is aborted.
        """
        try:
            operation = parse_row(row, self._vocabulary)
        except TickwireError as error:
            raise WorldFaultedError(
                f"a command that waits in this world cannot be read: {row.type} (seq {row.seq}): {error.message}. "
                "Bring back what it names and start again, or cancel it"
            ) from error
        return operation.apply(draft, row)


def read_pending(row: CommandRow, vocabulary: Vocabulary) -> Operation:
    """Read a pending command of the journal, or stand in for it."""
    try:
        return parse_row(row, vocabulary)
    except TickwireError as error:
        return UnreadableCommand(row, vocabulary, error)
