"""The RPCs over the wire: series as they are stored, pages, errors."""

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import pytest

from arterial.api.dss.v1alpha1 import dss_service_pb2 as pb
from arterial.api.dss.v1alpha1 import dss_service_pb2_grpc
from arterial.api.types.v1 import page_pb2
from chassis.config import LakeConfig, OlapConfig, RpcConfig
from chassis.errors import ArterialError, Reason
from chassis.olap import Olap
from chassis.rpc.server import serve
from chassis.testing import ManualClock, channel, context
from deploy.local.child import free_port
from services.dss.handler import DssHandler
from services.dss.profiler import Profiler, Target
from services.dss.store import SeriesStore
from tests.dss.tables import DATASET, append, desired, open_table, row

DATES = ["2026-03-07", "2026-03-08", "2026-03-09"]


@asynccontextmanager
async def serving(lake: LakeConfig, profiler: Profiler) -> AsyncIterator["dss_service_pb2_grpc.DssServiceAsyncStub"]:
    """A server and a client of it."""
    role, bound = context(), asyncio.get_running_loop().create_future()

    def register(server: grpc.aio.Server) -> list[str]:
        handler = DssHandler(lake, profiler, lambda: desired(DATASET, "lake/curated/absent", "kafka/t"))
        dss_service_pb2_grpc.add_DssServiceServicer_to_server(handler, server)
        return [pb.DESCRIPTOR.services_by_name["DssService"].full_name]

    task = asyncio.ensure_future(serve(RpcConfig(port=0), register, role, bound=bound))
    try:
        async with channel(f"127.0.0.1:{await bound}") as connection:
            yield dss_service_pb2_grpc.DssServiceStub(connection)
    finally:
        role.stopping.set()
        await task


async def test_series_are_whole_and_pages_are_of_series(lake_config: LakeConfig, profiler: Profiler) -> None:
    """Order, filters, points of dates only, no value where there is none."""
    table = open_table(lake_config)
    append(table, [row(date, city, whole=None if city == 2 else n) for n, date in enumerate(DATES) for city in (1, 1, 2)])
    append(table, [row("unknown", 3, whole=9)])
    await profiler.profile(Target(DATASET, "city_id"), table, [*DATES, "unknown"])
    async with serving(lake_config, profiler) as stub:
        rows = await stub.ListSeries(pb.ListSeriesRequest(dataset=DATASET, column="rows"))
        assert [(s.market, s.column, list(s.values)) for s in rows.series] == [
            ("", "", [3.0] * 3),
            ("1", "", [2.0] * 3),
            ("2", "", [1.0] * 3),
        ]
        assert (list(rows.partition_dates), list(rows.table_versions)) == (DATES, [2, 2, 2])
        asked = pb.ListSeriesRequest(dataset=DATASET, column="whole", metric=pb.METRIC_MEAN, first_date=DATES[1])
        means = (await stub.ListSeries(asked)).series
        assert [(s.market, list(s.partition_dates)) for s in means] == [(market, DATES[1:]) for market in ("", "1", "2")]
        assert list(means[0].values) == [1.0, 2.0]
        assert all(math.isnan(value) for value in means[2].values)
        whole = list((await stub.ListSeries(pb.ListSeriesRequest(dataset=DATASET, page=page_pb2.PageRequest(page_size=1000)))).series)
        assert sorted(whole, key=lambda s: (s.market, s.column, s.metric)) == whole
        paged: list[pb.Series] = []
        page = page_pb2.PageRequest(page_size=70)
        while True:
            reply = await stub.ListSeries(pb.ListSeriesRequest(dataset=DATASET, page=page))
            paged += reply.series
            if not reply.page.next_page_token:
                break
            page.page_token = reply.page.next_page_token
        # NaN differs from itself, so bytes are compared.
        assert [s.SerializeToString(deterministic=True) for s in paged] == [s.SerializeToString(deterministic=True) for s in whole]
        assert len(whole) > 140


async def test_a_partition_is_profiled_on_demand_once(lake_config: LakeConfig, profiler: Profiler, clock: ManualClock) -> None:
    """The answer has every column and market; asked again, nothing is measured again; the dataset tells its series."""
    table = open_table(lake_config)
    append(table, [row(DATES[0], 1, whole=1, text="é"), row(DATES[0], 2, whole=4)])
    async with serving(lake_config, profiler) as stub:
        reply = await stub.ProfilePartition(pb.ProfilePartitionRequest(dataset=DATASET, partition_date=DATES[0]))
        columns = {(c.market, c.column): c for c in reply.columns}
        whole, text, total = columns["", "whole"], columns["1", "text"], columns["", ""]
        assert (reply.table_version, total.count, whole.count, whole.mean, whole.median, whole.distinct) == (1, 2, 2, 2.5, 2.5, 2)
        assert (text.min, text.HasField("mean"), columns["2", "text"].missing_percent) == (1.0, False, 100.0)
        first = await profiler.store.notes(DATASET)
        await clock.sleep(5)
        again = await stub.ProfilePartition(pb.ProfilePartitionRequest(dataset=DATASET, partition_date=DATES[0]))
        assert (again, await profiler.store.notes(DATASET)) == (reply, first)
        await profiler.store.put_standing(DATASET, 1, 0, clock.now())
        listed = (await stub.ListDatasets(pb.ListDatasetsRequest())).datasets
        assert [(d.dataset, d.table_version, d.partitions) for d in listed] == [("lake/curated/absent", -1, 0), (DATASET, 1, 1)]
        assert listed[1].series == len({(c.market, c.column) for c in reply.columns if c.column == ""}) + sum(
            len(metrics) for _, column, metrics in await profiler.store.profile(DATASET, DATES[0]) if column
        )


async def test_errors_are_those_of_the_contract(lake_config: LakeConfig, profiler: Profiler, olap_config: OlapConfig) -> None:
    """Unknown datasets and partitions, foreign page tokens, an engine that is away."""
    table = open_table(lake_config)
    append(table, [row(DATES[0], 1)])
    async with serving(lake_config, profiler) as stub:
        for dataset in ("lake/other", "kafka/t"):
            with pytest.raises(ArterialError) as caught:
                await stub.ListSeries(pb.ListSeriesRequest(dataset=dataset))
            assert caught.value.reason is Reason.NOT_FOUND
        for dataset, date in ((DATASET, DATES[1]), ("lake/curated/absent", DATES[0])):
            with pytest.raises(ArterialError) as caught:
                await stub.ProfilePartition(pb.ProfilePartitionRequest(dataset=dataset, partition_date=date))
            assert caught.value.reason is Reason.NOT_FOUND
        with pytest.raises(ArterialError) as caught:
            await stub.ListDatasets(pb.ListDatasetsRequest(page=page_pb2.PageRequest(page_token="x")))
        assert caught.value.reason is Reason.INVALID_PAGE_TOKEN
    away = Olap(olap_config.model_copy(update={"port": free_port()}))
    async with serving(lake_config, Profiler(lake_config, SeriesStore(away), ManualClock(0.0))) as stub:
        with pytest.raises(ArterialError) as caught:
            await stub.ListSeries(pb.ListSeriesRequest(dataset=DATASET))
        assert caught.value.reason is Reason.DEPENDENCY_UNAVAILABLE
