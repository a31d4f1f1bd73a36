"""ADD_PROCESSOR and REMOVE_PROCESSOR: a hot-swap, in force from the tick that applies it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tickwire_engine.commands.operation import Applied, Operation, TickDraft, Vocabulary, refuse_unknown
from tickwire_engine.configuration import ProcessorEntry
from tickwire_engine.errors import (
    InvalidCommandError,
    ProcessorExistsError,
    ProcessorNotFoundError,
    TickwireError,
)
from tickwire_engine.sql import SqlProcessor, sql_processor

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tickwire_engine.limits import Limits
    from tickwire_engine.processor import BaseProcessor
    from tickwire_engine.storage.rows import CommandRow

SQL_TYPE = SqlProcessor.__name__


@dataclass(frozen=True, slots=True)
class AddProcessor(Operation):
    """A processor that is ready to run."""

    entry: ProcessorEntry

    def apply(self, draft: TickDraft, row: CommandRow) -> Applied:
        """Put it in force."""
        if self.entry.name in draft.processors:
            raise ProcessorExistsError(
                f"a processor called {self.entry.name!r} runs already; remove it first, in the same tick if you like",
                field="add_processor.name",
                processor=self.entry.name,
                type=draft.processors[self.entry.name].type,
            )
        draft.processors[self.entry.name] = self.entry
        return Applied()


@dataclass(frozen=True, slots=True)
class RemoveProcessor(Operation):
    """The name of a processor to go."""

    name: str

    def apply(self, draft: TickDraft, row: CommandRow) -> Applied:
        """Take it out of force."""
        if draft.processors.pop(self.name, None) is None:
            raise ProcessorNotFoundError(
                f"no processor called {self.name!r} runs in this world",
                field="remove_processor.name",
                processor=self.name,
            )
        return Applied()


def entry_for(
    instance: BaseProcessor, *, name: str, type_name: str, priority: int, params: dict[str, Any]
) -> ProcessorEntry:
    """Describe a processor instance as it runs in a world."""
    return ProcessorEntry(
        name=name,
        type=type_name,
        priority=priority,
        components=instance.component_names,
        params=params,
        instance=instance,
    )


def build_processor(type_name: str, params: dict[str, Any], vocabulary: Vocabulary) -> BaseProcessor:
    """Build a processor of a registered class, or of SQL, ready to run.

    Raises:
        TickwireError: There is no such class, or it does not take `params`; `field` says which.
    """
    if type_name != SQL_TYPE:
        instance = vocabulary.processors.build(type_name, params)
        instance.bind(vocabulary.components)
        return instance
    processor = sql_processor(params)
    processor.bind(vocabulary.components)
    return processor


def parse_add(payload: Mapping[str, Any], table: bytes, vocabulary: Vocabulary) -> Operation:
    """Validate: a name, and the registered type that it is made from (the name itself by default), or SQL."""
    known = ("name", "type", "sql", "params", "priority")
    refuse_unknown(payload, table, type_name="add_processor", known=known)
    sql = payload.get("sql")
    if sql is not None and (payload.get("type") or payload.get("params")):
        raise InvalidCommandError(
            "add_processor takes sql, or type and params: not both", field="add_processor.sql"
        )
    type_name = SQL_TYPE if sql is not None else payload.get("type") or payload.get("name")
    if not type_name or (sql is not None and not payload.get("name")):
        raise InvalidCommandError("add_processor needs a name", field="add_processor.name")
    params = dict((payload.get("params") or {}) if sql is None else sql)
    if sql is not None:
        _require_short(sql, vocabulary.limits)
    try:
        instance = build_processor(type_name, params, vocabulary)
    except TickwireError as error:
        inside = ".sql" if sql is not None else ".params" if type_name == SQL_TYPE else ""
        error.at(f"add_processor{inside}")
        raise
    priority = payload.get("priority")
    return AddProcessor(
        entry_for(
            instance,
            name=payload.get("name") or type_name,
            type_name=type_name,
            priority=instance.priority if priority is None else int(priority),
            params=instance.plain_params,
        )
    )


def _require_short(sql: Mapping[str, Any], limits: Limits) -> None:
    texts = {f"assignments.{target}": text for target, text in (sql.get("assignments") or {}).items()}
    for where, text in {**texts, "where": sql.get("where")}.items():
        if isinstance(text, str):
            limits.require_sql(text, path=f"add_processor.sql.{where}")


def parse_remove(payload: Mapping[str, Any], table: bytes, vocabulary: Vocabulary) -> Operation:
    """Validate: the name."""
    refuse_unknown(payload, table, type_name="remove_processor", known=("name",))
    if not payload.get("name"):
        raise InvalidCommandError("remove_processor needs a name", field="remove_processor.name")
    return RemoveProcessor(payload["name"])
