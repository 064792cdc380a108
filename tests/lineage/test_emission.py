"""Definitions that processes derive from what they run reach the service; changing what is run changes the impact."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa

from arterial.api.lineage.v1alpha1 import lineage_service_pb2 as pb
from arterial.api.lineage.v1alpha1 import lineage_service_pb2_grpc
from chassis import testing
from chassis.config import LakeConfig, RpcConfig, ServiceConfig, SqlConfig
from chassis.errors import ArterialError
from chassis.lineage import ColumnInput, JobDefinition, Lineage, Output, Ownership, emitting, from_sql
from chassis.lineage.definition import FILTER, TRANSFORMATION
from chassis.lineage.tables import transformed
from chassis.rpc.client import channel
from chassis.testing import eventually, running
from chassis.wire import Schemas
from deploy.local.child import free_port
from services.ingestion import live
from services.ingestion.curated import Curated, jobs
from services.ingestion.rows import raw_job, raw_schema
from services.lineage.__main__ import serve
from services.lineage.config import LineageConfig
from services.radar.features import FEATURES, Entity, FeatureSet
from services.radar.point_in_time import PAYMENTS, training_sql
from tests.ingestion.raw_tables import MESSAGE, TOPIC, feeder
from tests.lineage.conftest import Stub
from tests.lineage.events import dataset, event

RAW = "lake/raw/trip_events_v2"


@asynccontextmanager
async def emitter(address: str, folder: Path) -> AsyncIterator[Lineage]:
    """The emitter of a process."""
    async with emitting(ServiceConfig(state_dir=folder, lineage=address), testing.context()) as lineage:
        yield lineage


async def hit(stub: Stub, name: str, *columns: str) -> dict[str, list[str]]:
    """Columns hit by name of the dataset; nothing for a dataset that is not known (yet)."""
    try:
        reply = await stub.GetImpact(pb.GetImpactRequest(name=name, columns=columns))
    except ArterialError:
        return {}
    return {node.name: list(node.columns) for node in reply.nodes}


def training(features: FeatureSet) -> JobDefinition:
    """Radar's training, by its very SQL, with a set of features."""
    sql = training_sql(features, datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 29, tzinfo=UTC), 7 * 86400)
    return from_sql("radar.train", sql, "model/radar", {PAYMENTS: {"stage": "int32"}})


async def test_impact_changes_when_the_features_of_the_training_change(service: tuple[str, Stub], tmp_path: Path) -> None:
    """A fingerprint of a device hits the model as long as a feature is made from it, and no longer."""
    address, stub = service
    without = tuple(feature for feature in FEATURES.features if Entity.DEVICE not in (feature.entity, feature.of))
    async with emitter(address, tmp_path) as lineage:
        lineage.emit(training(FEATURES))
        await eventually(lambda: _holds(stub, PAYMENTS, "device_fingerprint", lambda found: "model/radar" in found), "the training is told")
        assert "device_payments_1h" in (await hit(stub, PAYMENTS, "device_fingerprint"))["model/radar"]
        lineage.emit(training(replace(FEATURES, features=without)))
        await eventually(lambda: _holds(stub, PAYMENTS, "device_fingerprint", lambda found: not found), "the device is no longer read")
        assert "account_payments_1h" in (await hit(stub, PAYMENTS, "account_id"))["model/radar"]


async def _holds(stub: Stub, name: str, column: str, condition: Callable[[dict[str, list[str]]], bool]) -> bool:
    return condition(await hit(stub, name, column))


async def test_a_job_that_ended_hits_nothing_until_it_runs_again(service: tuple[str, Stub], tmp_path: Path) -> None:
    """Whatever was told of it before, by this process or by another."""
    address, stub = service
    job = JobDefinition("fleeting", ("lake/fleeting",), (Output("lake/made"),))

    async def hits(expected: bool) -> bool:
        return ("lake/made" in await hit(stub, "lake/fleeting")) is expected

    async with emitter(address, tmp_path) as lineage:
        lineage.emit(job)
        await eventually(lambda: hits(True), "the job is told")
    async with emitter(address, tmp_path) as lineage:
        lineage.end(job.name)
        await eventually(lambda: hits(False), "its end is told")
        lineage.emit(job)
        await eventually(lambda: hits(True), "it runs again")


