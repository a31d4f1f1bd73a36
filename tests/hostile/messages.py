"""Messages of strangers, drawn from the contract's own descriptors: whatever is added there is drawn too."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from google.protobuf import duration_pb2, field_mask_pb2, message_factory, struct_pb2, timestamp_pb2
from google.protobuf.descriptor import FieldDescriptor
from hypothesis import strategies as st

from tests.hostile.tables import damaged, good_streams
from tests.hostile.texts import odd_texts, sql
from tickwire_engine.ids import uuid7

if TYPE_CHECKING:
    from collections.abc import Callable

    from google.protobuf.descriptor import Descriptor
    from google.protobuf.message import Message

_F = FieldDescriptor
_BOUNDS = {
    _F.CPPTYPE_INT32: (-(1 << 31), (1 << 31) - 1),
    _F.CPPTYPE_INT64: (-(1 << 63), (1 << 63) - 1),
    _F.CPPTYPE_UINT32: (0, (1 << 32) - 1),
    _F.CPPTYPE_UINT64: (0, (1 << 64) - 1),
}
_DEEPEST = 6
_SQL = frozenset(("where", "sql", "result_sql", "stop_sql", "score_sql", "assignments"))
_NAMES = (
    "Agent",
    "Energy",
    "Tally",
    "agent",
    "Nobody",
    "Ageing",
    "Decay",
    "SqlProcessor",
    "crowd",
    "spawn",
    "count",
)


@dataclass(frozen=True)
class Known:
    """What there is on the server, so that not everything is refused at the first look."""

    worlds: tuple[str, ...]
    tokens: tuple[str, ...] = ()


def messages(descriptor: Descriptor, known: Known) -> st.SearchStrategy[Message]:
    """Return a strategy of messages of one type."""
    return _message(descriptor, known, 0)


def _message(descriptor: Descriptor, known: Known, depth: int) -> st.SearchStrategy[Message]:
    special = _SPECIAL.get(descriptor.full_name)
    if special is not None:
        return special()
    make = message_factory.GetMessageClass(descriptor)
    fields = [field for field in descriptor.fields if depth < _DEEPEST or field.message_type is None]

    names = {field.name for field in fields}

    @st.composite
    def drawn(draw: st.DrawFn) -> Message:
        message = make()
        chosen = {f.name for f in draw(st.lists(st.sampled_from(fields), max_size=5))} if fields else set()
        payloads = [f for f in fields if f.containing_oneof and f.containing_oneof.name == "payload"]
        if depth == 0:
            chosen |= names & {"world", "commands", "token_id"}
        if payloads:
            # A command of odd ids, ticks and priorities is refused before anybody looks at its payload.
            others = chosen.difference(f.name for f in payloads) if draw(st.integers(0, 5)) == 0 else set()
            chosen = {*others, draw(st.sampled_from(payloads)).name}
        elif depth and draw(st.integers(0, 5)):
            chosen = _sensible(draw, chosen, names)
        for field in fields:
            if field.name in chosen:
                _set(draw, message, field, known, depth)
        return message

    return drawn()


def _sensible(draw: st.DrawFn, chosen: set[str], names: set[str]) -> set[str]:
    """Return fields that go together in a command's payload: a message of all or none of them is refused at once."""
    chosen = chosen | (names & {"name"})
    if {"components", "table"} <= names:
        kept = draw(st.sampled_from(("components", "components", "table")))
        chosen = chosen - {"components", "table"} | {kept}
    if {"entity_ids", "where"} <= names:
        selected = set() if "table" in chosen else {draw(st.sampled_from(("entity_ids", "where")))}
        chosen = chosen - {"entity_ids"} | selected
    if {"sql", "params"} <= names:
        kept = draw(st.sampled_from(("sql", "params", "type")))
        chosen = chosen - {"sql", "params", "type"} | {kept}
    return chosen


def _set(draw: st.DrawFn, message: Any, field: FieldDescriptor, known: Known, depth: int) -> None:
    kind = field.message_type
    if kind is not None and kind.GetOptions().map_entry:
        values = kind.fields_by_name["value"]
        entries = draw(
            st.dictionaries(_keys(field, known), _single(values, known, depth, field.name), max_size=2)
        )
        for key, value in entries.items():
            if values.message_type is None:
                getattr(message, field.name)[key] = value
            else:
                getattr(message, field.name)[key].CopyFrom(value)
    elif field.is_repeated:
        most = 4 if field.name == "commands" and depth == 0 else 2
        getattr(message, field.name).extend(
            draw(st.lists(_single(field, known, depth, field.name), min_size=depth == 0, max_size=most))
        )
    elif kind is not None:
        getattr(message, field.name).CopyFrom(draw(_single(field, known, depth, field.name)))
    else:
        setattr(message, field.name, draw(_single(field, known, depth, field.name)))


def _keys(field: FieldDescriptor, known: Known) -> st.SearchStrategy[str]:
    if field.name == "assignments":
        return st.sampled_from(("agent__number", "energy__level", "agent__name", "entity_id", "nobody__x"))
    return st.one_of(st.sampled_from(_NAMES), odd_texts)


