"""Removes one record and doubles another in raw, in curated and in OLAP: the audit must name exactly those, each time."""

import argparse
import asyncio
import os
import random
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
from clickhouse_connect.driver.asyncclient import AsyncClient
from deltalake import DeltaTable, write_deltalake

from arterial.api.events.v1.trip_event_pb2 import TripEvent
from arterial.api.ingestion.v1 import ingestion_service_pb2 as pb
from chassis import kafka, olap
from chassis.config import KafkaConfig, LakeConfig, OlapConfig, RpcConfig
from chassis.desired import Desired, DesiredFeed, load
from chassis.lake import Table
from chassis.testing import eventually, running
from chassis.wire import frame
from deploy.local import clickhouse
from deploy.local import kafka as local_kafka
from deploy.local.child import LOOPBACK, free_port
from services.ingestion.audit import audit
from services.ingestion.config import IngestionConfig
from services.ingestion.follow import follow
from services.ingestion.followers import follower_versions
from services.ingestion.publish import Publisher
from services.ingestion.stream import stream

TOPIC = "trip_events_v2"
RESENDS, MALFORMED = 10, 10
FRAME_RECORDS = 5000
RESOURCES = Path(__file__).parents[1] / "deploy" / "resources"
PLACES = ("raw", "curated", "olap")


@dataclass(frozen=True)
class Victim:
    """A good record: id and coordinates."""

    event_id: bytes
    partition: int
    offset: int

    @property
    def where(self) -> str:
        """The record as a condition, in the SQL of Delta and of ClickHouse."""
        return f"_partition = {self.partition} AND _offset = {self.offset} AND _topic = '{TOPIC}'"


@dataclass(frozen=True)
class City:
    """A small stack with records in all its stores."""

    config: IngestionConfig
    desired: Desired
    ledger: list[bytes]
    client: AsyncClient


def trip(number: int, now_us: int) -> TripEvent:
    """A trip event; every tenth event is of the same trip."""
    event = TripEvent(event_id=os.urandom(16), region="local", city_id=number % 40 + 1, sequence=number, trip_id=f"trip-{number // 10}")
    event.event_time.FromMicroseconds(now_us + number)
    event.trip_requested_at.FromMicroseconds(now_us)
    event.status = TripEvent.STATUS_REQUESTED
    return event


async def publish(config: IngestionConfig, desired: Desired, count: int) -> list[bytes]:
    """Publishes events, some of them again, and malformed records past Publish; the ledger of what was acknowledged, a frame an entry."""
    feed = DesiredFeed(desired, config.state_dir, None)
    producer = kafka.producer(config.kafka)
    await producer.start()
    publisher = Publisher(producer, feed)
    now_us = int(time.time() * 1e6)
    ledger = []
    for start in range(0, count, FRAME_RECORDS):
        events = [trip(number, now_us) for number in range(start, min(count, start + FRAME_RECORDS))]
        events += events[:RESENDS] if start == 0 else []
        done = await publisher.publish(TOPIC, [event.SerializeToString() for event in events], 0)
        assert not done.rejected
        ledger.append(b"".join(event.event_id + event.event_time.ToMicroseconds().to_bytes(8, "big") for event in events))
    for number in range(MALFORMED):
        await producer.send_and_wait(TOPIC, frame(1, b"\xff" * number), key=b"1", partition=number % 16)
    await producer.stop()
    return ledger


async def caught_up(config: IngestionConfig, desired: Desired, records: int) -> None:
    """Waits until raw has all records and its followers have all of raw."""

    async def probe() -> bool:
        table = await asyncio.to_thread(Table.open, config.lake, f"raw/{TOPIC}")
        if table is None or sum(file.rows for file in table.files()) < records:
            return False
        versions = (await follower_versions(config, [desired.topics[TOPIC]]))[TOPIC]
        return versions.curated == versions.live == table.version

    await eventually(probe, "records in every store", timeout=300)


async def ask(city: City) -> pb.AuditResponse:
    """The audit of the topic, with the producer's ledger."""

    async def requests() -> AsyncIterator[pb.AuditRequest]:
        yield pb.AuditRequest(topics=[TOPIC])
        for entries in city.ledger:
            yield pb.AuditRequest(ledger_topic=TOPIC, acknowledged_ids=entries)

    return await audit(city.config, city.desired, requests())


def victims(lake: LakeConfig, seed: int) -> tuple[Victim, Victim]:
    """Two good records that were sent once."""
    columns = ["event_id", "_partition", "_offset"]
    rows = DeltaTable(lake.table(f"raw/{TOPIC}")).to_pyarrow_dataset().to_table(columns=columns, filter=~ds.field("dead")).to_pylist()
    seen: dict[bytes, list[Victim]] = {}
    for row in rows:
        seen.setdefault(row["event_id"], []).append(Victim(row["event_id"], row["_partition"], row["_offset"]))
    once = sorted((found[0] for found in seen.values() if len(found) == 1), key=lambda victim: victim.event_id)
    removed, doubled = random.Random(seed).sample(once, 2)
    return removed, doubled


