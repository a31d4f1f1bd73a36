"""Prometheus reads what the worlds are doing, and costs a server that cannot give it nothing."""

from __future__ import annotations

import asyncio
import socket
import urllib.request
from typing import TYPE_CHECKING

from prometheus_client.parser import text_string_to_metric_families

from tickwire.v1 import tick_service_pb2

if TYPE_CHECKING:
    from tests.server.conftest import Served


def key(name: str, labels: dict[str, str]) -> tuple[str, ...]:
    """The metric, its world, and its further labels in the order of their names."""
    further = [value for label, value in sorted(labels.items()) if label != "world"]
    return (name, *([labels["world"]] if "world" in labels else []), *further)


async def scrape(port: int) -> dict[tuple[str, ...], float]:
    def read() -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            return answer.read().decode()

    text = await asyncio.to_thread(read)
    return {
        key(sample.name, sample.labels): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def with_metrics(served: Served) -> int:
    await served.stop()
    await served.start(metrics="127.0.0.1:0")
    assert served.server.metrics is not None
    return served.server.metrics.port


async def test_a_scrape_tells_what_every_world_is_doing(served: Served) -> None:
    port = await with_metrics(served)
    await served.create("a")
    await served.create("b", template="")
    await served.step(3, world="a")
    stream = served.subscribe(world="a", from_tick=0)
    assert (await stream.read()).HasField("started")
    found = await scrape(port)
    assert found["tickwire_ticks_total", "a"] == 3
    assert found["tickwire_ticks_total", "b"] == 0
    assert found["tickwire_entities", "a"] > 0
    assert found["tickwire_world_state", "a", "idle"] == 1
    assert found["tickwire_world_state", "a", "playing"] == 0
    assert found["tickwire_subscribers", "a"] == 1
    assert found["tickwire_subscribers", "b"] == 0
    assert found["tickwire_storage_failed",] == 0
    paths = {told[2] for told in found if told[:2] == ("tickwire_processor_seconds", "a")}
    assert paths
    assert paths <= {"fast", "daft", "arrow", "sql"}
    stream.cancel()


async def test_a_scrape_follows_pending_commands_and_play(served: Served) -> None:
    port = await with_metrics(served)
    await served.create("a")
    await served.play(hz=50.0, world="a")
    found = await scrape(port)
    assert found["tickwire_world_state", "a", "playing"] == 1
    assert found["tickwire_play_hz", "a"] == 50.0
    await served.pause("a")
    request = tick_service_pb2.ListTicksRequest(world="a")
    assert (await served.ticks.ListTicks(request)).ticks
    assert (await scrape(port))["tickwire_pending_commands", "a"] == 0


async def test_an_address_that_is_taken_costs_the_metrics_and_nothing_else(served: Served) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        await served.stop()
        await served.start(metrics=f"127.0.0.1:{other.getsockname()[1]}")
        assert served.server.metrics is None
        await served.create("a")
        assert (await served.step(1, world="a")).last_tick == 0
