"""A quality monitor and its server on real PostgreSQL, amid services that a test speaks for: statistics, lineage, partitions."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from arterial.api.controlplane.v1alpha1 import partition_service_pb2, partition_service_pb2_grpc
from arterial.api.dqm.v1alpha1 import dqm_service_pb2_grpc
from arterial.api.dss.v1alpha1 import dss_service_pb2, dss_service_pb2_grpc
from arterial.api.lineage.v1alpha1 import lineage_service_pb2, lineage_service_pb2_grpc
from chassis import testing
from chassis.config import RpcConfig, SqlConfig
from chassis.errors import ArterialError, Reason
from chassis.process import Context
from chassis.rpc.interceptor import CallInterceptor
from deploy.local.child import LOOPBACK, free_port
from services.dqm import sources
from services.dqm.__main__ import monitor, serve
from services.dqm.config import DqmConfig
from services.dqm.frame import Frame
from tests.dqm.tables import SEED_RESOURCES

EVENTS, TRIPS, PAYMENTS = DATASETS = ("lake/curated/trip_events_v2", "lake/curated/trips", "lake/curated/payment_events_v1")
MONITORED = """
apiVersion: arterial.dev/v1
kind: Dataset
metadata: {{name: {name}, owner: data-platform}}
spec: {{description: monitored, tier: 1, marketColumn: city_id, entityColumn: identifiers0, monitored: true}}
"""
ServicerContext = grpc.aio.ServicerContext[Any, Any]


class Statistics(dss_service_pb2_grpc.DssServiceServicer):
    """Serves frames as the Data Stats Service would."""

    def __init__(self) -> None:
        self.frames: dict[str, Frame] = {}
        self.full_reads = 0

    async def ListDatasets(
        self, request: dss_service_pb2.ListDatasetsRequest, context: ServicerContext
    ) -> dss_service_pb2.ListDatasetsResponse:
        """Its frames; another table version, another frame."""
        found = [
            dss_service_pb2.ProfiledDataset(dataset=name, table_version=int(told.versions.max()), partitions=len(told.dates))
            for name, told in self.frames.items()
        ]
        return dss_service_pb2.ListDatasetsResponse(datasets=found)

    async def ListSeries(self, request: dss_service_pb2.ListSeriesRequest, context: ServicerContext) -> dss_service_pb2.ListSeriesResponse:
        """A page of series."""
        told = self.frames[request.dataset]
        there = told.versions >= 0
        there &= told.dates.astype(str) >= request.first_date
        rows = [row for row in range(len(told.metrics)) if request.column != "rows" or (told.columns[row] == "" and told.metrics[row] == 1)]
        self.full_reads += request.column == ""
        start = int(request.page.page_token or 0)
        end = start + request.page.page_size
        dates = [str(date) for date in told.dates[there]]
        series = [
            dss_service_pb2.Series(
                market=str(told.markets[row]),
                column=str(told.columns[row]),
                metric=dss_service_pb2.Metric.ValueType(int(told.metrics[row])),
                partition_dates=dates,
                values=told.values[row, there],
            )
            for row in rows[start:end]
        ]
        reply = dss_service_pb2.ListSeriesResponse(series=series, partition_dates=dates, table_versions=told.versions[there])
        reply.page.next_page_token = str(end) if end < len(rows) else ""
        return reply


class KnownLineage(lineage_service_pb2_grpc.LineageServiceServicer):
    """Knows what a test says that it knows."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.upstream: dict[str, list[str]] = {}
        self.impact: dict[str, list[lineage_service_pb2.Node]] = {}

    async def PutEvents(
        self, request: lineage_service_pb2.PutEventsRequest, context: ServicerContext
    ) -> lineage_service_pb2.PutEventsResponse:
        """Keeps what is emitted."""
        self.events += request.events
        return lineage_service_pb2.PutEventsResponse(changed=len(request.events))

    async def GetUpstream(
        self, request: lineage_service_pb2.GetUpstreamRequest, context: ServicerContext
    ) -> lineage_service_pb2.GetUpstreamResponse:
        """Names that a dataset is made from."""
        if request.name not in self.upstream:
            raise ArterialError(Reason.NOT_FOUND, f"{request.name} is not known")
        kind = lineage_service_pb2.NODE_KIND_DATASET
        return lineage_service_pb2.GetUpstreamResponse(
            nodes=[lineage_service_pb2.Node(kind=kind, name=name) for name in self.upstream[request.name]]
        )

    async def GetImpact(
        self, request: lineage_service_pb2.GetImpactRequest, context: ServicerContext
    ) -> lineage_service_pb2.GetImpactResponse:
        """Nodes that a dataset hits."""
        return lineage_service_pb2.GetImpactResponse(nodes=self.impact.get(request.name, []))


