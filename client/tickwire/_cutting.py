"""Takes large fields out of a message before it is parsed, so that a megabyte of rows is not copied twice on its way.

Generated classes copy a field of bytes when they parse it, and once more when it is read. Of the wire format this needs
no more than where fields begin and end (https://protobuf.dev/programming-guides/encoding/).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tickwire import _varint as varint

if TYPE_CHECKING:
    from collections.abc import Sequence

_VARINT, _EIGHT_BYTES, _LENGTH, _FOUR_BYTES = 0, 1, 2, 5


def cut(data: memoryview, path: Sequence[int], values: list[memoryview]) -> bytes:
    """Cuts a field out of a message, wherever it is set.

    Args:
        data: the message's bytes.
        path: the numbers of the fields that lead to it: of messages, and its own last.
        values: what it held is appended here, in order, as views of `data`.

    Returns:
        The message's bytes without it.

    Raises:
        ValueError: they are no message.
    """
    kept: list[bytes | memoryview] = []
    at, end = 0, len(data)
    while at < end:
        start = at
        tag, at = varint.decode(data, at)
        kind = tag & 7
        if kind == _LENGTH:
            size, at = varint.decode(data, at)
            begin, at = at, at + size
            if tag >> 3 == path[0] and at <= end:
                if len(path) == 1:
                    values.append(data[begin:at])
                    continue
                inner = cut(data[begin:at], path[1:], values)
                kept += [varint.encode(tag), varint.encode(len(inner)), inner]
                continue
        elif kind == _VARINT:
            _, at = varint.decode(data, at)
        elif kind in (_EIGHT_BYTES, _FOUR_BYTES):
            at += 8 if kind == _EIGHT_BYTES else 4
        else:
            raise ValueError(f"no message: a field of wire type {kind}")
        if at > end:
            raise ValueError("no message: it is cut short")
        kept.append(data[start:at])
    return b"".join(kept)


def first_size(data: memoryview) -> int:
    """Returns how long a message's first field is; 0 if it is no bytes and no message.

    Raises:
        ValueError: it is no message.
    """
    if not data:
        return 0
    tag, at = varint.decode(data, 0)
    return varint.decode(data, at)[0] if tag & 7 == _LENGTH else 0
