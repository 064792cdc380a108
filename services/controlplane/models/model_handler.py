"""The RPCs of ModelService: check, call the domain, convert."""

import math
from typing import Any

import grpc

from arterial.api.controlplane.v1alpha1 import model_service_pb2 as pb
from arterial.api.controlplane.v1alpha1 import model_service_pb2_grpc
from arterial.api.types.v1 import page_pb2
from chassis.errors import ArterialError, Reason, Violation
from chassis.paging import keyed_page
from services.controlplane.jobs.conversion import stored, version_message
from services.controlplane.models.model_store import ModelStore
from services.controlplane.models.promotion import Comparison

ServicerContext = grpc.aio.ServicerContext[Any, Any]


class ModelHandler(model_service_pb2_grpc.ModelServiceServicer):
    """Serves ModelService."""

    def __init__(self, models: ModelStore) -> None:
        self._models = models

    async def RegisterVersion(self, request: pb.RegisterVersionRequest, context: ServicerContext) -> pb.RegisterVersionResponse:
        """What the control plane says of a version is its own: it is not taken from the request."""
        registered = pb.ModelVersion()
        registered.CopyFrom(request.version)
        for own in ("stage", "reasons", "registered_at", "stage_changed_at"):
            registered.ClearField(own)
        registered.model, registered.version = stored(registered.model), stored(registered.version)
        return pb.RegisterVersionResponse(version=version_message(await self._models.register(registered)))

    async def ReportShadow(self, request: pb.ReportShadowRequest, context: ServicerContext) -> pb.ReportShadowResponse:
        """Counts answers of the shadow."""
        if not math.isfinite(request.mean_difference) or request.mean_difference < 0:
            why = [Violation("mean_difference", "must be a finite number, at least 0")]
            raise ArterialError(Reason.INVALID_REQUEST, "the difference cannot be counted", violations=why)
        seen = Comparison(request.answers, request.failures, request.mean_difference)
        found = await self._models.compare(stored(request.model), stored(request.version), seen)
        return pb.ReportShadowResponse(version=version_message(found))

    async def RollbackModel(self, request: pb.RollbackModelRequest, context: ServicerContext) -> pb.RollbackModelResponse:
        """The version before the live one answers again."""
        found = await self._models.roll_back(stored(request.model), stored(request.reason))
        return pb.RollbackModelResponse(version=version_message(found))

    async def ListVersions(self, request: pb.ListVersionsRequest, context: ServicerContext) -> pb.ListVersionsResponse:
        """A page of versions."""
        model = stored(request.model)
        page = keyed_page(request.page.page_size, request.page.page_token, f"versions/{model}", (str,))
        found = await self._models.page(model, page.after[0] if page.after else None, page.limit)
        shown, token = page.cut(found, lambda version: (version.registered.version,))
        return pb.ListVersionsResponse(versions=map(version_message, shown), page=page_pb2.PageResponse(next_page_token=token))