def sabotage_lake(lake: LakeConfig, name: str, removed: Victim, doubled: Victim) -> None:
    """Removes and doubles rows of a Delta table behind the back of its writer."""
    table = DeltaTable(lake.table(name))
    at = (ds.field("_partition") == doubled.partition) & (ds.field("_offset") == doubled.offset) & (ds.field("_topic") == TOPIC)
    row: pa.Table = table.to_pyarrow_dataset().to_table(filter=at)
    table.delete(removed.where)
    write_deltalake(table, row, mode="append")


async def sabotage(city: City, place: str, removed: Victim, doubled: Victim) -> None:
    """Removes one record and doubles the other in one store."""
    if place != "olap":
        await asyncio.to_thread(sabotage_lake, city.config.lake, f"{place}/{TOPIC}", removed, doubled)
        return
    name = f"`{city.config.olap.database}`.`{TOPIC}`"
    await city.client.command(f"INSERT INTO {name} SELECT * FROM {name} WHERE {doubled.where} SETTINGS insert_deduplicate = 0")
    await city.client.command(f"ALTER TABLE {name} DELETE WHERE {removed.where} SETTINGS mutations_sync = 2")


def verdict(place: str, response: pb.AuditResponse, removed: Victim, doubled: Victim) -> str | None:
    """What the audit got wrong, or None if it named exactly the two records."""
    found = response.topics[0]
    missing = [(finding.place, finding.event_id) for finding in found.missing]
    duplicated = [(finding.place, finding.event_id) for finding in found.duplicated]
    if response.exact or missing != [(place, removed.event_id)] or duplicated != [(place, doubled.event_id)]:
        return (
            f"{place}: removed {removed.event_id.hex()}, doubled {doubled.event_id.hex()}, but missing "
            f"{[(where, event.hex()) for where, event in missing]}, duplicated {[(where, event.hex()) for where, event in duplicated]}"
        )
    return None


async def try_places(city: City, seed: int) -> list[str]:
    """Sabotages one store after the other, each restored before the next; what the audit got wrong."""
    wrong = []
    for index, place in enumerate(PLACES):
        removed, doubled = await asyncio.to_thread(victims, city.config.lake, seed + index)
        version = DeltaTable(city.config.lake.table(f"{place}/{TOPIC}")).version() if place != "olap" else 0
        await sabotage(city, place, removed, doubled)
        error = verdict(place, await ask(city), removed, doubled)
        print(f"{place}: removed {removed.event_id.hex()}, doubled {doubled.event_id.hex()}: {error or 'named exactly'}", flush=True)
        wrong += [error] if error else []
        if place != "olap":
            await asyncio.to_thread(DeltaTable(city.config.lake.table(f"{place}/{TOPIC}")).restore, version)
    return wrong


async def run(folder: Path, events: int, seed: int) -> int:
    """The whole program; its exit status."""
    async with AsyncExitStack() as stack:
        kafka_port, olap_port = free_port(), free_port()
        for child in await asyncio.gather(
            local_kafka.start(folder / "kafka", kafka_port), clickhouse.start(folder / "clickhouse", olap_port)
        ):
            stack.push_async_callback(child.stop)
        config = IngestionConfig(
            state_dir=folder / "state",
            resources_dir=RESOURCES,
            kafka=KafkaConfig(bootstrap=f"{LOOPBACK}:{kafka_port}"),
            lake=LakeConfig(root=str(folder / "lake")),
            olap=OlapConfig(port=olap_port),
            rpc=RpcConfig(port=0),
        )
        desired = load(config)
        await kafka.ensure_topics(config.kafka, desired.topics.values())
        async with running(stream, config), running(follow, config):
            ledger = await publish(config, desired, events)
            await caught_up(config, desired, events + RESENDS + MALFORMED)
        client = await olap.connect(config.olap)
        stack.push_async_callback(client.close)
        city = City(config, desired, ledger, client)
        began = time.monotonic()
        honest = await ask(city)
        print(f"{events} events, audit of the untouched stores: exact={honest.exact} in {time.monotonic() - began:.1f} s", flush=True)
        wrong = [] if honest.exact else [f"untouched stores: {honest.topics[0]}"]
        wrong += await try_places(city, seed)
    if wrong:
        print("audit-sabotage FAILED: " + "; ".join(wrong))
        return 1
    print(f"audit-sabotage ok: {events} events, one removed and one doubled in each of {', '.join(PLACES)}: named exactly those, each time")
    return 0


def main() -> None:
    """Runs the program; the exit status is the verdict."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="arterial-sabotage-") as folder:
        sys.exit(asyncio.run(run(Path(folder), arguments.events, arguments.seed)))


if __name__ == "__main__":
    main()