async def test_what_did_not_change_is_not_sent_again(service: tuple[str, Stub], tmp_path: Path) -> None:
    """The service still has what someone else said of the job in between; a changed definition is sent."""
    address, stub = service
    first = JobDefinition("job", ("lake/a",), (Output("lake/b"),))
    async with emitter(address, tmp_path) as lineage:
        lineage.emit(first)
        await lineage.flush()
        mine = {"namespace": "arterial://local", "name": "job"}
        await stub.PutEvents(pb.PutEventsRequest(events=[event("", [dataset("c")], [], job=mine, eventTime="2100-01-01T00:00:00Z")]))
        lineage.emit(JobDefinition("job", ("lake/a",), (Output("lake/b"),)))
        lineage.emit(JobDefinition("other", ("lake/a",), (Output("lake/d"),)))
        await lineage.flush()
        assert await hit(stub, "lake/a") == {"lake/d": []}


async def test_lineage_waits_for_a_service_that_is_away(database_url: str, tmp_path: Path) -> None:
    """Emission never blocks or raises; what was said last arrives when the service does, owners too, what cannot be told is left out."""
    config = LineageConfig(state_dir=tmp_path, sql=SqlConfig(url=database_url), rpc=RpcConfig(port=free_port(), drain_seconds=1))
    address = f"127.0.0.1:{config.rpc.port}"
    async with emitter(address, tmp_path) as lineage:
        lineage.emit(JobDefinition("job", ("lake/former",), (Output("lake/b"),)))
        lineage.emit(JobDefinition("nonsense", ("no logical name",), ()))
        lineage.emit_from("broken", lambda: from_sql("broken", "SELECT (", "lake/b", {}))
        await asyncio.sleep(0.5)
        lineage.emit_from("job", lambda: from_sql("job", "SELECT x FROM `lake/a`", "lake/b", {}))
        lineage.declare(Ownership("lake/b", "city", 1))
        async with running(serve, config):
            await eventually(lambda: _is_there(address), "the lineage arrives")


async def _is_there(address: str) -> bool:
    async with channel(address) as connection:
        await connection.channel_ready()
        stub: Stub = lineage_service_pb2_grpc.LineageServiceStub(connection)
        found = (await stub.Search(pb.SearchRequest(text="lake"))).nodes
    return [(node.name, node.owner, node.tier) for node in found] == [("lake/a", "", 0), ("lake/b", "city", 1)]


async def test_ingestion_tells_what_it_runs(service: tuple[str, Stub], tmp_path: Path, lake_config: LakeConfig) -> None:
    """From Kafka to trips and the live table, column by column."""
    address, stub = service
    raw = feeder(lake_config)
    raw.append_trips([(1, 1)])
    schema = Schemas().builtin(MESSAGE).arrow
    async with emitter(address, tmp_path) as lineage:
        lineage.emit(raw_job("kafka/trip_events_v2", TOPIC.name, schema))
        lineage.emit(live.job(TOPIC.name, live.columns_of(raw_schema(schema))))
        await asyncio.to_thread(Curated(lake_config, TOPIC, lineage.emit).step)
        await lineage.flush()
    assert await hit(stub, "kafka/trip_events_v2", "fare_amount_minor") == {
        name: ["fare_amount_minor"]
        for name in (RAW, "lake/curated/trip_events_v2", "lake/curated/trips", "olap/live/trip_events_v2")
    }  # fmt: skip
    assert (await hit(stub, "kafka/trip_events_v2", "region"))[RAW] == ["payload_region"]


def test_dates_and_deduplication_of_curated_tables_are_found_by_running_them() -> None:
    """What dates an event, and what decides whether it is kept, is read off the functions themselves."""
    events, trips = (job.outputs[0] for job in jobs(TOPIC, raw_schema(Schemas().builtin(MESSAGE).arrow)))
    assert {item.column for item in events.columns["event_date"]} == {"event_time", "_kafka_time", "_topic"}
    assert {item.column for item in events.rows} == {"event_id", "event_time"}
    assert "trip_requested_at" in {item.column for item in trips.columns["event_date"]}
    assert {"trip_id", "sequence", "event_time", "event_id"} <= {item.column for item in trips.rows}


def test_a_column_that_a_function_adds_is_made_from_what_it_needs() -> None:
    """Through several steps, back to the columns that came in."""
    given = pa.schema([("a", pa.int64()), ("b", pa.int64()), ("c", pa.int64())])

    def double(rows: pa.Table) -> pa.Table:
        return rows.append_column("d", rows["a"])

    def summed(rows: pa.Table) -> pa.Table:
        return rows.append_column("e", pa.compute.add(rows["d"], rows["b"])).drop_columns(["b"])

    found = transformed("lake/y", "lake/x", given, [double, summed], [lambda rows: rows.filter(pa.compute.is_valid(rows["c"]))])
    assert list(found.types) == ["a", "c", "d", "e"]
    assert set(found.columns["e"]) == {ColumnInput("lake/x", "a", TRANSFORMATION), ColumnInput("lake/x", "b", TRANSFORMATION)}
    assert list(found.rows) == [ColumnInput("lake/x", "c", FILTER)]
