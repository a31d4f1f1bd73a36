"""SEED row "Resources": shared state of a world, keyed by type."""

from __future__ import annotations

import pytest

from tickwire_engine import Resources, Snapshot


def test_resources_are_keyed_by_type() -> None:
    resources = Resources()
    assert resources.get(dict) is None
    with pytest.raises(KeyError, match="dict"):
        resources.require(dict)
    value = {"a": 1}
    resources.insert(value)
    assert resources.require(dict) is value
    assert dict in resources
    assert resources.contains(dict)
    assert not resources.contains(list)
    resources.insert({})
    assert resources.get(dict) == {}
    assert len(resources) == 1
    assert resources.remove(dict) == {}
    assert resources.remove(dict) is None
    assert dict not in resources


def test_a_resource_with_snapshot_and_restore_is_a_snapshot() -> None:
    class Counter:
        def snapshot(self) -> bytes:
            return b""

        def restore(self, state: bytes) -> None:
            return

    assert isinstance(Counter(), Snapshot)
    assert not isinstance(object(), Snapshot)