def _single(field: FieldDescriptor, known: Known, depth: int, name: str) -> st.SearchStrategy[Any]:
    if field.message_type is not None:
        return _message(field.message_type, known, depth + 1)
    if field.enum_type is not None:
        return st.sampled_from([*(value.number for value in field.enum_type.values), 99, -1])
    if name == "entity_ids":
        return st.one_of(st.integers(1, 110), st.integers(1, 110), _integers(*_BOUNDS[field.cpp_type]))
    if field.cpp_type in _BOUNDS:
        return _integers(*_BOUNDS[field.cpp_type])
    if field.cpp_type in (_F.CPPTYPE_DOUBLE, _F.CPPTYPE_FLOAT):
        return st.sampled_from((0.0, 1.0, -1.0, 60.0, math.nan, math.inf, -math.inf, 1e308, 5e-324))
    if field.cpp_type == _F.CPPTYPE_BOOL:
        return st.booleans()
    if field.type == _F.TYPE_BYTES:
        return tables()
    if name in _SQL:
        return sql
    if name in ("world", "world_id"):
        return st.one_of(*[st.sampled_from(known.worlds)] * 3, st.builds(lambda: str(uuid7())), odd_texts)
    if name in ("id", "command_id", "token_id"):
        made = st.builds(lambda: str(uuid7()))
        return st.one_of(st.just(""), made, st.sampled_from((*known.worlds, *known.tokens)), odd_texts)
    return st.one_of(st.sampled_from(_NAMES), odd_texts)


def _integers(low: int, high: int) -> st.SearchStrategy[int]:
    edges = (0, 1, 2, 3, 5, 100, -1, low, high, (1 << 53) - 1, 1 << 53, 1 << 15, 1 << 31)
    return st.one_of(
        st.sampled_from([value for value in edges if low <= value <= high]), st.integers(low, high)
    )


_HINTS: dict[str, Any] = {
    "Agent": {"name": "a", "number": 1},
    "Energy": {"level": 0.5},
    "Tally": {"count": "7"},
}
_plain_values = st.one_of(
    st.none(),
    st.booleans(),
    st.floats(),
    st.sampled_from(
        (0.0, 1.0, 1.5, 2.0**53, -(2.0**63), 1e300, "NaN", "-Infinity", "1.5s", "AAAA", "2026-01-31", "7")
    ),
    odd_texts,
)
_values = st.recursive(
    _plain_values,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.one_of(st.sampled_from(("name", "number", "level", "x")), odd_texts), inner, max_size=3
        ),
    ),
    max_leaves=6,
)


@lru_cache
def structs() -> st.SearchStrategy[struct_pb2.Struct]:
    """Return a strategy of Structs: components of the tests' app, nearly so, or anything, deep and wide."""
    components = st.dictionaries(
        st.sampled_from(("Agent", "Energy", "Tally", "Nobody")),
        st.one_of(
            st.sampled_from([*_HINTS.values()]),
            st.dictionaries(
                st.sampled_from(("name", "number", "level", "age", "count", "fold")), _values, max_size=3
            ),
            _values,
        ),
        max_size=3,
    )
    anything = st.dictionaries(odd_texts, _values, max_size=3)
    return st.one_of(
        components.map(_struct),
        st.sampled_from([{name: value} for name, value in _HINTS.items()]).map(_struct),
        anything.map(_struct),
        st.integers(1, 28).map(_deep_struct),
        st.builds(_valueless_struct),
    )


def _struct(values: dict[str, Any]) -> struct_pb2.Struct:
    struct = struct_pb2.Struct()
    struct.update(values)
    return struct


def _deep_struct(depth: int) -> struct_pb2.Struct:
    root = struct_pb2.Struct()
    inner = root
    for _ in range(depth):
        inner = inner.fields["Agent"].struct_value
    return root


def _valueless_struct() -> struct_pb2.Struct:
    struct = struct_pb2.Struct()
    assert struct.fields["Agent"] is not None
    return struct


def tables() -> st.SearchStrategy[bytes]:
    """Return a strategy of Arrow streams over the components of the tests' app: good, damaged, and none at all."""
    wholes = _wholes()
    broken = st.builds(
        lambda seed, whole: damaged(random.Random(seed), whole), st.integers(0, 1 << 32), wholes
    )
    return st.one_of(wholes, broken, broken, st.binary(max_size=40))


@lru_cache
def _wholes() -> st.SearchStrategy[bytes]:
    streams = good_streams("energy__level", "agent__name", "agent__number")
    return st.sampled_from(streams)


def _durations() -> st.SearchStrategy[duration_pb2.Duration]:
    return st.builds(
        lambda seconds, nanos: duration_pb2.Duration(seconds=seconds, nanos=nanos),
        st.sampled_from((0, 0, 0, 1, -1, 60, 1 << 40, -(1 << 62), (1 << 63) - 1)),
        st.sampled_from((0, 1, 10_000_000, -1, (1 << 31) - 1, -(1 << 31))),
    )


def _timestamps() -> st.SearchStrategy[timestamp_pb2.Timestamp]:
    return st.builds(
        lambda seconds, nanos: timestamp_pb2.Timestamp(seconds=seconds, nanos=nanos),
        st.sampled_from((0, 1_700_000_000, -1, 1 << 40, -(1 << 62), (1 << 63) - 1)),
        st.sampled_from((0, 1, -1, (1 << 31) - 1)),
    )


def _masks() -> st.SearchStrategy[field_mask_pb2.FieldMask]:
    paths = st.one_of(
        st.sampled_from(("name", "labels", "retention", "id", "retention.keep_ticks", "*")), odd_texts
    )
    return st.lists(paths, max_size=3).map(lambda found: field_mask_pb2.FieldMask(paths=found))


def _one_value() -> st.SearchStrategy[struct_pb2.Value]:
    return _values.map(lambda value: _struct({"v": value}).fields["v"])


_SPECIAL: dict[str, Callable[[], st.SearchStrategy[Any]]] = {
    "google.protobuf.Struct": structs,
    "google.protobuf.Value": _one_value,
    "google.protobuf.Duration": _durations,
    "google.protobuf.Timestamp": _timestamps,
    "google.protobuf.FieldMask": _masks,
}
