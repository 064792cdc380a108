"""The RPCs of the quality monitor: check, call the store, convert."""

from datetime import datetime
from typing import Any

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from arterial.api.dqm.v1alpha1 import dqm_service_pb2 as pb
from arterial.api.dqm.v1alpha1 import dqm_service_pb2_grpc
from arterial.api.types.v1 import page_pb2
from chassis.paging import next_token, page_bounds
from services.dqm.incidents import Incident
from services.dqm.store import QualityStore

ServicerContext = grpc.aio.ServicerContext[Any, Any]


class DqmHandler(dqm_service_pb2_grpc.DqmServiceServicer):
    """Serves DqmService."""

    def __init__(self, store: QualityStore) -> None:
        self._store = store

    async def GetHealth(self, request: pb.GetHealthRequest, context: ServicerContext) -> pb.GetHealthResponse:
        """Of the newest judged partition."""
        stored = await self._store.newest_partition(request.dataset)
        found = stored.partition
        return pb.GetHealthResponse(
            dataset=found.dataset,
            partition_date=found.date,
            table_version=found.table_version,
            score=found.score,
            series=found.series,
            deviating=found.deviating,
            open_incident_ids=found.incident_ids,
            judged_at=_timestamp(stored.judged_at),
        )

    async def ListIncidents(self, request: pb.ListIncidentsRequest, context: ServicerContext) -> pb.ListIncidentsResponse:
        """A page of incidents."""
        name = f"incidents/{request.dataset}/{int(request.state)}"
        start, end = page_bounds(request.page.page_size, request.page.page_token, name)
        found, total = await self._store.page(request.dataset, request.state, start, end)
        page = page_pb2.PageResponse(next_page_token=next_token(end, total, name))
        return pb.ListIncidentsResponse(incidents=[_message(incident) for incident in found], page=page)

    async def GetIncident(self, request: pb.GetIncidentRequest, context: ServicerContext) -> pb.GetIncidentResponse:
        """One incident."""
        return pb.GetIncidentResponse(incident=_message(await self._store.get(request.incident_id)))

    async def AcknowledgeIncident(self, request: pb.AcknowledgeIncidentRequest, context: ServicerContext) -> pb.AcknowledgeIncidentResponse:
        """It stays open."""
        return pb.AcknowledgeIncidentResponse(incident=_message(await self._store.acknowledge(request.incident_id, request.by)))


def _message(incident: Incident) -> pb.Incident:
    finding = incident.finding
    return pb.Incident(
        incident_id=incident.incident_id,
        kind=pb.IncidentKind.ValueType(int(finding.kind)),
        state=pb.IncidentState.ValueType(int(incident.state)),
        dataset=finding.dataset,
        partition_date=finding.date,
        market=finding.market,
        columns=finding.columns,
        severity=finding.severity,
        summary=incident.summary,
        evidence=[pb.Evidence(**vars(point)) for point in finding.evidence],
        affected=finding.affected,
        opened_at=_timestamp(incident.opened_at),
        resolved_at=None if incident.resolved_at is None else _timestamp(incident.resolved_at),
        acknowledged_by=incident.acknowledged_by,
        table_version=finding.table_version,
    )


def _timestamp(moment: datetime) -> Timestamp:
    told = Timestamp()
    told.FromDatetime(moment)
    return told
