"""The RPCs of PartitionService: check, call the domain, convert."""

import asyncio
from collections.abc import AsyncIterator
from datetime import date
from typing import Any

import grpc

from arterial.api.controlplane.v1alpha1 import partition_service_pb2 as pb
from arterial.api.controlplane.v1alpha1 import partition_service_pb2_grpc
from arterial.api.types.v1 import page_pb2
from chassis.paging import keyed_page
from services.controlplane.jobs.conversion import (
    day,
    judged,
    partition_message,
    recorded_message,
    state_name,
    stored,
    verdict_message,
)
from services.controlplane.partitions.partition_store import PartitionFilter, PartitionStore
from services.controlplane.partitions.partition_watching import PartitionWatching
from services.controlplane.partitions.partitions import Judged, PartitionKey, PartitionState
from services.controlplane.resources.handler import actor_of
from services.controlplane.slos.slo_store import SloStore

ServicerContext = grpc.aio.ServicerContext[Any, Any]


class PartitionHandler(partition_service_pb2_grpc.PartitionServiceServicer):
    """Serves PartitionService."""

    def __init__(self, partitions: PartitionStore, watching: PartitionWatching, slos: SloStore) -> None:
        self._partitions = partitions
        self._slos = slos
        self._watching = watching

    async def ReportVerdicts(self, request: pb.ReportVerdictsRequest, context: ServicerContext) -> pb.ReportVerdictsResponse:
        """A report of thousands is converted beside the loop."""
        verdicts, cell = await asyncio.to_thread(_verdicts, request), stored(request.cell)
        changed = await self._partitions.report(cell, verdicts)
        await self._slos.observe(cell, verdicts)
        return pb.ReportVerdictsResponse(changed=changed)

    async def GetPartition(self, request: pb.GetPartitionRequest, context: ServicerContext) -> pb.GetPartitionResponse:
        """One partition."""
        partition, verdicts = await self._partitions.get(stored(request.cell), _key(request))
        return pb.GetPartitionResponse(partition=partition_message(request.cell, partition), verdicts=map(verdict_message, verdicts))

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

    async def WatchPartitions(
        self, request: pb.WatchPartitionsRequest, context: ServicerContext
    ) -> AsyncIterator[pb.WatchPartitionsResponse]:
        """Changes as they come."""
        cell = stored(request.cell)
        async for partition, revision in self._watching.watch(cell, stored(request.dataset), request.revision):
            shown = None if partition is None else partition_message(cell, partition)
            yield pb.WatchPartitionsResponse(partition=shown, revision=revision)

    async def OverridePartition(self, request: pb.OverridePartitionRequest, context: ServicerContext) -> pb.OverridePartitionResponse:
        """A decision of whoever calls."""
        state = PartitionState(state_name(pb.PartitionState.Name(request.state), "PARTITION_STATE_"))
        why = stored(actor_of(context)), stored(request.reason)
        found = await self._partitions.override(stored(request.cell), _key(request), state, why)
        return pb.OverridePartitionResponse(partition=partition_message(request.cell, found))

    async def WithdrawOverride(self, request: pb.WithdrawOverrideRequest, context: ServicerContext) -> pb.WithdrawOverrideResponse:
        """Back to what follows from the verdicts."""
        why = stored(actor_of(context)), stored(request.reason)
        found = await self._partitions.withdraw(stored(request.cell), _key(request), why)
        return pb.WithdrawOverrideResponse(partition=partition_message(request.cell, found))

    async def ListOverrides(self, request: pb.ListOverridesRequest, context: ServicerContext) -> pb.ListOverridesResponse:
        """A page of the record."""
        cell, dataset = stored(request.cell), stored(request.dataset)
        page = keyed_page(request.page.page_size, request.page.page_token, f"overrides/{cell}/{dataset}", (int,))
        found = await self._partitions.overrides(cell, dataset, page.after[0] if page.after else None, page.limit)
        shown, token = page.cut(found, lambda recorded: (recorded.number,))
        return pb.ListOverridesResponse(overrides=map(recorded_message, shown), page=page_pb2.PageResponse(next_page_token=token))


def _verdicts(request: pb.ReportVerdictsRequest) -> list[Judged]:
    return [judged(verdict, place) for place, verdict in enumerate(request.verdicts)]


def _key(request: pb.GetPartitionRequest | pb.OverridePartitionRequest | pb.WithdrawOverrideRequest) -> PartitionKey:
    return PartitionKey(stored(request.dataset), day(request.partition_date, "partition_date"))
