"""The RPCs of the control plane: check, call the domain, convert."""

import asyncio
from collections.abc import AsyncIterator, Sequence
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
from chassis.errors import ArterialError, Reason, Violation
from chassis.paging import next_token, page_bounds
from services.controlplane import dashboards, planning, schedules
from services.controlplane.model_store import ModelStore
from services.controlplane.schemas import SchemaRegistry
from services.controlplane.store import ResourceStore
from services.controlplane.watching import Watching

ServicerContext = grpc.aio.ServicerContext[Any, Any]


async def planned(store: ResourceStore, models: ModelStore, resources: Sequence[resource_pb2.Resource]) -> list[pb.Change]:
    """What applying the resources would change. Raises INVALID_REQUEST with every violation."""
    existing, _ = await store.snapshot()
    planning.check(resources, existing)
    wrong = await asyncio.to_thread(dashboards.violations, resources)
    wrong += await asyncio.to_thread(schedules.violations, resources, existing)
    wrong += [
        Violation(
            f"resources[{place}].spec.pinnedVersion", f"no version {resources[place].model.pinned_version} of this model is registered"
        )
        for place in await models.unknown_pins(resources)
    ]
    if wrong:
        raise ArterialError(Reason.INVALID_REQUEST, "the resources are not valid", violations=wrong)
    return planning.plan(resources, existing)


async def apply(store: ResourceStore, models: ModelStore, request: pb.ApplyRequest) -> pb.ApplyResponse:
    """Makes the resources so. Raises as the contract says."""
    changes = await planned(store, models, request.resources)
    doors = planning.unapproved(changes, request.approvals)
    if doors:
        raise ArterialError(Reason.REFUSED, f"one-way doors need approval: {', '.join(doors)}", metadata={"approvals": ",".join(doors)})
    wanted = [resource for resource, change in zip(request.resources, changes, strict=True) if change.action != pb.Change.ACTION_NONE]
    written = await store.put(wanted, request.message) if wanted else []
    await models.settle([resource.metadata.name for resource in written if resource.kind == "Model"])
    return pb.ApplyResponse(changes=changes, resources=written)


class ControlPlaneHandler(control_plane_service_pb2_grpc.ControlPlaneServiceServicer):
    """Serves ControlPlaneService."""

    def __init__(self, store: ResourceStore, models: ModelStore, watching: Watching) -> None:
        self._store = store
        self._models = models
        self._watching = watching

    async def Plan(self, request: pb.PlanRequest, context: ServicerContext) -> pb.PlanResponse:
        """What Apply would do."""
        return pb.PlanResponse(changes=await planned(self._store, self._models, request.resources))

    async def Apply(self, request: pb.ApplyRequest, context: ServicerContext) -> pb.ApplyResponse:
        """All or none."""
        return await apply(self._store, self._models, request)

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
        """The specification stays as it is, and so does which versions of a model serve: that is the control plane's own."""

        def edit(status: resource_pb2.Status) -> None:
            status.observed_generation = request.status.observed_generation
            del status.conditions[:]
            status.conditions.extend(request.status.conditions)

        await self._store.edit_status((request.kind, request.name), edit, "status")
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
