"""Fixtures of the client's tests: a world service that knows one world."""

from __future__ import annotations

from typing import Any

import pytest

from tests.client.peer import WORLD
from tickwire import RetryPolicy
from tickwire.v1 import world_service_pb2, world_service_pb2_grpc


class OneWorld(world_service_pb2_grpc.WorldServiceServicer):
    """Knows the world `orbit`, and remembers what it was asked to create."""

    def __init__(self) -> None:
        self.created: list[world_service_pb2.CreateWorldRequest] = []

    async def GetWorld(self, request: Any, context: Any) -> Any:  # noqa: N802
        return world_service_pb2.GetWorldResponse(world=WORLD)

    async def CreateWorld(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.created.append(request)
        return world_service_pb2.CreateWorldResponse(world=WORLD)

    async def ListWorlds(self, request: Any, context: Any) -> Any:  # noqa: N802
        if not request.page_token:
            return world_service_pb2.ListWorldsResponse(worlds=[WORLD], next_page_token="more")
        other = type(WORLD)(id="01930000-0000-7000-8000-000000000002", name="tides")
        return world_service_pb2.ListWorldsResponse(worlds=[other])

    def register(self, server: Any) -> None:
        world_service_pb2_grpc.add_WorldServiceServicer_to_server(self, server)


@pytest.fixture
def one_world() -> OneWorld:
    return OneWorld()


@pytest.fixture
def quick() -> RetryPolicy:
    """Retries without the pauses that real networks need."""
    return RetryPolicy(retry_for_s=10, initial_backoff_s=0.01, max_backoff_s=0.05)
