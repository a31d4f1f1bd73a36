"""Compact blobs of the journal's rows: outcomes, what a tick recorded, lists of ids, layouts of frames."""

from __future__ import annotations

import json
import struct
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import xxhash

from tickwire_engine.storage.rows import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_OUTCOMES = struct.Struct(">BIq")
_INT64 = struct.Struct("<q")
_SNAPSHOT = struct.Struct("<IQ")
_RECORDED = struct.Struct("<IQ16s")
_COPIED_BYTES = 4096
"""Up to here copying a body costs less than hashing it in two steps."""
_HAS_ENTITIES = 1
_HAS_MORE = 2


class Recorded(NamedTuple):
    """One frame that a tick wrote."""

    stream: int
    rows: int
    hash: bytes


def pack_outcomes(outcomes: Sequence[Outcome], first_seq: int) -> bytes:
    """Pack consecutive outcomes column by column; applied commands cost 8 bytes, 24 with entities.

    Args:
        outcomes: In the order applied.
        first_seq: The outcome seq of the first. It stands at a fixed place, big-endian: the journal indexes it.
    """
    if not outcomes:
        return b""
    count = len(outcomes)
    entities = any(outcome.entity_count for outcome in outcomes)
    more = [(position, *_more(o)) for position, o in enumerate(outcomes) if not o.applied or _details(o)]
    flags = (_HAS_ENTITIES if entities else 0) | (_HAS_MORE if more else 0)
    parts = [
        _OUTCOMES.pack(flags, count, first_seq),
        struct.pack(f"<{count}q", *[o.seq for o in outcomes]),
    ]
    if entities:
        parts.append(struct.pack(f"<{count}q", *[o.first_entity_id for o in outcomes]))
        parts.append(struct.pack(f"<{count}q", *[o.entity_count for o in outcomes]))
    if more:
        parts.append(json.dumps(more, separators=(",", ":"), ensure_ascii=False).encode())
    return b"".join(parts)


def unpack_outcomes(blob: bytes) -> tuple[Outcome, ...]:
    """Undo `pack_outcomes`, outcome seqs filled in."""
    if not blob:
        return ()
    flags, count, first_seq = _OUTCOMES.unpack_from(blob)
    column = struct.Struct(f"<{count}q")
    offset = _OUTCOMES.size
    seqs = column.unpack_from(blob, offset)
    offset += column.size
    firsts: Sequence[int] = (0,) * count
    counts: Sequence[int] = firsts
    if flags & _HAS_ENTITIES:
        firsts = column.unpack_from(blob, offset)
        counts = column.unpack_from(blob, offset + column.size)
        offset += 2 * column.size
    outcomes = [
        Outcome(seq, applied=True, first_entity_id=first, entity_count=number, outcome_seq=outcome_seq)
        for outcome_seq, (seq, first, number) in enumerate(zip(seqs, firsts, counts, strict=True), first_seq)
    ]
    if flags & _HAS_MORE:
        for position, *more in json.loads(blob[offset:]):
            outcomes[position] = _with_more(outcomes[position], *more)
    return tuple(outcomes)


def outcomes_at(blob: bytes, positions: Iterable[int]) -> list[Outcome]:
    """Undo `pack_outcomes` for some of them: by their places in the order applied."""
    flags, count, first_seq = _OUTCOMES.unpack_from(blob)
    mores = {position: more for position, *more in _mores(blob)}
    found = []
    for position in positions:
        seq, first, number = (
            _INT64.unpack_from(blob, _OUTCOMES.size + 8 * (column * count + position))[0]
            if column == 0 or flags & _HAS_ENTITIES
            else 0
            for column in range(3)
        )
        outcome = Outcome(
            seq, applied=True, first_entity_id=first, entity_count=number, outcome_seq=first_seq + position
        )
        found.append(_with_more(outcome, *mores[position]) if position in mores else outcome)
    return found


def rejected_at(blob: bytes) -> set[int]:
    """Return the places of packed outcomes that are rejections."""
    return {position for position, applied, *_ in _mores(blob) if not applied}


def _mores(blob: bytes) -> list[Any]:
    flags, count, _ = _OUTCOMES.unpack_from(blob)
    if not flags & _HAS_MORE:
        return []
    columns = 3 if flags & _HAS_ENTITIES else 1
    mores: list[Any] = json.loads(blob[_OUTCOMES.size + 8 * columns * count :])
    return mores


def _with_more(
    outcome: Outcome, applied: bool, reason: str, message: str, field: str, details: dict[str, Any]
) -> Outcome:
    plain = replace(outcome, applied=applied, reason=reason, message=message, field=field)
    return _detailed(plain, details)


