"""The RPCs of the control plane: check, call the domain, convert."""

from collections.abc import AsyncIterator
from datetime import UTC
from typing import Any

import grpc

from arterial.api.controlplane.v1 import control_plane_service_pb2 as pb
from arterial.api.controlplane.v1 import (
    control_plane_service_pb2_grpc,
)
from arterial.api.types.v1 import page_pb2
from chassis.errors import ArterialError, Reason, Violation
from chassis.paging import next_token, page_bounds
from services.controlplane.resources.applying import Applying
from services.controlplane.resources.store import ResourceStore
from services.controlplane.watch.status_store import StatusStore
from services.controlplane.watch.statuses import Reporter
from services.controlplane.watch.watching import Watching

ServicerContext = grpc.aio.ServicerContext[Any, Any]
# Metadata that says who calls.
ACTOR = "arterial-actor"


class ControlPlaneHandler(control_plane_service_pb2_grpc.ControlPlaneServiceServicer):
    """Serves ControlPlaneService."""

    def __init__(self, store: ResourceStore, statuses: StatusStore, applying: Applying, watching: Watching) -> None:
        self._store = store
        self._statuses = statuses
        self._applying = applying
        self._watching = watching

    async def Plan(self, request: pb.PlanRequest, context: ServicerContext) -> pb.PlanResponse:
        """What Apply would do."""
        return await self._applying.plan(request)

    async def Apply(self, request: pb.ApplyRequest, context: ServicerContext) -> pb.ApplyResponse:
        """All or none."""
        return await self._applying.apply(request, actor_of(context))

    async def GetResource(self, request: pb.GetResourceRequest, context: ServicerContext) -> pb.GetResourceResponse:
        """One resource, now or as it was."""
        if not request.HasField("as_of"):
            resource = await self._store.get(request.kind, request.name)
            await self._statuses.complete([resource])
            return pb.GetResourceResponse(resource=resource)
        found = await self._store.as_of(await self._version(request.as_of), request.kind, request.name)
        if not found:
            raise ArterialError(Reason.NOT_FOUND, f"{request.kind}/{request.name} did not exist then")
        return pb.GetResourceResponse(resource=found[0])

    async def ListResources(self, request: pb.ListResourcesRequest, context: ServicerContext) -> pb.ListResourcesResponse:
        """A page of resources, now or as they were."""
        past = request.as_of.SerializeToString().hex() if request.HasField("as_of") else ""
        name = f"resources/{request.kind}/{past}"
        start, end = page_bounds(request.page.page_size, request.page.page_token, name)
        if past:
            everything = await self._store.as_of(await self._version(request.as_of), request.kind)
            found, total = everything[start:end], len(everything)
        else:
            found, total = await self._store.page(request.kind, start, end)
            await self._statuses.complete(found)
        return pb.ListResourcesResponse(resources=found, page=page_pb2.PageResponse(next_page_token=next_token(end, total, name)))

    async def DescribeResource(self, request: pb.DescribeResourceRequest, context: ServicerContext) -> pb.DescribeResourceResponse:
        """One resource and what hangs on it."""
        described = await self._applying.describe(request.kind, request.name)
        await self._statuses.complete([described.resource])
        return described

    async def ListChanges(self, request: pb.ListChangesRequest, context: ServicerContext) -> pb.ListChangesResponse:
        """A page of the log."""
        name = f"changes/{request.kind}/{request.name}"
        start, end = page_bounds(request.page.page_size, request.page.page_token, name)
        found, total = await self._store.history(request.kind, request.name, start, end)
        page = page_pb2.PageResponse(next_page_token=next_token(end, total, name))
        return pb.ListChangesResponse(changes=[change.told() for change in found], page=page)

    async def DeleteResource(self, request: pb.DeleteResourceRequest, context: ServicerContext) -> pb.DeleteResourceResponse:
        """Refused while others refer to it."""
        return await self._applying.delete(request, actor_of(context))

    async def _version(self, as_of: pb.AsOf) -> int:
        if as_of.HasField("time"):
            return await self._store.version_at(as_of.time.ToDatetime(UTC))
        newest = await self._store.version()
        if as_of.resource_version > newest:
            why = Violation("as_of.resource_version", f"there is no version {as_of.resource_version} yet: the newest is {newest}")
            raise ArterialError(Reason.INVALID_REQUEST, why.description, violations=[why])
        return as_of.resource_version

    async def Watch(self, request: pb.WatchRequest, context: ServicerContext) -> AsyncIterator[Any]:
        """Changes as they come, serialised once for all watchers."""
        async for message in self._watching.watch(request):
            yield message

    async def ReportStatus(self, request: pb.ReportStatusRequest, context: ServicerContext) -> pb.ReportStatusResponse:
        """What one process observed of one resource."""
        given = pb.ResourceStatus(kind=request.kind, name=request.name, status=request.status)
        if await self._statuses.report(Reporter(request.cell, request.component), [given]):
            raise ArterialError(Reason.NOT_FOUND, f"{request.kind}/{request.name} does not exist")
        return pb.ReportStatusResponse()

    async def ReportStatuses(self, request: pb.ReportStatusesRequest, context: ServicerContext) -> pb.ReportStatusesResponse:
        """What one process observed of many."""
        unknown = await self._statuses.report(Reporter(request.cell, request.component, request.instance), request.statuses)
        return pb.ReportStatusesResponse(unknown=unknown)


def actor_of(context: ServicerContext) -> str:
    """Who calls, as the caller says."""
    value = dict(context.invocation_metadata() or ()).get(ACTOR, "")
    return value if isinstance(value, str) else value.decode(errors="replace")
