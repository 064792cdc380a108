"""From Kafka to the online store: p95 in ms between the Kafka time of the oldest event that an update takes in and its write to Redis.

Baseline: a plain consumer that increments a Redis counter per event, with no windows, transactions or checkpoints.
"""

import asyncio
import os
import sys
import time

import numpy as np
import uvloop
import yaml
from aiokafka import AIOKafkaProducer, TopicPartition
from h3.api import basic_int

from arterial.api.events.v1.marketplace_event_pb2 import MarketplaceEvent
from bench.engines import Engines, engines
from bench.result import report
from chassis import kafka, kv
from chassis.partitioning import partition_of
from chassis.topics import Topic
from chassis.wire import frame
from deploy.local.child import Child, free_port
from deploy.local.services import RESOURCES
from services.pricing.store import surge_store

RATE, SECONDS, CITY = 2000, 20, 1
BATCH_SECONDS = 0.05
TOPIC = Topic("marketplace_events_v1", "arterial.api.events.v1.MarketplaceEvent", "city_id")
TARGET = TopicPartition(TOPIC.name, partition_of(b"1", 16))
CELLS = sorted(basic_int.grid_disk(basic_int.latlng_to_cell(40.75, -73.98, 9), 12))


async def main() -> None:
    """The pipeline first, then the plain consumer, under the same load."""
    async with engines() as places:
        await kafka.ensure_topics(places.kafka, [TOPIC])
        children = [start(places, role) for role in ("combine", "stream")]
        try:
            producer = kafka.producer(places.kafka)
            await producer.start()
            await load(producer, 8)  # until both have their partitions
            watching = asyncio.create_task(watch(places))
            await load(producer, SECONDS)
            found = await watching
        finally:
            for child in children:
                await child.stop()
        counting = asyncio.create_task(plain(places))
        await load(producer, SECONDS // 2)
        baseline = await counting
        await producer.stop()
    value, other = (float(np.percentile(latencies, 95)) for latencies in (found, baseline))
    report(
        "surge_freshness",
        value,
        "ms (p95)",
        baseline=("a counter per event", other),
        p50_ms=float(np.median(found)),
        updates=float(len(found)),
    )


def start(places: Engines, role: str) -> Child:
    """A role of pricing, as it is deployed."""
    config = places.folder / f"{role}.yaml"
    settings = {
        "state_dir": str(places.folder / role),
        "resources_dir": str(RESOURCES),
        "kafka": {"bootstrap": places.kafka.bootstrap},
        "kv": {"url": places.kv.url},
        "checkpoints": {"root": str(places.folder / "checkpoints")},
        "lake": {"root": str(places.folder / "lake")},
        "models": {"root": str(places.folder / "models")},
        "rpc": {"port": free_port()},
    }
    config.write_text(yaml.safe_dump(settings))
    return Child.start(role, [sys.executable, "-m", "services.pricing", role, "--config", str(config)], places.folder / f"{role}.log")


async def load(producer: AIOKafkaProducer, seconds: int) -> None:
    """RATE events a second, in small batches."""
    began, number = time.time(), 0
    while time.time() < began + seconds:
        count = int(RATE * BATCH_SECONDS)
        await kafka.send_all(producer, TARGET, [(b"1", event(number + each)) for each in range(count)])
        number += count
        await asyncio.sleep(max(0.0, began + number / RATE - time.time()))


def event(number: int) -> bytes:
    """Demand and supply all over the city."""
    kind = MarketplaceEvent.KIND_DRIVER_AVAILABLE if number % 2 else MarketplaceEvent.KIND_REQUEST
    made = MarketplaceEvent(event_id=os.urandom(16), city_id=CITY, kind=kind, cell=CELLS[number % len(CELLS)], actor_id=f"a{number}")
    made.event_time.FromMicroseconds(int(time.time() * 1e6))
    return frame(4, made.SerializeToString())


async def watch(places: Engines) -> list[float]:
    """Latency of every update of the city that is seen."""
    redis = kv.connect(places.kv)
    store, latencies, seen = surge_store(redis), [], 0
    deadline = time.time() + SECONDS
    while time.time() < deadline:
        head = (await store.city(CITY)).head
        if head is not None and head.computed_us != seen and head.kafka_us:
            seen = head.computed_us
            latencies.append((head.computed_us - head.kafka_us) / 1000)
        await asyncio.sleep(0.02)
    await redis.aclose()
    return latencies


async def plain(places: Engines) -> list[float]:
    """Latency of every event with a counter each."""
    redis = kv.connect(places.kv)
    consumer = kafka.consumer(places.kafka)
    await consumer.start()
    consumer.assign([TARGET])
    await consumer.seek_to_end(TARGET)
    latencies: list[float] = []
    deadline = time.time() + SECONDS // 2 - 1
    while time.time() < deadline:
        for records in (await consumer.getmany(timeout_ms=50)).values():
            for record in records:
                await redis.hincrby("counts", str(MarketplaceEvent.FromString(record.value[6:]).cell), 1)
                latencies.append(time.time() * 1000 - record.timestamp)
    await consumer.stop()
    await redis.aclose()
    return latencies


if __name__ == "__main__":
    uvloop.run(main())
