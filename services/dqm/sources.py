"""What the monitor is told by other services: series by the Data Stats Service, what is made from what by lineage."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from arterial.api.dss.v1alpha1 import dss_service_pb2, dss_service_pb2_grpc
from arterial.api.lineage.v1alpha1 import lineage_service_pb2, lineage_service_pb2_grpc
from arterial.api.types.v1 import page_pb2
from arterial.channel import Channel
from chassis.errors import ArterialError, Reason
from chassis.logs import logger
from services.dqm.clustering import Relations
from services.dqm.frame import Frame, Points, frame
from services.dqm.incidents import Finding

# Deadlines of the contracts.
LIST_SECONDS, SERIES_SECONDS, LINEAGE_SECONDS = 5.0, 10.0, 2.0
PAGE_SIZE = 1000
_log = logger(__name__)


@dataclass(frozen=True)
class Profiled:
    """How far a dataset is profiled; another value means that there is news."""

    dataset: str
    table_version: int
    partitions: int
    profiled_at: float


class Statistics:
    """The Data Stats Service."""

    def __init__(self, connection: Channel) -> None:
        self._stub = dss_service_pb2_grpc.DssServiceStub(connection)

    async def datasets(self) -> list[Profiled]:
        """All profiled datasets. Raises the contract's errors."""
        found: list[Profiled] = []
        page = page_pb2.PageRequest(page_size=PAGE_SIZE)
        while True:
            reply = await self._stub.ListDatasets(dss_service_pb2.ListDatasetsRequest(page=page), timeout=LIST_SECONDS)
            found += [
                Profiled(told.dataset, told.table_version, told.partitions, told.profiled_at.ToNanoseconds() / 1e9)
                for told in reply.datasets
            ]
            if not reply.page.next_page_token:
                return found
            page = page_pb2.PageRequest(page_size=PAGE_SIZE, page_token=reply.page.next_page_token)

    async def partitions(self, dataset: str) -> dict[str, int]:
        """Partitions of a dataset, and the table version that each was profiled at. Raises the contract's errors."""
        request = dss_service_pb2.ListSeriesRequest(dataset=dataset, column="rows", metric=dss_service_pb2.METRIC_COUNT)
        partitions: dict[str, int] = {}
        async for reply in self._pages(request):
            partitions |= dict(zip(reply.partition_dates, reply.table_versions, strict=True))
        return partitions

    async def frame(self, dataset: str, first_date: str) -> Frame | None:
        """All series of a dataset from a date on; None if it has no partition there. Raises the contract's errors."""
        request = dss_service_pb2.ListSeriesRequest(dataset=dataset, first_date=first_date)
        partitions: dict[str, int] = {}
        series: list[Points] = []
        async for reply in self._pages(request):
            partitions |= dict(zip(reply.partition_dates, reply.table_versions, strict=True))
            series += [Points(told.market, told.column, told.metric, told.partition_dates, told.values) for told in reply.series]
        return frame(dataset, partitions, series) if partitions else None

    async def _pages(self, request: dss_service_pb2.ListSeriesRequest) -> AsyncIterator[dss_service_pb2.ListSeriesResponse]:
        token = ""
        while True:
            request.page.CopyFrom(page_pb2.PageRequest(page_size=PAGE_SIZE, page_token=token))
            reply = await self._stub.ListSeries(request, timeout=SERIES_SECONDS)
            yield reply
            token = reply.page.next_page_token
            if not token:
                return


class LineageSource:
    """The lineage service. Without an answer from it incidents are told all the same, only less of who is hit."""

    def __init__(self, connection: Channel) -> None:
        self._stub = lineage_service_pb2_grpc.LineageServiceStub(connection)

    async def relations(self, findings: Sequence[Finding]) -> Relations:
        """What the datasets of findings are made from, and what is made from the findings' columns; what is not known is left out."""
        upstream, impacts = {}, {}
        for dataset in sorted({finding.dataset for finding in findings}):
            try:
                request = lineage_service_pb2.GetUpstreamRequest(name=dataset)
                reply = await self._stub.GetUpstream(request, timeout=LINEAGE_SECONDS)
                upstream[dataset] = frozenset(node.name for node in reply.nodes if node.kind == lineage_service_pb2.NODE_KIND_DATASET)
                for finding in (finding for finding in findings if finding.dataset == dataset):
                    wanted = lineage_service_pb2.GetImpactRequest(name=dataset, columns=finding.columns)
                    impact = await self._stub.GetImpact(wanted, timeout=LINEAGE_SECONDS)
                    impacts[finding] = {node.name: frozenset(node.columns) for node in impact.nodes}
            except ArterialError as error:
                if error.reason is not Reason.NOT_FOUND:
                    _log.info("lineage away, going on without it", dataset=dataset, error=str(error))
        return Relations(upstream, impacts)
