"""Kafka to committed Delta: rows per second and core of the whole raw pipeline, against a plain loop over the same topic.

Value: rows per CPU second of the worker (judged, checksummed, exactly once). Baseline: getmany, protobuf objects, lists, append by path.
"""

import asyncio
import time
from pathlib import Path

import pyarrow as pa
from aiokafka import TopicPartition
from deltalake import write_deltalake

from arterial.api.controlplane.v1 import resource_pb2, specs_pb2
from arterial.api.events.v1.trip_event_pb2 import TripEvent
from bench.engines import Engines, engines
from bench.result import cpu_seconds, report
from bench.trips import TOPIC, framed, payloads
from chassis import kafka
from chassis.config import OlapConfig, RpcConfig
from chassis.desired import Desired, DesiredFeed
from chassis.lake import Table
from chassis.lineage import Lineage
from chassis.testing import context
from services.ingestion.config import IngestionConfig
from services.ingestion.stream import RawStream

ROWS = 1_000_000
BASELINE_ROWS = 200_000
CHUNK = 100_000


async def main() -> None:
    """Runs both over one topic of ROWS events."""
    async with engines() as places:
        await kafka.ensure_topics(places.kafka, [TOPIC])
        await fill(places)
        rows_per_core, rows_per_second = await ingest(places)
        baseline = await naive(places)
    report(
        "ingest", rows_per_core, "rows/s per core", baseline=("objects and lists, by path", baseline), wall_rows_per_second=rows_per_second
    )


async def fill(places: Engines) -> None:
    """Puts ROWS events into the topic."""
    producer = kafka.producer(places.kafka)
    await producer.start()
    for start in range(0, ROWS, CHUNK):
        records, partitions, keys = payloads(CHUNK, start)
        values = framed(records)
        for partition in range(TOPIC.partitions):
            chosen = (partitions == partition).nonzero()[0].tolist()
            await kafka.send_all(producer, TopicPartition(TOPIC.name, partition), [(keys[row], values[row]) for row in chosen])
    await producer.stop()


def desired() -> Desired:
    """The topic and a pipeline with large commits."""
    topic = specs_pb2.TopicSpec(
        message=TOPIC.message,
        key_field=TOPIC.key_field,
        routing=specs_pb2.ROUTING_KEY_HASH,
        partitions=TOPIC.partitions,
        retention_seconds=86400,
        dedup_offsets=1000,
        unknown_schema=specs_pb2.UNKNOWN_SCHEMA_POLICY_DEAD_LETTER,
    )
    pipeline = specs_pb2.PipelineSpec(role=specs_pb2.PIPELINE_ROLE_RAW, topics=[TOPIC.name], interval_ms=2000, max_batch_rows=250_000)
    return Desired(
        (
            resource_pb2.Resource(kind="Topic", metadata=resource_pb2.Metadata(name=TOPIC.name), topic=topic),
            resource_pb2.Resource(kind="Pipeline", metadata=resource_pb2.Metadata(name="raw"), pipeline=pipeline),
        )
    )


async def ingest(places: Engines) -> tuple[float, float]:
    """Rows per CPU second and per second of the worker itself."""
    config = IngestionConfig(
        state_dir=places.folder / "state", kafka=places.kafka, lake=places.lake, olap=OlapConfig(), rpc=RpcConfig(port=0)
    )
    worker_context = context()
    feed = DesiredFeed(desired(), config.state_dir, None)
    worker = RawStream(config, worker_context, feed, Lineage(None, config.cell.name, worker_context.clock))
    began, cpu = time.monotonic(), cpu_seconds()
    running = asyncio.create_task(worker.run())
    while await asyncio.to_thread(committed, config) < ROWS:
        await asyncio.sleep(0.2)
    wall, used = time.monotonic() - began, cpu_seconds() - cpu
    worker_context.stopping.set()
    await running
    return ROWS / used, ROWS / wall


def committed(config: IngestionConfig) -> int:
    """Rows in the raw table."""
    table = Table.open(config.lake, f"raw/{TOPIC.name}")
    return 0 if table is None else sum(file.rows for file in table.files())


async def naive(places: Engines) -> float:
    """Rows per CPU second of the plain loop."""
    consumer = kafka.consumer(places.kafka, auto_offset_reset="earliest")
    await consumer.start()
    consumer.assign([TopicPartition(TOPIC.name, partition) for partition in range(TOPIC.partitions)])
    names = [field.name for field in TripEvent.DESCRIPTOR.fields if field.message_type is None]
    columns: dict[str, list[object]] = {name: [] for name in (*names, "event_time", "latitude", "longitude", "fare")}
    rows, cpu = 0, cpu_seconds()
    while rows < BASELINE_ROWS:
        for records in (await consumer.getmany(timeout_ms=200, max_records=10_000)).values():
            for record in records:
                event = TripEvent.FromString(record.value[6:])
                for name in names:
                    columns[name].append(getattr(event, name))
                columns["event_time"].append(event.event_time.ToMicroseconds())
                columns["latitude"].append(event.pickup_position.latitude)
                columns["longitude"].append(event.pickup_position.longitude)
                columns["fare"].append(event.fare.amount_minor)
            rows += len(records)
    write_deltalake(str(Path(places.lake.root) / "naive"), pa.table(columns), mode="append")
    used = cpu_seconds() - cpu
    await consumer.stop()
    return rows / used


if __name__ == "__main__":
    import uvloop

    uvloop.run(main())
