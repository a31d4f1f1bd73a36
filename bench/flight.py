"""The yardstick of full-state streams: a pyarrow.flight server of the same batches, in a process of its own.

Usage: python -m bench.flight ROWS TICKS. Prints its address and its batches' schema size, and ends with its stdin.
"""

from __future__ import annotations

import json
import sys

import numpy as np
import pyarrow as pa
from pyarrow import flight

from bench.worlds import movers


def rows_of(count: int) -> pa.RecordBatch:
    """Return what an archetype of `count` moving entities holds."""
    table = movers(count)
    columns = {"entity_id": np.arange(1, count + 1), "is_active": np.ones(count, dtype=bool)}
    return pa.RecordBatch.from_pydict(
        columns | {name: table[name].combine_chunks() for name in table.column_names}
    )


class Ticks(flight.FlightServerBase):
    """Sends one batch again and again."""

    def __init__(self, batch: pa.RecordBatch, ticks: int) -> None:
        super().__init__("grpc://127.0.0.1:0")
        self._batch = batch
        self._ticks = ticks

    def do_get(self, context: object, ticket: flight.Ticket) -> flight.RecordBatchStream:
        """Stream all ticks."""
        batches = (self._batch for _ in range(self._ticks))
        return flight.GeneratorStream(self._batch.schema, batches)


def main() -> None:
    """Serve until standard input ends."""
    batch = rows_of(int(sys.argv[1]))
    server = Ticks(batch, int(sys.argv[2]))
    print(json.dumps({"address": f"grpc://127.0.0.1:{server.port}", "bytes": batch.nbytes}), flush=True)
    sys.stdin.read()
    server.shutdown()


if __name__ == "__main__":
    main()