def details_json(outcome: Outcome) -> str:
    """Return what an outcome tells beyond its state, its error and its entities, as JSON; "" mostly."""
    details = _details(outcome)
    return json.dumps(details, separators=(",", ":"), ensure_ascii=False) if details else ""


def with_details(outcome: Outcome, text: str) -> Outcome:
    """Return an outcome with what `details_json` told of it."""
    return _detailed(outcome, json.loads(text)) if text else outcome


def _detailed(outcome: Outcome, details: dict[str, Any]) -> Outcome:
    return replace(
        outcome,
        cancelled=details.get("cancelled", False),
        metadata=tuple(details.get("metadata", {}).items()),
        missing=tuple(details.get("missing", ())),
        world_id=details.get("world_id", ""),
        value=details.get("value", "").encode(),
        table_bytes=details.get("table_bytes", 0),
    )


def _more(outcome: Outcome) -> tuple[bool, str, str, str, dict[str, Any]]:
    return outcome.applied, outcome.reason, outcome.message, outcome.field, _details(outcome)


def _details(outcome: Outcome) -> dict[str, Any]:
    details: dict[str, Any] = {}
    if outcome.cancelled:
        details["cancelled"] = True
    if outcome.metadata:
        details["metadata"] = dict(outcome.metadata)
    if outcome.missing:
        details["missing"] = outcome.missing
    if outcome.world_id:
        details["world_id"] = outcome.world_id
    if outcome.value:
        details["value"] = outcome.value.decode()
    if outcome.table_bytes:
        details["table_bytes"] = outcome.table_bytes
    return details


def outcome_range(blob: bytes) -> tuple[int, int]:
    """Return the outcome seq of the first of packed outcomes, and how many they are."""
    _, count, first_seq = _OUTCOMES.unpack_from(blob)
    return first_seq, count


def outcome_seqs(blob: bytes) -> Sequence[int]:
    """Return the seqs of packed outcomes, in the order applied, and nothing else."""
    if not blob:
        return ()
    _, count, _ = _OUTCOMES.unpack_from(blob)
    return struct.unpack_from(f"<{count}q", blob, _OUTCOMES.size)


def pack_recorded(recorded: Iterable[Recorded]) -> bytes:
    """Pack what a tick wrote."""
    return b"".join(_RECORDED.pack(*record) for record in recorded)


def unpack_recorded(blob: bytes) -> list[Recorded]:
    """Undo `pack_recorded`."""
    return [Recorded(*record) for record in _RECORDED.iter_unpack(blob)]


def pack_ids(ids: Sequence[int]) -> bytes:
    """Pack 64-bit integers."""
    return struct.pack(f"<{len(ids)}q", *ids)


def unpack_ids(blob: bytes) -> tuple[int, ...]:
    """Undo `pack_ids`."""
    return struct.unpack(f"<{len(blob) // 8}q", blob)


def pack_layout(sizes: Sequence[int], rows: Sequence[int]) -> bytes:
    """Pack the bytes and rows of each message of a frame."""
    return struct.pack(f"<{2 * len(sizes)}Q", *sizes, *rows)


def unpack_layout(blob: bytes) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Undo `pack_layout`: (sizes, rows)."""
    values = struct.unpack(f"<{len(blob) // 8}Q", blob)
    half = len(values) // 2
    return values[:half], values[half:]


def pack_snapshots(snapshots: Mapping[str, bytes]) -> bytes:
    """Pack resource snapshots by name."""
    parts = []
    for name, body in sorted(snapshots.items()):
        encoded = name.encode()
        parts += [_SNAPSHOT.pack(len(encoded), len(body)), encoded, body]
    return b"".join(parts)


def unpack_snapshots(blob: bytes) -> dict[str, bytes]:
    """Undo `pack_snapshots`."""
    snapshots = {}
    at = 0
    while at < len(blob):
        name_bytes, body_bytes = _SNAPSHOT.unpack_from(blob, at)
        at += _SNAPSHOT.size
        name = blob[at : at + name_bytes].decode()
        at += name_bytes
        snapshots[name] = blob[at : at + body_bytes]
        at += body_bytes
    return snapshots


def checksum(body: bytes, *identity: int) -> int:
    """Hash bytes together with the key that they are stored under, as a signed 64-bit integer for SQLite."""
    head = struct.pack(f"<{len(identity)}q", *identity)
    if len(body) <= _COPIED_BYTES:
        return xxhash.xxh3_64_intdigest(head + body) - (1 << 63)
    digest = xxhash.xxh3_64(head)
    digest.update(body)
    return digest.intdigest() - (1 << 63)
