"""The RPCs of dss: check, read the store, convert."""

import asyncio
import math
from collections.abc import Callable, Mapping
from typing import Any

import grpc

from arterial.api.dss.v1alpha1 import dss_service_pb2 as pb
from arterial.api.dss.v1alpha1 import dss_service_pb2_grpc
from arterial.api.types.v1 import page_pb2
from chassis.config import LakeConfig
from chassis.desired import Desired
from chassis.errors import ArterialError, Reason
from chassis.lake import Table
from chassis.lakedates import files_by_date
from chassis.paging import next_token, page_bounds
from services.dss.following import targets_of
from services.dss.profiler import Profiler, Target
from services.dss.store import Series, SeriesQuery, Standing

ServicerContext = grpc.aio.ServicerContext[Any, Any]
# What a request calls the series of the row itself: an empty column means all.
ROWS = "rows"


class DssHandler(dss_service_pb2_grpc.DssServiceServicer):
    """Serves DssService."""

    def __init__(self, lake: LakeConfig, profiler: Profiler, desired: Callable[[], Desired]) -> None:
        self._lake = lake
        self._profiler = profiler
        self._store = profiler.store
        self._desired = desired

    async def ListDatasets(self, request: pb.ListDatasetsRequest, context: ServicerContext) -> pb.ListDatasetsResponse:
        """Registered lake tables and how far each is profiled."""
        start, end = page_bounds(request.page.page_size, request.page.page_token, "datasets")
        standings = await self._store.standings()
        names = [target.dataset for target in targets_of(self._desired())]
        page = page_pb2.PageResponse(next_page_token=next_token(end, len(names), "datasets"))
        return pb.ListDatasetsResponse(
            datasets=[_dataset(name, standings.get(name, Standing())) for name in names[start:end]],
            page=page,
        )

    async def ListSeries(self, request: pb.ListSeriesRequest, context: ServicerContext) -> pb.ListSeriesResponse:
        """A page of series, each whole."""
        self._target(request.dataset)
        name = f"series/{request.dataset}/{request.market}/{request.column}/{request.metric}/{request.first_date}"
        start, end = page_bounds(request.page.page_size, request.page.page_token, name)
        query = _query(request)
        dates, versions = await self._store.partitions(query)
        found = await self._store.series(query, start, end - start + 1)
        page = page_pb2.PageResponse(next_page_token=next_token(end, start + len(found), name))
        return pb.ListSeriesResponse(
            series=[_series(series) for series in found[: end - start]], partition_dates=dates, table_versions=versions, page=page
        )

    async def ProfilePartition(self, request: pb.ProfilePartitionRequest, context: ServicerContext) -> pb.ProfilePartitionResponse:
        """Profiles a partition, unless this version of the table is noted for it."""
        target = self._target(request.dataset)
        table = await asyncio.to_thread(Table.open, self._lake, target.table)
        if table is None or request.partition_date not in files_by_date(await asyncio.to_thread(table.files), table.partition_columns[0]):
            raise ArterialError(Reason.NOT_FOUND, f"{request.dataset} has no partition {request.partition_date}")
        note = (await self._store.notes(target.dataset)).get(request.partition_date)
        version = note.version if note is not None else -1
        if version < table.version:
            version = await self._profiler.profile(target, table, [request.partition_date])
        found = await self._store.profile(target.dataset, request.partition_date)
        return pb.ProfilePartitionResponse(table_version=version, columns=[_profile(*row) for row in found])

    def _target(self, dataset: str) -> Target:
        for target in targets_of(self._desired()):
            if target.dataset == dataset:
                return target
        raise ArterialError(Reason.NOT_FOUND, f"{dataset} is not a registered table of the lake")


def _query(request: pb.ListSeriesRequest) -> SeriesQuery:
    return SeriesQuery(
        dataset=request.dataset,
        market=request.market or None,
        column="" if request.column == ROWS else request.column or None,
        metric=pb.Metric.Name(request.metric).removeprefix("METRIC_") if request.metric else None,
        first_date=request.first_date,
    )


def _dataset(name: str, standing: Standing) -> pb.ProfiledDataset:
    found = pb.ProfiledDataset(
        dataset=name,
        table_version=standing.version,
        partitions=standing.partitions,
        series=standing.series,
        pending=standing.pending,
    )
    if standing.at:
        found.profiled_at.FromMilliseconds(round(standing.at * 1000))
    return found


def _series(series: Series) -> pb.Series:
    metric = pb.Metric.Value(f"METRIC_{series.metric}")
    return pb.Series(market=series.market, column=series.column, metric=metric, partition_dates=series.dates, values=series.values)


def _profile(market: str, column: str, metrics: Mapping[str, float]) -> pb.ColumnProfile:
    found = pb.ColumnProfile(market=market, column=column, missing_percent=metrics.get("MISSING_PERCENT", 0.0))
    for name in ("count", "nulls", "distinct"):
        setattr(found, name, round(metrics.get(name.upper(), 0)))
    for name in ("min", "max", "mean", "median"):
        value = metrics.get(name.upper(), math.nan)
        if not math.isnan(value):
            setattr(found, name, value)
    return found
