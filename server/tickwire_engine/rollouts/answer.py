"""What the command that began a rollout tells: the branches' rows in one table, and a word on each branch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa

from tickwire_engine.command import canonical_json
from tickwire_engine.commands.operation import Applied
from tickwire_engine.world import ipc_stream

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tickwire_engine.rollouts.result import BranchResult

SUMMARY = pa.schema(
    [  # type: ignore[arg-type]  # the stubs know no list of fields of several types
        pa.field("branch", pa.int32(), nullable=False),
        pa.field("name", pa.utf8(), nullable=False),
        pa.field("last_tick", pa.int64(), nullable=False),
        pa.field("stopped", pa.bool_(), nullable=False),
        pa.field("score", pa.float64()),
        pa.field("world_id", pa.utf8(), nullable=False),
        pa.field("error", pa.utf8(), nullable=False),
    ]
)
"""The summary of an episode: a row for each branch; `score` is null where it failed."""


def answer_of(results: Sequence[BranchResult], is_episode: bool) -> Applied:
    """Return what a command tells: of an episode the summary, of a rollout the rows, after `branch` and `name`."""
    ordered = sorted(results, key=lambda result: result.number)
    table = summary_of(ordered) if is_episode else _rows_of(ordered)
    value = {"branches": [_word_on(result) for result in ordered]}
    return Applied(value=canonical_json(value).encode(), table=b"" if table is None else ipc_stream(table))


def summary_of(results: Sequence[BranchResult]) -> pa.Table:
    """Return a row for each branch."""
    rows = [
        {
            "branch": result.number,
            "name": result.name,
            "last_tick": result.last_tick,
            "stopped": result.stopped,
            "score": None if result.error is not None else result.score,
            "world_id": result.world_id,
            "error": "" if result.error is None else f"{result.error.reason}: {result.error.message}",
        }
        for result in results
    ]
    return pa.Table.from_pylist(rows, schema=SUMMARY)


def _rows_of(results: Sequence[BranchResult]) -> pa.Table | None:
    tables = []
    for result in results:
        if result.table:
            with pa.ipc.open_stream(result.table) as reader:
                rows = reader.read_all()
            names = pa.chunked_array([pa.array([result.name] * rows.num_rows, pa.utf8())])
            numbers = pa.chunked_array([pa.array([result.number] * rows.num_rows, pa.int32())])
            rows = rows.add_column(0, "name", names).add_column(0, "branch", numbers)
            tables.append(rows)
    return pa.concat_tables(tables, promote_options="permissive").combine_chunks() if tables else None


def _word_on(result: BranchResult) -> dict[str, Any]:
    word: dict[str, Any] = {
        "branch": result.number,
        "name": result.name,
        "last_tick": result.last_tick,
        "stopped": result.stopped,
        "score": result.score,
    }
    if result.world_id:
        word["world_id"] = result.world_id
    if result.error is not None:
        word["error"] = {"reason": result.error.reason, "message": result.error.message}
    if result.rejected:
        word["rejected"] = [{"reason": o.reason, "message": o.message} for o in result.rejected]
    return word
