"""Mailbox: the messages between entities that a tick delivers.

A message is a command: sent in tick N by a processor, or at any time by a client, it is applied in the next tick, and the
processors of that tick read it here. It is gone with the tick; what must be remembered belongs into components.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import daft
import pyarrow as pa

from tickwire_engine.command import canonical_json
from tickwire_engine.tick.context import Message, current_call

if TYPE_CHECKING:
    from collections.abc import Sequence

_SCHEMA = pa.schema(
    [  # type: ignore[arg-type]  # the stubs know no list of fields of several types
        pa.field("sender_id", pa.int64(), nullable=False),
        pa.field("receiver_id", pa.int64(), nullable=False),
        pa.field("channel", pa.utf8(), nullable=False),
        pa.field("content", pa.utf8(), nullable=False),
        pa.field("actor_id", pa.utf8(), nullable=False),
    ]
)


class Mailbox:
    """A resource of every world; empty outside ticks."""

    def messages(self, *, receiver_id: int | None = None, channel: str | None = None) -> Sequence[Message]:
        """Return this tick's messages in the order they were applied, those to one entity or channel only if asked."""
        call = current_call.get()
        delivered = () if call is None else call.context.messages
        return [
            message
            for message in delivered
            if (receiver_id is None or message.receiver_id == receiver_id)
            and (channel is None or message.channel == channel)
        ]

    def to_dataframe(self) -> daft.DataFrame:
        """Return this tick's messages as a data frame; the column `content` holds canonical JSON."""
        rows = [
            {
                "sender_id": message.sender_id,
                "receiver_id": message.receiver_id,
                "channel": message.channel,
                "content": canonical_json(message.content),
                "actor_id": message.actor_id,
            }
            for message in self.messages()
        ]
        return daft.from_arrow(pa.Table.from_pylist(rows, schema=_SCHEMA))
