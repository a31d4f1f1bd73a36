"""UUIDv7 (RFC 9562): ids that sort by the millisecond they were made in."""

from __future__ import annotations

import os
import time
from uuid import UUID

MAX_CLOCK_AHEAD_MS = 5 * 60 * 1000
"""How far in the future the time in a command's id may lie when it is accepted."""


def uuid7(unix_ms: int | None = None) -> UUID:
    """Return a new UUIDv7 for now, or for the given time in milliseconds since the Unix epoch."""
    return uuid7_from(time.time_ns() // 1_000_000 if unix_ms is None else unix_ms, os.urandom(10))


def uuid7_from(unix_ms: int, entropy: bytes) -> UUID:
    """Return the UUIDv7 of a time and at least ten bytes: the same ones give the same id."""
    value = int.from_bytes(entropy[:10], "big")
    value |= unix_ms << 80
    value = (value & ~(0xF << 76)) | (0x7 << 76)
    value = (value & ~(0x3 << 62)) | (0x2 << 62)
    return UUID(int=value & ((1 << 128) - 1))


def is_uuid7(raw: bytes) -> bool:
    """Whether 16 bytes are a UUIDv7 of RFC 9562."""
    return raw[6] >> 4 == 7 and raw[8] >> 6 == 2


def uuid7_ms(raw: bytes) -> int:
    """Return the milliseconds since the Unix epoch that a UUIDv7, given by its 16 bytes, was made at."""
    return int.from_bytes(raw[:6], "big")
