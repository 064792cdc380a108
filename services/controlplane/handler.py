"""The RPCs of the control plane: check, call the domain, convert."""

from collections.abc import AsyncIterator
from typing import Any

import grpc

from arterial.api.controlplane.v1 import control_plane_service_pb2 as pb
from arterial.api.controlplane.v1 import (
    control_plane_service_pb2_grpc,
    resource_pb2,
    schema_registry_service_pb2,
    schema_registry_service_pb2_grpc,
)
from arterial.api.types.v1 import page_pb2
from chassis.errors import ArterialError, Reason
from chassis.paging import next_token, page_bounds
from services.controlplane import planning
from services.controlplane.schemas import SchemaRegistry
from services.controlplane.store import ResourceStore
from services.controlplane.watching import Watching

ServicerContext = grpc.aio.ServicerContext[Any, Any]


async def apply(store: ResourceStore, request: pb.ApplyRequest) -> pb.ApplyResponse:
    """Makes the resources so. Raises as the contract says."""
    existing, _ = await store.snapshot()
    planning.check(request.resources, existing)
    changes = planning.plan(request.resources, existing)
    doors = planning.unapproved(changes, request.approvals)
    if doors:
        raise ArterialError(Reason.REFUSED, f"one-way doors need approval: {', '.join(doors)}", metadata={"approvals": ",".join(doors)})
    wanted = [resource for resource, change in zip(request.resources, changes, strict=True) if change.action != pb.Change.ACTION_NONE]
    return pb.ApplyResponse(changes=changes, resources=await store.put(wanted, request.message) if wanted else [])


class ControlPlaneHandler(control_plane_service_pb2_grpc.ControlPlaneServiceServicer):
    """Serves ControlPlaneService."""

    def __init__(self, store: ResourceStore, watching: Watching) -> None:
        self._store = store
        self._watching = watching

    async def Plan(self, request: pb.PlanRequest, context: ServicerContext) -> pb.PlanResponse:
        """What Apply would do."""
        existing, _ = await self._store.snapshot()
        planning.check(request.resources, existing)
        return pb.PlanResponse(changes=planning.plan(request.resources, existing))

    async def Apply(self, request: pb.ApplyRequest, context: ServicerContext) -> pb.ApplyResponse:
        """All or none."""
        return await apply(self._store, request)

    async def GetResource(self, request: pb.GetResourceRequest, context: ServicerContext) -> pb.GetResourceResponse:
        """One resource."""
        return pb.GetResourceResponse(resource=await self._store.get(request.kind, request.name))

    async def ListResources(self, request: pb.ListResourcesRequest, context: ServicerContext) -> pb.ListResourcesResponse:
        """A page of resources."""
        name = f"resources/{request.kind}"
        start, end = page_bounds(request.page.page_size, request.page.page_token, name)
        found, total = await self._store.page(request.kind, start, end)
        return pb.ListResourcesResponse(resources=found, page=page_pb2.PageResponse(next_page_token=next_token(end, total, name)))

    async def DeleteResource(self, request: pb.DeleteResourceRequest, context: ServicerContext) -> pb.DeleteResourceResponse:
        """Refused while others refer to it."""
        existing, _ = await self._store.snapshot()
        target = (request.kind, request.name)
        users = [f"{ref.source[0]}/{ref.source[1]}" for ref in planning.references(existing.values()) if ref.target == target]
        if users:
            raise ArterialError(Reason.REFUSED, f"{request.kind}/{request.name} is referred to by {', '.join(users)}")
        return pb.DeleteResourceResponse(resource_version=await self._store.delete(request.kind, request.name, request.resource_version))

    async def Watch(self, request: pb.WatchRequest, context: ServicerContext) -> AsyncIterator[pb.WatchResponse]:
        """Changes as they come."""
        async for event in self._watching.watch(request.kinds, request.resource_version):
            yield event

    async def ReportStatus(self, request: pb.ReportStatusRequest, context: ServicerContext) -> pb.ReportStatusResponse:
        """The specification stays as it is."""
        current = await self._store.get(request.kind, request.name)
        reported = resource_pb2.Resource()
        reported.CopyFrom(current)
        reported.status.CopyFrom(request.status)
        if reported.status != current.status:
            await self._store.put([reported], "status", spec_changed=False)
        return pb.ReportStatusResponse()


class SchemaRegistryHandler(schema_registry_service_pb2_grpc.SchemaRegistryServiceServicer):
    """Serves SchemaRegistryService."""

    def __init__(self, registry: SchemaRegistry) -> None:
        self._registry = registry

    async def RegisterSchema(
        self, request: schema_registry_service_pb2.RegisterSchemaRequest, context: ServicerContext
    ) -> schema_registry_service_pb2.RegisterSchemaResponse:
        """A version of a subject."""
        done = await self._registry.register(request.subject, request.schema)
        return schema_registry_service_pb2.RegisterSchemaResponse(schema_id=done.schema_id, version=done.version)

    async def GetSchema(
        self, request: schema_registry_service_pb2.GetSchemaRequest, context: ServicerContext
    ) -> schema_registry_service_pb2.GetSchemaResponse:
        """A schema by id."""
        return schema_registry_service_pb2.GetSchemaResponse(registered=await self._registry.get(request.schema_id))

    async def CheckSchema(
        self, request: schema_registry_service_pb2.CheckSchemaRequest, context: ServicerContext
    ) -> schema_registry_service_pb2.CheckSchemaResponse:
        """Whether it could be registered."""
        broken = await self._registry.check(request.subject, request.schema)
        return schema_registry_service_pb2.CheckSchemaResponse(compatible=not broken, violations=broken)
