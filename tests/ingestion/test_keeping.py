"""What ingestion tells of the promises of its tables: from real logs, OLAP and Kafka to the gate of a real control plane."""

import asyncio
import dataclasses
import time
from datetime import UTC, datetime, timedelta

import pytest
from aiokafka import TopicPartition

from arterial.api.controlplane.v1 import resource_pb2, specs_pb2
from arterial.api.controlplane.v1alpha1 import job_service_pb2 as jobs
from arterial.api.controlplane.v1alpha1 import partition_service_pb2 as pb
from chassis import kafka
from chassis.config import KafkaConfig
from chassis.desired import Desired
from chassis.process import Context
from chassis.telemetry import Telemetry
from chassis.testing import ManualClock, context, eventually, running
from services.ingestion import keeping
from services.ingestion.follow import follow
from services.ingestion.keeping import Keeper, keep_promises
from services.ingestion.rawlog import RawLog
from services.ingestion.stream import stream
from tests.controlplane.conftest import ControlPlane
from tests.controlplane.stubs import Stubs, get, stubs
from tests.events import trip_event
from tests.ingestion.conftest import Ingestion
from tests.ingestion.test_to_the_lake import caught_up

Told = dict[tuple[str, str, str], tuple[bool, float]]


def declared(ingestion: Ingestion) -> list[resource_pb2.Resource]:
    """Datasets of all tables that are made of the test's topic."""
    topic = ingestion.topic.name
    sla = {f"lake/raw/{topic}": 60, f"lake/curated/{topic}": 0, f"olap/live/{topic}": 120, "lake/curated/trips": 300}
    return [
        resource_pb2.Resource(
            api_version="arterial.dev/v1",
            kind="Dataset",
            metadata=resource_pb2.Metadata(name=name, owner="data-platform"),
            dataset=specs_pb2.DatasetSpec(description="d", tier=2, sla=specs_pb2.Sla(freshness_seconds=seconds)),
        )
        for name, seconds in sla.items()
    ]


def keeper(ingestion: Ingestion, clock: ManualClock) -> Keeper:
    """A keeper of the test's tables, whose datasets are declared."""
    ingestion.feed.replace(Desired((*ingestion.feed.current.resources, *declared(ingestion)), 2))
    return Keeper(ingestion.config, Context(context().telemetry, clock), ingestion.feed)


def told(ingestion: Ingestion, requests: list[pb.ReportVerdictsRequest]) -> Told:
    """Whether a promise is kept, and the value, by zone, date and aspect."""
    zones = {f"lake/raw/{ingestion.topic.name}": "raw", f"lake/curated/{ingestion.topic.name}": "curated", "lake/curated/trips": "trips"}
    return {
        (zones.get(v.dataset, "live"), v.partition_date, pb.Aspect.Name(v.aspect)[7:]): (v.verdict == pb.VERDICT_PASS, v.value)
        for request in requests
        for v in request.verdicts
    }


async def publish(ingestion: Ingestion, count: int, cities: int = 7) -> None:
    """Events of now, of so many cities."""
    payloads = [trip_event(f"trip-{number}", city_id=number % cities + 1).SerializeToString() for number in range(count)]
    await ingestion.publisher.publish(ingestion.topic.name, payloads, 0)


def day(now: float) -> str:
    """The date of a time."""
    return datetime.fromtimestamp(now, UTC).date().isoformat()


