"""What of a command can be told without a look at its world's state: its canonical form, and what would apply it.

That is two thirds of the work of admitting one. A large request is prepared a part at a time, so that the world's loop has
turns for others in between; what depends on the order of commands is judged afterwards, in one piece.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, NamedTuple, TypeAlias, TypeVar

from tickwire_engine.commands import parse
from tickwire_engine.errors import TickwireError

if TYPE_CHECKING:
    from collections.abc import Container, Sequence

    from tickwire_engine.commands import Operation, Vocabulary
    from tickwire_engine.submission import Submission

T = TypeVar("T")
R = TypeVar("R")

PART = 16
"""Commands of a large request that are read, or prepared, in one piece: some 0.2 ms."""
Pause: TypeAlias = Callable[[], Awaitable[None]]
"""Gives others a turn in the midst of a large request."""


class Prepared(NamedTuple):
    """A command that was encoded, and parsed unless it is known already; or why it could not be parsed."""

    encoded: tuple[bytes, bytes, bytes]
    """See `Submission.encode`."""
    outcome: Operation | TickwireError | None = None

    def operation(self, submission: Submission, vocabulary: Vocabulary) -> Operation:
        """Return what applies it.

        Raises:
            TickwireError: The payload could never be applied.
        """
        found = self.outcome
        if found is None:
            return parse(submission.type, submission.payload, self.encoded[1], vocabulary)
        if isinstance(found, TickwireError):
            raise found
        return found


async def in_parts(items: Sequence[T], do: Callable[[int, T], R], pause: Pause) -> list[R]:
    """Return what `do` makes of each (index, item), in order, with a pause between one part and the next."""
    made: list[R] = []
    for start in range(0, len(items), PART):
        if start:
            await pause()
        made += [do(index, item) for index, item in enumerate(items[start : start + PART], start)]
    return made


async def prepare(
    submissions: Sequence[Submission],
    vocabulary: Vocabulary,
    known: Container[bytes],
    pause: Pause,
) -> list[Prepared]:
    """Encode and parse commands, with a pause between one part of them and the next.

    Args:
        submissions: In order.
        vocabulary: What they may name.
        known: Ids of commands that were taken before: a retry is not parsed.
        pause: Gives others a turn.
    """
    generation = vocabulary.components.generation
    prepared = await in_parts(submissions, lambda _, sent: _prepared(sent, vocabulary, known), pause)
    if vocabulary.components.generation != generation:
        # A component has grown in a pause: what was parsed before would miss its new fields.
        return [Prepared(one.encoded) for one in prepared]
    return prepared


def _prepared(sent: Submission, vocabulary: Vocabulary, known: Container[bytes]) -> Prepared:
    encoded = sent.encode()
    if sent.id in known:
        return Prepared(encoded)
    try:
        return Prepared(encoded, parse(sent.type, sent.payload, encoded[1], vocabulary))
    except TickwireError as error:
        return Prepared(encoded, error)
