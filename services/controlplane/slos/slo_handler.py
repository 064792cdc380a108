"""The RPCs of SloService."""

from collections.abc import Sequence
from typing import Any

import grpc

from arterial.api.controlplane.v1 import specs_pb2
from arterial.api.controlplane.v1alpha1 import slo_service_pb2 as pb
from arterial.api.controlplane.v1alpha1 import slo_service_pb2_grpc
from arterial.api.types.v1 import page_pb2
from chassis.paging import keyed_page
from services.controlplane.jobs.conversion import timestamp
from services.controlplane.slos.slo_store import SloStore
from services.controlplane.slos.slos import Objective, Tally

ServicerContext = grpc.aio.ServicerContext[Any, Any]


class SloHandler(slo_service_pb2_grpc.SloServiceServicer):
    """Serves SloService."""

    def __init__(self, store: SloStore) -> None:
        self._store = store

    async def GetSloStatus(self, request: pb.GetSloStatusRequest, context: ServicerContext) -> pb.GetSloStatusResponse:
        """One objective."""
        return pb.GetSloStatusResponse(status=_message(*await self._store.get(request.name)))

    async def ListSloStatuses(self, request: pb.ListSloStatusesRequest, context: ServicerContext) -> pb.ListSloStatusesResponse:
        """A page of them."""
        page = keyed_page(request.page.page_size, request.page.page_token, "slos", (str,))
        found = await self._store.page(page.after[0] if page.after else "", page.limit)
        shown, token = page.cut(found, lambda each: (each[0].name,))
        return pb.ListSloStatusesResponse(statuses=[_message(*each) for each in shown], page=page_pb2.PageResponse(next_page_token=token))


def _message(wanted: Objective, tallies: Sequence[Tally]) -> pb.SloStatus:
    return pb.SloStatus(
        name=wanted.name,
        owner=wanted.owner,
        dataset=wanted.dataset,
        indicator=specs_pb2.SloIndicator.Value(f"SLO_INDICATOR_{wanted.indicator}"),
        threshold=wanted.threshold,
        objective_percent=wanted.objective_percent,
        window_days=wanted.window_days,
        cells=[_cell(wanted, tally) for tally in tallies],
    )


def _cell(wanted: Objective, tally: Tally) -> pb.CellSloStatus:
    return pb.CellSloStatus(
        cell=tally.cell,
        standing=pb.SloStanding.Value(f"SLO_STANDING_{tally.standing(wanted.objective_percent)}"),
        total=tally.total,
        good=tally.good,
        share_percent=tally.share_percent,
        budget_left_percent=tally.budget_left_percent(wanted.objective_percent),
        measured_since=timestamp(tally.since),
    )