class TakenVerdicts(partition_service_pb2_grpc.PartitionServiceServicer):
    """Takes verdicts, or is away."""

    def __init__(self) -> None:
        self.away = False
        self.verdicts: dict[tuple[str, str], partition_service_pb2.PartitionVerdict] = {}
        self.cells: set[str] = set()

    async def ReportVerdicts(
        self, request: partition_service_pb2.ReportVerdictsRequest, context: ServicerContext
    ) -> partition_service_pb2.ReportVerdictsResponse:
        """Keeps the newest verdict on each partition."""
        if self.away:
            raise ArterialError(Reason.DEPENDENCY_UNAVAILABLE, "away")
        self.cells.add(request.cell)
        self.verdicts |= {(verdict.dataset, verdict.partition_date): verdict for verdict in request.verdicts}
        return partition_service_pb2.ReportVerdictsResponse(changed=len(request.verdicts))


class Quality:
    """The surroundings of a monitor, whose roles a test starts and stops."""

    def __init__(self, database_url: str, folder: Path) -> None:
        # Only what the monitor asks for is spoken for; anything else is UNIMPLEMENTED.
        self.statistics, self.lineage = Statistics(), KnownLineage()  # type: ignore[abstract]
        self.partitions = TakenVerdicts()  # type: ignore[abstract]
        self.port, self.rpc_port, self.folder, self.database_url = free_port(), free_port(), folder, database_url
        self.dss_port, self.late_seconds, self.confirm_seconds = self.port, 0.2, 0.2
        (folder / "resources").mkdir()
        policy = next(part for part in (SEED_RESOURCES / "dqm.yaml").read_text().split("---") if "QualityPolicy" in part)
        (folder / "resources" / "all.yaml").write_text("\n---\n".join([policy, *(MONITORED.format(name=name) for name in DATASETS)]))

    @property
    def config(self) -> DqmConfig:
        """Of all roles; nothing has to be quiet for longer than a moment."""
        return DqmConfig(
            state_dir=self.folder / "dqm",
            resources_dir=self.folder / "resources",
            control_plane=f"{LOOPBACK}:{self.port}",
            lineage=f"{LOOPBACK}:{self.port}",
            dss=f"{LOOPBACK}:{self.dss_port}",
            sql=SqlConfig(url=self.database_url),
            rpc=RpcConfig(port=self.rpc_port, drain_seconds=1),
            poll_seconds=0.05,
            quiet_seconds=0.1,
            confirm_seconds=self.confirm_seconds,
            late_seconds=self.late_seconds,
        )

    @asynccontextmanager
    async def surroundings(self) -> AsyncIterator["Quality"]:
        """The three services on one port, over real gRPC."""
        server = grpc.aio.server(interceptors=[CallInterceptor(testing.context().telemetry)])
        dss_service_pb2_grpc.add_DssServiceServicer_to_server(self.statistics, server)
        lineage_service_pb2_grpc.add_LineageServiceServicer_to_server(self.lineage, server)
        partition_service_pb2_grpc.add_PartitionServiceServicer_to_server(self.partitions, server)
        server.add_insecure_port(f"{LOOPBACK}:{self.port}")
        await server.start()
        try:
            yield self
        finally:
            await server.stop(0)

    @asynccontextmanager
    async def monitoring(self, now: float) -> AsyncIterator[Context]:
        """A monitor at work beside the test, by a clock that begins at `now`."""
        context = testing.context()
        context.clock = Shifted(now)
        task = asyncio.create_task(monitor(self.config, context))
        try:
            yield context
        finally:
            context.stopping.set()
            await task

    @asynccontextmanager
    async def serving(self) -> AsyncIterator["dqm_service_pb2_grpc.DqmServiceAsyncStub"]:
        """The RPCs, served to the test."""
        async with testing.running(serve, self.config), testing.channel(f"{LOOPBACK}:{self.rpc_port}") as connection:
            await asyncio.wait_for(connection.channel_ready(), 60)
            yield dqm_service_pb2_grpc.DqmServiceStub(connection)


class Shifted:
    """The machine's clock, begun at another moment."""

    def __init__(self, now: float) -> None:
        self._offset = now - asyncio.get_running_loop().time()

    def now(self) -> float:
        """Seconds since 1970."""
        return asyncio.get_running_loop().time() + self._offset

    async def sleep(self, seconds: float) -> None:
        """Waits."""
        await asyncio.sleep(seconds)


@pytest.fixture
async def quality(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Quality]:
    """A database of its own, and surroundings that answer, however busy the machine is."""
    monkeypatch.setattr(sources, "LINEAGE_SECONDS", testing.PATIENCE_SECONDS)
    async with Quality(database_url, tmp_path).surroundings() as surrounded:
        yield surrounded
