"""The one table of command types: to add a type, write its module here and one line below.

Payloads are plain dictionaries with the fields of the contract's messages, whoever sent them: the wire is converted
by the messages' own descriptors, and the journal keeps the canonical JSON.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tickwire_engine.command import CommandType
from tickwire_engine.commands import (
    components,
    custom,
    despawn,
    forks,
    message,
    processors,
    query,
    resources,
    rollouts,
    spawn,
    update,
    worlds,
)
from tickwire_engine.commands.effect import Decision, Effect, EffectScope
from tickwire_engine.commands.operation import Applied, Operation, TickDraft, Vocabulary
from tickwire_engine.limits import UNLIMITED

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tickwire_engine.storage.rows import CommandRow

COMMANDS: Mapping[CommandType, Callable[[Mapping[str, Any], bytes, Vocabulary], Operation]] = {
    CommandType.SPAWN: spawn.parse,
    CommandType.DESPAWN: despawn.parse,
    CommandType.UPDATE: update.parse,
    CommandType.ADD_COMPONENT: components.parse_add,
    CommandType.REMOVE_COMPONENT: components.parse_remove,
    CommandType.ADD_PROCESSOR: processors.parse_add,
    CommandType.REMOVE_PROCESSOR: processors.parse_remove,
    CommandType.CREATE_WORLD: worlds.parse_create,
    CommandType.DESTROY_WORLD: worlds.parse_destroy,
    CommandType.FORK_WORLD: forks.parse,
    CommandType.RUN_ROLLOUT: rollouts.parse_rollout,
    CommandType.RUN_EPISODE: rollouts.parse_episode,
    CommandType.QUERY_WORLD: query.parse,
    CommandType.MESSAGE: message.parse,
    CommandType.CUSTOM: custom.parse,
    CommandType.SET_RESOURCE: resources.parse_set,
    CommandType.REMOVE_RESOURCE: resources.parse_remove,
}


def parse(kind: CommandType, payload: Mapping[str, Any], table: bytes, vocabulary: Vocabulary) -> Operation:
    """Validate a payload and return what applies it.

    Raises:
        TickwireError: The payload could never be applied.
    """
    return COMMANDS[kind](payload, table, vocabulary)


def parse_row(row: CommandRow, vocabulary: Vocabulary) -> Operation:
    """Validate a command as the journal keeps it, whatever the limits are by now: what recovery and replay do."""
    kept = replace(vocabulary, limits=UNLIMITED)
    return parse(CommandType(row.type), json.loads(row.payload), row.table, kept)


__all__ = [
    "COMMANDS",
    "Applied",
    "Decision",
    "Effect",
    "EffectScope",
    "Operation",
    "TickDraft",
    "Vocabulary",
    "parse",
    "parse_row",
    "rollouts",
]
