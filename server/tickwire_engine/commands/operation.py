"""What every command type has in common: it is parsed once, at the door, and applied in a tick.

An operation is a validated command payload. Parsing refuses whatever could never be applied; applying may still find
that the world has moved on (an entity is gone), and then the command alone is rejected.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from tickwire_engine.errors import InvalidCommandError
from tickwire_engine.handlers import HandlerRegistry
from tickwire_engine.limits import DEFAULTS, Limits
from tickwire_engine.resources import ResourceRegistry

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from tickwire_engine.commands.effect import Decision
    from tickwire_engine.component import ComponentCatalog
    from tickwire_engine.configuration import ProcessorEntry, ResourceEntry
    from tickwire_engine.errors import TickwireError
    from tickwire_engine.processor import ProcessorRegistry
    from tickwire_engine.storage.rows import CommandRow
    from tickwire_engine.tick.context import Message, TickContext
    from tickwire_engine.tick.entities import EntityDraft


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The names that a payload may use, and how large it may be: what the engine knows when it parses."""

    components: ComponentCatalog
    processors: ProcessorRegistry
    resources: ResourceRegistry = field(default_factory=ResourceRegistry)
    handlers: HandlerRegistry = field(default_factory=HandlerRegistry)
    limits: Limits = DEFAULTS


@dataclass(slots=True)
class TickDraft:
    """What operations change: the next state in the making."""

    entities: EntityDraft
    processors: dict[str, ProcessorEntry]
    resources: dict[str, ResourceEntry] = field(default_factory=dict)
    messages: list[Message] = field(default_factory=list)
    decisions: Mapping[int, Decision | TickwireError] = field(default_factory=dict)
    """What was decided before the tick, by the seqs of the commands that reach beyond the world."""


@dataclass(frozen=True, slots=True)
class Applied:
    """What an applied command tells its sender."""

    first_entity_id: int = 0
    entity_count: int = 0
    missing_entity_ids: Sequence[int] = ()
    world_id: str = ""
    """The world that it made."""
    value: bytes = b""
    """Canonical JSON of an object; empty: none."""
    table: bytes = b""
    """An Arrow IPC stream; empty: none."""


class Operation(ABC):
    """One parsed command payload; made by its type's parse function, see `tickwire_engine.commands`."""

    __slots__ = ()
    reaches_out: ClassVar[bool] = False
    """It is an `Effect`: decided before the tick."""
    handled: ClassVar[bool] = False
    """It is a `HandledOperation`."""
    recorded: ClassVar[bool] = False
    """Replay reads its outcome back rather than applies it again."""
    answers: ClassVar[bool] = False
    """The processors of its tick are told what came of it (`CommandResults`)."""

    @abstractmethod
    def apply(self, draft: TickDraft, row: CommandRow) -> Applied:
        """Change the draft, or raise a `TickwireError` and leave it as it was."""

    @property
    def entity_count(self) -> int:
        """How many entity ids the command reserves at acceptance."""
        return 0

    @property
    def named_ids(self) -> Collection[int]:
        """The entities that it names one by one: looked up for all commands of a tick at once."""
        return ()


class HandledOperation(Operation):
    """An operation that takes more than a draft: the tick awaits it, in its place among the others."""

    __slots__ = ()
    handled: ClassVar[bool] = True

    @abstractmethod
    async def handle(
        self,
        draft: TickDraft,
        row: CommandRow,
        position: int,
        context: TickContext,
        keywords: Mapping[str, Any],
    ) -> Applied:
        """Do it, or raise a `TickwireError` and leave everything as it was.

        Args:
            draft: The state as the commands before have left it.
            row: The command.
            position: Its place among the commands of the tick.
            context: The tick.
            keywords: What processors are passed.
        """

    def apply(self, draft: TickDraft, row: CommandRow) -> Applied:
        """Refuse: only a tick can do it."""
        raise InvalidCommandError(f"{row.type} is done by ticks only", field=row.type)


def refuse_unknown(
    payload: Mapping[str, Any], table: bytes, *, type_name: str, known: Collection[str]
) -> None:
    """Refuse fields that the payload's message does not have.

    Raises:
        InvalidCommandError: There is one.
    """
    for name in payload:
        if name not in known:
            raise InvalidCommandError(
                f"{type_name} has no field {name!r} (it has {', '.join(known)})", field=f"{type_name}.{name}"
            )
    if table and "table" not in known:
        raise InvalidCommandError(f"{type_name} takes no table", field=f"{type_name}.table")


def entity_id_list(payload: Mapping[str, Any], *, type_name: str) -> tuple[int, ...]:
    """Return the payload's entity ids.

    Raises:
        InvalidCommandError: One is no positive integer below 2^53.
    """
    ids = payload.get("entity_ids") or ()
    for index, entity_id in enumerate(ids):
        if type(entity_id) is not int or not 0 < entity_id < 1 << 53:
            raise InvalidCommandError(
                f"{entity_id!r} is no entity id: they are integers from 1",
                field=f"{type_name}.entity_ids[{index}]",
            )
    return tuple(ids)
