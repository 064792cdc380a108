"""The RPC of RolloutService."""

from typing import Any

import grpc

from arterial.api.controlplane.v1alpha1 import rollout_service_pb2 as pb
from arterial.api.controlplane.v1alpha1 import rollout_service_pb2_grpc
from arterial.api.types.v1 import page_pb2
from chassis.errors import ArterialError, Reason
from chassis.paging import next_token, page_bounds
from services.controlplane.jobs import retirements
from services.controlplane.resources.applying import Applying
from services.controlplane.resources.handler import actor_of
from services.controlplane.resources.store import Why, Written
from services.controlplane.rollouts.rollout_store import RolloutStore
from services.controlplane.rollouts.rollouts import Rollout

ServicerContext = grpc.aio.ServicerContext[Any, Any]
# Changes of others, and of the rollout itself, that an abort gives way to.
ATTEMPTS = 5


class RolloutHandler(rollout_service_pb2_grpc.RolloutServiceServicer):
    """Serves RolloutService."""

    def __init__(self, rollouts: RolloutStore, applying: Applying) -> None:
        self._rollouts = rollouts
        self._applying = applying

    async def ListRollouts(self, request: pb.ListRolloutsRequest, context: ServicerContext) -> pb.ListRolloutsResponse:
        """A page of them."""
        start, end = page_bounds(request.page.page_size, request.page.page_token, "rollouts")
        found, total = await self._rollouts.page(start, end)
        page = page_pb2.PageResponse(next_page_token=next_token(end, total, "rollouts"))
        return pb.ListRolloutsResponse(rollouts=[_message(rollout) for rollout in found], page=page)

    async def AbortRollouts(self, request: pb.AbortRolloutsRequest, context: ServicerContext) -> pb.AbortRolloutsResponse:
        """All, or that of one resource."""
        actor, key = actor_of(context), (request.kind, request.name) if request.kind else None
        why = Why(actor, f"rollout aborted by {actor or 'somebody'}" + f": {request.message}" * bool(request.message))
        attempt = 0
        while True:
            attempt += 1
            found = await self._rollouts.under_way(key)
            try:
                changes, written = await self._applying.take_back(found, request.approvals, why) if found else ((), Written())
                return pb.AbortRolloutsResponse(changes=changes, retirements=map(retirements.told, written.retirements))
            except ArterialError as error:
                # Shown to another cell, say: what is to be taken back is looked up again.
                if error.reason is not Reason.CONFLICT or attempt == ATTEMPTS:
                    raise


def _message(rollout: Rollout) -> pb.Rollout:
    message = pb.Rollout(
        kind=rollout.kind,
        name=rollout.name,
        generation=rollout.generation,
        state=pb.RolloutState.Value(f"ROLLOUT_STATE_{rollout.state}"),
        shown_cells=rollout.cells[: rollout.shown],
        waiting_cells=rollout.cells[rollout.shown :],
        reason=rollout.reason,
        removal=rollout.removal,
    )
    message.started_at.FromDatetime(rollout.started_at)
    message.moved_at.FromDatetime(rollout.moved_at)
    return message