async def test_what_tables_keep_of_their_promises_follows_from_logs_progress_and_offsets(ingestion: Ingestion) -> None:
    """Fresh while rows come, each until its own promise is over; complete by what raw and Kafka have; a follower that is behind says so."""
    clock = ManualClock(time.time())
    keeps = keeper(ingestion, clock)
    assert await keeps.due() == [], "of what never had a row nothing is said"
    async with running(stream, ingestion.config), running(follow, ingestion.config):
        await clock.sleep(time.time() - clock.now())
        await publish(ingestion, 100)
        await caught_up(ingestion, 100)
    today, zones = day(clock.now()), {"raw": 60, "live": 120, "trips": 300, "curated": 3600}
    requests = await keeps.due()
    assert {key: kept for key, (kept, _) in told(ingestion, requests).items()} == {(zone, today, "FRESHNESS"): True for zone in zones}
    assert all(verdict.table_version > 0 and verdict.reasons for request in requests for verdict in request.verdicts)
    keeps.told(requests)
    assert await keeps.due() == [], "it is said again when it changes, or after a while"
    await clock.sleep(70)
    found = told(ingestion, await keeps.due())
    assert len(found) == 4 and {zone for (zone, *_), (kept, _) in found.items() if not kept} == {"raw"}
    await keeps.close()
    await publish(ingestion, 7, cities=1)
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).replace(hour=12, minute=0, second=0)
    clock = ManualClock(tomorrow.timestamp())
    keeps = keeper(ingestion, clock)
    found = told(ingestion, await keeps.due())
    complete = {zone: found[zone, today, "COMPLETENESS"] for zone in zones}
    assert all(value == pytest.approx(100 * 100 / 107) and not kept for kept, value in complete.values()), "7 wait in Kafka"
    async with running(stream, ingestion.config):
        await eventually(lambda: in_raw(ingestion, 107), "all in raw")
    found = told(ingestion, await keeps.due())
    assert found["raw", today, "COMPLETENESS"] == (True, 100.0)
    assert not found["trips", today, "COMPLETENESS"][0] and found["trips", today, "COMPLETENESS"][1] < 94, "7 wait in raw"
    async with running(follow, ingestion.config):
        await caught_up(ingestion, 107)
    found = told(ingestion, await keeps.due())
    assert {zone: found[zone, today, "COMPLETENESS"] for zone in zones} == dict.fromkeys(zones, (True, 100.0))
    assert not any(found[zone, day(clock.now()), "FRESHNESS"][0] for zone in zones)
    await keeps.close()


async def in_raw(ingestion: Ingestion, rows: int) -> bool:
    """True if raw has so many rows."""
    found = RawLog(ingestion.config.cell, ingestion.config.lake, ingestion.topic)
    await asyncio.to_thread(found.refresh, [])
    return sum(block.rows for block in found.blocks) == rows


async def test_offsets_that_wait_are_dated_by_kafka_time(ingestion: Ingestion) -> None:
    """Those before each moment, and all; one alone counts as none."""
    name, noon = ingestion.topic.name, int(time.time()) // 3600 * 3_600_000 - 3_600_000
    producer = kafka.producer(ingestion.config.kafka)
    await producer.start()
    for partition, minutes in ((0, (-9, -8, -7, -1, 5)), (1, (1, 2)), (2, (-9,)), (3, ())):
        for minute in minutes:
            await producer.send_and_wait(name, b"x", partition=partition, timestamp_ms=noon + minute * 60_000)
    await producer.stop()
    progress = {TopicPartition(name, 0): 1, TopicPartition(name, 1): None, TopicPartition(name, 2): None, TopicPartition(name, 3): 0}
    found = await kafka.backlog(ingestion.config.kafka, progress, [noon - 450_000, noon])
    assert [found[partition] for partition in progress] == [[1, 3, 4], [0, 0, 2], [0, 0, 0], [0, 0, 0]]
    assert await kafka.backlog(ingestion.config.kafka, {}, [noon]) == {}


async def test_engines_that_are_away_hold_nothing_up(ingestion: Ingestion) -> None:
    """Of live tables nothing is said before OLAP answered, of completeness nothing while Kafka does not."""
    async with running(stream, ingestion.config):
        await publish(ingestion, 5)
        await eventually(lambda: in_raw(ingestion, 5), "all in raw")
    olap = ingestion.config.olap.model_copy(update={"port": 1})
    config = ingestion.config.model_copy(update={"olap": olap, "kafka": KafkaConfig(bootstrap="127.0.0.1:1")})
    clock = ManualClock(time.time() + 86_400 + 7200)
    keeps = keeper(dataclasses.replace(ingestion, config=config), clock)
    found = told(ingestion, await keeps.due())
    await keeps.close()
    assert {(zone, aspect) for zone, _, aspect in found} == {("raw", "FRESHNESS"), ("curated", "FRESHNESS"), ("trips", "FRESHNESS")}


