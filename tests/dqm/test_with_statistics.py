"""From a lake table to an incident, through the real Data Stats Service: Delta, ClickHouse, PostgreSQL, gRPC."""

from datetime import UTC, datetime

import grpc
import numpy as np
import pyarrow as pa

from arterial.api.controlplane.v1alpha1.partition_service_pb2 import VERDICT_FAIL, VERDICT_PASS
from arterial.api.dqm.v1alpha1 import dqm_service_pb2 as pb
from arterial.api.dss.v1alpha1 import dss_service_pb2_grpc
from chassis.clock import SystemClock
from chassis.config import LakeConfig, OlapConfig
from chassis.lake import Step, Table
from chassis.olap import Olap
from deploy.local.child import LOOPBACK, free_port
from services.dss.handler import DssHandler
from services.dss.profiler import Profiler, Target
from services.dss.store import SeriesStore
from tests.dqm.conftest import EVENTS, Quality
from tests.dqm.tables import FIRST, WEEKDAYS
from tests.dqm.test_monitor import verdict
from tests.dss.tables import desired

DAYS, ROWS = 22, 500
SCHEMA = pa.schema(
    [
        ("identifiers0", pa.string()),
        ("driver_id", pa.string()),
        ("pickup_latitude", pa.float64()),
        ("pickup_longitude", pa.float64()),
        ("pickup_time", pa.timestamp("us", "UTC")),
        ("amount_minor", pa.int64()),
        ("city_id", pa.int64()),
        ("event_date", pa.string()),
        ("region", pa.string()),
    ]
)


def day(random: np.random.Generator, number: int, *, nulls_in_market: int = 0) -> pa.Table:
    """A day of three markets; in one of them, three in ten pickups have no position."""
    rows = random.poisson(ROWS * WEEKDAYS[number % 7], 3)
    count, city = int(rows.sum()), np.repeat([1, 2, 3], rows)
    midnight = int((FIRST + number).astype("datetime64[s]").astype(int))
    gone = (city == nulls_in_market) & (random.random(count) < 0.3)
    position = random.normal([40.7, -74.0], 0.02, (count, 2))
    return pa.table(
        {
            "identifiers0": [f"trip-{number}-{row}" for row in range(count)],
            "driver_id": [f"driver-{driver}" for driver in random.integers(0, 200, count)],
            "pickup_latitude": pa.array(position[:, 0], mask=gone),
            "pickup_longitude": pa.array(position[:, 1], mask=gone),
            "pickup_time": pa.array((midnight + random.integers(0, 86_400, count)) * 1_000_000, pa.timestamp("us", "UTC")),
            "amount_minor": pa.array(500 + random.exponential(900, count).astype(np.int64)),
            "city_id": pa.array(city, pa.int64()),
            "event_date": pa.repeat(str(FIRST + number), count),
            "region": pa.repeat("local", count),
        },
        SCHEMA,
    )


def append(table: Table, rows: pa.Table) -> None:
    """A commit."""
    table.refresh()
    done = table.progress("test")
    table.append(rows, {"test": Step(done, (done or 0) + 1)})


async def test_nulls_in_a_lake_table_become_an_incident(quality: Quality, lake_config: LakeConfig, olap_config: OlapConfig) -> None:
    """Good days pass; a day with nulls in one market's positions is blocked, by one incident that names both columns and the market."""
    random, olap = np.random.default_rng(5), Olap(olap_config)
    profiler = Profiler(lake_config, SeriesStore(olap), SystemClock())
    table = Table.open_or_create(lake_config, EVENTS.removeprefix("lake/"), SCHEMA, ["event_date", "region"])
    append(table, pa.concat_tables([day(random, number) for number in range(DAYS)]))
    await profiler.profile(Target(EVENTS, "city_id"), table, [str(FIRST + number) for number in range(DAYS)])
    await profiler.store.put_standing(EVENTS, table.version, 0, datetime.now(UTC).timestamp())
    server, port = grpc.aio.server(), free_port()
    dss_service_pb2_grpc.add_DssServiceServicer_to_server(DssHandler(lake_config, profiler, lambda: desired(EVENTS)), server)
    server.add_insecure_port(f"{LOOPBACK}:{port}")
    await server.start()
    quality.dss_port, quality.late_seconds = port, 600.0
    ended = float((FIRST + DAYS + 1).astype("datetime64[s]").astype(int)) + 7200.0
    async with quality.monitoring(ended), quality.serving() as stub:
        await verdict(quality, EVENTS, str(FIRST + DAYS - 1), VERDICT_PASS)
        append(table, day(random, DAYS, nulls_in_market=2))
        await profiler.profile(Target(EVENTS, "city_id"), table, [str(FIRST + DAYS)])
        await profiler.store.put_standing(EVENTS, table.version, 0, datetime.now(UTC).timestamp())
        await verdict(quality, EVENTS, str(FIRST + DAYS), VERDICT_FAIL)
        (incident,) = (await stub.ListIncidents(pb.ListIncidentsRequest(state=pb.INCIDENT_STATE_OPEN))).incidents
        assert (incident.kind, incident.market, incident.table_version) == (pb.INCIDENT_KIND_NULLS, "2", table.version)
        assert set(incident.columns) == {"pickup_latitude", "pickup_longitude"}
        assert 25 < incident.evidence[0].observed < 200
    await server.stop(0)
    await olap.close()
