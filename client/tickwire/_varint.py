"""Protobuf's varints, for envelopes that are read and written by hand (https://protobuf.dev/programming-guides/encoding/)."""

from __future__ import annotations


def encode(value: int) -> bytes:
    """Return a number that is not negative as it is written."""
    if value < 0x80:
        return bytes((value,))
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def decode(data: memoryview, at: int) -> tuple[int, int]:
    """Read a number.

    Returns:
        It, and where it ends.

    Raises:
        ValueError: There is none.
    """
    value = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise ValueError("no message: a number is cut short")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
