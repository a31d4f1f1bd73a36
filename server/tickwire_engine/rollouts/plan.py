"""What a rollout or an episode is asked to do: parsed once, from the plain values of a message, wherever it came from.

An immutable value, checked as far as it can be without a world: the commands of branches can be applied in principle, the
distributions fit their columns, the counts are counts.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import tickwire_engine.commands as commands
from tickwire_engine.command import TABLE_KEY, CommandType
from tickwire_engine.errors import InvalidCommandError, InvalidRequestError, TickwireError
from tickwire_engine.rollouts.sampling import Distribution, parse_distribution
from tickwire_engine.submission import Submission

if TYPE_CHECKING:
    from tickwire_engine.commands import Vocabulary

_ROLLOUT = (
    *("branches", "copies", "ticks", "at_tick", "result_sql", "components", "keep", "seed"),
    "tick_sql",
)
_EPISODE = ("rollout", "initial", "stop_sql", "max_ticks", "score_sql")
_BRANCH = ("name", "commands", "inputs", "seed")
_HEAD = {"id", "tick", "actor_id", "type", "priority", "version", "seq"}
_RESERVED = frozenset(("tick", "world", "resources", "run_config", "inputs"))
_MAX = 1 << 53


@dataclass(frozen=True, slots=True, kw_only=True)
class Branch:
    """One future.

    Attributes:
        inputs: Passed to the processors in every tick.
        seed: The root of its randomness; None: the rollout's.
    """

    name: str = ""
    commands: tuple[Submission, ...] = ()
    inputs: Mapping[str, Any]
    seed: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """Branches to run, and what to tell of each.

    Attributes:
        copies: How often each branch is run, each time with other randomness.
        ticks: How many each computes, at most if there is a `stop_sql`.
        at_tick: The tick to start after; None: the last one.
        result_sql: Makes a branch's table from its last state; "": the rows of `components`.
        tick_sql: Makes rows of every tick's state; they are a branch's table, each after the tick in a column of its own.
        keep: Whether each branch becomes a world.
        seed: The root of all randomness; None: derived from the world's seed and the tick.
        initial: What columns are drawn from before the first tick, by their names.
        stop_sql: One boolean, asked after every tick: true ends the branch. "": never.
        score_sql: One number over the last state; "": 0.
    """

    branches: tuple[Branch, ...]
    copies: int
    ticks: int
    at_tick: int | None = None
    result_sql: str = ""
    tick_sql: str = ""
    components: tuple[str, ...] = ()
    keep: bool = False
    seed: int | None = None
    initial: Mapping[str, Distribution]
    stop_sql: str = ""
    score_sql: str = ""

    @property
    def count(self) -> int:
        """How many branches run, copies counted."""
        return len(self.branches) * self.copies


def parse_rollout(payload: Mapping[str, Any], vocabulary: Vocabulary, *, path: str = "rollout") -> Rollout:
    """Read a RunRollout.

    Raises:
        TickwireError: It could never be run; `field` says where, from `path` on.
    """
    return replace(_rollout(payload, vocabulary, path), ticks=_count(payload, "ticks", path, least=1))


def parse_episode(payload: Mapping[str, Any], vocabulary: Vocabulary, *, path: str = "episode") -> Rollout:
    """Read a RunEpisode: a rollout that draws its beginnings, may stop early and has a score.

    Raises:
        TickwireError: It could never be run; `field` says where, from `path` on.
    """
    _refuse_unknown(payload, _EPISODE, path)
    initial = payload.get("initial") or {}
    return replace(
        _rollout(payload.get("rollout") or {}, vocabulary, f"{path}.rollout"),
        ticks=_count(payload, "max_ticks", path, least=1),
        initial={
            str(column): parse_distribution(
                str(column), given, vocabulary.components, f"{path}.initial.{column}"
            )
            for column, given in sorted(_mapping(initial, f"{path}.initial").items())
        },
        stop_sql=_sql(payload, "stop_sql", vocabulary, path),
        score_sql=_sql(payload, "score_sql", vocabulary, path),
    )


def _rollout(payload: Mapping[str, Any], vocabulary: Vocabulary, path: str) -> Rollout:
    _refuse_unknown(payload, _ROLLOUT, path)
    branches = _list(payload, "branches", path) or [{}]
    sql, components = _sql(payload, "result_sql", vocabulary, path), _list(payload, "components", path)
    tick_sql = _sql(payload, "tick_sql", vocabulary, path)
    if sum(map(bool, (sql, tick_sql, components))) > 1:
        raise InvalidCommandError(
            f"{path}: one of result_sql, tick_sql and components makes the table, not several",
            field=f"{path}.result_sql",
        )
    for index, name in enumerate(components):
        try:
            vocabulary.components.require(name)
        except TickwireError as error:
            error.field = f"{path}.components[{index}]"
            raise
    return Rollout(
        branches=tuple(
            _branch(given, vocabulary, f"{path}.branches[{index}]") for index, given in enumerate(branches)
        ),
        copies=_count(payload, "copies", path) or 1,
        ticks=0,
        at_tick=None if payload.get("at_tick") is None else _count(payload, "at_tick", path),
        result_sql=sql,
        tick_sql=tick_sql,
        components=tuple(components),
        keep=bool(payload.get("keep")),
        seed=None if payload.get("seed") is None else _count(payload, "seed", path),
        initial={},
    )


def _branch(payload: Any, vocabulary: Vocabulary, path: str) -> Branch:
    given = _mapping(payload, path)
    _refuse_unknown(given, _BRANCH, path)
    inputs = dict(_mapping(given.get("inputs") or {}, f"{path}.inputs"))
    for name in _RESERVED.intersection(inputs):
        raise InvalidRequestError(
            f"input {name!r} is a name that processors are passed already", field=f"{path}.inputs.{name}"
        )
    return Branch(
        name=_text(given, "name", path),
        commands=tuple(
            _command(command, vocabulary, f"{path}.commands[{index}]")
            for index, command in enumerate(_list(given, "commands", path))
        ),
        inputs=inputs,
        seed=None if given.get("seed") is None else _count(given, "seed", path),
    )


def _command(payload: Any, vocabulary: Vocabulary, path: str) -> Submission:
    """Read a Command message, and check that it could be applied."""
    given = _mapping(payload, path)
    kinds = [kind for kind in CommandType if kind.value in given]
    unknown = given.keys() - _HEAD - {kind.value for kind in kinds}
    if len(kinds) != 1 or unknown:
        raise InvalidCommandError(
            f"{path} needs one payload: one of spawn, update, ..., and no other fields", field=path
        )
    (kind,) = kinds
    body = dict(_mapping(given[kind.value], f"{path}.{kind.value}"))
    if isinstance(body.get(TABLE_KEY), str):
        # As JSON has kept it.
        body[TABLE_KEY] = base64.b64decode(body[TABLE_KEY])
    submission = Submission(
        kind,
        body,
        tick=None if given.get("tick") is None else _count(given, "tick", path),
        priority=int(given.get("priority") or 0),
        version=int(given.get("version") or 1),
    )
    _, table, _ = submission.encode()
    try:
        commands.parse(kind, {k: v for k, v in body.items() if k != TABLE_KEY}, table, vocabulary)
    except TickwireError as error:
        raise error.at(path) from None
    return submission


def _count(payload: Mapping[str, Any], name: str, path: str, *, least: int = 0) -> int:
    value = payload.get(name) or 0
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value < _MAX:
        raise InvalidCommandError(
            f"{path}.{name} must be an integer from {least} on, below 2^53", field=f"{path}.{name}"
        )
    return value


def _text(payload: Mapping[str, Any], name: str, path: str) -> str:
    value = payload.get(name) or ""
    if not isinstance(value, str):
        raise InvalidCommandError(f"{path}.{name}: expected text", field=f"{path}.{name}")
    return value


def _sql(payload: Mapping[str, Any], name: str, vocabulary: Vocabulary, path: str) -> str:
    text = _text(payload, name, path)
    vocabulary.limits.require_sql(text, path=f"{path}.{name}")
    return text


def _list(payload: Mapping[str, Any], name: str, path: str) -> Sequence[Any]:
    value = payload.get(name) or []
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        raise InvalidCommandError(f"{path}.{name}: expected a list", field=f"{path}.{name}")
    return value


def _mapping(value: Any, path: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise InvalidCommandError(f"{path}: expected an object", field=path)
    return value


def _refuse_unknown(payload: Mapping[str, Any], known: Sequence[str], path: str) -> None:
    for name in _mapping(payload, path):
        if name not in known:
            raise InvalidCommandError(
                f"{path} has no field {name!r} (it has {', '.join(known)})", field=f"{path}.{name}"
            )
