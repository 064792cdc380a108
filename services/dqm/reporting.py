"""Verdicts on their way to the control plane: sent until they are taken, after a restart too."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress

from arterial.api.controlplane.v1alpha1 import partition_service_pb2, partition_service_pb2_grpc
from chassis.errors import ArterialError
from chassis.logs import logger
from chassis.process import Context
from chassis.rpc.client import channel
from services.dqm.config import DqmConfig
from services.dqm.store import QualityStore, StoredPartition

# Verdicts of one call; the contract takes 10,000.
BATCH = 1000
REPORT_SECONDS = 10.0
# A control plane that is away is asked ever later, so that its return is not stormed.
MIN_BACKOFF_SECONDS, MAX_BACKOFF_SECONDS = 0.5, 10.0
_log = logger(__name__)


async def report(store: QualityStore, config: DqmConfig, context: Context) -> None:
    """Sends what was not taken yet, until the process stops; does nothing without a control plane."""
    if config.control_plane is None:
        return
    backoff = MIN_BACKOFF_SECONDS
    async with channel(config.control_plane) as connection:
        stub = partition_service_pb2_grpc.PartitionServiceStub(connection)
        while not context.stopping.is_set():
            pause, waiting = config.poll_seconds, await store.unreported(BATCH)
            if waiting:
                try:
                    await stub.ReportVerdicts(_request(config.cell.name, waiting), timeout=REPORT_SECONDS)
                    await store.reported(waiting)
                    pause, backoff = 0.0, MIN_BACKOFF_SECONDS
                except ArterialError as error:
                    _log.warning("verdicts not taken, trying again", waiting=len(waiting), error=str(error))
                    pause, backoff = backoff, min(backoff * 2, MAX_BACKOFF_SECONDS)
            with suppress(TimeoutError):
                await asyncio.wait_for(context.stopping.wait(), pause)


def _request(cell: str, waiting: Sequence[StoredPartition]) -> partition_service_pb2.ReportVerdictsRequest:
    verdicts = [
        partition_service_pb2.PartitionVerdict(
            dataset=stored.partition.dataset,
            partition_date=stored.partition.date,
            verdict=partition_service_pb2.Verdict.ValueType(int(stored.partition.verdict)),
            table_version=stored.partition.table_version,
            reasons=stored.partition.reasons,
            incident_ids=stored.partition.incident_ids,
        )
        for stored in waiting
    ]
    return partition_service_pb2.ReportVerdictsRequest(cell=cell, verdicts=verdicts)
