"""WorldService over gRPC."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tickwire.v1 import world_pb2
from tickwire.v1 import world_service_pb2 as pb
from tickwire_engine.commands.processors import SQL_TYPE
from tickwire_engine.values import to_json
from tickwire_server.grpc.components import component_proto, component_type
from tickwire_server.grpc.convert import fork_config, world_changes, world_config, world_proto
from tickwire_server.grpc.errors import answers, streams
from tickwire_server.grpc.structs import dict_to_struct
from tickwire_server.services.watching import watch_world

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tickwire_server.container import ServiceContainer

_PATHS = {
    "FAST": world_pb2.PROCESSOR_PATH_FAST,
    "DAFT": world_pb2.PROCESSOR_PATH_DAFT,
    "ARROW": world_pb2.PROCESSOR_PATH_ARROW,
    "SQL": world_pb2.PROCESSOR_PATH_SQL,
}


class WorldServicer:
    """Worlds: made, found, listed."""

    def __init__(self, container: ServiceContainer) -> None:
        self._container = container

    @answers
    async def CreateWorld(self, request: pb.CreateWorldRequest, context: Any) -> pb.CreateWorldResponse:
        """Make a world."""
        service = self._container.world_service
        world = await service.create_world(world_config(request))
        return pb.CreateWorldResponse(world=world_proto(service.view(world)))

    @answers
    async def ForkWorld(self, request: pb.ForkWorldRequest, context: Any) -> pb.ForkWorldResponse:
        """Fork a world."""
        service = self._container.world_service
        config = fork_config(request)
        parent = service.parent(request.world, config.world_id)
        world = await service.fork_world(parent, config)
        return pb.ForkWorldResponse(world=world_proto(service.view(world)))

    @answers
    async def GetWorld(self, request: pb.GetWorldRequest, context: Any) -> pb.GetWorldResponse:
        """Describe a world."""
        return pb.GetWorldResponse(world=world_proto(self._container.world_service.look(request.world)))

    @answers
    async def UpdateWorld(self, request: pb.UpdateWorldRequest, context: Any) -> pb.UpdateWorldResponse:
        """Change a world's name, labels or retention."""
        service = self._container.world_service
        view = await service.update(request.world, world_changes(request), etag=request.etag)
        return pb.UpdateWorldResponse(world=world_proto(view))

    @answers
    async def DestroyWorld(self, request: pb.DestroyWorldRequest, context: Any) -> pb.DestroyWorldResponse:
        """End a world."""
        view = await self._container.world_service.destroy(request.world)
        return pb.DestroyWorldResponse(world=world_proto(view))

    @answers
    async def ListWorlds(self, request: pb.ListWorldsRequest, context: Any) -> pb.ListWorldsResponse:
        """List worlds, a page at a time."""
        views, token = self._container.world_service.page(
            dict(request.labels), page_size=request.page_size, page_token=request.page_token
        )
        return pb.ListWorldsResponse(worlds=map(world_proto, views), next_page_token=token)

    @streams
    async def WatchWorld(
        self, request: pb.WatchWorldRequest, context: Any
    ) -> AsyncIterator[pb.WatchWorldResponse]:
        """Stream a world whenever it changed."""
        container = self._container
        world = container.world_service.find(request.world)
        seen = watch_world(world, container.hub(world), container.world_service.view, container.stopping)
        async for view in seen:
            yield pb.WatchWorldResponse(world=world_proto(view))

    @answers
    async def ListComponents(
        self, request: pb.ListComponentsRequest, context: Any
    ) -> pb.ListComponentsResponse:
        """List the components that commands may name."""
        catalog = self._container.engine.setup.vocabulary.components
        return pb.ListComponentsResponse(components=[component_proto(entry) for entry in catalog])

    @answers
    async def RegisterComponent(
        self, request: pb.RegisterComponentRequest, context: Any
    ) -> pb.RegisterComponentResponse:
        """Define a component, or let it grow."""
        entry, with_defaults = component_type(request)
        known = await self._container.world_service.register_component(entry, with_defaults=with_defaults)
        return pb.RegisterComponentResponse(component=component_proto(known))

    @answers
    async def ListProcessors(
        self, request: pb.ListProcessorsRequest, context: Any
    ) -> pb.ListProcessorsResponse:
        """List a world's processors in the order they run, and how each ran last."""
        world = self._container.world_service.find(request.world)
        listed = []
        for entry in world.processors:
            message = world_pb2.Processor(
                name=entry.name,
                type=entry.type,
                priority=entry.priority,
                components=entry.components,
                params=None if entry.type == SQL_TYPE else dict_to_struct(entry.params),
                sql=world_pb2.SqlProcessor(**entry.params) if entry.type == SQL_TYPE else None,
            )
            run = world.processor_runs.get(entry.name)
            if run is not None:
                message.path = _PATHS[run.path]
                message.last_time.FromMicroseconds(int(run.seconds * 1e6))
            listed.append(message)
        return pb.ListProcessorsResponse(processors=listed)

    @answers
    async def ListResources(self, request: pb.ListResourcesRequest, context: Any) -> pb.ListResourcesResponse:
        """List a world's resources by name."""
        service = self._container.world_service
        views = service.resources(service.find(request.world))
        return pb.ListResourcesResponse(
            resources=[
                world_pb2.Resource(name=view.name, type=view.type, value=dict_to_struct(to_json(view.value)))
                for view in views
            ]
        )
