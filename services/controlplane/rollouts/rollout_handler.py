"""The RPC of RolloutService."""

from typing import Any

import grpc

from arterial.api.controlplane.v1alpha1 import rollout_service_pb2 as pb
from arterial.api.controlplane.v1alpha1 import rollout_service_pb2_grpc
from arterial.api.types.v1 import page_pb2
from chassis.paging import next_token, page_bounds
from services.controlplane.rollouts.rollout_store import RolloutStore
from services.controlplane.rollouts.rollouts import Rollout


class RolloutHandler(rollout_service_pb2_grpc.RolloutServiceServicer):
    """Serves RolloutService."""

    def __init__(self, rollouts: RolloutStore) -> None:
        self._rollouts = rollouts

    async def ListRollouts(self, request: pb.ListRolloutsRequest, context: grpc.aio.ServicerContext[Any, Any]) -> pb.ListRolloutsResponse:
        """A page of them."""
        start, end = page_bounds(request.page.page_size, request.page.page_token, "rollouts")
        found, total = await self._rollouts.page(start, end)
        page = page_pb2.PageResponse(next_page_token=next_token(end, total, "rollouts"))
        return pb.ListRolloutsResponse(rollouts=[_message(rollout) for rollout in found], page=page)


def _message(rollout: Rollout) -> pb.Rollout:
    message = pb.Rollout(
        kind=rollout.kind,
        name=rollout.name,
        generation=rollout.generation,
        state=pb.RolloutState.Value(f"ROLLOUT_STATE_{rollout.state}"),
        shown_cells=rollout.cells[: rollout.shown],
        waiting_cells=rollout.cells[rollout.shown :],
        reason=rollout.reason,
    )
    message.started_at.FromDatetime(rollout.started_at)
    message.moved_at.FromDatetime(rollout.moved_at)
    return message
