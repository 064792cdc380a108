"""The RPCs of PartitionService: check, call the domain, convert."""

import asyncio
from datetime import date
from typing import Any

import grpc

from arterial.api.controlplane.v1alpha1 import partition_service_pb2 as pb
from arterial.api.controlplane.v1alpha1 import partition_service_pb2_grpc
from arterial.api.types.v1 import page_pb2
from chassis.paging import keyed_page
from services.controlplane.conversion import day, judged, partition_message, state_name, stored
from services.controlplane.partition_store import PartitionFilter, PartitionStore
from services.controlplane.partitions import Judged, PartitionKey

ServicerContext = grpc.aio.ServicerContext[Any, Any]


class PartitionHandler(partition_service_pb2_grpc.PartitionServiceServicer):
    """Serves PartitionService."""

    def __init__(self, partitions: PartitionStore) -> None:
        self._partitions = partitions

    async def ReportVerdicts(self, request: pb.ReportVerdictsRequest, context: ServicerContext) -> pb.ReportVerdictsResponse:
        """A report of thousands is converted beside the loop."""
        verdicts = await asyncio.to_thread(_verdicts, request)
        return pb.ReportVerdictsResponse(changed=await self._partitions.report(stored(request.cell), verdicts))

    async def GetPartition(self, request: pb.GetPartitionRequest, context: ServicerContext) -> pb.GetPartitionResponse:
        """One partition."""
        key = PartitionKey(stored(request.dataset), day(request.partition_date, "partition_date"))
        return pb.GetPartitionResponse(partition=partition_message(request.cell, await self._partitions.get(stored(request.cell), key)))

    async def ListPartitions(self, request: pb.ListPartitionsRequest, context: ServicerContext) -> pb.ListPartitionsResponse:
        """A page of partitions."""
        state = state_name(pb.PartitionState.Name(request.state), "PARTITION_STATE_")
        wanted = PartitionFilter(stored(request.cell), stored(request.dataset), state)
        name = f"partitions/{wanted.cell}/{wanted.dataset}/{wanted.state}"
        page = keyed_page(request.page.page_size, request.page.page_token, name, (date.fromisoformat, str))
        found = await self._partitions.page(wanted, (page.after[0], page.after[1]) if page.after else None, page.limit)
        shown, token = page.cut(found, lambda partition: (partition.key.day.isoformat(), partition.key.dataset))
        messages = [partition_message(wanted.cell, partition) for partition in shown]
        return pb.ListPartitionsResponse(partitions=messages, page=page_pb2.PageResponse(next_page_token=token))


def _verdicts(request: pb.ReportVerdictsRequest) -> list[Judged]:
    return [judged(verdict, place) for place, verdict in enumerate(request.verdicts)]
