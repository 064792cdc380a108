"""The RPCs of radar: check, assess or look up, convert."""

from collections.abc import Callable
from typing import Any

import grpc

from arterial.api.controlplane.v1 import specs_pb2
from arterial.api.radar.v1alpha1 import radar_service_pb2 as pb
from arterial.api.radar.v1alpha1 import radar_service_pb2_grpc
from arterial.api.types.v1 import page_pb2
from chassis.clock import Clock
from chassis.errors import ArterialError, Reason, Violation
from chassis.paging import next_token, page_bounds
from chassis.partitioning import partition_of
from services.radar.assessing import Assessor, aged, standing_of
from services.radar.payments import of_event
from services.radar.store import DecisionStore, Made
from services.radar.velocities import RecentHeads

ServicerContext = grpc.aio.ServicerContext[Any, Any]


class RadarHandler(radar_service_pb2_grpc.RadarServiceServicer):
    """Serves RadarService."""

    def __init__(
        self,
        assessor: Assessor,
        store: DecisionStore,
        heads: RecentHeads,
        policy: Callable[[], specs_pb2.RiskPolicySpec],
        *,
        partitions: Callable[[], int],
        clock: Clock,
    ) -> None:
        self._assessor = assessor
        self._store = store
        self._heads = heads
        self._policy = policy
        self._partitions = partitions
        self._clock = clock

    async def Assess(self, request: pb.AssessRequest, context: ServicerContext) -> pb.AssessResponse:
        """The decision on a payment event; the first one holds."""
        payment = of_event(request.payment, int(self._clock.now() * 1e6))
        policy = self._policy()
        partition = partition_of(payment.account_id.encode(), self._partitions())
        head = await self._heads.get(partition)
        made = await self._assessor.assess([payment], policy, lambda: standing_of(head, partition, policy, self._clock.now()))
        return pb.AssessResponse(decision=self._told(made[0]))

    async def GetDecision(self, request: pb.GetDecisionRequest, context: ServicerContext) -> pb.GetDecisionResponse:
        """The decision that there is."""
        known = await self._store.known([request.payment_event_id])
        if not known:
            raise ArterialError(Reason.NOT_FOUND, f"no decision on payment event {request.payment_event_id.hex()}")
        return pb.GetDecisionResponse(decision=self._told(known[request.payment_event_id]))

    async def ListCases(self, request: pb.ListCasesRequest, context: ServicerContext) -> pb.ListCasesResponse:
        """A page of cases, oldest first."""
        name = f"cases/{request.state}"
        start, end = page_bounds(request.page.page_size, request.page.page_token, name)
        cases, total = await self._store.cases(request.state, start, end)
        return pb.ListCasesResponse(cases=cases, page=page_pb2.PageResponse(next_page_token=next_token(end, total, name)))

    async def ResolveCase(self, request: pb.ResolveCaseRequest, context: ServicerContext) -> pb.ResolveCaseResponse:
        """Closes a case."""
        broken = [Violation(name, "a null character") for name in ("case_id", "by", "note") if "\0" in getattr(request, name)]
        if broken:
            raise ArterialError(Reason.INVALID_REQUEST, "the verdict cannot be stored", violations=broken)
        return pb.ResolveCaseResponse(case=await self._store.resolve(request.case_id, request.verdict, request.by, request.note))

    def _told(self, made: Made) -> pb.Decision:
        return pb.Decision(decision=made.decision, standing=aged(made.standing, self._clock.now()))