async def test_a_late_table_suspends_the_runs_that_read_it_until_it_is_fresh_again(
    ingestion: Ingestion, plane: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loop tells it while everything else goes on, also after the control plane was away."""
    monkeypatch.setattr(keeping, "LOOK_SECONDS", 0.2)
    await plane.stop()
    ingestion = dataclasses.replace(ingestion, config=ingestion.config.model_copy(update={"control_plane": plane.address}))
    clock = ManualClock(time.time() + 500)
    keeper(ingestion, clock)
    local = ingestion.config.model_copy(update={"control_plane": None})
    async with running(stream, local), running(follow, local):
        await publish(ingestion, 10)
        await caught_up(ingestion, 10)
        role = Context(Telemetry(local.telemetry, "test", "local"), clock)
        telling = asyncio.create_task(keep_promises(ingestion.config, role, ingestion.feed))
        await asyncio.sleep(1)
        assert not telling.done()
        await plane.start()
        async with stubs(plane, "keeping") as to:
            trips = Trips(to, day(clock.now()))
            await eventually(lambda: trips.are(pb.PARTITION_STATE_BLOCKED), "late")
            partition, freshness = await trips.get()
            assert partition.reasons[0].startswith("freshness: newest row is of ") and 400 < freshness.value < 700
            version, reported = freshness.table_version, freshness.reported_at.ToSeconds()
            report = pb.PartitionVerdict(dataset=trips.name, partition_date=trips.day, verdict=pb.VERDICT_PASS, table_version=version)
            await to.partitions.ReportVerdicts(pb.ReportVerdictsRequest(cell="local", verdicts=[report]))
            run_id = (await trips.run()).run_id
            assert (await get(to, run_id)).state == jobs.RUN_STATE_SUSPENDED
            await clock.sleep(time.time() - clock.now())
            await eventually(lambda: trips.are(pb.PARTITION_STATE_READY), "fresh, at the same version of the table")
            assert (await get(to, run_id)).state == jobs.RUN_STATE_PENDING
            await clock.sleep(400)
            await eventually(lambda: trips.are(pb.PARTITION_STATE_BLOCKED), "late again, only because time has passed")
            _, freshness = await trips.get()
            assert freshness.table_version == version and freshness.reported_at.ToSeconds() >= reported
            assert (await get(to, run_id)).state == jobs.RUN_STATE_SUSPENDED
            assert "freshness: newest row is of" in (await get(to, run_id)).reasons[0]
        role.stopping.set()
        await telling


@dataclasses.dataclass(frozen=True)
class Trips:
    """A partition of trips in the control plane."""

    to: Stubs
    day: str
    name: str = "lake/curated/trips"

    async def get(self) -> tuple[pb.Partition, pb.PartitionVerdict]:
        """As it is marked, and the verdict on its freshness."""
        reply = await self.to.partitions.GetPartition(pb.GetPartitionRequest(cell="local", dataset=self.name, partition_date=self.day))
        return reply.partition, next((v for v in reply.verdicts if v.aspect == pb.ASPECT_FRESHNESS), pb.PartitionVerdict())

    async def are(self, state: pb.PartitionState.ValueType) -> bool:
        """True if it is marked so."""
        return (await self.get())[0].state == state

    async def run(self) -> jobs.Run:
        """A run that reads it."""
        request = jobs.CreateRunRequest(
            kind="report", subject="daily", cell="local", partition_date=self.day, inputs=[specs_pb2.ModelInput(dataset=self.name, days=1)]
        )
        reply: jobs.CreateRunResponse = await self.to.jobs.CreateRun(request)
        return reply.run
