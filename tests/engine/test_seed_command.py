"""SEED rows "Command", "CommandType" and "ActorCtx": ordered, frozen, and the same after Arrow."""

from __future__ import annotations

import datetime as dt
import json
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tickwire_engine import Command, CommandType
from tickwire_engine.command import canonical_json

if TYPE_CHECKING:
    from pathlib import Path


COMMAND = st.builds(
    Command,
    tick=st.one_of(st.none(), st.integers(0, (1 << 53) - 1)),
    type=st.sampled_from(CommandType),
    payload=st.dictionaries(
        st.text(max_size=5), st.one_of(st.none(), st.integers(), st.text(), st.booleans())
    ).map(lambda payload: {key: value for key, value in payload.items() if key != "table"}),
    priority=st.integers(-(1 << 15), (1 << 15) - 1),
    version=st.integers(1, 127),
    seq=st.integers(0, (1 << 53) - 1),
)


@given(st.lists(COMMAND, max_size=5))
def test_commands_come_back_from_arrow_as_they_were(commands: list[Command]) -> None:
    table = pa.Table.from_batches([c.to_arrow() for c in commands], schema=Command.arrow_schema())
    assert Command.from_arrow(table) == commands


def test_a_command_with_a_table_is_fit_for_parquet(tmp_path: Path) -> None:
    command = Command(type=CommandType.SPAWN, payload={"table": b"\x00\xff"}, tick=3)
    pq.write_table(pa.Table.from_batches([command.to_arrow()]), tmp_path / "c.parquet")
    read = pq.read_table(tmp_path / "c.parquet")
    assert read.schema.equals(Command.arrow_schema())
    assert Command.from_arrow(read) == [command]


@given(st.lists(COMMAND, max_size=8))
def test_commands_sort_by_tick_priority_seq(commands: list[Command]) -> None:
    def key(command: Command) -> tuple[int, int, int]:
        return command.tick or 0, command.priority, command.seq

    assert [key(c) for c in sorted(commands)] == sorted(key(c) for c in commands)


def test_a_command_is_frozen_and_its_id_is_a_uuid7() -> None:
    command = Command(type=CommandType.DESPAWN)
    assert command.id.version == 7
    with pytest.raises(ValidationError):
        command.tick = 1  # type: ignore[misc]
    assert {kind.value for kind in CommandType} == {kind.name.lower() for kind in CommandType}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(JSON)
def test_canonical_json_is_sorted_json_without_blanks(value: Any) -> None:
    text = canonical_json(value)
    assert text == json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def test_canonical_json_writes_times_and_bytes_as_columns_take_them() -> None:
    assert (
        canonical_json({"b": b"\x00\x01", "a": dt.timedelta(seconds=1.5)}) == '{"a":"1.500000s","b":"AAE="}'
    )
